package tokencache_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// world is a cluster under a random history.
type world struct {
	*cluster
	plan    history
	reread  time.Duration
	start   time.Time
	callers sync.WaitGroup
	over    chan struct{} // closed when every step has been taken
	record  recorder

	mu sync.Mutex // guards what follows, and Replicas

	wrong  string // the first invariant that did not hold: always the same words, for the shrinker
	detail string

	next    []fault          // of the next fetches
	nextOf  map[string]fault // of the next fetch of one replica
	refused map[string]bool  // upstream refuses this replica's address
	values  []string         // seen so far

	down     time.Time // until then upstream answers with
	downWith tokencache.FetchError

	ledger
	withdrawals
	seen map[*replica]*sight
}

// scripts are the names of the cache's scripts by their hashes.
var scripts = tokencache.Scripts()

func newWorld(t *testing.T, h history) *world {
	w := &world{
		plan: h, reread: 2 * time.Minute, start: time.Now(), over: make(chan struct{}),
		nextOf: map[string]fault{}, refused: map[string]bool{}, seen: map[*replica]*sight{},
		ledger: newLedger(), withdrawals: withdrawals{touched: map[string]time.Time{}},
	}
	u := &upstream{Mode: h.Mode, Latency: h.Upstream, Fault: w.fault}
	w.cluster = tokencachetest.New(t, h.Replicas, u, rarely(w.reread), tokencachetest.Hook(w.record.hook), tokencachetest.Latency(h.Latency),
		tokencachetest.Configure(func(_ string, c *tokencache.Credential) {
			if h.Frugal {
				c.Fetches = frugal
			}
		}))
	return w
}

// play runs one history. It returns the invariant that did not hold, and what happened.
func play(t *testing.T, h history) (wrong, detail string) {
	defer func() {
		// A bubble whose goroutines outlive it, or wait for each other, panics.
		if p := recover(); p != nil {
			wrong, detail = "I8: a goroutine is stuck", fmt.Sprint(p)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, h)
		w.Start()
		stop := w.watch()
		for i, s := range h.Steps {
			if w.do(s); w.broken() {
				w.detail = fmt.Sprintf("in step %d, %v, after %v: %s", i, s, time.Since(w.start), w.detail)
				break
			}
		}
		close(w.over)
		if !w.broken() {
			w.recover()
		}
		w.healAll()
		w.callers.Wait()
		stop()
		if !w.broken() {
			w.balance()
		}
		if !w.broken() {
			w.checkRegister()
		}
		wrong, detail = w.wrong, w.detail
		for _, r := range w.replicas() {
			start := time.Now()
			w.ended(r, true)
			r.Stop()
			w.stopped(r, time.Since(start))
		}
		if wrong == "" {
			wrong, detail = w.wrong, w.detail
		}
	})
	return wrong, detail
}

// fail notes the first thing that is wrong.
func (w *world) fail(wrong, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong == "" {
		w.wrong, w.detail = wrong, fmt.Sprintf(format, args...)
	}
}

func (w *world) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrong != ""
}

func (w *world) replicas() []*replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*replica(nil), w.Replicas...)
}

func (w *world) replica(i int) *replica {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Replicas[i%len(w.Replicas)]
}

// some returns one of the values seen so far, the newest for 1.
func (w *world) some(n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.values) == 0 {
		return "old"
	}
	return w.values[len(w.values)-1-(n-1)%len(w.values)]
}

// recover ends every fault and waits until all agree on one value that works, with apps that report
// what upstream rejects. Then one more report makes one more value, for all.
func (w *world) recover() {
	w.healAll()
	limit := w.healTime() // a refusal of before may still hold
	if why := w.converge(limit); why != "" {
		w.fail("not healed", "in %v: %s", limit, why)
		return
	}
	if w.plan.Frugal || w.spent() {
		return
	}
	dead := w.Value()
	w.kill()
	for _, r := range w.replicas() {
		w.report(r, dead)
	}
	if why := w.converge(limit); why != "" {
		w.fail("a report did not make one value", "%s", why)
	}
}

// converge returns why not every replica has one good value within limit, "" if all do.
func (w *world) converge(limit time.Duration) (why string) {
	for began := time.Now(); time.Since(began) < limit; time.Sleep(15 * time.Second) {
		if why = w.disagree(); why == "" || w.broken() {
			return ""
		}
		for _, r := range w.replicas() {
			if v := r.Cache.Peek(tokencachetest.Key).Value; v != "" && !w.Upstream.Valid(v) {
				w.report(r, v)
			}
		}
	}
	return why
}

func (w *world) disagree() string {
	value := w.Value()
	if value == "" {
		return "no value in Redis"
	}
	if !w.Upstream.Valid(value) {
		return "the value in Redis is dead"
	}
	if w.Meta("doubt") == "1" {
		return "doubt"
	}
	for _, r := range w.replicas() {
		if g := r.Cache.Peek(tokencachetest.Key); !g.Good || g.Value != value {
			return fmt.Sprintf("%s has %+v, Redis %s", r.Name, g, value)
		}
	}
	return ""
}

// Histories that failed once: the steps, and what they found.
func TestHistoriesThatFailed(t *testing.T) {
	t.Parallel()
	for what, h := range map[string]history{
		// Upstream acted on the first request 19 s after it was sent, just after another replica
		// had committed. The reply came, and the cut that follows took the commit for a later one.
		"a reply long after the lease": {Replicas: 3, Latency: 4 * time.Millisecond, Upstream: time.Millisecond, Frugal: true, Steps: []step{
			{"act late", 1, 38}, {"act late", 0, 17}, {"sleep an expiry", 0, 7},
		}},
		// Redis lost the meta and a replica committed the same value again, as a later version. The
		// failover brought the earlier one back, with the same value. Each commit after that was taken
		// for a repetition and kept the earlier version, which the replica did not believe.
		"an older version of the same value": {Mode: 1, Replicas: 1, Upstream: 100 * time.Millisecond, Steps: []step{
			{"get", 0, 1}, {"replicate", 2, 37}, {"delete meta", 1, 33}, {"sleep long", 0, 4}, {"failover", 0, 26},
		}},
		// The script finish compared two versions that Redis had lost, and left the value.
		"an end without the meta": {Mode: 1, Replicas: 1, Upstream: 100 * time.Millisecond, Steps: []step{
			{"get", 0, 1}, {"end", 0, 1}, {"delete meta", 0, 1}, {"sleep long", 0, 5},
		}},
		// The second revocation ends the lease of a fetch whose answer, that the right has ended,
		// comes when the other replica has committed.
		"an end after the next authorisation": {Replicas: 2, Upstream: 100 * time.Millisecond, Steps: []step{
			{"sleep", 0, 1}, {"fail late", 0, 29}, {"revoke", 0, 1}, {"sleep", 0, 1}, {"revoke", 0, 1}, {"sleep", 0, 14}, {"get", 0, 1}, {"get", 1, 1},
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for range 6 { // each draws its own pauses
				if wrong, detail := play(t, h); wrong != "" {
					t.Fatalf("%s: %s", wrong, detail)
				}
			}
		})
	}
}
