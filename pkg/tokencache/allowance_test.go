package tokencache

import (
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
	x.begin(x.lease("forcing"), forced, 0, decisionGo)
	st := x.load()
	if st.spent.fetches <= 0 || st.spent.forced <= 0 || st.spent.reports != 0 || st.spent.probes != 0 || st.issuedAge < 0 || st.issuedAge > time.Minute {
		t.Errorf("%+v", st)
	}
	age := time.Duration(0)
	if got := x.spec.Fetches.or(defaultFetches).allowance(st.spent.fetches, age); got != (Allowance{9, 10}) {
		t.Errorf("fetches: %+v", got)
	}
	if got := x.spec.Forced.allowance(st.spent.forced, age); got != (Allowance{1, 2}) {
		t.Errorf("forced: %+v", got)
	}
	if got := x.spec.Forced.allowance(st.spent.forced, 81*time.Minute); got != (Allowance{2, 2}) {
		t.Errorf("forced, later: %+v", got)
	}
	if got := x.spec.Reports.allowance(st.spent.reports, age); got != (Allowance{}) {
		t.Errorf("reports: %+v", got)
	}
	if got := (Limit{2}).allowance(72*time.Hour, age); got != (Allowance{0, 2}) {
		t.Errorf("overdrawn: %+v", got)
	}
}
