package tokencache

import (
	"context"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// flightTime bounds one refresh: the whole lease of another replica, then one lease of this
// replica.
const flightTime = 2 * leaseTTL

const (
	// maxRefreshes is how many refreshes a replica runs at once. The next ones wait for their turn.
	maxRefreshes = 128
	// maxAhead is up to how many of them the schedule starts another one: the rest is for those
	// that callers wait for.
	maxAhead = maxRefreshes / 2
)

// need is what a caller of the refresh needs.
type need struct {
	reason  Reason
	version int64         // the version in memory; only a newer one helps
	value   secret.String // ReasonReport: the reported value
	since   instant       // ReasonReport: a probe that began later answers the report
	least   time.Duration // ReasonMissing: the value must live longer than this
}

// satisfiedBy reports whether v is what the caller needs.
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

// flight is one refresh of one credential on this replica. All callers share it, as in
// singleflight, and each waits with its own context.
type flight struct {
	need need
	spec *Credential // as it was when the flight began: a reload does not change a refresh under way
	done chan struct{}
	from From // valid once done is closed, as is err
	err  error
}

// serves reports whether the result of f is an answer to w, which joined it.
func (f *flight) serves(w need) bool {
	return f.need.reason == w.reason && (w.reason != ReasonReport || f.need.version == w.version)
}

// ensure returns nil once w is satisfied or a refresh for it has succeeded. It starts a refresh or
// joins the one in flight, and returns where that found a value. ctx bounds the waiting, not the
// refresh.
func (c *Cache) ensure(ctx context.Context, sl *slot, w need) (From, error) {
	from := FromMemory
	for !w.satisfiedBy(sl.snapshot.Load(), now()) {
		f, started, err := c.join(sl, w)
		if err != nil {
			return from, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return from, ctx.Err()
		}
		from = f.from
		// A refresh that just failed for one reason would fail again for the other.
		if started || f.serves(w) || f.err != nil && f.need.reason != ReasonReport && w.reason != ReasonReport {
			return from, f.err
		}
	}
	return from, nil
}

// join returns the flight in progress, or starts one.
func (c *Cache) join(sl *slot, w need) (f *flight, started bool, err error) {
	c.closing.RLock()
	defer c.closing.RUnlock()
	if c.ctx.Err() != nil {
		return nil, false, ErrClosed
	}
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.flight != nil {
		return sl.flight, false, nil
	}
	f = &flight{need: w, spec: sl.spec.Load(), done: make(chan struct{}), from: FromRedis}
	sl.flight = f
	c.refreshing.Add(1)
	c.flights.Go(func() { c.runFlight(sl, f) })
	return f, true, nil
}

// runFlight runs the refresh of f and releases its callers.
func (c *Cache) runFlight(sl *slot, f *flight) {
	if f.err = c.inTurn(sl, f); f.err != nil && c.ctx.Err() != nil {
		f.err = ErrClosed
	}
	sl.landed(f)
	close(f.done)
	c.refreshing.Add(-1)
	c.plan(sl)
	c.schedule.poke()
}

// inTurn runs the refresh of f when fewer than [maxRefreshes] others run. Its time begins then.
func (c *Cache) inTurn(sl *slot, f *flight) error {
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-c.ctx.Done():
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(c.ctx, flightTime)
	defer cancel()
	return (&refresh{c: c, sl: sl, spec: f.spec, need: f.need, start: now()}).run(ctx)
}
