package tokencache_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// step is one thing that happens in a random history: what, to which replica, how much.
type step struct {
	What string
	Who  int
	N    int // 1 to 40
}

func (s step) String() string { return fmt.Sprintf("{%q, %d, %d}", s.What, s.Who, s.N) }

// history is one case: a cluster and what happens to it.
type history struct {
	Mode     tokencachetest.Mode
	Replicas int
	Latency  time.Duration // of scripts: what happens between a question and its answer
	Upstream time.Duration // what a fetch takes
	Frugal   bool          // 20 fetches at once, and one more every 52 minutes
	Steps    []step
}

var frugal = tokencache.Limit{PerDay: 48}

// happening is what a step does.
type happening struct {
	what   string
	weight int
	do     func(w *world, r *replica, n int)
}

// The simplest come first: a history shrinks towards them.
var happenings = []happening{
	{"get", 3, func(w *world, r *replica, _ int) { w.get(r) }},
	{"sleep", 6, func(_ *world, _ *replica, n int) { time.Sleep(time.Duration(n) * time.Second) }},
	{"sleep long", 5, func(_ *world, _ *replica, n int) { time.Sleep(time.Duration(n) * time.Minute) }},
	{"sleep an expiry", 2, func(_ *world, _ *replica, n int) { time.Sleep(time.Duration(n) * 6 * time.Minute) }},
	{"report", 3, func(w *world, r *replica, _ int) { w.report(r, r.Cache.Peek(tokencachetest.Key).Value) }},
	{"report old", 2, func(w *world, r *replica, n int) { w.report(r, w.some(n)) }},
	{"report garbage", 1, func(w *world, r *replica, n int) { w.report(r, fmt.Sprint("garbage", n)) }},
	{"storm", 3, (*world).storm},
	{"kill token", 2, func(w *world, _ *replica, _ int) { w.kill() }},
	{"foreign", 2, func(w *world, _ *replica, _ int) { w.foreign() }},

	{"fail", 3, func(w *world, _ *replica, n int) { w.disturb(fault{Err: &upstreamErrors[n%len(upstreamErrors)]}) }},
	{"fail late", 2, func(w *world, _ *replica, n int) {
		w.disturb(fault{Delay: time.Duration(n) * time.Second / 2, Detached: true, Err: &upstreamErrors[n%len(upstreamErrors)]})
	}},
	{"deny one", 1, func(w *world, r *replica, _ int) { w.refuse(r.Name) }},
	{"lose answer", 2, func(w *world, _ *replica, _ int) { w.disturb(fault{LoseReply: true}) }},
	{"stall", 3, func(w *world, _ *replica, n int) { w.disturb(fault{DelayReply: time.Duration(n) * time.Second / 2}) }},
	{"act late", 3, func(w *world, _ *replica, n int) {
		w.disturb(fault{Delay: time.Duration(n) * time.Second / 2, Detached: true})
	}},
	{"outage", 2, func(w *world, _ *replica, n int) { w.outage(time.Duration(n)*6*time.Minute, upstreamErrors[n%2]) }},
	{"secret wrong", 1, func(w *world, _ *replica, _ int) { w.secret(wrongSecret) }},
	{"secret right", 1, func(w *world, _ *replica, _ int) { w.secret("f1") }},

	{"revoke", 2, func(w *world, r *replica, _ int) { w.revoke(r) }},
	{"revoke again", 2, (*world).revokeAgain},
	{"retry", 1, func(w *world, r *replica, _ int) { w.retry(r) }},
	{"end", 2, func(w *world, _ *replica, _ int) { w.setEnded(true) }},
	{"withdraw", 1, func(w *world, r *replica, _ int) { w.setEnded(true); w.revoke(r) }},
	{"authorise", 2, (*world).authorise},

	{"heal", 4, func(w *world, r *replica, _ int) { w.heal(r) }},
	{"refuse", 2, func(w *world, r *replica, _ int) { w.unlink(r); r.Link.Refuse() }},
	{"refuse all", 1, func(w *world, _ *replica, n int) {
		for _, r := range w.replicas() {
			w.unlink(r)
			r.Link.Refuse()
			w.healAfter(time.Duration(n)*6*time.Minute, r)
		}
	}},
	{"black hole", 2, func(w *world, r *replica, n int) {
		w.unlink(r)
		r.Link.BlackHole()
		w.healAfter(time.Duration(n)*time.Minute, r)
	}},
	{"deafen", 1, func(w *world, r *replica, n int) {
		w.unlink(r)
		r.Link.Deafen()
		w.healAfter(time.Duration(n)*10*time.Second, r)
	}},
	// Every event is lost, without a sign of it: the re-read is for that, so it may cost nothing.
	{"mute", 1, func(w *world, r *replica, _ int) { w.touch(r); r.Link.Mute() }},
	{"delay", 2, func(w *world, r *replica, n int) { w.unlink(r); r.Link.Delay(time.Duration(n) * 25 * time.Millisecond) }},
	// Less than go-redis waits for: nothing is lost, so it may cost nothing.
	{"slow", 3, func(w *world, r *replica, n int) { w.touch(r); r.Link.Delay(time.Duration(n) * 6 * time.Millisecond) }},
	{"pause", 2, (*world).pause},
	{"lose reply", 2, func(w *world, r *replica, n int) { w.unlink(r); r.Link.LoseReply(n%7, 1+n%3) }},
	{"lose reply to", 3, (*world).loseReplyTo},

	{"stop", 1, func(w *world, r *replica, _ int) { w.restart(r, true) }},
	{"crash", 2, func(w *world, r *replica, _ int) { w.restart(r, false) }},

	{"flush", 1, func(w *world, _ *replica, _ int) { w.lose(everything) }},
	{"delete value", 1, func(w *world, _ *replica, _ int) { w.lose(valueKey) }},
	{"delete meta", 1, func(w *world, _ *replica, _ int) { w.lose(metaKey) }},
	{"delete lock", 1, func(w *world, _ *replica, _ int) { w.lose(lockKey) }},
	{"replicate", 2, func(w *world, _ *replica, _ int) { w.Replicate() }},
	{"failover", 1, func(w *world, _ *replica, _ int) { w.failover() }},
}

// histories draws a cluster and what happens to it.
func histories() *rapid.Generator[history] {
	var names []string
	for _, h := range happenings {
		for range h.weight {
			names = append(names, h.what)
		}
	}
	one := rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(names).Draw(t, "what"), rapid.IntRange(0, 2).Draw(t, "who"), rapid.IntRange(1, 40).Draw(t, "n")}
	})
	return rapid.Custom(func(t *rapid.T) history {
		return history{
			Mode:     rapid.SampledFrom([]tokencachetest.Mode{superseding, repeating}).Draw(t, "mode"),
			Replicas: rapid.IntRange(1, 3).Draw(t, "replicas"),
			Latency:  time.Duration(rapid.IntRange(0, 5).Draw(t, "latency")) * time.Millisecond,
			Upstream: rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Millisecond, time.Second}).Draw(t, "upstream"),
			Frugal:   rapid.IntRange(0, 7).Draw(t, "frugal") == 7,
			Steps:    append(rapid.SliceOfN(one, 1, 15).Draw(t, "steps"), rapid.SliceOfN(one, 0, 15).Draw(t, "more steps")...),
		}
	})
}

func (w *world) do(s step) {
	i := slices.IndexFunc(happenings, func(h happening) bool { return h.what == s.What })
	happenings[i].do(w, w.replica(s.Who), s.N)
}

// patience is how long a caller waits: longer than the cache lets a reader wait who could have an
// old value.
const patience = 3 * time.Second

func (w *world) get(r *replica) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seen, began := w.glance(r), time.Now()
	token, err := get(ctx, r)
	w.answered(r, seen, began, token, err)
}

func (w *world) report(r *replica, value string) {
	if value == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seen, began := w.glance(r), time.Now()
	token, err := report(value)(ctx, r)
	w.answered(r, seen, began, token, err)
}

// storm is several callers of every replica at once, who get and report. The history goes on
// meanwhile.
func (w *world) storm(_ *replica, n int) {
	for _, r := range w.replicas() {
		current, old := r.Cache.Peek(tokencachetest.Key).Value, w.some(n)
		for range 2 {
			w.callers.Go(func() { w.get(r) })
			w.callers.Go(func() { w.report(r, current) })
		}
		w.callers.Go(func() { w.report(r, old) })
	}
}

// upstreamErrors is one of each kind.
var upstreamErrors = []tokencache.FetchError{
	{Class: tokencache.ClassTransient, Code: -1, Message: "busy"},
	{Class: tokencache.ClassTransient, Message: "timeout", Unclear: true},
	{Class: tokencache.ClassQuota, Code: 45009, Message: "quota"},
	{Class: tokencache.ClassPermanent, Code: 40125, Message: "secret"},
	{Class: tokencache.ClassLocal, Code: 40164, Message: "address"},
	endedError,
}

const wrongSecret = "f2"

// pause is a replica that is stopped past its lease: neither its request nor its commands go on,
// and then all of them do.
func (w *world) pause(r *replica, n int) {
	d := time.Duration(n) * time.Second / 2
	w.disturbOne(r.Name, fault{Delay: d, Detached: true})
	w.unlink(r)
	r.Link.Delay(d)
	w.healAfter(d, r)
}

// healAfter ends what is wrong with a link. A cache that tries every second or two to connect again
// costs more than all the rest of a history.
func (w *world) healAfter(d time.Duration, r *replica) {
	w.callers.Go(func() {
		select {
		case <-time.After(d):
			w.heal(r)
		case <-w.over:
		}
	})
}

var scriptNames = []string{"begin", "commit", "finish", "cut", "load", "revoke"}

func (w *world) loseReplyTo(r *replica, n int) {
	w.unlink(r)
	for hash, name := range scripts {
		if name == scriptNames[n%len(scriptNames)] {
			r.Link.LoseReplyTo(hash)
		}
	}
}

// restart ends a replica, as SIGTERM or as SIGKILL does, and starts another one in its place.
func (w *world) restart(r *replica, clean bool) {
	if clean {
		// go-redis closes a subscription under the lock under which it connects again: while such
		// an attempt hangs, the time of a bubble stops.
		w.heal(r)
	}
	w.mu.Lock()
	i := slices.Index(w.Replicas, r)
	old, young := w.Replace(i)
	w.mu.Unlock()
	w.ended(old, clean)
	w.callers.Go(func() {
		if !clean {
			old.Kill()
			return
		}
		start := time.Now()
		old.Stop()
		w.stopped(old, time.Since(start))
	})
	young.Start()
}

// secret gives every replica another secret.
func (w *world) secret(fingerprint string) {
	for _, r := range w.replicas() {
		spec := w.Credential(r.Name)
		spec.Fingerprint = fingerprint
		if fingerprint == wrongSecret {
			spec.Source = w.Upstream.Source(r.Name + " " + wrongSecret)
		}
		if err := r.Cache.Set(spec); err != nil {
			w.fail("Set", "%v", err)
		}
	}
}

func (w *world) isWrong(replica string) bool { return strings.HasSuffix(replica, wrongSecret) }
