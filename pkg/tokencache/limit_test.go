package tokencache_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func failing(class tokencache.Class, code int) fault {
	return fault{Err: &tokencache.FetchError{Class: class, Code: code, Message: "no"}}
}

// I5: hostile histories of a good day; every window of 24 hours stays inside the allowance.
func TestUpstreamCallsStayUnderTheBudgetInEveryScenario(t *testing.T) {
	t.Parallel()
	tight := tokencachetest.Configure(func(_ string, c *tokencache.Credential) {
		c.Fetches, c.Reports = tokencache.Limit{PerDay: 100}, tokencache.Limit{PerDay: 40}
	})
	scenarios := map[string]struct {
		u     *upstream
		step  time.Duration
		each  func(c *cluster)
		limit int
	}{
		"wrong secret": {u: &upstream{Fault: func(int, string) fault { return failing(tokencache.ClassPermanent, 40125) }}, step: 13 * time.Minute, limit: 100},
		"outage":       {u: &upstream{Fault: func(int, string) fault { return failing(tokencache.ClassTransient, -1) }}, step: 13 * time.Minute, limit: 100},
		"quota":        {u: &upstream{Fault: func(int, string) fault { return failing(tokencache.ClassQuota, 45009) }}, step: 13 * time.Minute, limit: 100},
		"crash loop": {u: &upstream{}, step: 13 * time.Minute, limit: 100, each: func(c *cluster) {
			for _, r := range c.Replicas {
				r.Stop()
			}
			c.Redis.Del(c.ValueKey())
			c.Replicas = nil
			c.Add().Start()
		}},
		"every value dies":      {u: &upstream{}, step: 13 * time.Minute, limit: 100, each: func(c *cluster) { c.Upstream.Kill(); reportCurrent(c) }},
		"every value dies, too": {u: &upstream{Mode: repeating}, step: 13 * time.Minute, limit: 100, each: func(c *cluster) { c.Upstream.Kill(); reportCurrent(c) }},
		"a life of 1 s":         {u: &upstream{Life: time.Second}, step: 13 * time.Minute, limit: 100},
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, s.u, func(t *testing.T, c *cluster) {
				c.Start()
				for start := time.Now(); time.Since(start) < 26*time.Hour; time.Sleep(s.step) {
					storm(c, 1, get)
					if s.each != nil {
						s.each(c)
					}
				}
				fetches := c.Upstream.Fetches()
				if got := most(fetches); got > s.limit || got == 0 {
					t.Errorf("%d fetches in the worst 24 hours, want at most %d", got, s.limit)
				}
				t.Logf("%d fetches, %d in the worst one", len(fetches), most(fetches))
			}, tight, rarely(time.Hour))
		})
	}
}

func reportCurrent(c *cluster) {
	for v := range storm(c, 1, get).values {
		storm(c, 1, report(v))
	}
}

// 50 replicas with 100 callers a second each, for a minute, and a wrong secret.
func TestAWrongSecretIsTriedAsOftenAsTheBackoffAllows(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(int, string) fault { return failing(tokencache.ClassPermanent, 40125) }}
	bubble(t, 50, u, func(t *testing.T, c *cluster) {
		for range 6 {
			a := storm(c, 10, get)
			a.want(t, 0, 0, 500)
			if a.last > time.Second {
				t.Errorf("callers waited %v for a known error", a.last)
			}
			time.Sleep(10 * time.Second)
		}
		if got := len(c.Upstream.Fetches()); got > 2 {
			t.Errorf("%d fetches in a minute, want at most 2", got)
		}
	})
}

// A human corrects the secret. The old one's backoff does not hold for the new one.
func TestANewFingerprintHealsWithoutARestart(t *testing.T) {
	t.Parallel()
	var wrong atomic.Bool
	wrong.Store(true)
	u := &upstream{Fault: func(int, string) fault {
		if wrong.Load() {
			return failing(tokencache.ClassPermanent, 40125)
		}
		return fault{}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		c.Start()
		storm(c, 1, get).want(t, 0, 0, 2)
		time.Sleep(time.Minute)
		wrong.Store(false)
		for _, r := range c.Replicas {
			r.Credential.Fingerprint = "f2"
			if err := r.Cache.Set(r.Credential); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // by itself
		a := storm(c, 1, get)
		if a.want(t, 2, 0, 0); a.last > 0 {
			t.Errorf("callers waited %v", a.last)
		}
	})
}

// Upstream refuses one pod's address: it steps back, and another one has the value at once.
func TestAPodThatUpstreamRefusesLetsAnotherOneTry(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(_ int, replica string) fault {
		if replica == "replica-0" {
			return failing(tokencache.ClassLocal, 40164)
		}
		return fault{}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		bad, other := c.Replicas[0], c.Replicas[1]
		if _, err := get(t.Context(), bad); err == nil {
			t.Fatal("no error")
		}
		start := time.Now()
		other.MustGet(t)
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("the other one waited %v", took)
		}
		bad.MustGet(t)
		c.Start()
		stop := c.Watch(time.Minute)
		time.Sleep(12 * time.Hour)
		wantServed(t, stop())
		refused := 0
		for _, f := range c.Upstream.Fetches() {
			if f.Replica == bad.Name {
				refused++
			}
		}
		if refused > 20 {
			t.Errorf("the refused pod asked %d times in 12 hours", refused)
		}
	}, rarely(time.Minute))
}

// Upstream refuses every pod: each tries rarely, and no caller waits long for the error.
func TestPodsThatUpstreamRefusesAskEverMoreRarely(t *testing.T) {
	t.Parallel()
	u := &upstream{Fault: func(int, string) fault { return failing(tokencache.ClassLocal, 40164) }}
	bubble(t, 3, u, func(t *testing.T, c *cluster) {
		for range 30 {
			if a := storm(c, 2, get); a.failed != 6 || a.last > 4*time.Second {
				t.Fatalf("%+v", a)
			}
			time.Sleep(time.Minute)
		}
		wantFetchesBelow(t, c, 3*7)
	}, tokencachetest.Configure(func(_ string, c *tokencache.Credential) { c.Fetches.PerDay = 5000 }))
}

// An allowance of nothing allows nothing.
func TestANegativeLimitAllowsNothing(t *testing.T) {
	t.Parallel()
	none := tokencachetest.Configure(func(_ string, c *tokencache.Credential) { c.Fetches.PerDay = -1 })
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		storm(c, 1, get).want(t, 0, 0, 1)
		wantFetches(t, c, 0)
	}, none)
}

// Redis' clock is set back by an hour: no backoff, allowance or probe may hold for an hour because
// of it.
func TestAStepOfRedisClockHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
				old := warm(t, c)
				storm(c, 1, report(old.Value.Reveal())).want(t, 2, 0, 0) // a false alarm, remembered as such
				stepped := time.Now()
				defer stepRedisClock(c, step)()
				time.Sleep(time.Minute)
				c.Upstream.Kill()
				// The false alarm lies in the future now; it must not answer this one.
				v := c.Replicas[0].MustGet(t).Value.Reveal()
				if a := storm(c, 1, report(v)); a.good != 2 || a.values[v] > 0 {
					t.Errorf("%+v, %v after the step", a, time.Since(stepped))
				}
				watch := c.Watch(10 * time.Second)
				time.Sleep(3 * time.Hour)
				wantServed(t, watch())
			}, rarely(time.Minute))
		})
	}
}

// stepRedisClock sets Redis' clock off by step, until the returned function is called.
func stepRedisClock(c *cluster, step time.Duration) (stop func()) {
	done := make(chan struct{})
	c.Redis.SetTime(time.Now().Add(step))
	// Redis keeps the moment at which a key ends. miniredis keeps its life, and shortens it when
	// its clock jumps forward.
	for _, key := range c.Redis.Keys() {
		if ttl := c.Redis.TTL(key); step < 0 && ttl > 0 {
			c.Redis.SetTTL(key, ttl-step)
		}
	}
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				c.Redis.SetTime(time.Now().Add(step))
			}
		}
	}()
	return func() { close(done) }
}

// Redis' clock is set back and every key there lives longer. Replicas know better, and correct the
// key, so that a direct reader meets no dead value either; and upstream is not asked more often
// because of it.
func TestAStepBackOfRedisClockProlongsNoValue(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		var down atomic.Bool
		u := &upstream{Mode: mode, Fault: func(int, string) fault {
			if down.Load() {
				return failing(tokencache.ClassTransient, -1)
			}
			return fault{}
		}}
		bubble(t, 2, u, func(t *testing.T, c *cluster) {
			warm(t, c)
			time.Sleep(20 * time.Minute)
			defer stepRedisClock(c, -time.Hour)()
			time.Sleep(50 * time.Second) // a slow re-read
			wantFetches(t, c, 1)
			down.Store(true)
			stop := c.Watch(10 * time.Second)
			time.Sleep(150 * time.Minute) // the value ends after 100 minutes, and nothing replaces it
			if seen := stop(); seen.Dead+seen.DeadGood > 0 || seen.Errors == 0 {
				t.Errorf("seen %+v; want no dead value after the end", seen)
			}
			down.Store(false)
			time.Sleep(10 * time.Minute)
			stop = c.Watch(time.Minute)
			time.Sleep(time.Hour)
			wantServed(t, stop())
		}, rarely(30*time.Second))
	})
}
