package tokencache

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// While Redis is away, or too slow for any commit, each refresh leaves a pending cut. One goroutine
// makes one cut of all: the earliest question to upstream says how much life may be left, the
// latest one which commits may have come after.
func TestPendingCutsOfSeveralRefreshesAreMerged(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	defer rdb.Close()
	c := New(rdb, Options{})
	defer c.Close()
	x := scripted{t, c.store, &Credential{Key: Key{"wx1", "access_token"}, Overlap: 5 * time.Minute, Fingerprint: "f"}}
	x.fetched()
	x.s.rdb.HIncrBy(t.Context(), x.s.valueKey(x.spec.Key)+":meta", "issued_at", -ms(time.Hour))
	sl := c.newSlot(x.spec.Key)
	sl.spec.Store(x.spec)

	server.SetError("away")
	asked := func(ago time.Duration, lease string) pendingCut {
		then := at(time.Now().Add(-ago))
		return pendingCut{lease, then, then, ReasonDue, ResultRefused}
	}
	c.cutLater(sl, asked(3*time.Minute, "a"))
	c.cutLater(sl, asked(2*time.Minute, "b"))
	c.cutLater(sl, asked(time.Minute, "c"))
	server.SetError("")
	for deadline := time.Now().Add(5 * time.Minute); !x.load().doubt; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no cut was made")
		}
	}
	c.flights.Wait()
	if st := x.load(); st.left > goodInDoubt-3*time.Minute {
		t.Errorf("%v left three minutes after upstream was asked", st.left)
	}
	entries, err := x.s.journals(t.Context(), []string{"wx1"}, 10)
	if err != nil {
		t.Fatal(err)
	}
	cuts := 0
	for _, e := range entries {
		if e.Result == ResultCut {
			cuts++
		}
	}
	if cuts != 1 {
		t.Errorf("told %d times", cuts)
	}
	if sl.pendingCut != nil {
		t.Error("and it would be told again")
	}
}
