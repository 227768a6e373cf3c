package tokencache_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// The only replica dies in the fetch. Its value leaves Redis before it can be dead.
func TestAHolderThatDiesAloneLeavesAValueThatGoesInTime(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(n int, _ string) fault { return fault{DelayReply: time.Duration(n-1) * time.Minute} }}
	bubble(t, 1, u, func(t *testing.T, c *cluster) {
		warm(t, c)
		for len(c.Upstream.Fetches()) < 2 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		go c.Replicas[0].Kill()
		for range 600 {
			time.Sleep(time.Second)
			if v := c.Value(); v != "" && !c.Upstream.Valid(v) {
				t.Fatal("a dead value is in Redis")
			}
		}
		if c.Value() != "" {
			t.Error("the value in doubt is still in Redis after 10 minutes")
		}
	})
}

// Unclear failures, on an endpoint where each of them may have superseded the value: cut, wait, try
// again, heal.
func TestUnclearFailuresLeaveTheValueInDoubtUntilOneFetchWorks(t *testing.T) {
	t.Parallel()
	for _, failures := range []int{1, 3, 8} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			u := &upstream{Fault: func(n int, _ string) fault { return fault{LoseReply: n > 1 && n <= 1+failures} }}
			bubble(t, 4, u, func(t *testing.T, c *cluster) {
				warm(t, c)
				time.Sleep(89 * time.Minute)
				stop := c.Watch(time.Second)
				time.Sleep(15 * time.Minute)
				seen := stop()
				if failures == 1 {
					wantServed(t, seen)
				}
				// From the second in a row on, upstream may have ended the value before its overlap
				// was over: only a report can find out. The cut bounds it.
				if seen.Errors > 0 || seen.Dead > 240 {
					t.Errorf("seen %+v", seen)
				}
				wantFetches(t, c, 2+failures)
				if c.Meta("doubt") != "0" {
					t.Error("the doubt stayed")
				}
			}, rarely(time.Minute))
		})
	}
}

// A sure failure takes its cut back: to the life, and to the doubt, that stood before it.
func TestASureFailureRestoresTheLifeAndTheDoubtThatStoodBefore(t *testing.T) {
	t.Parallel()
	busy := fault{Err: &tokencache.FetchError{Class: tokencache.ClassQuota, Code: 45009, Message: "quota"}}
	t.Run("life", func(t *testing.T) {
		u := &upstream{Fault: func(n int, _ string) fault {
			if n > 1 {
				return busy
			}
			return fault{}
		}}
		bubble(t, 2, u, func(t *testing.T, c *cluster) {
			warm(t, c)
			stop := c.Watch(time.Second)
			time.Sleep(119*time.Minute - 10*time.Second) // till just before the margin
			wantServed(t, stop())
			if c.Meta("doubt") != "0" || c.Redis.TTL(c.ValueKey()) > 11*time.Second {
				t.Errorf("doubt %q, %v left", c.Meta("doubt"), c.Redis.TTL(c.ValueKey()))
			}
			// From 90 minutes on; 5, 10, 20 and 30 minutes apart, each less up to half.
			if n := len(c.Upstream.Fetches()); n < 3 || n > 6 {
				t.Errorf("%d fetches", n)
			}
		}, rarely(time.Minute))
	})
	t.Run("doubt", func(t *testing.T) {
		u := &upstream{Fault: func(n int, _ string) fault {
			switch {
			case n == 2:
				return fault{LoseReply: true}
			case n > 2:
				return busy
			}
			return fault{}
		}}
		bubble(t, 2, u, func(t *testing.T, c *cluster) {
			warm(t, c)
			for len(c.Upstream.Fetches()) < 3 {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Second)
			if c.Meta("doubt") != "1" || c.Redis.TTL(c.ValueKey()) > 4*time.Minute {
				t.Errorf("doubt %q, %v left; want the doubt back", c.Meta("doubt"), c.Redis.TTL(c.ValueKey()))
			}
			stop := c.Watch(time.Second)
			time.Sleep(8 * time.Minute)
			if seen := stop(); seen.Dead+seen.DeadGood+seen.Errors > 0 || seen.Stale == 0 {
				t.Errorf("seen %+v; want stale answers and no key", seen)
			}
		}, rarely(time.Minute))
	})
}

// An unclear failure that issued nothing, and then a long time of sure ones: when the overlap is
// over and the value still works, a probe shows that the doubt was unfounded. No fetch is needed.
func TestAProbeAfterTheOverlapClearsAnUnfoundedDoubt(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(n int, _ string) fault {
		switch {
		case n == 2:
			return fault{Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "timeout", Unclear: true}}
		case n > 2:
			return fault{Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Code: -1, Message: "busy"}}
		}
		return fault{}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		token := warm(t, c)
		for len(c.Upstream.Fetches()) < 2 {
			time.Sleep(time.Second)
		}
		unclear := time.Now()
		for c.Meta("doubt") == "1" {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(unclear); took < 5*time.Minute || took > 7*time.Minute || c.Value() != token.Value.Reveal() {
			t.Fatalf("after %v, value %q", took, c.Value())
		}
		storm(c, 4, get).want(t, 8, 0, 0)
		if left := c.Redis.TTL(c.ValueKey()); left > 30*time.Minute {
			t.Errorf("the probe gave it %v of life", left)
		}
		if c.Upstream.Probes() == 0 {
			t.Error("no replica probed")
		}
	}, rarely(time.Minute))
}

// Upstream acts on an unclear fetch as late as its holder can have sent it. A probe that believed
// the doubt to be over 5 minutes after begin, and not after the request, would vouch for a value
// that dies seconds later.
func TestAProbeDoesNotVouchForAValueWhoseOverlapIsNotOver(t *testing.T) {
	t.Parallel()
	for range 8 { // the retry that meets the gap is drawn
		u := &upstream{Fault: func(n int, _ string) fault {
			switch {
			case n == 2:
				return fault{Delay: 7500 * time.Millisecond, LoseReply: true}
			case n > 2:
				return fault{Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Code: -1, Message: "busy"}}
			}
			return fault{}
		}}
		bubble(t, 2, u, func(t *testing.T, c *cluster) {
			warm(t, c)
			for len(c.Upstream.Fetches()) < 2 {
				time.Sleep(time.Second)
			}
			stop := c.Watch(time.Second)
			time.Sleep(8 * time.Minute)
			if seen := stop(); seen.Dead+seen.DeadGood > 0 {
				t.Errorf("seen %+v", seen)
			}
		}, rarely(time.Minute))
	}
}

// A holder stalls past its lease, another one commits, and only then does the first one's request
// reach upstream: what the other committed is superseded. The first cannot tell Redis, which it has
// lost at that moment. It must as soon as it can.
func TestACutThatCannotBeMadeAtOnceIsMadeLater(t *testing.T) {
	t.Parallel()
	var lose func(replica string)
	u := &upstream{Fault: func(n int, replica string) fault {
		if n != 2 {
			return fault{}
		}
		go lose(replica)
		return fault{Delay: 15 * time.Second, Detached: true}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		lose = func(replica string) {
			for _, r := range c.Replicas {
				if r.Name == replica {
					time.Sleep(14 * time.Second)
					r.Link.Refuse()
					time.Sleep(20 * time.Second)
					r.Link.Heal()
				}
			}
		}
		warm(t, c)
		for len(c.Upstream.Fetches()) < 3 {
			time.Sleep(time.Second)
		}
		stop := c.Watch(time.Second)
		time.Sleep(8 * time.Minute)
		// This upstream lets only the last replaced value live on, so the present one may die in
		// the very moment in which the fetch after the cut is answered: one look at Redis and at
		// each replica may meet that.
		if seen := stop(); seen.Dead > 1 || seen.DeadGood > len(c.Replicas) {
			t.Errorf("seen %+v", seen)
		}
		wantFetches(t, c, 4) // cold, the late one, its successor's, and after the cut
	}, rarely(time.Minute))
}
