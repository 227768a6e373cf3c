package tokencache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// I1, the cold start: 50 replicas with 20 callers each and nothing anywhere.
func TestOneColdStartCostsOneFetchHoweverManyReplicasAndCallersThereAre(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		u := &upstream{Mode: mode, Latency: 300 * time.Millisecond}
		bubble(t, 50, u, func(t *testing.T, c *cluster) {
			a := storm(c, 20, get)
			a.want(t, 1000, 0, 0)
			wantFetches(t, c, 1)
			if a.last > 450*time.Millisecond {
				t.Errorf("the last caller waited %v, want at most 450ms", a.last)
			}
			if got := count(c, tokencache.ReasonMissing, tokencache.ResultCommitted); got != 1 {
				t.Errorf("%d commits because the key was missing, want 1", got)
			}
		})
	})
}

// I1, an expiry without background work: everything is done when asked.
func TestOneExpiryCostsOneFetchHoweverManyReplicasAndCallersThereAre(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 16, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			storm(c, 1, get)
			time.Sleep(2*time.Hour + time.Second)
			a := storm(c, 8, get)
			a.want(t, 128, 0, 0)
			if len(a.values) != 1 {
				t.Errorf("callers got %d different values", len(a.values))
			}
			wantFetches(t, c, 2)
		})
	})
}

// The margin has begun and upstream is slow: a caller waits 2 s and gets the old value.
func TestInsideTheMarginReadersWaitNotLongAndGetTheOldValueAsStale(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(n int, _ string) fault {
		if n == 1 {
			return fault{}
		}
		return fault{Delay: 6 * time.Second}
	}}
	bubble(t, 4, u, func(t *testing.T, c *cluster) {
		storm(c, 1, get)
		time.Sleep(2*time.Hour - 30*time.Second)
		a := storm(c, 4, get)
		a.want(t, 0, 16, 0)
		if a.last != 2*time.Second {
			t.Errorf("they waited %v, want 2 s", a.last)
		}
		time.Sleep(10 * time.Second)
		storm(c, 4, get).want(t, 16, 0, 0)
		wantFetches(t, c, 2)
	})
}

// With Run no caller ever waits, however slow upstream is.
func TestRefreshAheadLetsNoCallerWait(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 5, &upstream{Mode: mode, Latency: 5 * time.Second}, func(t *testing.T, c *cluster) {
			warm(t, c)
			stop := c.Watch(3 * time.Second)
			start := time.Now()
			time.Sleep(4 * time.Hour)
			seen := stop()
			wantServed(t, seen)
			// A caller who had to wait would have made a look later than its turn.
			if want := int(time.Since(start)/(3*time.Second)) + 1; seen.Looks < want-1 {
				t.Errorf("%d looks in %v: a caller waited", seen.Looks, time.Since(start))
			}
			want := map[tokencachetest.Mode]int{superseding: 3, repeating: 3}[mode]
			wantFetches(t, c, want)
			if got := count(c, tokencache.ReasonDue, tokencache.ResultCommitted); got != want-1 {
				t.Errorf("%d commits ahead of time, want %d", got, want-1)
			}
		}, rarely(time.Minute))
	})
}

// One caller gives up after 1 ms; 999 others share the refresh it began.
func TestACallerWhoGivesUpCancelsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{Latency: 300 * time.Millisecond}, func(t *testing.T, c *cluster) {
		first := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_, err := get(ctx, c.Replicas[0])
			first <- err
		}()
		storm(c, 999, get).want(t, 999, 0, 0)
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient caller got %v", err)
		}
		wantFetches(t, c, 1)
	})
}

// A replica that receives no event learns of a new version by reading again.
func TestLosingEveryEventCostsAtMost15Seconds(t *testing.T) {
	t.Parallel()
	bubble(t, 4, &upstream{}, func(t *testing.T, c *cluster) {
		old := warm(t, c)
		deaf := c.Replicas[1:]
		for _, r := range deaf {
			r.Link.Deafen()
		}
		c.Upstream.Kill()
		if _, err := report(old.Value.Reveal())(t.Context(), c.Replicas[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		for _, r := range deaf {
			if got := r.MustGet(t); got.Version <= old.Version {
				t.Errorf("%s still has version %d", r.Name, got.Version)
			}
		}
		wantFetches(t, c, 2)
	})
}

// The subscription breaks while a new version comes; making it again reads everything first.
func TestReconnectingReadsEverythingAgain(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
		old := warm(t, c)
		other := c.Replicas[1]
		other.Link.Refuse()
		c.Upstream.Kill()
		if _, err := report(old.Value.Reveal())(t.Context(), c.Replicas[0]); err != nil {
			t.Fatal(err)
		}
		other.Link.Heal()
		time.Sleep(5 * time.Second)
		if got := other.MustGet(t); got.Version <= old.Version {
			t.Errorf("it still has version %d", got.Version)
		}
		wantFetches(t, c, 2)
	}, rarely(time.Hour))
}

// I8: the lease of a replica that is stopped in the middle of a fetch is free within 200 ms.
func TestAStoppedReplicaLeavesNoLeaseAndTheNextTakesOver(t *testing.T) {
	t.Parallel()
	u := &upstream{Latency: 3 * time.Second}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		go func() { _, _ = get(context.Background(), c.Replicas[0]) }()
		time.Sleep(time.Second)
		start := time.Now()
		c.Replicas[0].Stop()
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("stopping took %v", took)
		}
		if c.Redis.Exists(c.ValueKey() + ":lock") {
			t.Error("the lease is held after Close")
		}
		c.Replicas[1].MustGet(t)
		if took := time.Since(start); took > 3300*time.Millisecond {
			t.Errorf("the next replica had the value after %v, want 3.2s", took)
		}
		wantFetches(t, c, 2)
		if _, err := c.Replicas[0].Cache.Get(t.Context(), tokencachetest.Key); !errors.Is(err, tokencache.ErrClosed) {
			t.Errorf("a closed cache says %v", err)
		}
	})
}

// I8: stopped while Redis is a black hole, at every phase.
func TestStoppingTakesNoLongerWhenRedisDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
		bubble(t, 1, &upstream{Latency: time.Second}, func(t *testing.T, c *cluster) {
			r := c.Replicas[0]
			r.Start()
			time.Sleep(after)
			synctest.Wait()
			r.Link.BlackHole()
			time.Sleep(300 * time.Millisecond)
			start := time.Now()
			r.Stop()
			if took := time.Since(start); took > 450*time.Millisecond {
				t.Errorf("black hole after %v: stopping took %v", after, took)
			}
		})
	}
}
