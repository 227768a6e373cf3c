package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// I4: all replicas report the same dead value at once, then once more, late.
func TestAReportStormOnOneValueCostsOneRefreshAndOnAnOldValueNone(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 16, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			old := warm(t, c)
			c.Upstream.Kill()
			a := storm(c, 4, report(old.Value.Reveal()))
			a.want(t, 64, 0, 0)
			if a.values[old.Value.Reveal()] > 0 {
				t.Error("the rejected value was handed out as good")
			}
			// A Repeating upstream is asked normally first, and then with force.
			want := map[tokencachetest.Mode]int{superseding: 2, repeating: 3}[mode]
			wantFetches(t, c, want)
			if got := c.Upstream.Probes(); got != 1 {
				t.Errorf("%d probes, want 1", got)
			}
			if got := count(c, tokencache.ReasonReport, tokencache.ResultCommitted); got != 1 {
				t.Errorf("%d refreshes because of a report, want 1", got)
			}

			late := storm(c, 4, report(old.Value.Reveal()))
			late.want(t, 64, 0, 0)
			if len(late.values) != 1 || late.values[old.Value.Reveal()] > 0 {
				t.Error("a late report got something else than the new value")
			}
			for i := range 100 {
				storm(c, 1, report(fmt.Sprint("garbage-", i))).want(t, 16, 0, 0)
			}
			wantFetches(t, c, want)
			if got := c.Upstream.Probes(); got != 1 {
				t.Errorf("%d probes after late reports and garbage, want 1", got)
			}
		})
	})
}

// A replica reports a value that it has never seen current, because it is new itself.
func TestALateReportToAReplicaThatNeverHadTheValueCostsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		old := warm(t, c)
		c.Upstream.Kill()
		storm(c, 1, report(old.Value.Reveal())).want(t, 1, 0, 0)
		fresh := c.Add()
		if token, err := report(old.Value.Reveal())(t.Context(), fresh); err != nil || token.Value.Equal(old.Value) {
			t.Errorf("got %v, %v", token, err)
		}
		wantFetches(t, c, 2)
	})
}

// The value works; an app reports it all the same, again and again.
func TestFalseAlarmsCostNoFetchAndFewProbes(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 4, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			token := warm(t, c)
			storm(c, 4, report(token.Value.Reveal())).want(t, 16, 0, 0)
			if got := c.Upstream.Probes(); got > 2 {
				t.Errorf("%d probes for one storm, want at most 2", got)
			}
			start := time.Now()
			for range 120 {
				if a := storm(c, 1, report(token.Value.Reveal())); a.good != 4 {
					t.Fatalf("%+v; want the value, as good", a)
				}
				time.Sleep(time.Second)
			}
			if got := c.Upstream.Probes(); got > 6+int(time.Since(start)/(10*time.Second)) {
				t.Errorf("%d probes in %v of false alarms, want a few, and then one in 10 s", got, time.Since(start))
			}
			wantFetches(t, c, 1)
			// None of them keeps a real death from being found.
			c.Upstream.Kill()
			died := time.Now()
			for c.Value() == token.Value.Reveal() && time.Since(died) < time.Minute {
				storm(c, 1, report(token.Value.Reveal()))
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(died); took > 11*time.Second {
				t.Errorf("found out after %v", took)
			}
		})
	})
}

// The probe's own endpoint is broken: reports must not become a storm of probes.
func TestProbesWithoutAClearAnswerAreRationedToo(t *testing.T) {
	t.Parallel()
	probes := 0
	noAnswer := tokencachetest.Configure(func(_ string, c *tokencache.Credential) {
		c.Probe = func(context.Context, secret.String) error { probes++; return errors.New("busy") }
	})
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		token := warm(t, c)
		for range 120 {
			if a := storm(c, 1, report(token.Value.Reveal())); a.stale != 1 {
				t.Fatalf("%+v; want the value, as stale: the probe gave no answer", a)
			}
			time.Sleep(time.Second)
		}
		if probes > 18 {
			t.Errorf("%d probes in 2 minutes, want 5 and then one in 10 s", probes)
		}
		wantFetches(t, c, 1)
	}, noAnswer)
}

// Without a Probe the report is believed. An upstream that repeats the value, and cannot be forced,
// vouches for it.
func TestWithoutAProbeUpstreamHasTheLastWord(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		blind := tokencachetest.Configure(func(_ string, c *tokencache.Credential) {
			c.Probe, c.Forced = nil, tokencache.Limit{}
		})
		bubble(t, 4, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			old := warm(t, c)
			storm(c, 4, report(old.Value.Reveal())).want(t, 16, 0, 0)
			wantFetches(t, c, 2)
			if same := c.Value() == old.Value.Reveal(); same != (mode == repeating) {
				t.Errorf("the value was not replaced: %v", same)
			}
		}, blind)
	})
}

// Redis has no value (it was deleted), an app reports a value that works, and upstream repeats it:
// that is no reason for force, which would invalidate it for all.
func TestAnUnprovenReportForcesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &upstream{Mode: repeating}, func(t *testing.T, c *cluster) {
		token := warm(t, c)
		c.Redis.Del(c.ValueKey())
		storm(c, 1, report(token.Value.Reveal())).want(t, 2, 0, 0)
		for _, f := range c.Upstream.Fetches() {
			if f.Forced {
				t.Error("forced without a probe")
			}
		}
		if c.Value() != token.Value.Reveal() {
			t.Errorf("Redis has %q", c.Value())
		}
	})
}

// Force comes after a normal call, at least 30 s after the one before, and at most 20 times in any
// 24 hours; whatever the app reports.
func TestForceComesAfterANormalCallRarely(t *testing.T) {
	t.Parallel()
	bubble(t, 3, &upstream{Mode: repeating}, func(t *testing.T, c *cluster) {
		warm(t, c)
		rounds := 60
		if long {
			rounds = 100
		}
		for i := range rounds {
			if time.Sleep(7 * time.Second); i > 20 {
				time.Sleep(20 * time.Minute) // what is left is the allowance of a day
			}
			c.Upstream.Kill()
			for _, r := range c.Replicas {
				if token, err := get(t.Context(), r); err == nil {
					_, _ = report(token.Value.Reveal())(t.Context(), r)
				}
			}
		}
		all, fetches := ReasonForce(c), c.Upstream.Fetches()
		if len(all) < 3 || most(all) > 20 {
			t.Errorf("%d forced fetches, %d in the worst 24 hours; want some, and at most 20", len(all), most(all))
		}
		for i := range all {
			if i > 0 && all[i].At.Sub(all[i-1].At) < 30*time.Second {
				t.Errorf("forced %v after the one before", all[i].At.Sub(all[i-1].At))
			}
		}
		for i, f := range fetches {
			if f.Forced && fetches[i-1].Forced {
				t.Error("forced without a normal call before")
			}
		}
	}, rarely(10*time.Minute))
}

func ReasonForce(c *cluster) []tokencachetest.Fetch {
	var all []tokencachetest.Fetch
	for _, f := range c.Upstream.Fetches() {
		if f.Forced {
			all = append(all, f)
		}
	}
	return all
}

// The replica that found the value dead died; a new one, which never had the value, goes on. What
// upstream repeats to it is still the dead one.
func TestAReplicaThatNeverHadTheRejectedValueDoesNotTakeItForNew(t *testing.T) {
	t.Parallel()
	var busy atomic.Bool
	busy.Store(true)
	u := &upstream{Mode: repeating, Fault: func(n int, _ string) fault {
		if n > 1 && busy.Load() {
			return fault{Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "busy"}}
		}
		return fault{}
	}}
	bubble(t, 1, u, func(t *testing.T, c *cluster) {
		old := warm(t, c)
		c.Upstream.Kill()
		storm(c, 1, report(old.Value.Reveal())).want(t, 0, 1, 0)
		c.Replicas[0].Kill()
		busy.Store(false)
		time.Sleep(10 * time.Second)
		if token := c.Add().MustGet(t); token.Value.Equal(old.Value) || !c.Upstream.Valid(token.Value.Reveal()) {
			t.Error("it handed out the dead value as good")
		}
	})
}

// Another program refreshes the same app every 10 s. The flag is up for as long as it does,
// whatever the replacements are called and whatever happens to Redis meanwhile, and goes down
// afterwards.
func TestAForeignRefresherIsFlaggedAndNotFought(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
		warm(t, c)
		start, looks, flagged := time.Now(), 0, 0
		for time.Since(start) < 4*time.Hour {
			c.Upstream.Foreign()
			time.Sleep(10 * time.Second)
			c.Upstream.Foreign()
			time.Sleep(10 * time.Second)
			for _, r := range c.Replicas {
				token, err := get(t.Context(), r)
				if err == nil && !c.Upstream.Valid(token.Value.Reveal()) {
					_, _ = report(token.Value.Reveal())(t.Context(), r)
				}
			}
			if time.Since(start) > 5*time.Minute {
				if looks++; c.Replicas[looks%2].Cache.Status()[0].ForeignRefresher {
					flagged++
				}
			}
		}
		if flagged < looks*95/100 {
			t.Errorf("flagged in %d of %d looks", flagged, looks)
		}
		// The allowance is 20 at once and one every 480 s; the rest was due.
		if got := len(c.Upstream.Fetches()); got > 20+4*3600/480+3 {
			t.Errorf("%d fetches in 4 hours, want no more than the allowance of reports and a few that were due", got)
		}
		r := c.Replicas[0]
		before := len(r.Events())
		r.Link.Refuse()
		time.Sleep(20 * time.Second)
		r.Link.Heal()
		time.Sleep(20 * time.Second)
		for _, e := range r.Events()[before:] {
			if e.Key != (tokencache.Key{}) && !e.ForeignRefresher {
				t.Errorf("an event takes the flag back: %+v", e)
			}
		}
		time.Sleep(4 * time.Hour)
		if r.Cache.Status()[0].ForeignRefresher {
			t.Error("still flagged, hours after the other program stopped")
		}
	}, rarely(time.Minute))
}

// A colleague's script on the classic endpoint ends one token after another.
func TestTwentyDeadTokensInARowAreHealedAtOnce(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 2, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			token := warm(t, c)
			for i := range 20 {
				if mode == repeating {
					c.Upstream.Kill()
					c.Upstream.Foreign() // a normal fetch brings the new one
				} else {
					c.Upstream.Kill()
				}
				a := storm(c, 1, report(token.Value.Reveal()))
				a.want(t, 2, 0, 0)
				if token = c.Replicas[0].MustGet(t); a.last > time.Second || !c.Upstream.Valid(token.Value.Reveal()) {
					t.Fatalf("death %d was healed after %v", i+1, a.last)
				}
				time.Sleep(2 * time.Second)
			}
		}, rarely(time.Minute))
	})
}
