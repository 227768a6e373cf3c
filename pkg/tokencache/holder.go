package tokencache

import (
	"context"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// holder is this replica while it holds the lease of one refresh.
type holder struct {
	c     *Cache
	cr    *credential
	spec  *Credential
	lease *lock.Lease
	want  want
	start instant

	asked   instant // when upstream was last asked for a value
	settled bool    // a probe, and no fetch, says what is committed
}

// closeTime is how long a stopping replica takes to end what a lease guards.
const closeTime = 200 * time.Millisecond

// longLimited bounds how long the cluster waits for an allowance before it looks at upstream again.
const longLimited = 5 * time.Minute

// work is the refresh under the lease: double check, rationing and cut in one step (begin), then
// what that step allows. It reports false if the lease was lost and the caller should look again.
func (h *holder) work(ctx context.Context) (bool, error) {
	// The end of the work lies inside the lease, so that a stuck upstream cannot outlive it.
	ctx, cancel := context.WithDeadline(ctx, h.lease.Deadline().Add(workTime-leaseTTL))
	defer cancel()

	reason, settle := h.want.reason, h.canSettle()
	if reason == Report && h.spec.Probe == nil || h.cr.view.Load().refuted() {
		reason = rejected // there is no way to find out; or this replica has found out while Redis was away
	}
	for {
		asked := now()
		b, err := h.c.store.begin(ctx, h.spec, h.lease.Value(), reason, h.want.version, settle, h.cr.view.Load().life(h.want.version, asked))
		if err != nil {
			_ = h.lease.Release(ctx) // Redis is in trouble; the lease runs out by itself
			return true, h.c.withoutRedis(ctx, h.cr, h.spec, h.want, err)
		}
		h.c.adopt(h.cr, b.state, asked)
		switch b.decision {
		case decisionDone:
			h.observe(Shared, nil)
			return true, nil
		case decisionBackoff:
			h.observe(Waiting, nil)
			return true, h.unavailable(b.state.backoff, b.state.note.err())
		case decisionLimited:
			return true, h.limited(b.wait, reason)
		case decisionProbe:
			switch err := h.probe(ctx, b.state.value); {
			case err == nil:
				h.conclude(conclusion{result: Accepted})
				h.observe(Accepted, nil)
				return true, nil
			case errors.Is(err, ErrRejected):
				reason = rejected
			default:
				h.conclude(conclusion{result: Unknown})
				h.observe(Unknown, err)
				return true, h.unavailable(0, err)
			}
		case decisionSettle:
			settle = false
			if old := h.cr.view.Load(); h.probe(ctx, old.value) == nil {
				h.settled = true
				return h.commit(Value{old.value, old.end - now().since(old.asOf), b.state.renewLeft}, now(), old)
			}
		case decisionGo:
			return h.fetch(ctx, reason, b.state.bad)
		default:
			h.observe(Lost, nil)
			return false, nil
		}
	}
}

func (h *holder) probe(ctx context.Context, value secret.String) error {
	return h.c.probe(ctx, h.cr, h.spec, h.want.reason, value)
}

// canSettle reports whether a probe by this replica could show that a doubt was unfounded: it has
// the old value, and a way to try it.
func (h *holder) canSettle() bool {
	v := h.cr.view.Load()
	return h.spec.Probe != nil && v.doubt && v.alive(now())
}

// fetch asks upstream and commits what it says. bad is the fingerprint of a value that upstream was
// found to reject.
func (h *holder) fetch(ctx context.Context, reason Reason, bad string) (bool, error) {
	repeated := func(v secret.String) bool {
		if h.spec.Probe == nil && h.spec.Forced.burst() == 0 {
			return false // nothing but an app's word stands against upstream's
		}
		return reason == rejected && v.Equal(h.want.value) || v.Fingerprint() == bad
	}
	before := h.cr.view.Load()
	h.asked = now()
	v, err := h.c.fetch(ctx, h.cr, h.spec, h.want.reason, Request{})
	if err == nil && repeated(v.Value) {
		// Upstream repeats the value that it rejects; only force helps, and that is rationed.
		b, berr := h.c.store.begin(ctx, h.spec, h.lease.Value(), forced, h.want.version, false, life{left: -1})
		switch {
		case berr != nil:
			_ = h.lease.Release(ctx)
			return true, h.c.withoutRedis(ctx, h.cr, h.spec, h.want, berr)
		case b.decision == decisionLost:
			h.observe(Lost, nil)
			return false, nil
		case b.decision == decisionLimited:
			return true, h.limited(b.wait, forced)
		}
		h.asked = now()
		v, err = h.c.fetch(ctx, h.cr, h.spec, forced, Request{Force: true})
		if err == nil && repeated(v.Value) {
			err = &FetchError{Class: Transient, Message: "upstream repeats the value that it rejects"}
		}
	}
	if err != nil {
		return true, h.failed(err)
	}
	return h.commit(v, h.asked, before)
}

// commit stores a value asked for at asked, when before was known.
func (h *holder) commit(v Value, asked instant, before *view) (bool, error) {
	for {
		sent := now()
		stored := v.normal(sent.since(asked))
		fin, cancel := h.finish()
		st, err := h.c.store.commit(fin, h.spec, h.lease.Value(), stored, h.cr.view.Load().version, h.want.reason, sent.since(h.start))
		cancel()
		switch {
		case err == nil:
			h.c.adopt(h.cr, st, sent)
			h.cr.welcome()
			h.cr.fetched()
			result := Committed
			switch {
			case h.settled:
				result = Settled
			case st.version == before.version:
				result = Unchanged
			}
			h.observe(result, nil)
			return true, nil
		case errors.Is(err, errRefused):
			// Another holder may have asked before us and committed after: then what stands is what our
			// own fetch superseded. Which of the two upstream issued last, nobody can tell.
			h.cut(Refused)
			h.observe(Refused, err)
			return false, nil
		case time.Until(h.lease.Deadline()) <= 0 || h.c.ctx.Err() != nil:
			h.c.keep(h.cr, h.spec, v, asked, before)
			h.cr.fetched()
			h.observe(Orphaned, err)
			h.cut(Orphaned) // the lease may have been over when upstream acted: as for a refused one
			return true, nil
		}
		select { // Redis may be back before the lease is over
		case <-time.After(lookEvery):
		case <-h.c.ctx.Done():
		}
	}
}

// failed ends the lease after upstream gave no value.
func (h *holder) failed(f *FetchError) error {
	e := conclusion{result: Failed, undo: !f.Unclear, failed: f, atLeast: f.RetryAfter}
	if h.c.ctx.Err() != nil {
		e.failed = nil // we are stopping: that says nothing about upstream
	}
	if f.Class == Local {
		h.cr.stepBack(h.spec, f)
	}
	if err := h.conclude(e); err != nil && f.Unclear {
		h.cut(Failed)
	}
	h.observe(Failed, f)
	v := h.cr.view.Load()
	return h.unavailable(max(f.RetryAfter, v.backoffLeft(now())), f)
}

// limited ends the lease because an allowance is spent. Everybody waits, except for a mere probe.
func (h *holder) limited(wait time.Duration, reason Reason) error {
	e := conclusion{result: Throttled}
	if reason != Report {
		wait = min(wait, longLimited)
		e.failed = &FetchError{Class: limitedClass}
		e.atLeast = wait
		e.undo = reason == forced // the normal call before it issued nothing new
	}
	h.conclude(e)
	h.observe(Throttled, ErrLimited)
	return h.unavailable(wait, ErrLimited)
}

// conclude ends the lease without a value, and reads the result back: it holds for this replica too.
// A failure is observed here, whether or not it matters to the caller.
func (h *holder) conclude(e conclusion) error {
	e.reason, e.took = h.want.reason, now().since(h.start)
	fin, cancel := h.finish()
	defer cancel()
	if err := h.c.store.conclude(fin, h.spec, h.lease.Value(), e); err != nil {
		if errors.Is(err, errRefused) {
			h.observe(Lost, nil)
		}
		return err
	}
	_, _ = h.c.load(fin, h.cr) // an event says the same
	return nil
}

// finish returns a context for what must be done although the work's time is over: what the lease guards,
// and its release. It ends soon after the cache is closed, because then others wait for it.
func (h *holder) finish() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.c.last, storeTimeout)
}

func (h *holder) observe(r Result, err error) {
	h.c.observe(h.cr, Event{Reason: h.want.reason, Result: r, Took: now().since(h.start), Err: err})
}

func (h *holder) unavailable(wait time.Duration, err error) error {
	return &UnavailableError{Key: h.spec.Key, RetryAfter: wait, Err: err}
}
