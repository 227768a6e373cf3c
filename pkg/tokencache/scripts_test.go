package tokencache

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// scripted is one credential on one Redis, whose scripts are called one by one.
type scripted struct {
	*testing.T
	s    *store
	spec *Credential
}

// lease lets name hold the lease.
func (x scripted) lease(name string) string {
	if err := x.s.rdb.Set(x.Context(), x.s.lockKey(x.spec.Key), name, leaseTTL).Err(); err != nil {
		x.Fatal(err)
	}
	return name
}

func (x scripted) load() state {
	st, err := x.s.load(x.Context(), x.spec)
	if err != nil {
		x.Fatal(err)
	}
	return st
}

func (x scripted) begin(lease string, r Reason, version int64, want decision) begun {
	x.Helper()
	b, err := x.s.begin(x.Context(), x.spec, beginRequest{lease, r, version, true, unknownLife})
	if err != nil || b.decision != want {
		x.Fatalf("begin(%s, %d) = %v, %v; want %s", r, version, b.decision, err, want)
	}
	return b
}

func (x scripted) commit(lease, value string) state {
	x.Helper()
	st, err := x.s.commit(x.Context(), x.spec, lease, Value{secret.New(value), time.Hour, time.Minute}, 0, ReasonMissing, 0)
	if err != nil {
		x.Fatal(err)
	}
	return st
}

func (x scripted) finish(lease string, e outcome) {
	x.Helper()
	if err := x.s.finish(x.Context(), x.spec, lease, e); err != nil {
		x.Fatal(err)
	}
}

// cut tells that upstream was asked at some time, on behalf of a lost lease.
func (x scripted) cut(lease string, asked instant) error {
	return x.s.cut(x.Context(), x.spec, pendingCut{lease, asked, asked, ReasonDue, ResultRefused})
}

func (x scripted) meta(field string) string {
	return x.s.rdb.HGet(x.Context(), x.s.valueKey(x.spec.Key)+":meta", field).Val()
}

// journal returns how many entries the journal has.
func (x scripted) journal() int64 {
	return x.s.rdb.XLen(x.Context(), x.s.journalKey(x.spec.Key.App)).Val()
}

// fetched commits a first value the usual way.
func (x scripted) fetched() state {
	x.Helper()
	x.begin(x.lease("first"), ReasonMissing, 0, decisionGo)
	return x.commit("first", "v1")
}

// due makes the value in Redis due for renewal.
func (x scripted) due(st state) state {
	x.s.rdb.HSet(x.Context(), x.s.valueKey(x.spec.Key)+":meta", "renew_left", ms(2*time.Hour))
	return st
}

var scriptCases = map[string]func(x scripted){
	"a packed journal is the same, and its copy does not stay": func(x scripted) {
		x.begin(x.lease("first"), ReasonMissing, 0, decisionGo)
		x.finish("first", outcome{reason: ReasonMissing, result: ResultFailed, failed: &FetchError{Class: ClassTransient}})
		x.s.rdb.Del(x.Context(), x.s.valueKey(x.spec.Key)+":backoff") // so that begin lets it go
		x.fetched()
		life := x.s.rdb.PTTL(x.Context(), x.s.journalKey(x.spec.Key.App)).Val()
		if n := x.journal(); n != 2 || life < 24*time.Hour {
			x.Errorf("%d entries for %v, want 2 for a week", n, life)
		}
		if n := x.s.rdb.Exists(x.Context(), x.s.valueKey(x.spec.Key)+":backoff").Val(); n != 0 {
			x.Error("the copy is still there")
		}
	},
	"with thousands of credentials, a full journal begins anew": func(x scripted) {
		x.s.kept.Store(10_000)
		x.fetched()
		for i := range 30 {
			if n := x.journal(); n != int64(i)+1 {
				x.Fatalf("%d entries after %d commits", n, i+1)
			}
			x.commit(x.lease("l"), fmt.Sprint("w", i))
		}
		if n := x.journal(); n != 1 {
			x.Errorf("%d entries after 31 commits, want 1", n)
		}
	},
	"a committed value stays until its margin, and the commit releases the lease": func(x scripted) {
		st := x.fetched()
		if st.value.Reveal() != "v1" || st.version == 0 || st.left > 59*time.Minute || st.left < 58*time.Minute || st.margin != time.Minute || st.renewLeft != time.Minute || st.held != 0 || st.doubt {
			x.Errorf("%+v", st)
		}
		for _, f := range []string{"version", "issued_at", "expires_at", "renew_at"} {
			if !regexp.MustCompile(`^\d{13}$`).MatchString(x.meta(f)) {
				x.Errorf("meta %s is %q, want whole ms", f, x.meta(f))
			}
		}
	},
	"a commit without the lease is refused": func(x scripted) {
		st := x.fetched()
		x.lease("second")
		if _, err := x.s.commit(x.Context(), x.spec, "late", Value{secret.New("v0"), time.Hour, 0}, 0, ReasonDue, 0); !errors.Is(err, errRefused) {
			x.Errorf("got %v", err)
		}
		if now := x.load(); now.version != st.version || now.value.Reveal() != "v1" {
			x.Errorf("%+v", now)
		}
	},
	"a repeated commit is one commit": func(x scripted) {
		st := x.fetched()
		if again := x.commit("first", "v1"); again.version != st.version {
			x.Errorf("version %d, then %d", st.version, again.version)
		}
		if n := x.journal(); n != 1 {
			x.Errorf("%d entries in the journal", n)
		}
	},
	"the same value again is no new version, and a version is greater than the floor": func(x scripted) {
		st := x.fetched()
		x.begin(x.lease("b"), ReasonMissing, st.version+1, decisionGo)
		if again := x.commit("b", "v1"); again.version != st.version {
			x.Errorf("version %d after %d", again.version, st.version)
		}
		x.lease("c")
		floor := st.version + 1e9
		got, err := x.s.commit(x.Context(), x.spec, "c", Value{secret.New("v2"), time.Hour, 0}, floor, ReasonDue, 0)
		if err != nil || got.version != floor+1 {
			x.Errorf("version %d, %v", got.version, err)
		}
	},
	"the double check finds the work done": func(x scripted) {
		st := x.fetched()
		for _, r := range []Reason{ReasonMissing, ReasonDue, ReasonReport, reasonRejected} {
			x.begin(x.lease("b"), r, st.version-1, decisionDone)
			if x.load().held != 0 {
				x.Errorf("%s: done keeps the lease", r)
			}
		}
		x.begin(x.lease("b"), ReasonDue, st.version, decisionDone) // not due yet
		x.lease("c")
		x.begin("b", ReasonDue, st.version, decisionLost)
	},
	"a cut is undone to the life that stood before, even if begin was repeated": func(x scripted) {
		st := x.due(x.fetched())
		x.begin(x.lease("b"), ReasonDue, st.version, decisionGo)
		b := x.begin("b", ReasonDue, st.version, decisionGo)
		if !b.state.doubt || b.state.left > goodInDoubt {
			x.Errorf("no cut: %+v", b.state)
		}
		x.finish("b", outcome{result: ResultFailed, undo: true})
		if now := x.load(); now.doubt || now.left < 58*time.Minute || now.margin != time.Minute {
			x.Errorf("after undo: %+v", now)
		}
	},
	"undo restores the doubt that stood before": func(x scripted) {
		st := x.fetched()
		x.begin(x.lease("b"), ReasonMissing, st.version+1, decisionGo)
		x.finish("b", outcome{result: ResultFailed}) // unclear
		x.begin(x.lease("c"), ReasonDue, st.version, decisionGo)
		x.finish("c", outcome{result: ResultFailed, undo: true})
		if now := x.load(); !now.doubt || now.left > goodInDoubt {
			x.Errorf("after undo: %+v", now)
		}
	},
	"a cut without a lease outlives undo and commit": func(x scripted) {
		st := x.fetched()
		x.begin(x.lease("b"), ReasonMissing, st.version+1, decisionGo)
		if err := x.cut("lost1", now()); err != nil {
			x.Fatal(err)
		}
		x.finish("b", outcome{result: ResultFailed, undo: true})
		if !x.load().doubt {
			x.Error("undo took back another's cut")
		}
		x.begin(x.lease("c"), ReasonDue, st.version, decisionGo)
		_ = x.cut("lost2", now())
		if now := x.commit("c", "v2"); !now.doubt || now.left > goodInDoubt || now.value.Reveal() != "v2" {
			x.Errorf("committed after another's cut: %+v", now)
		}
	},
	"a cut whose reply was lost does not strike what was fetched since": func(x scripted) {
		st := x.fetched()
		_ = x.cut("lost", now())
		x.begin(x.lease("b"), ReasonDue, st.version, decisionGo)
		x.commit("b", "v2")
		if err := x.cut("lost", now()); err != nil || x.load().doubt {
			x.Errorf("the repeat struck: %v", err)
		}
		if _ = x.cut("another", now()); !x.load().doubt {
			x.Error("the cut for another lease did nothing")
		}
	},
	"a cut that comes late leaves less, and nothing to what was asked for since": func(x scripted) {
		x.fetched()
		before := func(d time.Duration) instant { return at(time.Now().Add(-d)) }
		_ = x.cut("asked before", before(3*time.Minute))
		if x.load().doubt {
			x.Error("struck what was asked for later")
		}
		age := func(d time.Duration) {
			x.s.rdb.HIncrBy(x.Context(), x.s.valueKey(x.spec.Key)+":meta", "issued_at", -ms(d))
		}
		age(3*time.Minute - workTime - leaseTTL) // within one lease and its work of the fetch: the order is not known
		_ = x.cut("asked at about the same time", before(3*time.Minute))
		if st := x.load(); !st.doubt || st.left > goodInDoubt-3*time.Minute || st.left < goodInDoubt-3*time.Minute-time.Second {
			x.Errorf("three minutes late: %+v", st)
		}
		age(time.Hour)
		_ = x.cut("too late", before(10*time.Minute))
		if st := x.load(); st.left > time.Millisecond {
			x.Errorf("ten minutes late, a value that has been dead for five is still there: %+v", st)
		}
	},
	"a value that a lost commit superseded is in doubt, even during a backoff": func(x scripted) {
		st := x.fetched()
		x.begin(x.lease("b"), ReasonDue, st.version, decisionDone)
		x.begin(x.lease("c"), ReasonMissing, st.version+1, decisionGo)
		x.finish("c", outcome{result: ResultFailed, undo: true, failed: &FetchError{Class: ClassTransient}})
		x.s.rdb.HDel(x.Context(), x.s.valueKey(x.spec.Key)+":meta", "doubt")
		x.begin(x.lease("d"), ReasonDue, st.version+1, decisionBackoff)
		if got := x.load(); !got.doubt || got.left > goodInDoubt {
			x.Errorf("%+v", got)
		}
	},
	"a cut bounds a key that an operator made persistent": func(x scripted) {
		x.fetched()
		x.s.rdb.Persist(x.Context(), x.s.valueKey(x.spec.Key))
		_ = x.cut("lost3", now())
		if left := x.load().left; left <= 0 || left > goodInDoubt {
			x.Errorf("%v left", left)
		}
	},
	"a value without its meta counts for nothing": func(x scripted) {
		x.fetched()
		x.s.rdb.Del(x.Context(), x.s.valueKey(x.spec.Key)+":meta")
		if !x.load().value.Empty() {
			x.Error("it is trusted")
		}
		x.begin(x.lease("b"), ReasonMissing, 0, decisionGo)
		if st := x.commit("b", "v1"); st.version == 0 || st.value.Reveal() != "v1" {
			x.Errorf("%+v", st)
		}
	},
	"a backoff doubles, tells why, and a permanent one is for one secret": func(x scripted) {
		var before time.Duration
		for i := range 4 {
			x.begin(x.lease("b"), ReasonMissing, 0, decisionGo)
			x.finish("b", outcome{result: ResultFailed, undo: true, failed: &FetchError{Class: ClassPermanent, Code: 40125, Message: `"q"`}})
			st := x.load()
			if st.backoff <= before/2 || st.backoff > time.Minute<<i || st.note != (note{ClassPermanent, 40125, `"q"`}) {
				x.Errorf("backoff %v after %v, %+v", st.backoff, before, st.note)
			}
			before = st.backoff
			x.begin(x.lease("c"), ReasonMissing, 0, decisionBackoff)
			x.s.rdb.HSet(x.Context(), x.s.valueKey(x.spec.Key)+":backoff", "f1:until", 1)
		}
		x.begin(x.lease("b"), ReasonMissing, 0, decisionGo)
		x.finish("b", outcome{result: ResultFailed, failed: &FetchError{Class: ClassPermanent}})
		x.spec.Fingerprint = "f2"
		if st := x.load(); st.backoff != 0 {
			x.Errorf("another secret waits %v", st.backoff)
		}
	},
	"the journal has the first, second, fourth, eighth failure in a row, and no report that was false": func(x scripted) {
		fail := func(class Class) {
			x.begin(x.lease("b"), ReasonMissing, 0, decisionGo)
			x.finish("b", outcome{result: ResultFailed, undo: true, failed: &FetchError{Class: class}})
			x.s.rdb.HSet(x.Context(), x.s.valueKey(x.spec.Key)+":backoff", "*:until", 1)
		}
		for range 20 {
			fail(ClassTransient)
		}
		if got := x.journal(); got != 5 {
			x.Errorf("%d entries of 20 failures, want those of the 1st, 2nd, 4th, 8th and 16th", got)
		}
		for range 20 {
			fail(ClassLocal)
		}
		if got := x.journal(); got != 10 {
			x.Errorf("%d entries after 20 more of one pod, want 10", got)
		}
		st := x.fetched()
		before := x.journal()
		for _, lease := range []string{"c", "d"} {
			x.begin(x.lease(lease), ReasonReport, st.version, decisionProbe)
			x.finish(lease, outcome{result: map[string]Result{"c": ResultAccepted, "d": ResultUnknown}[lease]})
		}
		x.lease("e")
		x.finish("e", outcome{result: ResultThrottled})
		x.begin(x.lease("f"), ReasonMissing, st.version+1, decisionGo)
		x.finish("f", outcome{result: ResultFailed, undo: true, failed: &FetchError{Class: ClassTransient}})
		if got := x.journal(); before != 11 || got != before+2 {
			x.Errorf("%d entries, then %d; want a commit, then a cut and a failure: the count begins anew", before, got)
		}
	},
	"keys of another type break no script off half way": func(x scripted) {
		value := x.s.valueKey(x.spec.Key)
		for i, key := range []string{value, value + ":meta", value + ":backoff", x.s.journalKey(x.spec.Key.App)} {
			for name, script := range map[string]func(spoil func()){
				"begin": func(spoil func()) {
					x.lease("b")
					spoil()
					if b, err := x.s.begin(x.Context(), x.spec, beginRequest{"b", ReasonMissing, 0, true, unknownLife}); err != nil || b.decision == decisionLost {
						x.Errorf("%v, %v", b.decision, err)
					}
				},
				"commit": func(spoil func()) {
					x.begin(x.lease("b"), ReasonMissing, x.load().version+1, decisionGo)
					spoil()
					if st := x.commit("b", "v"); st.value.Reveal() != "v" || st.version == 0 || st.held != 0 {
						x.Errorf("%+v", st)
					}
				},
				"finish": func(spoil func()) {
					x.begin(x.lease("b"), ReasonMissing, x.load().version+1, decisionGo)
					spoil()
					x.finish("b", outcome{result: ResultFailed, undo: true, failed: &FetchError{Class: ClassTransient}})
					if st := x.load(); st.backoff == 0 || st.held != 0 {
						x.Errorf("%+v", st)
					}
				},
				"cut": func(spoil func()) {
					spoil()
					if err := x.cut(fmt.Sprint("lost", i), now()); err != nil {
						x.Error(err)
					}
				},
				"load": func(spoil func()) { spoil(); x.load() },
				"caplease": func(spoil func()) {
					x.s.rdb.Set(x.Context(), x.s.lockKey(x.spec.Key), "operator", 0)
					spoil()
					if capped, err := x.s.capLease(x.Context(), x.spec); err != nil || !capped {
						x.Error(capped, err)
					}
				},
			} {
				x.s.rdb.Del(x.Context(), x.s.keys(x.spec.Key)...)
				x.spec.Fetches.PerDay = 0
				x.fetched()
				script(func() {
					x.s.rdb.Del(x.Context(), key)
					x.s.rdb.RPush(x.Context(), key, "garbage")
				})
				if x.Failed() {
					x.Fatalf("%s with a list as %s", name, key)
				}
			}
		}
	},
	"a backoff that is longer than any is garbage": func(x scripted) {
		end := time.Now().Add(30 * 24 * time.Hour).UnixMilli()
		x.s.rdb.HSet(x.Context(), x.s.valueKey(x.spec.Key)+":backoff", "*:until", end, "*:wait", ms(31*24*time.Hour))
		if st := x.load(); st.backoff != 0 {
			x.Errorf("it holds for %v", st.backoff)
		}
		x.begin(x.lease("b"), ReasonMissing, 0, decisionGo)
		x.finish("b", outcome{result: ResultFailed, failed: &FetchError{Class: ClassQuota}, atLeast: 24 * time.Hour})
		if st := x.load(); st.backoff < 23*time.Hour {
			x.Errorf("the longest that upstream can ask for holds for %v", st.backoff)
		}
	},
	"a rejected value that is put back counts for nothing": func(x scripted) {
		st := x.fetched()
		x.begin(x.lease("b"), reasonRejected, st.version, decisionGo)
		x.s.rdb.Set(x.Context(), x.s.valueKey(x.spec.Key), "v1", time.Hour)
		if got := x.load(); !got.value.Empty() || got.rejected != st.version || got.bad == "" {
			x.Errorf("%+v", got)
		}
	},
	"a lock key of another type is held, and capped": func(x scripted) {
		key := x.s.lockKey(x.spec.Key)
		x.s.rdb.HSet(x.Context(), key, "a", "b")
		if _, err := lock.New(x.s.rdb, key, leaseTTL).Obtain(x.Context()); !errors.Is(err, lock.ErrHeld) {
			x.Errorf("obtain: %v", err)
		}
		for _, want := range []bool{true, false} {
			st := x.load()
			if capped, err := x.s.capLease(x.Context(), x.spec); capped != want || st.overlong != want || st.held == 0 || err != nil {
				x.Errorf("capped %v, %v; before: overlong %v, held %v", capped, err, st.overlong, st.held)
			}
		}
		x.lease("b")
		if capped, err := x.s.capLease(x.Context(), x.spec); capped || err != nil {
			x.Errorf("a true lease: %v, %v", capped, err)
		}
	},
	"a report is probed, and accepted or believed": func(x scripted) {
		st := x.fetched()
		x.begin(x.lease("b"), ReasonReport, st.version, decisionProbe)
		x.finish("b", outcome{result: ResultAccepted})
		if now := x.load(); now.acceptAge < 0 || now.acceptAge > time.Minute {
			x.Errorf("accepted %v ago", now.acceptAge)
		}
		for _, lease := range []string{"2", "3", "4"} {
			x.begin(x.lease(lease), ReasonReport, st.version, decisionProbe)
			x.finish(lease, outcome{result: ResultAccepted})
		}
		x.begin(x.lease("5"), ReasonReport, st.version, decisionProbe)
		x.begin("5", ReasonReport, st.version, decisionProbe) // its reply was lost
		x.finish("5", outcome{result: ResultAccepted})
		x.begin(x.lease("6"), ReasonReport, st.version, decisionDone) // the finding answers for a while
		meta := x.s.valueKey(x.spec.Key) + ":meta"
		x.s.rdb.HDel(x.Context(), meta, "accepted_at")
		if b := x.begin(x.lease("7"), ReasonReport, st.version, decisionLimited); b.wait <= 0 || b.wait > probeGap {
			x.Errorf("after probes that found nothing: wait %v", b.wait)
		}
		x.s.rdb.HIncrBy(x.Context(), meta, "probe_tat", -ms(probeGap))
		x.begin(x.lease("c"), ReasonReport, st.version, decisionProbe)
		b := x.begin("c", reasonRejected, st.version, decisionGo)
		if now := x.load(); !now.value.Empty() || now.rejected != st.version || now.bad != secret.New("v1").Fingerprint() || b.state.young != 1 || now.acceptAge >= 0 {
			x.Errorf("%+v", now)
		}
		st = x.commit("c", "v2")
		x.begin(x.lease("e"), ReasonReport, st.version, decisionProbe) // what was found of the value before says nothing
	},
	"force is rationed, 31 s apart, and a repeat is not a second one": func(x scripted) {
		x.lease("b")
		if b := x.begin("b", ReasonForce, 0, decisionLimited); b.wait != forceGap {
			x.Errorf("wait %v", b.wait)
		}
		x.spec.Forced.PerDay = 20
		x.begin("b", ReasonForce, 0, decisionGo)
		x.begin("b", ReasonForce, 0, decisionGo)
		if b := x.begin(x.lease("c"), ReasonForce, 0, decisionLimited); b.wait > forceGap || b.wait < forceGap-5*time.Second {
			x.Errorf("wait %v", b.wait)
		}
	},
	"an allowance ends": func(x scripted) {
		x.spec.Fetches.PerDay = 2
		x.begin(x.lease("b"), ReasonMissing, 0, decisionGo)
		x.begin(x.lease("c"), ReasonMissing, 0, decisionGo)
		if b := x.begin(x.lease("d"), ReasonMissing, 0, decisionLimited); b.wait < 23*time.Hour {
			x.Errorf("wait %v", b.wait)
		}
		x.spec.Fetches.PerDay = -1
		x.begin(x.lease("e"), ReasonMissing, 0, decisionLimited)
	},
	"an old doubt may be resolved by a replica that has the value": func(x scripted) {
		st := x.fetched()
		_ = x.cut("lost4", now())
		x.s.rdb.Del(x.Context(), x.s.valueKey(x.spec.Key))       // the cut has run out
		x.begin(x.lease("b"), ReasonDue, st.version, decisionGo) // too early
		x.finish("b", outcome{result: ResultFailed, undo: true})
		meta := x.s.valueKey(x.spec.Key) + ":meta"
		x.s.rdb.HIncrBy(x.Context(), meta, "unclear_at", -301000)
		x.begin(x.lease("b2"), ReasonDue, st.version, decisionGo) // the request may have left 8 s after its begin
		x.finish("b2", outcome{result: ResultFailed, undo: true})
		x.s.rdb.HIncrBy(x.Context(), meta, "unclear_at", -10000)
		x.begin(x.lease("c"), ReasonDue, st.version, decisionResolveDoubt)
		if now := x.commit("c", "v1"); now.doubt || now.value.Reveal() != "v1" {
			x.Errorf("%+v", now)
		}
	},
}

// ScriptsBehave runs the scripts one by one on a Redis; scripts_servers_test.go knows which.
func ScriptsBehave(t *testing.T, rdb redis.UniversalClient) {
	for name, f := range scriptCases {
		t.Run(name, func(t *testing.T) {
			app := regexp.MustCompile(`[^a-z]`).ReplaceAllString(name, "-")
			f(scripted{t, newStore(rdb, "test", "me"), &Credential{Key: Key{app, "access_token"}, Overlap: 5 * time.Minute, Fingerprint: "f1"}})
		})
	}
}
