package tokencache

import (
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// moment is start plus d on both clocks.
func moment(d time.Duration) instant { return at(time.Unix(1e9, 0).Add(d)) }

// known is a view of version 5 with two hours to live, as of the start.
func known() *snapshot {
	v := (&snapshot{asOf: moment(0)}).merge(state{
		value: secret.New("v5"), version: 5, left: 119 * time.Minute, margin: time.Minute, renewLeft: 30 * time.Minute,
	}, moment(0))
	return v
}

func TestPolicyOfAView(t *testing.T) {
	superseded := state{value: secret.New("v4"), version: 5, left: time.Minute, doubt: true}
	for _, c := range []struct {
		name              string
		v                 *snapshot
		at                time.Duration
		fresh, alive, due bool
	}{
		{"nothing", &snapshot{asOf: moment(0)}, 0, false, false, true},
		{"new", known(), 0, true, true, false},
		{"unconfirmed for too long", known(), unconfirmed, false, true, false},
		{"renewal begins, with a spread of a minute", known(), 91 * time.Minute, false, true, true},
		{"past its end", known(), 2 * time.Hour, false, false, true},
		{"at the start of the margin", known().merge(state{version: 5}, moment(119*time.Minute)), 119 * time.Minute, false, true, true},
		{"in doubt", known().merge(state{value: secret.New("v5"), version: 5, left: goodInDoubt, doubt: true}, moment(0)), time.Minute, true, true, true},
		{"the cut has run out", known().merge(state{version: 5, doubt: true}, moment(5*time.Minute)), 5 * time.Minute, false, true, true},
		{"rejected", known().merge(state{version: 5, rejected: 5}, moment(time.Minute)), time.Minute, false, true, true},
		{"a newer one came and went", known().merge(state{version: 6}, moment(time.Minute)), time.Minute, false, true, true},
		{"another program deleted the key", known().merge(state{version: 5}, moment(time.Minute)), time.Minute, true, true, true},
		{"Redis lost everything", known().merge(state{}, moment(time.Minute)), time.Minute, true, true, true},
		{"and that is no confirmation", known().merge(state{}, moment(3*time.Minute)).merge(state{}, moment(5*time.Minute)), 5 * time.Minute, false, true, true},
		{"one that could not be committed", uncommitted().merge(superseded, moment(3*time.Minute)), 3 * time.Minute, true, true, true},
		{"nor is what it left there", uncommitted().merge(superseded, moment(3*time.Minute)), 5 * time.Minute, false, true, true},
		{"another holds the lease", known().merge(state{version: 5, held: 5 * time.Second}, moment(time.Minute)), time.Minute, true, true, false},
		{"a backoff", (&snapshot{asOf: moment(0)}).merge(state{backoff: time.Minute}, moment(0)), 0, false, false, false},
	} {
		n := moment(c.at)
		if f, a, d := c.v.fresh(n), c.v.alive(n), c.v.isDue(n); f != c.fresh || a != c.alive || d != c.due {
			t.Errorf("%s: fresh, alive, due = %v, %v, %v; want %v, %v, %v", c.name, f, a, d, c.fresh, c.alive, c.due)
		}
	}
}

// uncommitted is a value that this replica fetched and Redis does not have.
func uncommitted() *snapshot {
	v := known()
	v.uncommitted = true
	return v
}

func TestVersionsNeverGoBackwards(t *testing.T) {
	older := known().merge(state{value: secret.New("v4"), version: 4, left: time.Hour}, moment(time.Second))
	if older.version != 5 || older.value.Reveal() != "v5" {
		t.Errorf("took version %d", older.version)
	}
	if v := known(); v.merge(state{value: secret.New("v5"), version: 5, left: time.Minute, doubt: true}, moment(-time.Second)) != v {
		t.Error("an overtaken answer replaced the view")
	}
	// A commit was sent, then a look; the look was answered first, with what stood before the
	// commit.
	if v := known().merge(state{value: secret.New("v6"), version: 6, left: time.Hour}, moment(-time.Second)); v.version != 6 || !v.fresh(moment(0)) {
		t.Error("a committed value was dropped because a look overtook it")
	}
	// The value in memory could not be committed; the one that it superseded is in doubt under the
	// same version.
	other := uncommitted().merge(state{value: secret.New("old"), version: 5, left: time.Minute, doubt: true}, moment(time.Second))
	if other.value.Reveal() != "v5" || !other.isDue(moment(time.Second)) {
		t.Error("traded the fetched value for the superseded one")
	}
}

func TestADoubtKeepsTheTrueEndForBadTimesAndUndoingItRestoresIt(t *testing.T) {
	cut := known().merge(state{value: secret.New("v5"), version: 5, left: goodInDoubt, doubt: true}, moment(time.Minute))
	if got := cut.expiresIn(moment(time.Minute)); got != goodInDoubt {
		t.Errorf("expires in %v, want what the cut leaves", got)
	}
	if !cut.alive(moment(119 * time.Minute)) {
		t.Error("forgot the true end")
	}
	undone := cut.merge(state{value: secret.New("v5"), version: 5, left: 117 * time.Minute, margin: time.Minute, renewLeft: 30 * time.Minute}, moment(2*time.Minute))
	if got := undone.expiresIn(moment(2 * time.Minute)); got != 118*time.Minute || undone.isDue(moment(2*time.Minute)) {
		t.Errorf("expires in %v after the cut was undone", got)
	}
}

// The host is suspended (its monotonic clock stops), or its wall clock is stepped.
func TestTheLargerOfTwoClocksIsBelieved(t *testing.T) {
	early := now()
	for _, c := range []struct{ mono, wall, want time.Duration }{
		{time.Second, time.Second, time.Second},
		{time.Second, time.Hour, time.Hour},    // suspended, or stepped forward
		{time.Second, -time.Hour, time.Second}, // stepped back
	} {
		late := instant{early.mono + c.mono, early.wall + c.wall}
		if got := late.since(early); got != c.want {
			t.Errorf("mono %v, wall %v: %v passed, want %v", c.mono, c.wall, got, c.want)
		}
	}
	v := known()
	if stepped := (instant{v.asOf.mono, v.asOf.wall + 3*time.Hour}); v.alive(stepped) {
		t.Error("a value outlived a suspension of three hours")
	}
}

func TestNormalValuesAreRenewedNeitherTooLateNorInALoop(t *testing.T) {
	for _, c := range []struct{ life, renewLeft, took, wantLife, wantIn time.Duration }{
		{2 * time.Hour, 30 * time.Minute, time.Second, 2*time.Hour - time.Second, 90*time.Minute - time.Second},
		{2 * time.Hour, 3 * time.Hour, 0, 2 * time.Hour, 30 * time.Second},
		{time.Minute, 30 * time.Minute, 0, time.Minute, 30 * time.Second},
		{10 * time.Second, 30 * time.Minute, 0, 10 * time.Second, 7500 * time.Millisecond},
		{time.Second, 0, 0, time.Second, time.Second},
	} {
		v := Value{Life: c.life, RenewLeft: c.renewLeft}.normal(c.took)
		if v.Life != c.wantLife || v.Life-v.RenewLeft != c.wantIn {
			t.Errorf("%+v: life %v, renewed after %v", c, v.Life, v.Life-v.RenewLeft)
		}
		if m := (&Credential{}).margin(v.Life); m <= 0 || m > v.Life/10 || m > time.Minute {
			t.Errorf("margin %v of %v", m, v.Life)
		}
	}
}

func TestALimitAllowsNoMoreThanItSaysInAnyDay(t *testing.T) {
	for _, perDay := range []int{-1, 1, 2, 3, 20, 200, 500} {
		l := Limit{perDay}
		if most := l.burst() + int64(24*time.Hour/l.every()); perDay > 2 && most != int64(perDay) {
			t.Errorf("%d per day: burst %d and one every %v allow %d", perDay, l.burst(), l.every(), most)
		}
		if l.burst() > int64(max(0, perDay)) {
			t.Errorf("%d per day: burst %d", perDay, l.burst())
		}
	}
}

func TestACutIsAlwaysShorterThanTheOverlap(t *testing.T) {
	for _, overlap := range []time.Duration{0, time.Second, 5 * time.Minute, time.Hour} {
		cut := (&Credential{Overlap: overlap}).cut()
		if overlap > 0 && (cut <= 0 || cut >= overlap) || cut > goodInDoubt || overlap == 0 && cut != 0 {
			t.Errorf("overlap %v: cut %v", overlap, cut)
		}
	}
}

func TestAKeyIsCheckedBeforeItReachesRedis(t *testing.T) {
	for _, k := range []Key{
		{"", "k"}, {"a}b", "k"}, {"a{b", "k"}, {"a b", "k"}, {"a\n", "k"}, {"a", ""}, {"a", "k:v"},
		{strings.Repeat("a", 129), "k"}, {"a", strings.Repeat("k", 65)},
	} {
		if k.validate() == nil {
			t.Errorf("%q is accepted", k)
		}
	}
	if err := (Key{"ww1:1000002", "access_token"}).validate(); err != nil {
		t.Error(err)
	}
}
