package tokencache_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

type (
	cluster  = tokencachetest.Cluster
	replica  = tokencachetest.Replica
	upstream = tokencachetest.Upstream
	fault    = tokencachetest.Fault
)

const (
	superseding = tokencachetest.Superseding
	repeating   = tokencachetest.Repeating
)

// bubble runs f in virtual time on a cluster of n replicas.
func bubble(t *testing.T, n int, u *upstream, f func(t *testing.T, c *cluster), o ...tokencachetest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, tokencachetest.New(t, n, u, o...)) })
}

// bothModes runs f once with an upstream of each kind.
func bothModes(t *testing.T, f func(t *testing.T, mode tokencachetest.Mode)) {
	t.Run("superseding", func(t *testing.T) { f(t, superseding) })
	t.Run("repeating", func(t *testing.T) { f(t, repeating) })
}

// rarely makes long histories cheap: everything is re-read so often only.
func rarely(d time.Duration) tokencachetest.Option {
	return tokencachetest.Options(tokencache.Options{Reread: d})
}

// answers is what many callers got.
type answers struct {
	mu     sync.Mutex
	good   int
	stale  int
	failed int
	last   time.Duration // until the last of them had an answer
	values map[string]int
	err    error // one of those that failed
}

// call is one call of a replica.
type call func(ctx context.Context, r *replica) (tokencache.Token, error)

func get(ctx context.Context, r *replica) (tokencache.Token, error) {
	return r.Cache.Get(ctx, tokencachetest.Key)
}

func report(value string) call {
	return func(ctx context.Context, r *replica) (tokencache.Token, error) {
		return r.Cache.Report(ctx, tokencachetest.Key, secret.New(value))
	}
}

// storm lets per callers of each replica call f at once, each with 30 s of patience, and waits.
func storm(c *cluster, per int, f call) *answers {
	a := &answers{values: map[string]int{}}
	start := time.Now()
	var wg sync.WaitGroup
	for _, r := range c.Replicas {
		for range per {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				token, err := f(ctx, r)
				a.add(token, err, time.Since(start))
			})
		}
	}
	wg.Wait()
	return a
}

func (a *answers) add(token tokencache.Token, err error, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = max(a.last, took)
	switch {
	case err != nil:
		a.failed++
		a.err = err
		return
	case token.Stale:
		a.stale++
	default:
		a.good++
	}
	a.values[token.Value.Reveal()]++
}

// want fails the test unless the callers got exactly this.
func (a *answers) want(t *testing.T, good, stale, failed int) {
	t.Helper()
	if a.good != good || a.stale != stale || a.failed != failed {
		t.Errorf("callers: %d good, %d stale, %d failed (%v); want %d, %d, %d", a.good, a.stale, a.failed, a.err, good, stale, failed)
	}
}

func wantFetches(t *testing.T, c *cluster, want int) {
	t.Helper()
	if got := c.Upstream.Fetches(); len(got) != want {
		t.Errorf("%d fetches, want %d: %+v", len(got), want, got)
	}
}

// count returns how often the cluster did something, by reason and result.
func count(c *cluster, reason tokencache.Reason, result tokencache.Result) int {
	n := 0
	for _, r := range c.Replicas {
		for _, e := range r.Events() {
			if e.Reason == reason && e.Result == result {
				n++
			}
		}
	}
	return n
}

// warm starts the cluster and lets every replica have the first value.
func warm(t *testing.T, c *cluster) tokencache.Token {
	t.Helper()
	c.Start()
	var token tokencache.Token
	for _, r := range c.Replicas {
		token = r.MustGet(t)
	}
	synctest.Wait()
	return token
}

// wantClean fails the test if a direct reader, or a caller, was ever given a dead value as good, or
// a direct reader met no key.
func wantClean(t *testing.T, seen tokencachetest.Seen) {
	t.Helper()
	if seen.Missing+seen.Dead+seen.DeadGood > 0 || seen.Looks == 0 {
		t.Errorf("seen %+v; want no missing key and nothing dead", seen)
	}
}

// wantServed is wantClean, and no caller got an error or a stale value.
func wantServed(t *testing.T, seen tokencachetest.Seen) {
	t.Helper()
	if wantClean(t, seen); seen.Errors+seen.Stale > 0 {
		t.Errorf("seen %+v; want neither errors nor stale values", seen)
	}
}

// most returns the largest number of fetches in any 24 hours.
func most(fetches []tokencachetest.Fetch) int {
	most := 0
	for i, from := 0, 0; i < len(fetches); i++ {
		for fetches[i].At.Sub(fetches[from].At) >= 24*time.Hour {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
