package tokencache

import (
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Every way in which a lease ends is in the journal, and so is every cut.
func TestTheJournalTellsOfEveryEnd(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	defer rdb.Close()
	x := scripted{t, newStore(rdb, "test", "me"), &Credential{Key: Key{"a", "access_token"}, Overlap: 5 * time.Minute, Fingerprint: "f1"}}
	value := x.s.valueKey(x.spec.Key)

	st := x.fetched() // no cut: nothing stood
	x.begin(x.lease("busy"), Missing, st.version+1, decisionGo)
	x.conclude("busy", conclusion{reason: Due, result: Failed, undo: true, took: time.Second, failed: &FetchError{Class: Transient, Code: -1}})
	x.s.rdb.Del(t.Context(), value+":backoff")
	x.begin(x.lease("slow"), Due, st.version+1, decisionGo)
	x.lease("other")
	_, _ = x.s.commit(t.Context(), x.spec, "slow", Value{secret.New("v2"), time.Hour, 0}, 0, Due, 12*time.Second)
	_ = x.s.cut(t.Context(), x.spec, Due, Refused)
	if err := x.s.conclude(t.Context(), x.spec, "slow", conclusion{reason: Due, result: Failed, failed: &FetchError{Code: -1}}); err != errRefused {
		t.Error(err)
	}
	x.s.rdb.HIncrBy(t.Context(), value+":meta", "unclear_at", -400000)
	x.begin(x.lease("settler"), Due, st.version, decisionSettle)
	x.commit("settler", "v1")
	x.begin(x.lease("early"), Missing, st.version+1, decisionGo)
	x.commit("early", "v1")

	var got []string
	for _, e := range rdb.XRange(t.Context(), "test:{a}:journal", "-", "+").Val() {
		line := ""
		for _, f := range []string{"kind", "by", "reason", "result", "why", "lease", "code", "took_ms", "digest"} {
			if v, ok := e.Values[f]; ok {
				line += fmt.Sprintf("%s=%v ", f, v)
			}
		}
		if e.Values["version"] == "" {
			line += "without a version"
		}
		got = append(got, line)
	}
	v1, v2 := secret.New("v1").Fingerprint(), secret.New("v2").Fingerprint()
	mine := "kind=access_token by=me "
	want := []string{
		mine + "reason=missing result=committed took_ms=0 digest=" + v1 + " ",
		mine + "reason=missing result=cut why=fetch ",
		mine + "reason=due result=failed code=-1 took_ms=1000 ",
		mine + "reason=due result=cut why=fetch ",
		mine + "reason=due result=refused took_ms=12000 digest=" + v2 + " ",
		mine + "reason=due result=cut why=refused ",
		mine + "reason=due result=failed lease=lost code=-1 took_ms=0 ",
		mine + "reason=missing result=settled took_ms=0 digest=" + v1 + " ",
		mine + "reason=missing result=cut why=fetch ",
		mine + "reason=missing result=unchanged took_ms=0 digest=" + v1 + " ",
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got\n%q\nwant\n%q", got, want)
		}
	}
}

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

// A clock can be stepped, and a host suspended; each moves the wall clock alone.
func TestDriftTellsAStepFromTimeThatPasses(t *testing.T) {
	start := now()
	later := instant{mono: start.mono.Add(10 * time.Second), wall: start.wall.Add(10 * time.Second)}
	if d := later.drift(start); d != 0 {
		t.Errorf("%v after 10 s", d)
	}
	later.wall = later.wall.Add(time.Hour)
	if d := later.drift(start); d != time.Hour {
		t.Errorf("%v after a step forward", d)
	}
	later.wall = start.wall.Add(-time.Hour)
	if d := later.drift(start); d != -time.Hour-10*time.Second {
		t.Errorf("%v after a step back", d)
	}
}

// An event that is slower than a re-read is not lost; one that has not come by the next one is.
func TestAnEventIsMissedWhenTheNextReReadStillKnowsMore(t *testing.T) {
	c := New(nil, Options{})
	cr := c.credential(nil)
	knows := func(version int64) { cr.view.Store(&view{version: version, asOf: now()}) }
	read := func(version int64, want bool) {
		t.Helper()
		if got := cr.reread(version); got != want {
			t.Errorf("version %d: missed is %v", version, got)
		}
		knows(version)
	}
	read(5, false) // a cold start: there was nothing to hear
	read(5, false)
	read(6, false) // its event may be on its way
	cr.hear(6)
	read(6, false)
	cr.hear(7)
	read(7, false) // heard before it was read
	read(7, false)
	read(8, false)
	read(8, true) // never heard
	read(8, false)
	knows(9) // by this replica's own refresh
	read(9, false)
	read(9, false)
}

// One answer with less may have been overtaken by a commit; a second one shows that Redis lost data.
// It is told once.
func TestRedisIsEmptiedWhenItKnowsLessTwice(t *testing.T) {
	var n news
	for i, step := range []struct{ less, want bool }{{true, false}, {false, false}, {true, false}, {true, true}, {true, false}, {false, false}} {
		if got := n.emptied(step.less); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
