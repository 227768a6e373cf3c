package tokencache

import (
	"math"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

func TestStatusTellsWhatIsLeftOfTheAllowances(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	defer rdb.Close()
	x := scripted{t, newStore(rdb, "test", "me"), &Credential{Key: Key{"a", "access_token"}, Fingerprint: "f1", Forced: Limit{20}, Reports: Limit{-1}}}
	x.fetched()
	x.begin(x.lease("forcing"), ReasonForce, 0, decisionGo)
	st := x.load()
	if st.spent.fetches <= 0 || st.spent.forced <= 0 || st.spent.reports != 0 || st.issuedAge < 0 || st.issuedAge > time.Minute {
		t.Errorf("%+v", st)
	}
	age := time.Duration(0)
	if got := x.spec.Fetches.or(defaultFetches).allowance(st.spent.fetches, age); got != (Allowance{49, 50}) {
		t.Errorf("fetches: %+v", got)
	}
	if got := x.spec.Forced.allowance(st.spent.forced, age); got != (Allowance{9, 10}) {
		t.Errorf("forced: %+v", got)
	}
	if got := x.spec.Forced.allowance(st.spent.forced, 3*time.Hour); got != (Allowance{10, 10}) {
		t.Errorf("forced, later: %+v", got)
	}
	if got := x.spec.Reports.allowance(st.spent.reports, age); got != (Allowance{}) {
		t.Errorf("reports: %+v", got)
	}
	if got := (Limit{2}).allowance(72*time.Hour, age); got != (Allowance{0, 2}) {
		t.Errorf("overdrawn: %+v", got)
	}
}

// Whatever the limit, its arithmetic holds: nothing divides by zero, and a day sees no more than it
// says.
func TestEveryLimitHasABurstAndAnInterval(t *testing.T) {
	for _, perDay := range []int{-1, 0, 1, 2, 3, 19, 20, 40, 200, 500, 1000, 86_400_000, 86_400_000_000_000, math.MaxInt64} {
		l := Limit{perDay}
		burst, every := l.burst(), l.every()
		if burst < 0 || burst > int64(max(0, perDay)) || perDay > 0 && burst == 0 || every < time.Millisecond {
			t.Errorf("%d a day: a burst of %d, one more every %v", perDay, burst, every)
		}
		if sum := burst + int64(24*time.Hour/every); perDay > 0 && perDay <= 86_400_000 && sum > int64(perDay)+1 {
			t.Errorf("%d a day allows %d", perDay, sum)
		}
		if a := l.allowance(time.Hour, 0); a.Left < 0 || a.Left > a.Burst {
			t.Errorf("%d a day: %+v", perDay, a)
		}
	}
	if b := (Limit{defaultReports}).burst(); b < 20 {
		t.Errorf("reports: a burst of %d, want at least 20", b)
	}
}
