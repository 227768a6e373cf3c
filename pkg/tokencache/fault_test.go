package tokencache_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func noRetries(o *redis.Options) { o.MaxRetries = -1 }

// I1 of integration/model/README.md, with faults: the reply of the n-th exchange with Redis is
// lost, for every n there is, with and without go-redis' own retries. No replica blocks itself out,
// and it costs at most one more fetch.
func TestEachLostReplyAddsAtMostOneFetchAndNoDeadlock(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]tokencachetest.Option{"retried": tokencachetest.Redis(nil), "not retried": tokencachetest.Redis(noRetries)} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				lost := 0
				for n, more := 0, true; more; n++ {
					bubble(t, 3, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
						r := c.Replicas[0]
						r.Link.LoseReply(n, 1)
						ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
						defer cancel()
						_, _ = get(ctx, r) // may fail, but must not be in the way of others
						a := storm(c, 1, get)
						if a.want(t, 3, 0, 0); a.last > 2*time.Second {
							t.Errorf("reply %d lost: the next callers waited %v", n, a.last)
						}
						more = r.Link.Losing() == 0
						if got := len(c.Upstream.Fetches()); got > 2 || !more && got != 1 {
							t.Errorf("reply %d lost: %d fetches", n, got)
						}
						if c.Redis.Exists(c.ValueKey() + ":lock") {
							t.Errorf("reply %d lost: a lease was left behind", n)
						}
					}, o)
					lost = n
				}
				if lost < 6 {
					t.Errorf("only %d replies were lost", lost)
				}
			})
		})
	}
}

// The same for a report, whose refresh has more steps: probe, and force on a Repeating upstream.
func TestEachReplyLostDuringAReportAddsAtMostOneFetch(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		for n, more := 0, true; more; n++ {
			bubble(t, 2, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
				old := storm(c, 1, get)
				c.Upstream.Kill()
				before := len(c.Upstream.Fetches())
				r := c.Replicas[0]
				r.Link.LoseReply(n, 1)
				for value := range old.values {
					if a := storm(c, 1, report(value)); a.failed > 0 || a.last > 2*time.Second {
						t.Errorf("reply %d lost: %+v", n, a)
					}
				}
				more = r.Link.Losing() == 0
				want := map[tokencachetest.Mode]int{superseding: 1, repeating: 2}[mode]
				if got := len(c.Upstream.Fetches()) - before; got > want+1 || !more && got != want {
					t.Errorf("reply %d lost: %d fetches, want %d", n, got, want)
				}
				if got := ReasonForce(c); len(got) > 1 {
					t.Errorf("reply %d lost: %d forced fetches", n, len(got))
				}
				if a := storm(c, 1, get); a.good != 2 {
					t.Errorf("reply %d lost: %+v afterwards", n, a)
				}
			})
		}
	})
}

// An Obtain whose answer never came leaves a lease that its own replica takes over.
func TestALeaseObtainedWithoutAnAnswerIsTakenOver(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		r := c.Replicas[0]
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		for n := 0; !c.Redis.Exists(c.ValueKey() + ":lock"); n++ {
			r.Link.LoseReply(n, 100) // until those of the load are through, and not those of the lease
			if _, err := get(ctx, r); err == nil {
				t.Fatal("no reply was lost")
			}
		}
		r.Link.LoseReply(0, 0)
		start := time.Now()
		r.MustGet(t)
		if took := time.Since(start); took > time.Second {
			t.Errorf("the next read waited %v for the replica's own lease", took)
		}
		wantFetches(t, c, 1)
	}, tokencachetest.Redis(noRetries))
}

// I2: A's reply comes when its lease is over and B has committed. A's value is refused, and what
// value is cut, since it is not known which of the two upstream issued last.
func TestNothingBegunEarlierReplacesACommittedValue(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		u := &upstream{Mode: mode, Fault: func(n int, _ string) fault {
			if n == 1 {
				return fault{DelayReply: 15 * time.Second}
			}
			return fault{}
		}}
		bubble(t, 2, u, func(t *testing.T, c *cluster) {
			a, b := c.Replicas[0], c.Replicas[1]
			go func() { _, _ = get(context.Background(), a) }()
			time.Sleep(time.Second)
			theirs := b.MustGet(t)
			if c.Value() != theirs.Value.Reveal() {
				t.Error("B's value does not stand")
			}
			time.Sleep(6 * time.Second) // A wakes up
			if got := a.Count(tokencache.ResultRefused); mode == superseding && got != 1 {
				t.Errorf("A's commit was refused %d times, want 1", got)
			}
			if c.Value() != theirs.Value.Reveal() {
				t.Error("A replaced B's value")
			}
			if doubt := c.Meta("doubt"); (doubt == "1") != (mode == superseding) {
				t.Errorf("doubt is %q", doubt)
			}
			if left := c.Redis.TTL(c.ValueKey()); mode == superseding && left > 4*time.Minute {
				t.Errorf("the present value was not cut: %v", left)
			}
			c.Start()
			stop := c.Watch(time.Second)
			time.Sleep(20 * time.Minute)
			wantServed(t, stop())
			// The first, the one that took over, and the one that the cut made due.
			wantFetches(t, c, map[tokencachetest.Mode]int{superseding: 3, repeating: 2}[mode])
		})
	})
}

// I3, the order of events that a refused commit alone does not cover: B asks, A's stalled request
// reaches upstream after it, A is refused and cuts, and only then B commits. B's value is the dead
// one.
func TestAValueCommittedAfterAnotherHoldersCutIsInDoubt(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(n int, _ string) fault {
		switch n {
		case 1:
			return fault{Delay: 12 * time.Second, Detached: true}
		case 2:
			return fault{DelayReply: 5 * time.Second}
		}
		return fault{}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		go func() { _, _ = get(context.Background(), c.Replicas[0]) }()
		time.Sleep(time.Second)
		c.Replicas[1].MustGet(t)
		c.Start()
		stop := c.Watch(time.Second)
		time.Sleep(30 * time.Minute)
		wantServed(t, stop())
		wantFetches(t, c, 3)
	})
}

// The same, but B's fetch fails for sure: undoing its own cut must not undo A's.
func TestUndoingACutLeavesAnotherHoldersCut(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(n int, _ string) fault {
		switch n {
		case 2:
			return fault{Delay: 12 * time.Second, Detached: true}
		case 3:
			return fault{Delay: 5 * time.Second, Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Code: -1, Message: "busy"}}
		}
		return fault{}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		storm(c, 1, get)
		time.Sleep(90*time.Minute + time.Minute)
		c.Start() // due; one stalls, the other fails after the first has cut
		stop := c.Watch(time.Second)
		for count(c, tokencache.ReasonDue, tokencache.ResultRefused) == 0 || count(c, tokencache.ReasonDue, tokencache.ResultFailed) == 0 {
			time.Sleep(50 * time.Millisecond)
		}
		if c.Meta("doubt") != "1" {
			t.Error("A's doubt is gone")
		}
		time.Sleep(20 * time.Minute)
		wantServed(t, stop())
	})
}

// I3: the holder dies, before upstream acts or after it, when the first value comes or a later one.
func TestNoDeadValueIsHandedOutAsGoodNorStandsInRedisWhateverDiedWhen(t *testing.T) {
	t.Parallel()
	deaths := map[string]fault{
		"before upstream acts":       {Delay: time.Minute},
		"after upstream acted":       {DelayReply: time.Minute},
		"and upstream acts too late": {Delay: 3 * time.Minute, Detached: true},
	}
	for name, f := range deaths {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				u := &upstream{Mode: mode, Fault: func(n int, _ string) fault {
					if n == 2 {
						return f
					}
					return fault{}
				}}
				bubble(t, 3, u, func(t *testing.T, c *cluster) {
					warm(t, c)
					for len(c.Upstream.Fetches()) < 2 {
						time.Sleep(time.Second)
					}
					stop := c.Watch(5 * time.Second)
					for _, r := range c.Replicas {
						if r.Name == c.Upstream.Fetches()[1].Replica {
							go r.Kill()
						}
					}
					time.Sleep(12 * time.Minute)
					// One fetch took over from the dead; a request that reaches upstream minutes
					// after its sender died is the uncovered case, and a report heals it.
					seen := stop()
					if f.Detached && mode == superseding {
						wantFetches(t, c, 3)
						return
					}
					wantServed(t, seen)
					wantFetches(t, c, 3)
				}, rarely(time.Minute))
			})
		})
	}
}
