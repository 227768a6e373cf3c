package tokencache

import (
	"math/rand/v2"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// snapshot is what one replica knows of one credential. It is immutable; a newer one replaces it.
// All durations count from asOf, the moment before the question was sent that it answers, so that
// no clock of another host is involved.
type snapshot struct {
	value   secret.String // empty: none
	version int64
	asOf    instant

	end  time.Duration // of the value's true life
	good time.Duration // until then it may be handed out as good: the end, or less in doubt
	key  time.Duration // until then Redis has the key
	due  time.Duration // from then on this replica would refresh it
	turn time.Duration // from then on upstream has a better one and returns it

	// What is known of the true end only gets shorter while upstream does not confirm the value
	// anew: Redis' clock may be stepped back, and every key there then lives longer. limit ages by
	// the monotonic clock alone. longest: not known, as of a value that was cut when this replica
	// first saw it.
	limit     time.Duration
	confirmed int64 // as of [state]

	doubt       bool
	rejected    bool
	uncommitted bool // this replica fetched the value and could not commit it: Redis does not have it

	// A probe by this replica, begun at refutedAt, found that upstream rejects refutedValue, and
	// Redis does not say so yet. Zero: none.
	refutedAt    instant
	refutedValue secret.String

	backoff time.Duration // upstream must not be asked before
	note    note          // and why
	young   int64
	spent   spent

	past      string    // the marks of the last values of the cluster, as of [state]
	committed time.Time // when, by this host's clock; zero: not known, or not committed

	spread   float64 // this replica's draw for this version, in [0, 1)
	patience float64 // its draw for this look, in [0, 1): see rereadAfter
}

// unconfirmed is how long a value is good without a word from Redis: after it, another replica may
// have refreshed, and the overlap may be over.
const unconfirmed = goodInDoubt

// The least time between two fetches for a value that upstream keeps repeating.
const renewGap = 30 * time.Second

// fresh reports whether the value can be handed out as good, without a look anywhere.
func (v *snapshot) fresh(n instant) bool { return v.freshFor(n.since(v.asOf)) }

// freshFor is fresh at so much time after asOf.
func (v *snapshot) freshFor(age time.Duration) bool {
	return age < v.good && age < v.key && age < unconfirmed
}

// alive reports whether the value may be handed out at all.
func (v *snapshot) alive(n instant) bool {
	return !v.value.Empty() && n.since(v.asOf) < v.end
}

// isDue reports whether this replica should refresh now.
func (v *snapshot) isDue(n instant) bool { return n.since(v.asOf) >= v.due }

// backoffLeft returns how long upstream must not be asked, as far as this replica knows.
func (v *snapshot) backoffLeft(n instant) time.Duration {
	return max(0, v.backoff-n.since(v.asOf))
}

// expiresIn is the remaining true life; in doubt, what the cut leaves of it.
func (v *snapshot) expiresIn(n instant) time.Duration { return v.left(n.since(v.asOf)) }

// left is expiresIn at so much time after asOf.
func (v *snapshot) left(age time.Duration) time.Duration {
	life := v.end
	if v.doubt || v.rejected {
		life = min(v.end, v.good)
	}
	return max(0, life-age)
}

// merge returns the snapshot after Redis answered a question sent at asked with st. Versions never
// go backwards.
func (v *snapshot) merge(st state, asked instant) *snapshot {
	if asked.mono < v.asOf.mono && st.version <= v.version {
		// An answer overtaken by a later one. A greater version is news all the same: a commit can
		// be sent before, and done after, the look that overtook it.
		return v
	}
	next := v.rebased(asked)
	next.patience = rand.Float64()
	next.backoff, next.note, next.young, next.spent = st.backoff, st.note, st.young, st.spent
	if st.version >= v.version && st.past != "" {
		next.past = st.past
	}
	if st.version > v.version || st.version > 0 && st.rejected == st.version || st.acceptAge >= 0 && st.acceptAge < asked.since(v.refutedAt) {
		// Another value was committed, the cluster knows, or a later probe found the value good.
		next.refutedAt, next.refutedValue = instant{}, secret.String{}
	}

	switch {
	case st.version < v.version, st.version == 0 && st.value.Empty():
		// Redis lost data: the value in memory is the best known, and the one in Redis may be
		// superseded. This answer confirms neither, so the time until a confirmation is needed runs
		// on.
		next.good, next.due = min(next.good, unconfirmed-asked.since(v.asOf)), 0
	case st.version == v.version && v.uncommitted && !st.value.Equal(v.value):
		// The value here could not be committed, and is newer than what Redis has. But the next
		// holder of the lease may have superseded it and died: this does not confirm it, either.
		next.good, next.due = min(next.good, unconfirmed-asked.since(v.asOf)), 0
	case !st.value.Empty():
		next.take(st)
	case st.version == v.version && st.rejected != v.version && !st.doubt:
		// The margin has begun, or another program deleted the key: the value in memory is as good
		// as before, and after an undone cut as good as before the cut.
		if next.due = 0; next.doubt || next.rejected {
			next.doubt, next.rejected, next.good = false, false, next.end
		}
	default:
		// The value in memory is no longer the best known: it was rejected, its shortened life
		// ended, or a newer version has expired.
		next.doubt, next.rejected = st.doubt, st.version == v.version && st.rejected == v.version
		next.good, next.due = 0, 0
	}
	if next.version < st.revoked {
		next.forget(st.revoked)
	}
	next.applyRefutation()
	// No refresh is due while another replica holds the lease, or upstream must not be asked.
	if later := max(st.held, st.backoff); later > 0 {
		next.due = max(next.due, later+rand.N(time.Second))
	}
	return &next
}

// take adopts the value in Redis.
func (v *snapshot) take(st state) {
	same := st.version == v.version && st.value.Equal(v.value)
	known, limit := v.end, longest
	if same && st.confirmed == v.confirmed {
		limit = v.limit
	}
	if !same {
		known, v.spread = 0, rand.Float64()
	}
	v.confirmed = st.confirmed
	v.value, v.version = st.value, st.version
	v.doubt, v.rejected, v.uncommitted = st.doubt, st.rejected == st.version, false
	v.committed = time.Time{}
	if st.issuedAge >= 0 {
		v.committed = v.asOf.plus(-st.issuedAge)
	}
	v.end = min(st.left+st.margin, limit)
	v.key = min(st.left, v.end-st.margin)
	v.good = v.end
	if st.doubt {
		// The cut shortened the life in Redis. Keep the original expiry, so that the value can
		// still be served as stale during an outage.
		v.end = max(v.end, min(known, limit))
		v.due, v.limit = 0, limit
		return
	}
	v.limit = v.end
	// PTTL has whole milliseconds. Without one more, a refresh at that moment can find that Redis
	// does not count the value as due yet, and its retry is a second later.
	v.turn = v.end - st.renewLeft + time.Millisecond
	v.due = v.turn + time.Duration(v.spread*float64(renewSpread(st.renewLeft)))
	if st.left > v.key+clockStep {
		v.due = 0 // a refresh corrects Redis
	}
}

// clockStep is how far Redis' clock must be behind to be corrected; the same number as in
// lua/begin.lua.
const clockStep = 5 * time.Second

// life is what the snapshot says of how long the key of a version lives.
func (v *snapshot) life(version int64, n instant) life {
	if version == 0 || v.version != version || v.uncommitted {
		return life{left: -1}
	}
	return life{left: max(0, v.key-(n.mono-v.asOf.mono)), confirmed: v.confirmed}
}

// refuted reports whether this replica knows of a rejected value that Redis still has as good.
func (v *snapshot) refuted() bool { return !v.refutedValue.Empty() }

// applyRefutation makes the snapshot say what this replica found out and Redis does not know. The
// refresh is due, to write it there.
func (v *snapshot) applyRefutation() {
	if !v.refuted() {
		return
	}
	v.due = 0
	if v.value.Equal(v.refutedValue) {
		v.rejected, v.good = true, 0
	}
}

// renewSpread is the time over which replicas spread their renewals.
func renewSpread(renewLeft time.Duration) time.Duration {
	return min(time.Minute, max(0, renewLeft)/4)
}

// rebased returns the same snapshot as of a later moment.
func (v *snapshot) rebased(asOf instant) snapshot {
	next, age := *v, asOf.since(v.asOf)
	next.asOf = asOf
	next.end -= age
	if v.limit < longest {
		next.limit -= max(0, asOf.mono-v.asOf.mono)
	}
	next.good -= age
	next.key -= age
	next.due -= age
	next.turn -= age
	next.backoff = max(0, v.backoff-age)
	return next
}

// normal returns v as it is to be stored took after it was asked for: with the life that is left
// of it, and a renewal neither later than its end nor so soon that it becomes a loop.
func (v Value) normal(took time.Duration) Value {
	v.Life = min(v.Life, longestLife) - took
	renewIn := max(v.Life-v.RenewLeft, min(renewGap, v.Life*3/4))
	v.RenewLeft = max(0, v.Life-renewIn)
	return v
}
