package tokencache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// All replicas together take some 1800 looks a second, as long as no value becomes unconfirmed.
func TestTheBudgetOfTheSlowReread(t *testing.T) {
	const least = 10 * time.Second
	for kept, want := range map[int]time.Duration{
		0: least, 1: least, 50 * 3: least, 12_000: least, 100_000: 83333300 * time.Microsecond, 1_000_000: 210 * time.Second, 1_000_000_000: 210 * time.Second,
	} {
		if got := rereadEvery(least, kept); got != want {
			t.Errorf("%d: every %v, want %v", kept, got, want)
		}
	}
	if got := rereadEvery(5*time.Minute, 1); got != 5*time.Minute {
		t.Errorf("more often than asked for: %v", got)
	}
	if bound := rereadAtMost + least*3/2; bound > unconfirmed {
		t.Errorf("a value can be %v without a look, and is unconfirmed after %v", bound, unconfirmed)
	}
}

// Whatever is drawn: no credential waits longer than the bound, and the looks stay near the budget.
func TestEachCredentialIsRereadWithinTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tick, every, credentials, ticks = 10 * time.Second, 100 * time.Second, 200, 1000
		kept := make([]*slot, credentials)
		for i := range kept {
			kept[i] = newSlot(&valueIndex{}, nil)
		}
		looks := 0
		for range ticks {
			time.Sleep(tick * 3 / 2)
			chosen := chooseForReread(kept, tick, every)
			if len(chosen) == 0 {
				t.Fatal("no look: whether Redis answers is not known")
			}
			looks += len(chosen)
			for _, sl := range chosen {
				sl.snapshot.Store(sl.snapshot.Load().merge(state{}, now()))
			}
			for _, sl := range kept {
				if age := now().since(sl.snapshot.Load().asOf); age > every+tick*3/2 {
					t.Fatalf("not read for %v", age)
				}
			}
		}
		// Two thirds of every on average, and then half a tick until the next one.
		if perTick := float64(looks) / ticks; perTick > 1.5*credentials*float64(tick*3/2)/float64(every) {
			t.Errorf("%.1f looks a tick of %d credentials", perTick, credentials)
		}
		if n := len(chooseForReread(kept, tick, tick)); n != credentials {
			t.Errorf("within the budget, %d of %d are read", n, credentials)
		}
		if n := len(chooseForReread(nil, tick, every)); n != 0 {
			t.Errorf("%d of none", n)
		}
	})
}

// A week for a few credentials; less than a block of a stream for thousands, see
// TestWhatACredentialTakesOfRedis.
func TestTheLengthOfTheJournal(t *testing.T) {
	for credentials, want := range map[int]int{0: 600, 1: 600, 180: 600, 400: 250, 1000: 70, 2000: 30, 10_000: 30} {
		if got := journalLength(credentials); got != want {
			t.Errorf("%d credentials: %d entries, want %d", credentials, got, want)
		}
	}
}

// A refresh whose time is over before Redis has been asked knows nothing about Redis, so upstream
// is not asked without it.
func TestAWaitForOnesTurnIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // which is never dialed
		defer rdb.Close()
		var failures int
		c := New(rdb, Options{Observe: func(e Event) {
			if e.Result != ResultNoRedis {
				failures++
			}
		}})
		defer c.Close()
		k := Key{"wx1", "access_token"}
		asked := 0
		err := c.Set(Credential{Key: k, Source: sourceFunc(func() (Value, error) {
			asked++
			return Value{Value: secret.New("TOKEN"), Life: time.Hour}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		for range maxOperations {
			c.store.turns <- struct{}{} // others are under way
		}
		_, err = c.Get(t.Context(), k)
		if u, ok := errors.AsType[*UnavailableError](err); !ok || errors.As(err, new(*StoreError)) || u.RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
		if asked != 0 || failures != 0 {
			t.Errorf("upstream was asked %d times, and %d events", asked, failures)
		}
	})
}

type sourceFunc func() (Value, error)

// Fetch implements [Source].
func (f sourceFunc) Fetch(context.Context, Request) (Value, error) { return f() }
