package tokencache

import (
	"context"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// holder is this replica while it holds the lease of one refresh.
type attempt struct {
	c     *Cache
	cr    *credential
	spec  *Credential
	lease *lock.Lease
	need  need
	start instant

	asked         instant // when upstream was last asked for a value
	doubtResolved bool    // a probe, and no fetch, says what is committed
}

// closeTime is how long a stopping replica takes to end what a lease guards.
const closeTime = 200 * time.Millisecond

// longLimited bounds how long the cluster waits for an allowance before it looks at upstream again.
const longLimited = 5 * time.Minute

// run is the refresh under the lease: double check, rationing and cut in one step (begin), then
// what that step allows. It reports false if the lease was lost and the caller should look again.
func (h *attempt) run(ctx context.Context) (bool, error) {
	// The end of the work lies inside the lease, so that a stuck upstream cannot outlive it.
	ctx, cancel := context.WithDeadline(ctx, h.lease.Deadline().Add(workTime-leaseTTL))
	defer cancel()

	reason, settle := h.need.reason, h.canResolveDoubt()
	if reason == ReasonReport && h.spec.Probe == nil || h.cr.snapshot.Load().refuted() {
		reason = reasonRejected // there is no way to find out; or this replica has found out while Redis was away
	}
	for {
		asked := now()
		b, err := h.c.store.begin(ctx, h.spec, h.lease.Value(), reason, h.need.version, settle, h.cr.snapshot.Load().life(h.need.version, asked))
		if err != nil {
			_ = h.lease.Release(ctx) // Redis is in trouble; the lease runs out by itself
			return true, h.c.withoutRedis(ctx, h.cr, h.spec, h.need, err)
		}
		h.c.adopt(h.cr, b.state, asked)
		switch b.decision {
		case decisionDone:
			h.observe(ResultShared, nil)
			return true, nil
		case decisionBackoff:
			h.observe(ResultBackoff, nil)
			return true, h.unavailable(b.state.backoff, b.state.note.err())
		case decisionLimited:
			return true, h.limited(b.wait, reason)
		case decisionProbe:
			switch err := h.probe(ctx, b.state.value); {
			case err == nil:
				h.finish(outcome{result: ResultAccepted})
				h.observe(ResultAccepted, nil)
				return true, nil
			case errors.Is(err, ErrRejected):
				reason = reasonRejected
			default:
				h.finish(outcome{result: ResultUnknown})
				h.observe(ResultUnknown, err)
				return true, h.unavailable(0, err)
			}
		case decisionResolveDoubt:
			settle = false
			if old := h.cr.snapshot.Load(); h.probe(ctx, old.value) == nil {
				h.doubtResolved = true
				return h.commit(Value{old.value, old.end - now().since(old.asOf), b.state.renewLeft}, now(), old)
			}
		case decisionGo:
			return h.fetch(ctx, reason, b.state.bad)
		default:
			h.observe(ResultLeaseLost, nil)
			return false, nil
		}
	}
}

func (h *attempt) probe(ctx context.Context, value secret.String) error {
	return h.c.probe(ctx, h.cr, h.spec, h.need.reason, value)
}

// canResolveDoubt reports whether a probe by this replica could show that a doubt was unfounded: it has
// the old value, and a way to try it.
func (h *attempt) canResolveDoubt() bool {
	v := h.cr.snapshot.Load()
	return h.spec.Probe != nil && v.doubt && v.alive(now())
}

// fetch asks upstream and commits what it says. bad is the fingerprint of a value that upstream was
// found to reject.
func (h *attempt) fetch(ctx context.Context, reason Reason, bad string) (bool, error) {
	repeated := func(v secret.String) bool {
		if h.spec.Probe == nil && h.spec.Forced.burst() == 0 {
			return false // nothing but an app's word stands against upstream's
		}
		return reason == reasonRejected && v.Equal(h.need.value) || v.Fingerprint() == bad
	}
	before := h.cr.snapshot.Load()
	h.asked = now()
	v, err := h.c.fetch(ctx, h.cr, h.spec, h.need.reason, Request{})
	if err == nil && repeated(v.Value) {
		// Upstream repeats the value that it rejects; only force helps, and that is rationed.
		b, berr := h.c.store.begin(ctx, h.spec, h.lease.Value(), ReasonForce, h.need.version, false, life{left: -1})
		switch {
		case berr != nil:
			_ = h.lease.Release(ctx)
			return true, h.c.withoutRedis(ctx, h.cr, h.spec, h.need, berr)
		case b.decision == decisionLost:
			h.observe(ResultLeaseLost, nil)
			return false, nil
		case b.decision == decisionLimited:
			return true, h.limited(b.wait, ReasonForce)
		}
		h.asked = now()
		v, err = h.c.fetch(ctx, h.cr, h.spec, ReasonForce, Request{Force: true})
		if err == nil && repeated(v.Value) {
			err = &FetchError{Class: ClassTransient, Message: "upstream repeats the value that it rejects"}
		}
	}
	if err != nil {
		return true, h.failed(err)
	}
	return h.commit(v, h.asked, before)
}

// commit stores a value asked for at asked, when before was known.
func (h *attempt) commit(v Value, asked instant, before *snapshot) (bool, error) {
	for {
		sent := now()
		stored := v.normal(sent.since(asked))
		fin, cancel := h.finishContext()
		st, err := h.c.store.commit(fin, h.spec, h.lease.Value(), stored, h.cr.snapshot.Load().version, h.need.reason, sent.since(h.start))
		cancel()
		switch {
		case err == nil:
			h.c.adopt(h.cr, st, sent)
			h.cr.welcome()
			h.cr.fetched()
			result := ResultCommitted
			switch {
			case h.doubtResolved:
				result = ResultDoubtResolved
			case st.version == before.version:
				result = ResultUnchanged
			}
			h.observe(result, nil)
			return true, nil
		case errors.Is(err, errRefused):
			// Another holder may have asked before us and committed after: then what stands is what our
			// own fetch superseded. Which of the two upstream issued last, nobody can tell.
			h.cut(ResultRefused)
			h.observe(ResultRefused, err)
			return false, nil
		case time.Until(h.lease.Deadline()) <= 0 || h.c.ctx.Err() != nil:
			h.c.keep(h.cr, h.spec, v, asked, before)
			h.cr.fetched()
			h.observe(ResultOrphaned, err)
			h.cut(ResultOrphaned) // the lease may have been over when upstream acted: as for a refused one
			return true, nil
		}
		select { // Redis may be back before the lease is over
		case <-time.After(lookEvery):
		case <-h.c.ctx.Done():
		}
	}
}

// failed ends the lease after upstream gave no value.
func (h *attempt) failed(f *FetchError) error {
	e := outcome{result: ResultFailed, undo: !f.Unclear, failed: f, atLeast: f.RetryAfter}
	if h.c.ctx.Err() != nil {
		e.failed = nil // we are stopping: that says nothing about upstream
	}
	if f.Class == ClassLocal {
		h.cr.stepBack(h.spec, f)
	}
	if err := h.finish(e); err != nil && f.Unclear {
		h.cut(ResultFailed)
	}
	h.observe(ResultFailed, f)
	v := h.cr.snapshot.Load()
	return h.unavailable(max(f.RetryAfter, v.backoffLeft(now())), f)
}

// limited ends the lease because an allowance is spent. Everybody waits, except for a mere probe.
func (h *attempt) limited(wait time.Duration, reason Reason) error {
	e := outcome{result: ResultThrottled}
	if reason != ReasonReport {
		wait = min(wait, longLimited)
		e.failed = &FetchError{Class: ClassLimited}
		e.atLeast = wait
		e.undo = reason == ReasonForce // the normal call before it issued nothing new
	}
	h.finish(e)
	h.observe(ResultThrottled, ErrLimited)
	return h.unavailable(wait, ErrLimited)
}

// finish ends the lease without a value, and reads the result back: it holds for this replica too.
// A failure is observed here, whether or not it matters to the caller.
func (h *attempt) finish(e outcome) error {
	e.reason, e.took = h.need.reason, now().since(h.start)
	fin, cancel := h.finishContext()
	defer cancel()
	if err := h.c.store.finish(fin, h.spec, h.lease.Value(), e); err != nil {
		if errors.Is(err, errRefused) {
			h.observe(ResultLeaseLost, nil)
		}
		return err
	}
	_, _ = h.c.load(fin, h.cr) // an event says the same
	return nil
}

// finishContext returns a context for what must be done although the work's time is over: what the lease guards,
// and its release. It ends soon after the cache is closed, because then others wait for it.
func (h *attempt) finishContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.c.last, storeTimeout)
}

func (h *attempt) observe(r Result, err error) {
	h.c.observe(h.cr, Event{Reason: h.need.reason, Result: r, Took: now().since(h.start), Err: err})
}

func (h *attempt) unavailable(wait time.Duration, err error) error {
	return &UnavailableError{Key: h.spec.Key, RetryAfter: wait, Err: err}
}
