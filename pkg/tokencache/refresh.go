package tokencache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

const (
	// flightTime bounds one refresh: somebody else's whole lease, then one of our own.
	flightTime = 2 * leaseTTL
	// Losers look for the token this often, plus up to as much again, besides listening for it.
	lookEvery = 50 * time.Millisecond
	// localWait is how long a pod that upstream refuses waits for another one's result.
	localWait = 2 * time.Second
)

// want is what a caller of the refresh needs.
type need struct {
	reason  Reason
	version int64         // what it has; only something newer helps
	value   secret.String // Report: the reported value
	since   instant       // Report: a probe that began later answers it
	least   time.Duration // Missing: how much life is not enough
}

// satisfiedBy reports whether v is what was wanted.
func (w need) satisfiedBy(v *snapshot, n instant) bool {
	switch w.reason {
	case ReasonReport:
		return v.alive(n) && !v.rejected && !v.value.Equal(w.value)
	case ReasonDue:
		return !v.isDue(n)
	default:
		return v.fresh(n) && v.expiresIn(n) > w.least
	}
}

// flight is one refresh of one credential on this replica; callers share it.
type flight struct {
	need need
	spec *Credential // as it was when the flight began: a reload does not change a refresh on its way
	done chan struct{}
	from From // valid once done is closed, as is err
	err  error
}

// serves reports whether f's result answers w too, which came to share it.
func (f *flight) serves(w need) bool {
	return f.need.reason == w.reason && (w.reason != ReasonReport || f.need.version == w.version)
}

// ensure returns nil when w is met or a refresh for it has ended well; it starts one or joins the
// one in flight, and says where that found a value. ctx bounds the waiting, not the refresh.
func (c *Cache) ensure(ctx context.Context, cr *credential, w need) (From, error) {
	from := FromMemory
	for !w.satisfiedBy(cr.snapshot.Load(), now()) {
		f, mine, err := c.join(cr, w)
		if err != nil {
			return from, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return from, ctx.Err()
		}
		from = f.from
		// What just failed for being due would fail again for being missing.
		if mine || f.serves(w) || f.err != nil && f.need.reason != ReasonReport && w.reason != ReasonReport {
			return from, f.err
		}
	}
	return from, nil
}

// join returns the flight in progress, or starts one.
func (c *Cache) join(cr *credential, w need) (f *flight, mine bool, err error) {
	c.closing.RLock()
	defer c.closing.RUnlock()
	if c.ctx.Err() != nil {
		return nil, false, ErrClosed
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.flight != nil {
		return cr.flight, false, nil
	}
	f = &flight{need: w, spec: cr.spec.Load(), done: make(chan struct{}), from: FromRedis}
	cr.flight = f
	c.flights.Go(func() { c.runFlight(cr, f) })
	return f, true, nil
}

func (c *Cache) runFlight(cr *credential, f *flight) {
	ctx, cancel := context.WithTimeout(c.ctx, flightTime)
	defer cancel()
	if f.err = c.refresh(ctx, cr, f.spec, f.need); f.err != nil && c.ctx.Err() != nil {
		f.err = ErrClosed
	}

	cr.mu.Lock()
	cr.flight = nil
	switch {
	case cr.spec.Load().Fingerprint != f.spec.Fingerprint:
		cr.retry = backoff{} // what failed was another secret
	case f.need.reason != ReasonReport:
		cr.reschedule(f.err)
	}
	cr.mu.Unlock()
	close(f.done)
	c.poke()
}

// refresh is the one operation that changes a credential, for every reason: look; if nobody has
// done the work, do it under the lease; if somebody is doing it, wait for the token and not for the
// lease, because those who queue for a lease are served one after the other.
func (c *Cache) refresh(ctx context.Context, cr *credential, spec *Credential, w need) error {
	start := now()
	queue := queue{c: c, cr: cr, reason: w.reason}
	defer queue.leave()
	for {
		st, err := c.load(ctx, cr)
		if err != nil {
			return c.withoutRedis(ctx, cr, spec, w, err)
		}
		changed := cr.changes() // before the look below, so that no change falls between the two
		if done, err := c.settledBy(cr, w, st, start); done {
			return err
		}
		if st.held > 0 {
			queue.enter()
		}
		if st.overlong {
			c.capLease(ctx, cr, spec)
		}
		if refused := cr.refusedHere(); refused != nil {
			if now().since(start) > localWait {
				return refused
			}
		} else if st.held == 0 || cr.lock.Unclear() {
			done, err := c.underLease(ctx, cr, spec, w, st, start, &queue)
			if done {
				return err
			}
		}
		look := time.NewTimer(lookEvery + rand.N(lookEvery))
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			look.Stop()
			return ctx.Err()
		}
		look.Stop()
	}
}

// settledBy reports whether w needs no work of ours: it is met, or upstream must not be asked.
func (c *Cache) settledBy(cr *credential, w need, st state, start instant) (bool, error) {
	if w.satisfiedBy(cr.snapshot.Load(), now()) {
		c.observe(cr, Event{Reason: w.reason, Result: ResultShared, Took: now().since(start)})
		return true, nil
	}
	if w.reason == ReasonReport && st.version == w.version && !cr.snapshot.Load().rejected && st.acceptAge >= 0 && st.acceptAge < now().since(w.since) {
		// The probe began after this report came in, so it speaks of the same moment or a later one.
		c.observe(cr, Event{Reason: w.reason, Result: ResultAccepted, Took: now().since(start)})
		return true, nil
	}
	// A report may still find out whether the value that stands is good; upstream's other endpoints
	// are not what backs off.
	if st.backoff > 0 && (w.reason != ReasonReport || st.value.Empty()) {
		return true, &UnavailableError{Key: cr.spec.Load().Key, RetryAfter: st.backoff, Err: st.note.err()}
	}
	return false, nil
}

// underLease does the work if the lease is free. It reports false if the caller should look again.
func (c *Cache) underLease(ctx context.Context, cr *credential, spec *Credential, w need, st state, start instant, q *queue) (bool, error) {
	obtain, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	lease, err := cr.lock.Obtain(obtain)
	switch {
	case errors.Is(err, lock.ErrHeld):
		q.enter()
		return false, nil
	case err != nil:
		return true, c.withoutRedis(ctx, cr, spec, w, c.store.failed(spec.Key, "lease", err))
	}
	q.leave()
	if st.unsound {
		if err := c.discard(ctx, cr, spec, lease); err != nil {
			_ = lease.Release(ctx)
			return true, c.withoutRedis(ctx, cr, spec, w, err)
		}
	}
	h := &attempt{c: c, cr: cr, spec: spec, lease: lease, need: w, start: start}
	// Not under ctx, which bounds the waiting: the lease bounds the work.
	return h.run(c.ctx)
}

// capLease makes a lock key that would outlive every lease end after one, and reports it by name.
func (c *Cache) capLease(ctx context.Context, cr *credential, spec *Credential) {
	capped, err := c.store.capLease(ctx, spec)
	if err != nil || !capped {
		return // reported by the store; or another replica did it
	}
	c.observe(cr, Event{Result: ResultLeaseCapped, Err: fmt.Errorf("the lock key %s had no expiry, or a longer one than any lease: no replica wrote that, and it now ends within %v",
		c.store.lockKey(spec.Key), leaseTTL)})
}

// discard deletes a value that no commit can have written, if it is still there: the last look was before the lease. To
// begin, it would count as a value that is good.
func (c *Cache) discard(ctx context.Context, cr *credential, spec *Credential, lease *lock.Lease) error {
	if st, err := c.load(ctx, cr); err != nil || !st.unsound {
		return err
	}
	err := c.store.discard(ctx, spec, lease.Value())
	if errors.Is(err, errRefused) {
		return nil // begin finds out that the lease is lost
	}
	return err
}
