package tokencache_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// I6: every way for Redis or upstream to be away, for an hour, on a replica that has a value.
func TestAWarmReplicaFailsNoReadWhileRedisOrUpstreamIsAway(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	away := map[string]func(c *cluster, away bool){
		"refused":  func(c *cluster, away bool) { eachLink(c, away, (*tokencachetest.Link).Refuse) },
		"hole":     func(c *cluster, away bool) { eachLink(c, away, (*tokencachetest.Link).BlackHole) },
		"upstream": func(_ *cluster, away bool) { down.Store(away) },
	}
	for name, f := range away {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				u := &upstream{Mode: mode, Fault: func(int, string) fault {
					if down.Load() {
						return fault{Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "no route"}}
					}
					return fault{}
				}}
				bubble(t, 2, u, func(t *testing.T, c *cluster) {
					warm(t, c)
					time.Sleep(85 * time.Minute)
					f(c, true)
					stop := c.Watch(30 * time.Second)
					time.Sleep(30 * time.Minute)
					seen := stop()
					if seen.Errors+seen.DeadGood+seen.Dead > 0 {
						t.Errorf("while it was away: %+v", seen)
					}
					wantFetchesBelow(t, c, 60)
					f(c, false)
					time.Sleep(70 * time.Second)
					stop = c.Watch(10 * time.Second)
					time.Sleep(10 * time.Minute)
					wantServed(t, stop())
				}, rarely(time.Minute))
			})
		})
	}
}

func eachLink(c *cluster, away bool, f func(*tokencachetest.Link)) {
	for _, r := range c.Replicas {
		if away {
			f(r.Link)
		} else {
			r.Link.Heal()
		}
	}
}

func wantFetchesBelow(t *testing.T, c *cluster, limit int) {
	t.Helper()
	if got := len(c.Upstream.Fetches()); got >= limit {
		t.Errorf("%d fetches, want less than %d", got, limit)
	}
}

// I6 in the small: 100 calls, 100 answers, no fetch, no time.
func TestAWarmReplicaAnswersAtOnceWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*tokencachetest.Link){
		"refused": (*tokencachetest.Link).Refuse, "hole": (*tokencachetest.Link).BlackHole,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
				warm(t, c)
				away(c.Replicas[0].Link)
				for range 100 {
					a := storm(c, 1, get)
					a.want(t, 1, 0, 0)
					if a.last != 0 {
						t.Fatalf("a caller waited %v", a.last)
					}
					time.Sleep(time.Second)
				}
				wantFetches(t, c, 1)
			})
		})
	}
}

// Nothing in memory and no Redis: an endpoint where every fetch supersedes is not asked, and the
// error says why.
func TestWithoutRedisASupersedingEndpointIsNotAsked(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*tokencachetest.Link){
		"refused": (*tokencachetest.Link).Refuse, "hole": (*tokencachetest.Link).BlackHole,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
				r := c.Replicas[0]
				away(r.Link)
				a := storm(c, 10, get)
				a.want(t, 0, 0, 10)
				if a.last > 1500*time.Millisecond {
					t.Errorf("callers waited %v, want no more than one operation's time", a.last)
				}
				unavailable, ok := errors.AsType[*tokencache.UnavailableError](a.err)
				if _, store := errors.AsType[*tokencache.StoreError](a.err); !ok || !store || unavailable.RetryAfter <= 0 {
					t.Errorf("the error is %#v", a.err)
				}
				if !strings.Contains(a.err.Error(), "without Redis this endpoint is not asked") {
					t.Errorf("the error says %q", a.err)
				}
				wantFetches(t, c, 0)
				// A cold read must not be refused for long once Redis is back.
				r.Link.Heal()
				if a := storm(c, 1, get); a.good != 1 || a.last > time.Second {
					t.Errorf("after Redis came back: %+v", a)
				}
			})
		})
	}
}

// An endpoint that repeats its value may be asked without Redis, rarely.
func TestWithoutRedisARepeatingEndpointIsAskedRarely(t *testing.T) {
	t.Parallel()
	u := &upstream{Mode: repeating, Life: 10 * time.Minute}
	bubble(t, 3, u, func(t *testing.T, c *cluster) {
		eachLink(c, true, (*tokencachetest.Link).Refuse)
		storm(c, 10, get).want(t, 30, 0, 0)
		wantFetches(t, c, 3)
		stop := c.Watch(time.Second)
		time.Sleep(time.Hour)
		if seen := stop(); seen.Errors+seen.DeadGood > 0 {
			t.Errorf("seen %+v", seen)
		}
		wantFetchesBelow(t, c, 3*2*60)
		eachLink(c, false, nil)
		c.Start()
		time.Sleep(30 * time.Second)
		a := storm(c, 1, get)
		a.want(t, 3, 0, 0)
		if len(a.values) != 1 || c.Value() == "" {
			t.Errorf("the cluster does not agree again: %v", a.values)
		}
	}, rarely(time.Minute))
}

// I5 without Redis: a wrong secret is not tried twice a minute for ever.
func TestWithoutRedisAWrongSecretIsTriedEverMoreRarely(t *testing.T) {
	t.Parallel()
	u := &upstream{Mode: repeating, Fault: func(int, string) fault {
		return fault{Err: &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125, Message: "wrong secret"}}
	}}
	bubble(t, 1, u, func(t *testing.T, c *cluster) {
		c.Replicas[0].Link.Refuse()
		for range 3600 {
			storm(c, 1, get).want(t, 0, 0, 1)
			time.Sleep(time.Second)
		}
		wantFetchesBelow(t, c, 12)
	})
}

// A backoff of the cluster outlives the way to Redis: what all of them were told not to ask, no
// replica asks by itself because one look at Redis failed.
func TestWithoutRedisTheBackoffOfTheClusterStillHolds(t *testing.T) {
	t.Parallel()
	u := &upstream{Mode: repeating, Fault: func(int, string) fault {
		return fault{Err: &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125, Message: "wrong secret"}}
	}}
	bubble(t, 3, u, func(t *testing.T, c *cluster) {
		storm(c, 1, get).want(t, 0, 0, 3)
		wantFetches(t, c, 1)
		eachLink(c, true, (*tokencachetest.Link).Refuse)
		for range 20 { // of the 30 s that it lasts at least
			a := storm(c, 1, get)
			a.want(t, 0, 0, 3)
			if f, ok := errors.AsType[*tokencache.FetchError](a.err); !ok || f.Code != 40125 {
				t.Fatalf("got %v, want what upstream said", a.err)
			}
			time.Sleep(time.Second)
		}
		wantFetches(t, c, 1)
	})
}

// Whatever Redis loses, the replicas notice; nothing dead is served, and one fetch makes it good.
func TestLostDataCostsOneFetchAndServesNothingDead(t *testing.T) {
	t.Parallel()
	losses := map[string]func(c *cluster){
		"everything": func(c *cluster) { c.Redis.FlushAll() },
		"the value":  func(c *cluster) { c.Redis.Del(c.ValueKey()) },
		"the meta":   func(c *cluster) { c.Redis.Del(c.ValueKey() + ":meta") },
		"the life":   func(c *cluster) { c.Redis.SetTTL(c.ValueKey(), 0) },
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				bubble(t, 3, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
					old := warm(t, c)
					time.Sleep(5 * time.Minute)
					lose(c)
					// Callers are served from memory, and a newcomer at once.
					storm(c, 1, get).want(t, 3, 0, 0)
					fresh := c.Add()
					fresh.Start()
					if token := fresh.MustGet(t); !c.Upstream.Valid(token.Value.Reveal()) || token.Stale {
						t.Errorf("a newcomer got %+v", token)
					}
					stop := c.Watch(5 * time.Second)
					time.Sleep(6 * time.Minute)
					wantServed(t, stop())
					wantFetches(t, c, 2)
					if token := c.Replicas[0].MustGet(t); token.Version < old.Version {
						t.Error("the version went backwards")
					}
				})
			})
		})
	}
}

// A failover to a replica of Redis that did not have the last commit yet.
func TestFailoverToOlderDataIsNoticedAndHealed(t *testing.T) {
	t.Parallel()
	bubble(t, 3, &upstream{}, func(t *testing.T, c *cluster) {
		first := warm(t, c)
		meta := map[string]string{}
		fields, _ := c.Redis.HKeys(c.ValueKey() + ":meta")
		for _, f := range fields {
			meta[f] = c.Meta(f)
		}
		for len(c.Upstream.Fetches()) < 2 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		second := c.Replicas[0].MustGet(t)

		c.Redis.FlushAll()
		for f, v := range meta {
			c.Redis.HSet(c.ValueKey()+":meta", f, v)
		}
		_ = c.Redis.Set(c.ValueKey(), first.Value.Reveal())
		c.Redis.SetTTL(c.ValueKey(), 28*time.Minute)

		time.Sleep(20 * time.Second)
		third := c.Replicas[0].MustGet(t)
		if third.Version <= second.Version || third.Value.Equal(first.Value) {
			t.Errorf("version %d after %d", third.Version, second.Version)
		}
		stop := c.Watch(time.Second)
		time.Sleep(20 * time.Minute)
		wantServed(t, stop())
		wantFetches(t, c, 3)
	})
}

// The commit cannot be written, because Redis went away during the fetch. The fetched value is used
// here, and never replaced by the superseded one that is in doubt when Redis is back.
func TestAValueThatCouldNotBeCommittedIsKeptAndNotTradedForTheOldOne(t *testing.T) {
	t.Parallel()
	var busy atomic.Bool
	var cut func()
	u := &upstream{Fault: func(n int, _ string) fault {
		if n == 2 {
			cut()
		}
		if busy.Load() {
			return failing(tokencache.ClassTransient, -1)
		}
		return fault{}
	}}
	bubble(t, 1, u, func(t *testing.T, c *cluster) {
		r := c.Replicas[0]
		cut = r.Link.Refuse
		first := warm(t, c)
		for r.Count(tokencache.ResultOrphaned) == 0 {
			time.Sleep(time.Second)
		}
		kept := r.MustGet(t)
		if kept.Stale || kept.Value.Equal(first.Value) {
			t.Fatalf("after the commit failed: %+v", kept)
		}
		// Redis is back, but upstream is not: only memory has the good value.
		busy.Store(true)
		r.Link.Heal()
		for range 120 {
			time.Sleep(time.Second)
			if token := r.MustGet(t); !token.Value.Equal(kept.Value) {
				t.Fatal("traded for the superseded value")
			}
		}
		busy.Store(false)
		time.Sleep(2 * time.Minute)
		storm(c, 1, get).want(t, 1, 0, 0)
		if c.Meta("doubt") != "0" {
			t.Error("the cluster's value is still in doubt")
		}
	})
}

// Redis goes away and comes back, at random, for a day.
func TestAReplicaThatCannotReachRedisDoesNotHammerIt(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		warm(t, c)
		r := c.Replicas[0]
		time.Sleep(89 * time.Minute)
		r.Link.Refuse()
		before := len(r.Events())
		time.Sleep(10 * time.Minute) // the renewal is due now
		if got := len(r.Events()) - before; got > 800 {
			t.Errorf("%d events in 10 minutes", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if token, err := get(ctx, r); err != nil || token.ExpiresIn <= 0 {
			t.Errorf("%+v, %v", token, err)
		}
	})
}

// One app's key cannot be read (another program wrote another type there). The events of the others
// arrive.
func TestAnAppThatCannotBeReadDoesNotStopTheEventsOfOthers(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
		broken := tokencache.Key{App: "wx0000000000000002", Kind: "access_token"}
		if err := c.Redis.Set("wxtoken:{"+broken.App+"}:"+broken.Kind+":meta", "no hash"); err != nil {
			t.Fatal(err)
		}
		for _, r := range c.Replicas {
			other := r.Credential
			other.Key = broken
			if err := r.Cache.Set(r.Credential, other); err != nil {
				t.Fatal(err)
			}
		}
		old := warm(t, c)
		c.Upstream.Kill()
		if _, err := c.Replicas[0].Cache.Report(t.Context(), tokencachetest.Key, old.Value); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // an event takes no time; to subscribe again, a second
		if got := c.Replicas[1].MustGet(t); got.Stale || got.Value.Equal(old.Value) {
			t.Errorf("the other replica does not have the new value: %+v", got)
		}
	}, rarely(3*time.Minute))
}

// Trouble with Redis that does not end the refresh is told all the same: it is what an operator
// sees of it.
func TestRedisTroubleThatARefreshSurvivesIsTold(t *testing.T) {
	t.Parallel()
	for op, answer := range map[string]fault{"commit": {}, "finish": failing(tokencache.ClassTransient, -1)} {
		t.Run(op, func(t *testing.T) {
			var cut func()
			u := &upstream{Fault: func(n int, _ string) fault {
				if n == 2 {
					cut()
					return answer
				}
				return fault{}
			}}
			bubble(t, 1, u, func(t *testing.T, c *cluster) {
				r := c.Replicas[0]
				cut = r.Link.Refuse
				warm(t, c)
				told := func() bool {
					for _, e := range r.Events() {
						if s, ok := errors.AsType[*tokencache.StoreError](e.Err); ok && s.Op == op {
							return true
						}
					}
					return false
				}
				for deadline := time.Now().Add(2 * time.Hour); len(c.Upstream.Fetches()) < 2 && time.Now().Before(deadline); {
					time.Sleep(time.Second)
				}
				time.Sleep(3 * time.Second)
				r.Link.Heal()
				time.Sleep(20 * time.Second)
				if !told() {
					t.Errorf("the failure of %s was not reported", op)
				}
			})
		})
	}
}

// A connection that is dead without a word brings no event, and that is noticed soon: until then
// only the slow re-read finds what has changed.
func TestASilentSubscriptionIsNoticed(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		c.Start()
		r := c.Replicas[0]
		r.MustGet(t)
		time.Sleep(time.Second)
		if !r.Cache.Health().Subscribed {
			t.Fatal("not subscribed")
		}
		r.Link.BlackHole()
		time.Sleep(27 * time.Second)
		if r.Cache.Health().Subscribed {
			t.Error("it counts as subscribed after 27 s without an answer")
		}
		r.Link.Heal()
		time.Sleep(10 * time.Second)
		if !r.Cache.Health().Subscribed {
			t.Error("not subscribed again")
		}
	}, rarely(time.Hour))
}

// Upstream must not be asked while the value is still good: the slow re-read, which reads little
// while all is quiet, does not make a replica forget that.
func TestASlowRereadSeesABackoff(t *testing.T) {
	t.Parallel()
	quota := func(n int, _ string) fault {
		if n == 1 {
			return fault{}
		}
		return fault{Err: &tokencache.FetchError{Class: tokencache.ClassQuota, Code: 45009}}
	}
	bubble(t, 2, &upstream{Fault: quota}, func(t *testing.T, c *cluster) {
		c.Start()
		c.Replicas[0].MustGet(t)
		for start := time.Now(); len(c.Upstream.Fetches()) < 2; time.Sleep(time.Second) {
			if time.Since(start) > 2*time.Hour {
				t.Fatal("the value was not due")
			}
		}
		time.Sleep(time.Second)
		for range 120 {
			for _, r := range c.Replicas {
				if s := r.Cache.Status()[0]; s.Backoff <= 0 || s.Class != tokencache.ClassQuota || !s.Fresh {
					t.Fatalf("%s: %+v", r.Name, s)
				}
			}
			time.Sleep(time.Second)
		}
	})
}

// What a refresh failed at is no longer said when Redis is back and the value needs no refresh.
func TestTheStatusForgetsAnOutageThatIsOver(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		warm(t, c)
		r := c.Replicas[0]
		time.Sleep(10 * time.Minute)
		r.Link.Refuse()
		for range 20 { // from the fourth minute on, each asks for a refresh
			time.Sleep(30 * time.Second)
			r.MustGet(t)
		}
		if st := r.Cache.Status()[0]; st.Err == nil {
			t.Fatal("nothing failed, so the test shows nothing")
		}
		r.Link.Heal()
		time.Sleep(time.Minute)
		if st := r.Cache.Status()[0]; st.Err != nil || !st.Fresh {
			t.Errorf("a minute after the outage: fresh %t, %v", st.Fresh, st.Err)
		}
		wantFetches(t, c, 1)
	}, rarely(10*time.Second))
}
