package tokencache_test

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// long reports whether WXTOKEN_LONG is 1, as make histories sets it: then the histories here span
// days and weeks. Otherwise each has the shortest span that still shows what it is about.
var long = os.Getenv("WXTOKEN_LONG") == "1"

// A week, or by default ten hours: exactly the fetches that the timings imply, each inside its
// window, all of them ahead of time except the first; every caller is always served.
func TestAWeekCostsExactlyTheFetchesThatTheTimingsImply(t *testing.T) {
	t.Parallel()
	span := 10 * time.Hour
	if long {
		span = 7 * 24 * time.Hour
	}
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 5, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			warm(t, c)
			stop := c.Watch(time.Minute)
			time.Sleep(span)
			wantServed(t, stop())
			fetches := c.Upstream.Fetches()
			// From RenewLeft before the end, plus the first of five draws of up to a minute.
			from := map[tokencachetest.Mode]time.Duration{superseding: 90 * time.Minute, repeating: 2*time.Hour - 297*time.Second}[mode]
			for i := range fetches {
				if i == 0 {
					continue
				}
				if gap := fetches[i].At.Sub(fetches[i-1].At); gap < from || gap > from+time.Minute+time.Second {
					t.Errorf("fetch %d came %v after the one before", i, gap)
				}
			}
			if got := count(c, tokencache.ReasonDue, tokencache.ResultCommitted); got != len(fetches)-1 {
				t.Errorf("%d of %d fetches were due", got, len(fetches))
			}
			if got := count(c, tokencache.ReasonMissing, tokencache.ResultCommitted); got != 1 {
				t.Errorf("%d fetches because of a missing key", got)
			}
			least := int(span/(from+time.Minute+time.Second)) + 1
			if most := int(span/from) + 1; len(fetches) < least || len(fetches) > most {
				t.Errorf("%d fetches, want %d to %d", len(fetches), least, most)
			}
		}, rarely(150*time.Second))
	})
}

// Many replicas without a re-read within the unconfirmed time: events alone suffice.
func TestAHundredReplicasCostNoMoreThanOne(t *testing.T) {
	t.Parallel()
	hours := 6
	if long {
		hours = 48
	}
	bubble(t, 100, &upstream{}, func(t *testing.T, c *cluster) {
		c.Start()
		time.Sleep(time.Duration(hours) * time.Hour)
		if got, want := len(c.Upstream.Fetches()), 1+hours*60/91; got < want-1 || got > want+1 {
			t.Errorf("%d fetches in %d hours, want %d", got, hours, want)
		}
		storm(c, 1, get).want(t, 100, 0, 0)
	}, rarely(30*time.Minute))
}

// Short lives, down to one second: the TTL is positive, callers are served while the allowance
// lasts, and there is no loop beyond it.
func TestShortLivesMakeNoLoop(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{time.Minute, 10 * time.Second, time.Second} {
		t.Run(fmt.Sprint(life), func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				u := &upstream{Mode: mode, Life: life}
				if mode == repeating {
					u.Overlap, u.RenewLeft = life/4, life/4
				}
				bubble(t, 3, u, func(t *testing.T, c *cluster) {
					warm(t, c)
					if ttl := c.Redis.TTL(c.ValueKey()); ttl <= 0 || ttl > life {
						t.Errorf("TTL %v", ttl)
					}
					for range 100 {
						time.Sleep(life / 20)
						a := storm(c, 1, get)
						for v := range a.values {
							if a.stale == 0 && !c.Upstream.Valid(v) {
								t.Fatal("a dead value was handed out as good")
							}
						}
						if a.failed > 0 && len(c.Upstream.Fetches()) < 10 {
							t.Fatalf("%v", a.err)
						}
					}
					// Five lives, each renewed when at most three quarters of it are over.
					wantFetchesBelow(t, c, 12)
				})
			})
		})
	}
}

// A value that is over when it arrives is no value, and no reason for a loop either.
func TestAValueThatIsOverWhenItArrivesIsAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &upstream{Life: time.Second, Latency: 2 * time.Second}, func(t *testing.T, c *cluster) {
		c.Start()
		stop := c.Watch(100 * time.Millisecond)
		time.Sleep(time.Minute)
		if seen := stop(); seen.DeadGood+seen.Dead > 0 {
			t.Errorf("seen %+v", seen)
		}
		wantFetchesBelow(t, c, 11)
	})
}

// A value that Redis has to confirm first, and that has little life left by then, is replaced all
// the same for a caller who needs more.
func TestAConfirmedValueOfTooShortALifeIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencachetest.New(t, 1, &tokencachetest.Upstream{Mode: tokencachetest.Repeating})
		first := c.Replicas[0].MustGet(t)
		const least = 301 * time.Second
		time.Sleep(first.ExpiresIn - least) // longer than a value is good without a word from Redis
		got, err := c.Replicas[0].Cache.GetAtLeast(t.Context(), tokencachetest.Key, least)
		if err != nil || got.ExpiresIn <= least {
			t.Errorf("got %v of life, %v; want more than %v", got.ExpiresIn, err, least)
		}
	})
}
