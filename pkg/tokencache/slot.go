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

// slot is the runtime state of one credential on this replica.
type slot struct {
	kind     string // of its key
	spec     atomic.Pointer[Credential]
	snapshot atomic.Pointer[snapshot]
	lock     *lock.Lock
	values   *valueIndex

	asked atomic.Int64 // when a caller last asked for it, in Unix ns by this host's clock; only with an Idle
	gone  atomic.Bool  // it is not in the set any more
	entry entry        // in the schedule

	mu           sync.Mutex // guards what follows
	flight       *flight
	changed      chan struct{}    // closed when the snapshot is replaced
	past         [8]secret.String // values replaced lately
	nPast        int              // how many there ever were
	marks        []mark           // in the index
	localBackoff backoff          // upstream refuses this pod
	retry        backoff          // the last refresh failed: when the schedule tries again
	pendingCut   *pendingCut      // nil: none
	audit        eventAudit
	direct       [2]time.Time // the last fetches without Redis
	lastProbe    finding      // without Redis
}

func newSlot(values *valueIndex, l *lock.Lock) *slot {
	sl := &slot{values: values, lock: l, changed: make(chan struct{})}
	sl.snapshot.Store(&snapshot{asOf: now()})
	return sl
}

// backoff is a reason not to try before a moment. The zero value is none.
type backoff struct {
	until time.Time
	err   error
	tries int
}

func (b *backoff) left() time.Duration { return max(0, time.Until(b.until)) }

func (b *backoff) fail(err error, wait time.Duration) {
	*b = backoff{until: time.Now().Add(wait), err: err, tries: b.tries + 1}
}

func (b *backoff) reset() { *b = backoff{} }

// forgive forgets the failures of a secret that is no longer used.
func (sl *slot) forgive() {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.localBackoff.reset()
	sl.retry.reset()
	old := sl.snapshot.Load()
	next := *old
	next.backoff, next.note, next.due = 0, note{}, 0
	sl.replace(old, &next)
}

// adopt merges an answer of Redis into the snapshot and wakes those who wait for a change.
func (c *Cache) adopt(sl *slot, st state, asked instant) {
	if sl.lock.Unclear() || st.overlong {
		// The lease may be this replica's own, or no lease at all. The next try takes it over, so
		// it must not wait for the end.
		st.held = 0
	}
	if st.scope != sl.spec.Load().Fingerprint {
		st.backoff, st.note = 0, note{} // of a secret that was replaced while Redis was asked
	}
	sl.mu.Lock()
	old := sl.snapshot.Load()
	next := old.merge(st, asked)
	sl.replace(old, next)
	if n := now(); next.fresh(n) && !next.isDue(n) && sl.localBackoff.left() == 0 {
		// What the last refresh failed at is over: Redis has a good value. That upstream refuses this
		// pod is not over, although another one has fetched.
		sl.retry.reset()
	}
	if next != old && old.version < st.revoked {
		// Upstream refused the secret of before, and this replica alone remembers it: Redis was away.
		sl.localBackoff.reset()
		sl.retry.reset()
	}
	dataLost := false
	if next != old {
		dataLost = sl.audit.dataLost(st.version < old.version)
	}
	sl.mu.Unlock()
	c.plan(sl)
	if dataLost {
		c.observe(sl, Event{Result: ResultDataLost})
	}
}

// replace must be called with mu held.
func (sl *slot) replace(old, next *snapshot) {
	if next == old {
		return
	}
	if !old.value.Equal(next.value) {
		if !old.value.Empty() {
			sl.past[sl.nPast%len(sl.past)] = old.value
			sl.nPast++
		}
	}
	if (!old.value.Equal(next.value) || old.past != next.past) && !sl.gone.Load() {
		before := sl.marks
		sl.marks = append(marksIn(next.past), marksOf(append(sl.past[:], next.value)...)...)
		sl.values.replace(sl.spec.Load().Key, before, sl.marks)
	}
	sl.snapshot.Store(next)
	close(sl.changed)
	sl.changed = make(chan struct{})
}

// specify sets what the cache must know. A changed secret forgets the failures of the old one.
func (sl *slot) specify(spec Credential) {
	before := sl.spec.Swap(&spec)
	if before != nil && before.Fingerprint != spec.Fingerprint {
		sl.forgive()
	}
}

// forgetValues takes the values of a credential that the cache no longer keeps out of the index.
func (sl *slot) forgetValues() {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.values.replace(sl.spec.Load().Key, sl.marks, nil)
	sl.marks = nil
}

// changes returns a channel that is closed when the snapshot is replaced.
func (sl *slot) changes() <-chan struct{} {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.changed
}

// unused reports whether no caller has asked for as long as the credential may be idle.
func (sl *slot) unused() bool {
	idle := sl.spec.Load().Idle
	return idle != 0 && time.Now().UnixNano()-sl.asked.Load() >= int64(idle)
}

// replaced reports whether value is one of those that were replaced lately.
func (sl *slot) replaced(value secret.String) bool {
	sl.mu.Lock()
	past := sl.past
	sl.mu.Unlock()
	for _, p := range past {
		if !p.Empty() && p.Equal(value) {
			return true
		}
	}
	return false
}

// landed ends a flight and schedules the next try. The schedule lies outside the flight: a job that
// retried inside its own flight would keep every other caller out.
func (sl *slot) landed(f *flight) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.flight = nil
	switch {
	case sl.spec.Load().Fingerprint != f.spec.Fingerprint:
		sl.retry.reset() // another secret failed
	case f.need.reason == ReasonReport:
	case f.err == nil && !sl.snapshot.Load().isDue(now()):
		sl.retry.reset()
	default:
		wait := min(5*time.Second, time.Second<<min(sl.retry.tries, 3))
		sl.retry.fail(f.err, wait+rand.N(wait/2)) // a backoff of the cluster is in the snapshot
	}
}

// fetched notes that the flight brought a value from upstream.
func (sl *slot) fetched() {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.flight != nil {
		sl.flight.from = FromUpstream
	}
}

// lastErr returns why the last refresh failed, or nil.
func (sl *slot) lastErr() error {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.retry.err
}

// untilDue returns how long the schedule waits before it starts a refresh. busy: one is in flight.
func (sl *slot) untilDue() (wait time.Duration, busy bool) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	v, n := sl.snapshot.Load(), now()
	wait = max(v.due-n.since(v.asOf), sl.retry.left(), sl.localBackoff.left())
	return wait, sl.flight != nil
}

// backingOff reports whether there is no point in trying now.
func (sl *slot) backingOff() bool {
	if sl.snapshot.Load().backoffLeft(now()) > 0 {
		return true
	}
	sl.mu.Lock()
	defer sl.mu.Unlock()
	// Nor is there a point in waiting for a retry in flight: the old value would be the result.
	return sl.localBackoff.left() > 0 || sl.retry.left() > 0 || sl.retry.tries > 0 && sl.flight != nil
}

// failLocally notes that upstream refuses this pod, unless the secret was replaced meanwhile.
func (sl *slot) failLocally(spec *Credential, f *FetchError) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.spec.Load().Fingerprint != spec.Fingerprint {
		return
	}
	base, limit := ClassLocal.backoff()
	sl.localBackoff.fail(f, max(f.RetryAfter, min(limit, base<<min(sl.localBackoff.tries, 10))))
}

// resetLocalBackoff notes that upstream does not refuse this pod.
func (sl *slot) resetLocalBackoff() {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.localBackoff.reset()
}

// refusedHere returns why this pod must not ask upstream now, nil if it may.
func (sl *slot) refusedHere() error {
	left, f := sl.localBackoffLeft()
	if left == 0 {
		return nil
	}
	return &UnavailableError{Key: sl.spec.Load().Key, RetryAfter: left, Err: f}
}

// localBackoffLeft returns how long only this replica must not ask upstream, and why.
func (sl *slot) localBackoffLeft() (time.Duration, *FetchError) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if f, ok := errors.AsType[*FetchError](sl.localBackoff.err); ok {
		return sl.localBackoff.left(), f
	}
	return 0, nil
}

// mayFetchDirectly allows two fetches at once without Redis, and then two a minute, for each
// credential of a replica.
func (sl *slot) mayFetchDirectly() bool {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if time.Since(sl.direct[0]) < time.Minute {
		return false
	}
	sl.direct = [2]time.Time{sl.direct[1], time.Now()}
	return true
}

// finding is what a probe without Redis found out about a value.
type finding struct {
	value secret.String
	at    instant // before upstream was asked
	err   error   // as of [Credential].Probe
}

// refute marks a value as one that upstream rejects, although Redis has it as good.
func (sl *slot) refute(value secret.String, at instant) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	old := sl.snapshot.Load()
	if !old.value.Equal(value) {
		return
	}
	next := *old
	next.refutedAt, next.refutedValue = at, value
	next.applyRefutation()
	sl.replace(old, &next)
}

// best returns the value that callers get after err.
func (sl *slot) best(k Key, from From, err error) (Token, error) {
	v, n := sl.snapshot.Load(), now()
	if v.alive(n) {
		t := v.token(n)
		t.From = from
		if err != nil || t.Rejected {
			t.Err = unavailable(k, err)
		}
		return t, nil
	}
	return Token{}, unavailable(k, err)
}

// whyNotNow returns why backingOff says that there is no point in trying.
func (sl *slot) whyNotNow() error {
	v := sl.snapshot.Load()
	if left := v.backoffLeft(now()); left > 0 {
		return &UnavailableError{Key: sl.spec.Load().Key, RetryAfter: left, Err: v.note.err()}
	}
	if err := sl.refusedHere(); err != nil {
		return err
	}
	return sl.lastErr()
}

// eventAnnounced notes that an event announced a version.
func (sl *slot) eventAnnounced(version int64) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.audit.announced = max(sl.audit.announced, version)
}

// reread notes that a re-read found a version, before it is adopted. It reports whether the event
// of a version that an earlier re-read found is missing: until then it may have been slower.
func (sl *slot) reread(version int64) (missed bool) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	a, known := &sl.audit, sl.snapshot.Load().version
	missed = a.unannounced > a.announced
	a.unannounced = 0
	if known > 0 && version > known && version > a.announced {
		a.unannounced = version
	}
	return missed
}

// pendingCut is a cut that Redis has not confirmed: upstream may have superseded the present value.
type pendingCut struct {
	lease  string  // of the refresh that asked for it; each cuts once
	first  instant // when the first of the refreshes whose cuts are pending asked upstream
	over   instant // when the request of the last one was over
	reason Reason
	why    Result
}

// cutNow makes a cut, without a lease.
func (c *Cache) cutNow(sl *slot, t pendingCut) error {
	return c.store.cut(c.last, sl.spec.Load(), t)
}

// cutLater retries a cut until Redis confirms it. It runs beside the flights, whose callers need
// not wait for Redis. Close does wait for it. Pending cuts of several refreshes are merged: while
// Redis is too slow, each refresh adds one.
//
// It has a schedule of its own, because the other round trips of a slot may be far apart: without
// [Cache.Run], the next one comes when a caller finds the value unconfirmed after 4 minutes. That
// is too late for the other replicas, which go on handing out the superseded value as good.
func (c *Cache) cutLater(sl *slot, t pendingCut) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.pendingCut != nil {
		sl.pendingCut.lease, sl.pendingCut.over = t.lease, t.over
		return
	}
	sl.pendingCut = &t
	c.flights.Go(func() {
		for wait := time.Second; sleep(c.ctx, wait); wait = min(2*wait, 5*time.Second) {
			sl.mu.Lock()
			pending := *sl.pendingCut
			sl.mu.Unlock()
			if c.cutNow(sl, pending) == nil && sl.cutConfirmed(pending) {
				return
			}
		}
	})
}

// cutConfirmed reports whether no later cut was merged into t while Redis confirmed it.
func (sl *slot) cutConfirmed(t pendingCut) bool {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.pendingCut.lease != t.lease {
		return false
	}
	sl.pendingCut = nil
	return true
}
