package tokencache

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// credential is one credential on this replica.
type credential struct {
	spec     atomic.Pointer[Credential]
	snapshot atomic.Pointer[snapshot]
	lock     *lock.Lock

	mu         sync.Mutex
	flight     *flight
	changed    chan struct{}    // closed when the view is replaced
	past       [8]secret.String // values replaced lately
	nPast      int              // how many there ever were
	local      backoff          // upstream refuses this pod
	retry      backoff          // the last refresh failed; its schedule
	pendingCut *cut             // nil: nothing
	audit      eventAudit
	direct     [2]time.Time // the last fetches without Redis

	lastProbe finding // without Redis

	idle  atomic.Int64 // as of [Credential].Idle
	asked atomic.Int64 // when it was asked for last, in Unix ns by this host's clock; 0: never
}

// holdback is a reason not to try before a moment.
type backoff struct {
	until time.Time
	err   error
	tries int
}

func (h *backoff) left() time.Duration { return max(0, time.Until(h.until)) }

func (c *Cache) credential(old *credential) *credential {
	if old != nil {
		return old
	}
	cr := &credential{changed: make(chan struct{})}
	cr.snapshot.Store(&snapshot{asOf: now()})
	return cr
}

// forgive forgets the failures of a secret that is no longer used.
func (cr *credential) forgive() {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.local, cr.retry = backoff{}, backoff{}
	v := *cr.snapshot.Load()
	v.backoff, v.note, v.due = 0, note{}, 0
	cr.replace(cr.snapshot.Load(), &v)
}

// adopt merges an answer of Redis into the view, and tells who waits for it.
func (c *Cache) adopt(cr *credential, st state, asked instant) {
	if cr.lock.Unclear() || st.overlong {
		st.held = 0 // it may be our own, or no lease at all: the next try takes it over, and must not wait for its end
	}
	if st.scope != cr.spec.Load().Fingerprint {
		st.backoff, st.note = 0, note{} // of a secret that was replaced while Redis was asked
	}
	cr.mu.Lock()
	old := cr.snapshot.Load()
	next := old.merge(st, asked)
	cr.replace(old, next)
	emptied := next != old && cr.audit.emptied(st.version < old.version)
	cr.mu.Unlock()
	c.poke()
	if emptied {
		c.observe(cr, Event{Result: ResultDataLost})
	}
}

// replace must be called with mu held.
func (cr *credential) replace(old, next *snapshot) {
	if next == old {
		return
	}
	if !old.value.Empty() && !old.value.Equal(next.value) {
		cr.past[cr.nPast%len(cr.past)] = old.value
		cr.nPast++
	}
	cr.snapshot.Store(next)
	close(cr.changed)
	cr.changed = make(chan struct{})
}

// dormant reports whether the credential is kept only while it is asked for, and is not.
func (cr *credential) dormant() bool {
	idle := cr.idle.Load()
	return idle != 0 && time.Now().UnixNano()-cr.asked.Load() >= idle
}

// backingOff reports whether there is no point in trying now.
func (cr *credential) backingOff() bool {
	if cr.snapshot.Load().backoffLeft(now()) > 0 {
		return true
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	// Nor is there in waiting for a try whose predecessor failed: the old value is what comes of it.
	return cr.local.left() > 0 || cr.retry.left() > 0 || cr.retry.tries > 0 && cr.flight != nil
}

// untilDue returns how long to wait before a refresh should start by itself.
func (cr *credential) untilDue() (wait time.Duration, busy bool) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	v, n := cr.snapshot.Load(), now()
	wait = max(v.due-n.since(v.asOf), cr.retry.left(), cr.local.left())
	return wait, cr.flight != nil
}

// replaced reports whether value is one of those that were replaced lately.
func (cr *credential) replaced(value secret.String) bool {
	cr.mu.Lock()
	past := cr.past
	cr.mu.Unlock()
	for _, p := range past {
		if !p.Empty() && p.Equal(value) {
			return true
		}
	}
	return false
}

// mayFetchDirectly allows two fetches at once without Redis, and then two a minute; for each credential of a replica.
func (cr *credential) mayFetchDirectly() bool {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if time.Since(cr.direct[0]) < time.Minute {
		return false
	}
	cr.direct = [2]time.Time{cr.direct[1], time.Now()}
	return true
}

// finding is what a probe without Redis found out about a value.
type finding struct {
	value secret.String
	at    instant // before upstream was asked
	err   error   // as of [Credential].Probe
}

// refute marks a value as one that upstream rejects, although Redis does not say so.
func (cr *credential) refute(value secret.String, at instant) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	old := cr.snapshot.Load()
	if !old.value.Equal(value) {
		return
	}
	next := *old
	next.refutedAt, next.refutedValue = at, value
	next.applyRefutation()
	cr.replace(old, &next)
}

// stepBack remembers that upstream refuses this pod, unless the secret that it refused was replaced meanwhile.
func (cr *credential) stepBack(spec *Credential, f *FetchError) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.spec.Load().Fingerprint != spec.Fingerprint {
		return
	}
	base, limit := ClassLocal.backoff()
	wait := max(f.RetryAfter, min(limit, base<<min(cr.local.tries, 10)))
	cr.local = backoff{until: time.Now().Add(wait), err: f, tries: cr.local.tries + 1}
}

// welcome forgets that upstream refused this pod.
func (cr *credential) welcome() {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.local = backoff{}
}

// fetched notes that the flight brought a value from upstream.
func (cr *credential) fetched() {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.flight != nil {
		cr.flight.from = FromUpstream
	}
}

func (cr *credential) changes() <-chan struct{} {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.changed
}

// refusedHere returns why this pod must not ask upstream now, nil if it may.
func (cr *credential) refusedHere() error {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	left := cr.local.left()
	if left == 0 {
		return nil
	}
	return &UnavailableError{Key: cr.spec.Load().Key, RetryAfter: left, Err: cr.local.err}
}

// reschedule says when to try again by itself; a backoff that Redis tells of is in the view. It must be
// called with mu held. The schedule lies outside the flight: a job that retried inside its own slot
// would keep every other caller out.
func (cr *credential) reschedule(err error) {
	if err == nil && !cr.snapshot.Load().isDue(now()) {
		cr.retry = backoff{}
		return
	}
	wait := min(5*time.Second, time.Second<<min(cr.retry.tries, 3))
	cr.retry.err = err
	cr.retry.tries++
	cr.retry.until = time.Now().Add(wait + rand.N(wait/2))
}

// eventAnnounced notes that an event told of a version.
func (cr *credential) eventAnnounced(version int64) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.audit.announced = max(cr.audit.announced, version)
}

// reread notes that a re-read found a version, before it is adopted. It reports whether the event of one
// that an earlier re-read found has not come: until then the event may merely have been slower.
func (cr *credential) reread(version int64) (missed bool) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	n, known := &cr.audit, cr.snapshot.Load().version
	missed = n.unannounced > n.announced
	n.unannounced = 0
	if known > 0 && version > known && version > n.announced {
		n.unannounced = version
	}
	return missed
}

func (cr *credential) lastErr() error {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	return cr.retry.err
}

// localBackoff returns how long only this replica must not ask upstream, and why.
func (cr *credential) localBackoff() (time.Duration, *FetchError) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if f, ok := errors.AsType[*FetchError](cr.local.err); ok {
		return cr.local.left(), f
	}
	return 0, nil
}

// unavailable is the error for a caller when err ended the refresh.
func (cr *credential) unavailable(k Key, err error) error {
	if u, ok := errors.AsType[*UnavailableError](err); ok {
		return u
	}
	if err == nil {
		err = errors.New("the refresh brought nothing usable")
	}
	return &UnavailableError{Key: k, RetryAfter: time.Second, Err: err}
}

// best returns what there is after err.
func (cr *credential) best(k Key, from From, err error) (Token, error) {
	v, n := cr.snapshot.Load(), now()
	if !v.alive(n) {
		return Token{}, cr.unavailable(k, err)
	}
	t := v.token(n, !v.fresh(n))
	t.From = from
	return t, nil
}
