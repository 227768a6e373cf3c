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
	x.begin(x.lease("busy"), ReasonMissing, st.version+1, decisionGo)
	x.finish("busy", outcome{reason: ReasonDue, result: ResultFailed, undo: true, took: time.Second, failed: &FetchError{Class: ClassTransient, Code: -1}})
	x.s.rdb.Del(t.Context(), value+":backoff")
	x.begin(x.lease("slow"), ReasonDue, st.version+1, decisionGo) // in doubt already: the cut changes nothing
	x.lease("other")
	_, _ = x.s.commit(t.Context(), x.spec, "slow", Value{secret.New("v2"), time.Hour, 0}, 0, ReasonDue, 12*time.Second)
	_ = x.cut("lease", now())
	if err := x.s.finish(t.Context(), x.spec, "slow", outcome{reason: ReasonDue, result: ResultFailed, failed: &FetchError{Code: -1}}); err != errRefused {
		t.Error(err)
	}
	x.s.rdb.HIncrBy(t.Context(), value+":meta", "unclear_at", -400000)
	x.begin(x.lease("settler"), ReasonDue, st.version, decisionResolveDoubt)
	x.commit("settler", "v1")
	x.begin(x.lease("early"), ReasonMissing, st.version+1, decisionGo)
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
		mine + "reason=due result=refused took_ms=12000 digest=" + v2 + " ",
		mine + "reason=due result=cut why=refused ",
		mine + "reason=due result=failed lease=lost code=-1 took_ms=0 ",
		mine + "reason=missing result=doubt_resolved took_ms=0 digest=" + v1 + " ",
		mine + "reason=missing result=cut why=fetch ",
		mine + "reason=missing result=unchanged took_ms=0 digest=" + v1 + " ",
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got\n%q\nwant\n%q", got, want)
		}
	}
}
