package tokencache

import (
	"context"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// attempt is a refresh while this replica holds the lease: steps 3 to 8.
type attempt struct {
	*refresh
	lease *lock.Lease

	fetchedAt     instant // when upstream was last asked for a value; zero: not yet
	repliedAt     instant // when that request was over
	doubtResolved bool    // what is committed is the present value, which a probe found good
}

const (
	// closeTime is how long a stopping replica takes to finish what a lease guards.
	closeTime = 200 * time.Millisecond
	// longLimited bounds how long the cluster waits for an allowance before it tries upstream
	// again.
	longLimited = 5 * time.Minute
)

// run does what the script begin decides, until the lease has ended. It returns errLookAgain if the
// lease was lost.
func (a *attempt) run(ctx context.Context) error {
	// The deadline lies inside the lease, so that a stuck upstream cannot outlive it.
	ctx, cancel := context.WithDeadline(ctx, a.lease.Deadline().Add(workTime-leaseTTL))
	defer cancel()

	q := beginRequest{lease: a.lease.Value(), reason: a.need.reason, version: a.need.version, canResolveDoubt: a.canResolveDoubt()}
	if q.reason == ReasonReport && a.spec.Probe == nil || a.sl.snapshot.Load().refuted() {
		// There is no way to find out; or this replica has found out while Redis was away.
		q.reason = reasonRejected
	}
	for {
		asked := now()
		q.known = a.sl.snapshot.Load().life(q.version, asked)
		b, err := a.c.store.begin(ctx, a.spec, q) // steps 3 and 4: double check, allowances and cut in one script
		if err != nil {
			_ = a.lease.Release(ctx)
			return a.withoutRedis(ctx, err)
		}
		a.c.adopt(a.sl, b.state, asked)
		switch b.decision {
		case decisionGo:
			return a.fetchAndCommit(ctx, q.reason, b.state.bad) // steps 5 to 8
		case decisionDone:
			a.observe(ResultShared, nil)
			return nil
		case decisionBackoff:
			a.observe(ResultBackoff, nil)
			return a.unavailable(b.state.backoff, b.state.note.err())
		case decisionLimited:
			return a.limited(b.wait, q.reason)
		case decisionProbe:
			if err := a.probeReported(ctx, b.state.value); err != ErrRejected {
				return err
			}
			q.reason = reasonRejected
		case decisionResolveDoubt:
			q.canResolveDoubt = false
			if old := a.sl.snapshot.Load(); a.probe(ctx, old.value) == nil {
				a.doubtResolved = true
				return a.commit(Value{old.value, old.end - now().since(old.asOf), b.state.renewLeft}, now(), old)
			}
		default:
			a.observe(ResultLeaseLost, nil)
			return errLookAgain
		}
	}
}

// abandon ends the attempt because Redis failed. The lease expires by itself if it cannot be
// released.
func (a *attempt) abandon(ctx context.Context, cause error) error {
	_ = a.lease.Release(ctx)
	return a.c.withoutRedis(ctx, a.sl, a.spec, a.need, cause)
}

// probeReported finds out whether upstream rejects the reported value. It returns ErrRejected if
// so; otherwise the attempt is over.
func (a *attempt) probeReported(ctx context.Context, value secret.String) error {
	err := a.probe(ctx, value)
	switch {
	case err == nil:
		a.finish(outcome{result: ResultAccepted})
		a.observe(ResultAccepted, nil)
		return nil
	case errors.Is(err, ErrRejected):
		return ErrRejected
	}
	a.finish(outcome{result: ResultUnknown})
	a.observe(ResultUnknown, err)
	return a.unavailable(0, err)
}

func (a *attempt) probe(ctx context.Context, value secret.String) error {
	return a.c.probe(ctx, a.sl, a.spec, a.need.reason, value)
}

// canResolveDoubt reports whether a probe by this replica could show that the doubt was unfounded:
// it has the old value, and a way to try it.
func (a *attempt) canResolveDoubt() bool {
	v := a.sl.snapshot.Load()
	return a.spec.Probe != nil && v.doubt && v.alive(now())
}

// fetchAndCommit is steps 5 to 8. bad is the fingerprint of a value that upstream was found to
// reject.
func (a *attempt) fetchAndCommit(ctx context.Context, reason Reason, bad string) error {
	repeated := func(v secret.String) bool {
		if a.spec.Probe == nil && a.spec.Forced.burst() == 0 {
			return false // only the report of an app contradicts upstream
		}
		return reason == reasonRejected && v.Equal(a.need.value) || v.Fingerprint() == bad
	}
	before := a.sl.snapshot.Load()
	v, failed := a.fetch(ctx, a.need.reason, Request{})
	if failed == nil && repeated(v.Value) {
		// Only force helps, and that has an allowance of its own.
		b, err := a.c.store.begin(ctx, a.spec, beginRequest{lease: a.lease.Value(), reason: ReasonForce, version: a.need.version, known: unknownLife})
		switch {
		case err != nil:
			return a.abandon(ctx, err)
		case b.decision == decisionLost:
			a.observe(ResultLeaseLost, nil)
			return errLookAgain
		case b.decision == decisionLimited:
			return a.limited(b.wait, ReasonForce)
		}
		v, failed = a.fetch(ctx, ReasonForce, Request{Force: true})
		if failed == nil && repeated(v.Value) {
			failed = &FetchError{Class: ClassTransient, Message: "upstream repeats the value that it rejects"}
		}
	}
	if failed != nil {
		return a.failed(failed, before)
	}
	return a.commit(v, a.fetchedAt, before)
}

func (a *attempt) fetch(ctx context.Context, reason Reason, r Request) (Value, *FetchError) {
	a.fetchedAt = now()
	v, failed := a.c.fetch(ctx, a.sl, a.spec, reason, r)
	a.repliedAt = now()
	return v, failed
}

// commit is steps 6 and 7. It stores a value that was asked for at asked, when before was the
// snapshot. It returns errLookAgain if the commit was refused.
func (a *attempt) commit(v Value, asked instant, before *snapshot) error {
	for {
		sent := now()
		stored := v.normal(sent.since(asked))
		st, err := a.c.store.commit(a.c.last, a.spec, a.lease.Value(), stored, a.sl.snapshot.Load().version, a.need.reason, sent.since(a.start))
		switch {
		case err == nil:
			a.c.adopt(a.sl, st, sent)
			a.sl.resetLocalBackoff()
			a.sl.fetched()
			a.observe(a.committed(st, before), nil)
			return nil
		case errors.Is(err, errRefused):
			// Another replica may have asked upstream before this one and committed after it. Then
			// the present value is the one that this fetch superseded. Which of the two upstream
			// issued last cannot be known.
			a.cut(ResultRefused)
			a.observe(ResultRefused, err)
			return errLookAgain
		case time.Until(a.lease.Deadline()) <= 0 || a.c.ctx.Err() != nil:
			a.c.keep(a.sl, a.spec, v, asked, before)
			a.sl.fetched()
			a.observe(ResultOrphaned, err)
			a.cut(ResultOrphaned) // the lease may have expired before upstream acted: as for a refused commit
			return nil
		}
		select { // Redis may be back before the lease ends
		case <-time.After(lookEvery):
		case <-a.c.ctx.Done():
		}
	}
}

// committed returns which result a commit is.
func (a *attempt) committed(st state, before *snapshot) Result {
	switch {
	case a.doubtResolved:
		return ResultDoubtResolved
	case st.version == before.version:
		return ResultUnchanged
	}
	return ResultCommitted
}

// cut is step 7: the present value may be superseded, whatever became of the lease. A cut that
// cannot be made now is made later, see [Cache.cutLater].
func (a *attempt) cut(why Result) {
	if a.spec.Overlap == 0 || a.fetchedAt == (instant{}) {
		return // nothing was superseded
	}
	mine := pendingCut{lease: a.lease.Value(), first: a.fetchedAt, over: a.repliedAt, reason: a.need.reason, why: why}
	if a.c.cutNow(a.sl, mine) != nil {
		a.c.cutLater(a.sl, mine)
	}
}

// failed is step 8: upstream gave no value. before was the snapshot when it was asked.
func (a *attempt) failed(f *FetchError, before *snapshot) error {
	o := outcome{result: ResultFailed, undo: !f.Unclear, failed: f, atLeast: f.RetryAfter}
	if a.c.ctx.Err() != nil {
		o.failed = nil // this replica is stopping: that says nothing about upstream
	}
	switch f.Class {
	case ClassLocal:
		a.sl.failLocally(a.spec, f)
	case ClassEnded:
		a.sl.end(before)
	}
	if err := a.finish(o); err != nil && f.Unclear {
		a.cut(ResultFailed)
	}
	a.observe(ResultFailed, f)
	v := a.sl.snapshot.Load()
	return a.unavailable(max(f.RetryAfter, v.backoffLeft(now())), f)
}

// limited ends the lease because an allowance is spent. Every replica waits, unless only a probe
// was refused.
func (a *attempt) limited(wait time.Duration, reason Reason) error {
	o := outcome{result: ResultThrottled}
	if reason != ReasonReport {
		wait = min(wait, longLimited)
		o.failed = &FetchError{Class: ClassLimited}
		o.atLeast = wait
		o.undo = reason == ReasonForce // the fetch before it issued nothing new
	}
	a.finish(o)
	a.observe(ResultThrottled, ErrLimited)
	return a.unavailable(wait, ErrLimited)
}

// finish ends the lease without a value, and reads the result back, which holds for this replica
// too. The store reports its failures, whether or not they matter to the caller.
func (a *attempt) finish(o outcome) error {
	o.reason, o.took = a.need.reason, now().since(a.start)
	// Not under the context of the attempt, whose time is over.
	if err := a.c.store.finish(a.c.last, a.spec, a.lease.Value(), o); err != nil {
		if errors.Is(err, errRefused) {
			a.observe(ResultLeaseLost, nil)
		}
		return err
	}
	_, _ = a.c.load(a.c.last, a.sl) // an event announces the same
	return nil
}

func (a *attempt) observe(r Result, err error) {
	a.c.observe(a.sl, Event{Reason: a.need.reason, Result: r, Took: now().since(a.start), Err: err})
}

func (a *attempt) unavailable(wait time.Duration, err error) error {
	return &UnavailableError{Key: a.spec.Key, RetryAfter: wait, Err: err}
}
