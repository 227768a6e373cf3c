package tokencache_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// step is one thing that happens in a random history: what, to which replica, how much.
type step struct {
	What string
	Who  int
	N    int
}

var happenings = []string{
	"get", "get", "report", "report old", "report garbage", "sleep", "sleep", "sleep long", "stall", "act late", "fail",
	"lose replies", "crash", "stop", "cut", "hole", "heal", "flush", "delete", "kill token",
}

// world is a cluster under a random history.
type world struct {
	*cluster
	next  atomic.Pointer[fault] // of the next fetch
	old   string
	seen  map[*replica]int64 // the highest version each replica has shown
	wrong string
}

func (w *world) do(s step) {
	r := w.Replicas[s.Who%len(w.Replicas)]
	switch s.What {
	case "get":
	case "report":
		w.report(r, w.look(r))
	case "report old":
		w.report(r, w.old)
	case "report garbage":
		w.report(r, "garbage")
	case "sleep":
		time.Sleep(time.Duration(s.N) * time.Second)
	case "sleep long":
		time.Sleep(time.Duration(s.N) * time.Minute)
	case "stall":
		w.next.Store(&fault{After: time.Duration(s.N) * time.Second / 2})
	case "act late":
		w.next.Store(&fault{Before: time.Duration(s.N) * time.Second / 2, Deaf: true})
	case "fail":
		w.next.Store(&fault{Lost: s.N%2 == 0, Err: failing(tokencache.Transient, -1).Err})
	case "lose replies":
		r.Link.LoseReplies(s.N%7, 1+s.N%3)
	case "crash", "stop":
		if s.What == "crash" {
			r.Link.Cut()
		}
		r.Stop()
		w.Replicas[s.Who%len(w.Replicas)] = w.Add()
		w.Replicas = w.Replicas[:len(w.Replicas)-1]
		w.Replicas[s.Who%len(w.Replicas)].Start()
	case "cut":
		r.Link.Cut()
	case "hole":
		r.Link.BlackHole()
	case "heal":
		r.Link.Heal()
	case "flush":
		w.Redis.FlushAll()
	case "delete":
		w.Redis.Del(w.ValueKey())
	case "kill token":
		w.Upstream.Kill()
	}
	for _, r := range w.Replicas {
		w.look(r)
	}
	w.check("a direct reader", w.Value(), false)
}

func (w *world) report(r *replica, value string) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, _ = report(value)(ctx, r)
}

// look reads from r, checks what it says, and returns it.
func (w *world) look(r *replica) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	token, err := get(ctx, r)
	if err != nil {
		return ""
	}
	if token.Version < w.seen[r] {
		w.wrong = fmt.Sprintf("%s went back to version %d", r.Name, token.Version)
	}
	w.seen[r] = token.Version
	w.check(r.Name, token.Value.Reveal(), token.Stale)
	if v := token.Value.Reveal(); v != w.old && len(w.Upstream.Fetches()) < 2 {
		w.old = v
	}
	return token.Value.Reveal()
}

// check is I3: nothing past its true end, nothing as good when the overlap of what superseded it is
// over. A fetch may reach upstream up to half a minute after it began.
func (w *world) check(who, value string, stale bool) {
	const slack = 30 * time.Second
	fetches := w.Upstream.Fetches()
	for i, f := range fetches {
		if value == "" || f.Issued != value {
			continue
		}
		if age := time.Since(f.At); age > 2*time.Hour+slack {
			w.wrong = fmt.Sprintf("%s has a value of age %v", who, age)
		}
		for _, later := range fetches[i+1:] {
			if over := time.Since(later.At) - 5*time.Minute; !stale && later.Issued != "" && later.Issued != value && over > slack {
				w.wrong = fmt.Sprintf("%s has a value %v after the overlap", who, over)
			}
		}
		return
	}
}

func play(t *testing.T, mode tokencachetest.Mode, history []step) (wrong string) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{seen: map[*replica]int64{}}
		u := &upstream{Mode: mode, Fault: func(int, string) fault {
			if f := w.next.Swap(nil); f != nil {
				return *f
			}
			return fault{}
		}}
		w.cluster = tokencachetest.New(t, 3, u, rarely(30*time.Second))
		w.Start()
		for i, s := range history {
			if w.do(s); w.wrong != "" {
				wrong = fmt.Sprintf("after step %d, %+v: %s", i, s, w.wrong)
				return
			}
		}
		// Each step, each crash of a holder and each quarter of an hour may cost a fetch or two.
		if got := len(u.Fetches()); got > 4+3*len(history) {
			wrong = fmt.Sprintf("%d fetches in %d steps", got, len(history))
		}
		// Everything heals.
		w.next.Store(nil)
		for _, r := range w.Replicas {
			r.Link.LoseReplies(0, 0)
			r.Link.Heal()
		}
		time.Sleep(7 * time.Minute)
		for _, r := range w.Replicas {
			w.report(r, w.look(r)) // upstream may have killed the last one
		}
		time.Sleep(time.Minute)
		a := storm(w.cluster, 1, get)
		if a.good != 3 || len(a.values) != 1 || w.Value() == "" || !u.Valid(w.Value()) {
			wrong = fmt.Sprintf("not healed: %d good, %d stale, %d failed (%v), %v", a.good, a.stale, a.failed, a.err, a.values)
		}
	})
	return wrong
}

// Whatever happens, in whatever order: I3 after each step, and everything heals.
func TestRandomHistoriesKeepTheInvariants(t *testing.T) {
	t.Parallel()
	steps := rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(happenings).Draw(t, "what"), rapid.IntRange(0, 2).Draw(t, "who"), rapid.IntRange(1, 40).Draw(t, "n")}
	})
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		rounds, limit := 0, 12
		if raced {
			limit = 3
		}
		if n, err := strconv.Atoi(os.Getenv("WXTOKEN_HISTORIES")); err == nil {
			limit = n // with as many -rapid.checks
		}
		rapid.Check(t, func(rt *rapid.T) {
			history := rapid.SliceOfN(steps, 5, 25).Draw(rt, "history")
			if rounds++; rounds > limit && !t.Failed() {
				return
			}
			if wrong := play(t, mode, history); wrong != "" {
				rt.Fatal(wrong)
			}
		})
	})
}
