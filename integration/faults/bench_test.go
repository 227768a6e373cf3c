package faults

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
)

// bench is what a row runs on: warm sidecars under load on one Redis and one WeChat. When the row's
// run returns, the bench heals every link, resumes every sidecar, compares what callers met with
// the row's limits, and waits until every sidecar has as many goroutines as before.
type bench struct {
	*rig.Cluster
	t        *testing.T
	row      row
	endpoint endpoint
	store    rig.Store

	redisClock *rig.Clock // of the rows that set it

	shops *rig.Platform // of the rows of a platform

	load     *rig.Load
	watch    *watch
	provoked int
	notes    []string
	volume   string // of [bench.secretFile]
}

// redis is the plain server of most rows.
func (b *bench) redis() *rig.Redis { return b.store.(*rig.Redis) }

// path is the path of WeChat's endpoint.
func (b *bench) path() string { return "/cgi-bin/" + string(b.endpoint) }

// provoke makes the token due, so that one replica refreshes it.
func (b *bench) provoke() {
	b.provoked++
	b.MakeDue()
}

// provokeUnheard is provoke for replicas that receive no events.
func (b *bench) provokeUnheard() {
	b.provoked++
	b.MakeDueUnheard()
}

// expect adds n to the fetches that are no cost of the fault: a value that is lost with Redis, say.
func (b *bench) expect(n int) { b.provoked += n }

// note adds a figure to the table.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// within polls until ok, ends the test if that takes too long, and returns how long it took.
func (b *bench) within(limit time.Duration, awaited string, ok func() bool) time.Duration {
	b.t.Helper()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return time.Since(begun)
		}
		if time.Since(begun) > limit {
			b.t.Fatalf("not within %v: %s", limit, awaited)
		}
	}
}

// hold lets a fault last. A fault has a length; nothing waits for something in this way.
func (b *bench) hold(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.t.Context().Done():
	}
}

// inRedis returns the value and the version in Redis, of one moment; each is empty if it is not
// there, and both are without Redis.
func (b *bench) inRedis() (value, version string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	both := b.store.Client().TxPipeline()
	first, second := both.Get(ctx, rig.ValueKey), both.HGet(ctx, rig.ValueKey+":meta", "version")
	_, _ = both.Exec(ctx)
	return first.Val(), second.Val()
}

// doubtful reports whether the value in Redis is in doubt.
func (b *bench) doubtful() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	doubt, err := b.store.Client().HGet(ctx, rig.ValueKey+":meta", "doubt").Result()
	return err != nil || doubt != "0"
}

// everywhere reports whether all of these sidecars hand out the value in Redis, as good and without
// a doubt, and it is another value than old.
func (b *bench) everywhere(all []*rig.Sidecar, old string) bool {
	value, _ := b.inRedis()
	if value == "" || value == old || b.doubtful() || !b.Upstream.Works(value) {
		return false
	}
	for _, p := range all {
		if a, err := p.Token(); err != nil || a.Stale || a.AccessToken != value {
			return false
		}
	}
	return true
}

// refreshed waits until all of these sidecars have a value other than old.
func (b *bench) refreshed(limit time.Duration, all []*rig.Sidecar, old string) time.Duration {
	b.t.Helper()
	return b.within(limit, "every sidecar has a new token", func() bool { return b.everywhere(all, old) })
}

// lose lets the next n replies to a script be lost, for any sidecar. The returned function, who,
// waits until one was lost, and returns the sidecar.
func (b *bench) lose(script string, n int, how rig.How) (who func() *rig.Sidecar) {
	var links []*rig.Link
	for _, p := range b.All {
		links = append(links, p.Link)
	}
	struck := rig.LoseReply(b.t, script, n, how, links...)
	return func() *rig.Sidecar {
		b.t.Helper()
		link := await(b, struck, "a reply to "+script+" is lost")
		return b.All[slices.Index(links, link)]
	}
}

func (b *bench) heal() {
	for _, p := range b.All {
		if p.Link != nil {
			p.Link.Heal()
		}
	}
}

// await receives, or ends the test.
func await[T any](b *bench, ch <-chan T, awaited string) T {
	b.t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(rig.Patience):
		b.t.Fatalf("not within %v: %s", rig.Patience, awaited)
		panic("not reached")
	}
}

// watch looks at the metric of a row all the time, because gauges fall again and counters die with
// their process.
type watch struct {
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	most map[string]float64 // how far each sidecar's sum rose
}

func (b *bench) startWatch(r reveal) *watch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{stop: cancel, done: make(chan struct{}), most: map[string]float64{}}
	base := map[string]float64{}
	for _, p := range b.All {
		if !b.row.cold { // where the fault is there from the beginning
			base[p.Name] = p.Metric(r.name, r.labels...)
		}
	}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			for _, p := range b.Others(nil) {
				if m, err := p.Metrics(); err == nil {
					w.mu.Lock()
					w.most[p.Name] = max(w.most[p.Name], m.Sum(r.name, r.labels...)-base[p.Name])
					w.mu.Unlock()
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
		}
	}()
	b.t.Cleanup(w.end)
	return w
}

func (w *watch) end() { w.stop(); <-w.done }

func (w *watch) grew() (sum float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.most {
		sum += v
	}
	return sum
}

// goroutines returns how many each sidecar that runs has, without those of connections that are
// kept for the next call.
func (b *bench) goroutines() map[string]float64 {
	rig.HTTP.CloseIdleConnections()
	b.Upstream.Reset()
	all := map[string]float64{}
	for _, p := range b.Others(nil) {
		if m, err := p.Metrics(); err == nil {
			all[p.Name] = m.Sum("go_goroutines")
		}
	}
	return all
}

// settled waits until no sidecar has more goroutines than before, and returns who has.
func (b *bench) settled(before map[string]float64) string {
	const slack = 2 // for the connection that asks, and for one of go-redis' pool
	var late []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		late = nil
		for name, n := range b.goroutines() {
			if was, ok := before[name]; ok && n > was+slack {
				late = append(late, fmt.Sprintf("%s has %v goroutines and had %v", name, n, was))
			}
		}
		if len(late) == 0 {
			return ""
		}
	}
	return strings.Join(late, "; ")
}

// onlyRefused says which failures of a load are none that pattern permits.
func (b *bench) onlyRefused(seen rig.Seen, pattern string) {
	b.t.Helper()
	if other := slices.DeleteFunc(slices.Clone(seen.Failures), regexp.MustCompile(pattern).MatchString); len(other) > 0 {
		b.t.Errorf("calls failed in a way that is not promised: %q", other)
	}
}
