package tokencache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/wxtoken/sidecar/pkg/lock"
)

// errLookAgain means that a step settled nothing: the refresh goes on, or looks at Redis again.
var errLookAgain = errors.New("look again")

// refresh is the one operation that changes a credential, whatever the reason. It has eight steps.
// Steps 1 and 2 are here, steps 3 to 8 are done under the lease, by an [attempt].
//
//  1. Backoff           stop while upstream must not be asked          settledBy
//  2. Lease             try once; while another replica has it, wait   underLease
//     for the value and not for the lease
//  3. Double check      under the lease, read again                    begin.lua
//  4. Cut               shorten the life of the present value          begin.lua
//  5. Fetch             ask upstream, under a deadline in the lease    attempt.fetchAndCommit
//  6. Commit            store the value if the lease is still held     attempt.commit
//  7. Refused commit    the lease was lost: cut the present value      attempt.cut
//  8. Failed fetch      undo the cut if nothing was issued; back off   attempt.failed
type refresh struct {
	c     *Cache
	sl    *slot
	spec  *Credential
	need  need
	start instant
	wait  leaseWait
}

// run looks at Redis until the need is satisfied or cannot be. Replicas that queue for a lease are
// served one after the other, so a replica without the lease waits for the value.
func (r *refresh) run(ctx context.Context) error {
	defer r.endWait()
	for {
		st, err := r.c.load(ctx, r.sl)
		changed := r.sl.changes() // before settledBy looks, so that no change falls between the two
		if err != nil {
			err = r.withoutRedis(ctx, err)
		} else if err = r.settledBy(st); err == errLookAgain {
			err = r.underLease(ctx, st)
		}
		if err != errLookAgain {
			return err
		}
		if err := r.pause(ctx, changed); err != nil {
			return err
		}
	}
}

// settledBy is step 1, and the look that most refreshes end with. It returns errLookAgain if the
// need is not satisfied and upstream may be asked.
func (r *refresh) settledBy(st state) error {
	v := r.sl.snapshot.Load()
	if r.need.satisfiedBy(v, now()) {
		r.observe(ResultShared)
		return nil
	}
	if r.need.reason == ReasonReport && st.version == r.need.version && !v.rejected &&
		st.acceptAge >= 0 && st.acceptAge < now().since(r.need.since) {
		// A probe that began after this report found the value good: that answers the report.
		r.observe(ResultAccepted)
		return nil
	}
	// A backoff concerns fetches. A report may still probe the present value, on another endpoint.
	if st.backoff > 0 && (r.need.reason != ReasonReport || st.value.Empty()) {
		return &UnavailableError{Key: r.sl.spec.Load().Key, RetryAfter: st.backoff, Err: st.note.err()}
	}
	return errLookAgain
}

// underLease is step 2, and runs the other steps if it obtains the lease. It returns errLookAgain
// if another replica holds the lease, or this pod has been refused by upstream and another may
// succeed.
func (r *refresh) underLease(ctx context.Context, st state) error {
	if st.held > 0 {
		r.beginWait()
	}
	if st.overlong {
		r.capLease(ctx)
	}
	if refused := r.sl.refusedHere(); refused != nil {
		if now().since(r.start) > localWait {
			return refused
		}
		return errLookAgain
	}
	if st.held > 0 && !r.sl.lock.Unclear() {
		return errLookAgain
	}
	lease, err := r.c.store.obtain(ctx, r.spec.Key, r.sl.lock)
	switch {
	case errors.Is(err, lock.ErrHeld):
		r.beginWait()
		return errLookAgain
	case err != nil:
		return r.withoutRedis(ctx, err)
	}
	r.endWait()
	if st.unsound {
		if err := r.discard(ctx, lease); err != nil {
			_ = lease.Release(ctx)
			return r.c.withoutRedis(ctx, r.sl, r.spec, r.need, err)
		}
	}
	// Not under ctx, which bounds the waiting: the lease bounds the attempt.
	return (&attempt{refresh: r, lease: lease}).run(r.c.ctx)
}

// withoutRedis goes on without Redis, but not for want of an answer within the first slowTime: then
// it returns errLookAgain. When many replicas start at once on a busy host, Redis' answers come
// late, and each replica would fetch a value of its own. That concerns only a replica that has
// nothing to hand out, and may ask upstream alone.
func (r *refresh) withoutRedis(ctx context.Context, err error) error {
	if r.spec.Overlap == 0 && r.need.reason != ReasonReport && !r.sl.snapshot.Load().alive(now()) &&
		isSlow(err) && now().since(r.start) < slowTime {
		return errLookAgain
	}
	return r.c.withoutRedis(ctx, r.sl, r.spec, r.need, err)
}

// isSlow reports whether Redis, or what is at its address, takes connections and does not answer.
func isSlow(err error) bool {
	s, ok := errors.AsType[*StoreError](err)
	dial, isNet := errors.AsType[*net.OpError](err)
	return ok && s.Class() == StoreTimeout && !(isNet && dial.Op == "dial")
}

const (
	// slowTime is how long a Redis that does not answer is slow, and not absent.
	slowTime = 3 * time.Second
	// A replica without the lease looks at Redis this often, plus up to as much again.
	lookEvery = 50 * time.Millisecond
	// While events arrive, it looks at a quarter of that rate: the event of a commit comes first.
	lookEverySubscribed = 4 * lookEvery
	// localWait is how long a pod that upstream refuses waits for the result of another one.
	localWait = 2 * time.Second
)

// pause waits for a change of the snapshot or for the next look.
func (r *refresh) pause(ctx context.Context, changed <-chan struct{}) error {
	every := lookEvery
	if r.c.store.health.subscribed.Load() {
		every = lookEverySubscribed
	}
	look := time.NewTimer(every + rand.N(every))
	defer look.Stop()
	select {
	case <-changed:
	case <-look.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// capLease makes a lock key that outlives every lease expire after one lease, and reports it by
// name.
func (r *refresh) capLease(ctx context.Context) {
	capped, err := r.c.store.capLease(ctx, r.spec)
	if err != nil || !capped {
		return // the store has reported the error; or another replica has capped it
	}
	r.c.observe(r.sl, Event{Result: ResultLeaseCapped, Err: fmt.Errorf("the lock key %s had no expiry, or a longer one than any lease: no replica wrote that, and it now ends within %v",
		r.c.store.lockKey(r.spec.Key), leaseTTL)})
}

// discard deletes a value that no commit can have written, if it is still there: the last look was
// before the lease. The script begin would count it as a good value.
func (r *refresh) discard(ctx context.Context, lease *lock.Lease) error {
	if st, err := r.c.load(ctx, r.sl); err != nil || !st.unsound {
		return err
	}
	err := r.c.store.discard(ctx, r.spec, lease.Value())
	if errors.Is(err, errRefused) {
		return nil // the script begin finds out that the lease is lost
	}
	return err
}

func (r *refresh) observe(result Result) {
	r.c.observe(r.sl, Event{Reason: r.need.reason, Result: result, Took: now().since(r.start)})
}

// leaseWait measures how long a refresh waits for the lease of another replica.
type leaseWait struct {
	waiting bool
	since   instant
}

// beginWait notes that another replica holds the lease.
func (r *refresh) beginWait() {
	if !r.wait.waiting {
		r.wait = leaseWait{waiting: true, since: now()}
	}
}

// endWait reports the wait, if there was one.
func (r *refresh) endWait() {
	if r.wait.waiting {
		r.wait.waiting = false
		r.c.observe(r.sl, Event{Reason: r.need.reason, Result: ResultLeaseWaited, Took: now().since(r.wait.since)})
	}
}
