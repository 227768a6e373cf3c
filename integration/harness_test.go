package integration

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
)

const (
	appID     = rig.AppID
	appSecret = rig.AppSecret
	namespace = rig.Namespace
	valueKey  = rig.ValueKey
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// cluster is the rig's, and what these tests ask of it.
type cluster struct {
	*rig.Cluster
	t    *testing.T
	late atomic.Int64 // calls that failed after refreshWait
}

func newCluster(t *testing.T, store rig.Store, env ...string) *cluster {
	return &cluster{Cluster: rig.New(t, store, env...), t: t}
}

func eventually(t *testing.T, awaited string, ok func() bool) {
	t.Helper()
	rig.Eventually(t, awaited, ok)
}

// refreshWait is how long a sidecar lets a caller wait for a refresh.
const refreshWait = 2 * time.Second

// overruns counts what happened to the sidecars because the machine was too slow: a deadline passed
// (1 s for Redis, 8 s for WeChat, refreshWait), or a lease (10 s) ended while its holder worked.
// Each is a fault, though the test made none. On a machine with time to spare the count is 0.
func (c *cluster) overruns() int {
	sum := float64(c.late.Load())
	for _, p := range c.Others(nil) {
		m, err := p.Metrics()
		if err != nil {
			continue // it ends
		}
		sum += m.Sum("wxtoken_redis_errors_total", `class="timeout"`) + m.Sum("wxtoken_leases_lost_total") +
			m.Sum("wxtoken_upstream_fetches_total", `result="unclear"`)
	}
	return int(sum)
}

// insist repeats a call until it succeeds. A failure without an overrun is returned at once.
func (c *cluster) insist(call func() error) error {
	deadline := time.Now().Add(rig.Patience)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		begun := time.Now()
		err := call()
		if err == nil {
			return nil
		}
		if time.Since(begun) >= refreshWait {
			c.late.Add(1)
		}
		// All metrics of all sidecars, only until there is one overrun: they cost more than the
		// calls.
		if c.late.Load() == 0 && c.overruns() == 0 || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

var errStale = errors.New("the answer is stale")

// everywhere asks each sidecar of all times times at once, and returns the answers, of which none
// is stale.
func (c *cluster) everywhere(all []*rig.Sidecar, times int, ask func(*rig.Sidecar) (rig.Answer, error)) []rig.Answer {
	c.t.Helper()
	return rig.Everywhere(c.t, all, times, func(p *rig.Sidecar) (a rig.Answer, err error) {
		err = c.insist(func() (err error) {
			if a, err = ask(p); err == nil && a.Stale {
				err = errStale
			}
			return err
		})
		return a, err
	})
}

// want compares a figure with what it must be, or, where there were overruns, with what it may be:
// I1 allows two fetches for each.
func (c *cluster) want(figure string, got, want int) {
	c.t.Helper()
	if got == want {
		return
	}
	if n := c.overruns(); got < want || got > want+2*n {
		c.t.Errorf("%d %s, want %d (with %d overruns)", got, figure, want, n)
	}
}

func (c *cluster) wantFetches(want int) {
	c.t.Helper()
	c.want("upstream fetches", c.Upstream.Calls(appID).Fetches(), want)
}

func (c *cluster) wantAllWork(answers []rig.Answer) {
	c.t.Helper()
	for _, a := range answers {
		if !c.Upstream.Works(a.AccessToken) {
			c.t.Errorf("version %d was handed out and does not work", a.Version)
			return
		}
	}
}

// holder makes the token due and returns the sidecar that refreshes it, at a moment when WeChat has
// issued the next token and the sidecar waits for the answer.
func (c *cluster) holder() (*rig.Sidecar, *rig.Held) {
	c.t.Helper()
	for {
		answer := c.Upstream.HoldAnswer()
		c.MakeDue()
		held := receive(c.t, answer, "a sidecar asks WeChat for a token")
		if held.Awaited() {
			return c.ByName(held.Sidecar), held
		}
		// The machine was so slow that the sidecar has given up. Once there is a token again, try
		// again.
		held.Release()
		eventually(c.t, "the token is no longer in doubt", c.undoubted)
	}
}

// undoubted reports whether the value in Redis is the last that WeChat issued, for all that the
// sidecars know.
func (c *cluster) undoubted() bool {
	return c.Store.Client().HGet(c.t.Context(), valueKey+":meta", "doubt").Val() == "0"
}

// receive receives, or ends the test with what was awaited.
func receive[T any](t *testing.T, ch <-chan T, awaited string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(rig.Patience):
		t.Fatalf("not within %v: %s", rig.Patience, awaited)
		panic("not reached")
	}
}
