package tokencache

import (
	"math/rand/v2"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// view is what one replica knows of one credential. It is immutable; a newer one replaces it. All
// durations count from asOf, the moment before the question was sent that it answers, so that no
// clock of another host is involved.
type view struct {
	value   secret.String // empty: none
	version int64
	asOf    instant

	end  time.Duration // of the value's true life
	good time.Duration // until then it may be handed out as good: the end, or less in doubt
	key  time.Duration // until then the key stands in Redis
	due  time.Duration // from then on this replica would refresh it
	turn time.Duration // from then on upstream has a better one, and whoever asks gets it

	doubt    bool
	rejected bool

	backoff time.Duration // upstream must not be asked before
	note    note          // and why
	young   int64
	spent   spent

	committed time.Time // when, by this host's clock; zero: not known, or not committed

	spread float64 // this replica's draw for this version, in [0, 1)
}

// unconfirmed is how long a value is good without a word from Redis: after it, another replica may
// have refreshed, and the overlap may be over.
const unconfirmed = goodInDoubt

// The least time between two fetches for a value that upstream keeps repeating.
const renewGap = 30 * time.Second

// fresh reports whether the value can be handed out as good, without a look anywhere. Everything on
// the hot path is here.
func (v *view) fresh(n instant) bool {
	age := n.since(v.asOf)
	return age < v.good && age < v.key && age < unconfirmed
}

// alive reports whether the value may be handed out at all.
func (v *view) alive(n instant) bool {
	return !v.value.Empty() && n.since(v.asOf) < v.end
}

// isDue reports whether this replica should refresh now.
func (v *view) isDue(n instant) bool { return n.since(v.asOf) >= v.due }

// backoffLeft returns how long upstream must not be asked, as far as this replica knows.
func (v *view) backoffLeft(n instant) time.Duration {
	return max(0, v.backoff-n.since(v.asOf))
}

// expiresIn is the remaining true life; in doubt, what the cut leaves of it.
func (v *view) expiresIn(n instant) time.Duration {
	life := v.end
	if v.doubt || v.rejected {
		life = min(v.end, v.good)
	}
	return max(0, life-n.since(v.asOf))
}

// merge returns the view after Redis answered a question sent at asked with st. Versions never go
// backwards.
func (v *view) merge(st state, asked instant) *view {
	if asked.mono.Before(v.asOf.mono) && st.version <= v.version {
		// An answer overtaken by a later one. A greater version is news all the same: a commit can be
		// sent before, and done after, the look that overtook it.
		return v
	}
	next := v.rebased(asked)
	next.backoff, next.note, next.young, next.spent = st.backoff, st.note, st.young, st.spent

	switch {
	case st.version < v.version, st.version == 0 && st.value.Empty():
		// Redis lost data: what we have is the best there is, and what stands there may be superseded.
		// But that is no confirmation, so the time until one is needed runs on.
		next.good, next.due = min(next.good, unconfirmed-asked.since(v.asOf)), 0
	case st.version == v.version && st.doubt && !v.value.Empty() && !st.value.Empty() && !st.value.Equal(v.value):
		// Ours could not be committed, and is newer than what it left in doubt there. But whoever held the
		// lease next may have superseded it and died: this is no confirmation of ours, either.
		next.good, next.due = min(next.good, unconfirmed-asked.since(v.asOf)), 0
	case !st.value.Empty():
		next.take(st, st.version == v.version && st.value.Equal(v.value))
	case st.version == v.version && st.rejected != v.version && !st.doubt:
		// The margin has begun, or somebody deleted the key: ours is as good as it was, and as it was
		// before a cut that is undone.
		if next.due = 0; next.doubt {
			next.doubt, next.good = false, next.end
		}
	default:
		// Rejected, or the cut has run out, or a newer value came and went: ours is nobody's best.
		next.doubt, next.rejected = st.doubt, st.version == v.version && st.rejected == v.version
		next.good, next.due = 0, 0
	}
	// While another works, or upstream must not be asked, nobody is due.
	if later := max(st.held, st.backoff); later > 0 {
		next.due = max(next.due, later+rand.N(time.Second))
	}
	return &next
}

// take adopts the value that stands in Redis. same says that it is the version already known.
func (v *view) take(st state, same bool) {
	known := v.end
	if !same {
		known, v.spread = 0, rand.Float64()
	}
	v.value, v.version = st.value, st.version
	v.doubt, v.rejected = st.doubt, st.rejected == st.version
	v.committed = time.Time{}
	if st.issuedAge >= 0 {
		v.committed = v.asOf.wall.Add(-st.issuedAge)
	}
	v.key = st.left
	v.end = st.left + st.margin
	v.good = v.end
	if st.doubt {
		// The cut shortened what stands. A replica that knew the true end keeps it for bad times.
		v.end = max(v.end, known)
		v.due = 0
		return
	}
	v.turn = v.end - st.renewLeft
	v.due = v.turn + time.Duration(v.spread*float64(renewSpread(st.renewLeft)))
}

// renewSpread is the time over which replicas spread their renewals.
func renewSpread(renewLeft time.Duration) time.Duration {
	return min(time.Minute, max(0, renewLeft)/4)
}

// rebased returns the same view as of a later moment.
func (v *view) rebased(asOf instant) view {
	next, age := *v, asOf.since(v.asOf)
	next.asOf = asOf
	next.end -= age
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
	v.Life -= took
	renewIn := max(v.Life-v.RenewLeft, min(renewGap, v.Life*3/4))
	v.RenewLeft = max(0, v.Life-renewIn)
	return v
}
