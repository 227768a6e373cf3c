package tokencache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// Run does the work ahead of time until ctx ends: it refreshes what is due, listens for what other
// replicas did, and reads everything again now and then in case it missed something. It returns
// nil when ctx ends; a Redis that is away is not an error. Call it once.
func (c *Cache) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { c.refreshAhead(ctx); return nil })
	g.Go(func() error { c.listen(ctx); return nil })
	g.Go(func() error { c.readAnnounced(ctx); return nil })
	g.Go(func() error { c.rereadNowAndThen(ctx); return nil })
	return g.Wait()
}

// refreshAhead starts a refresh of whatever is due, until ctx ends. It leaves room for refreshes
// that callers wait for. The end of each refresh plans the next one of its credential.
func (c *Cache) refreshAhead(ctx context.Context) {
	for ctx.Err() == nil {
		if c.refreshing.Load() >= maxAhead {
			c.schedule.wait(ctx, time.Hour) // until one ends
			continue
		}
		sl, wait := c.schedule.next()
		if sl == nil {
			c.schedule.wait(ctx, wait)
			continue
		}
		left, busy := sl.untilDue()
		switch {
		case busy: // its end plans the next
		case sl.gone.Load(): // its last refresh has planned another one
		case left > 0:
			c.schedule.set(sl, time.Now().Add(left)) // something changed
		default:
			v := sl.snapshot.Load()
			if _, _, err := c.join(sl, need{reason: v.dueReason(), version: v.version, since: now()}); err != nil {
				return // closed
			}
		}
	}
}

func (v *snapshot) dueReason() Reason {
	if v.alive(now()) && !v.rejected {
		return ReasonDue
	}
	return ReasonMissing
}

// listen adopts what events announce, until ctx ends.
func (c *Cache) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.subscription(ctx)
		c.store.health.subscribed.Store(false)
		if err != nil && ctx.Err() == nil {
			c.store.health.subscribeErr.Store(c.store.failed(Key{}, "watch", err))
			sleep(ctx, time.Second+rand.N(time.Second))
		}
	}
}

const (
	// quiet is how long a subscription may be silent before its connection is tested, and pong how
	// long the answer may take. Meanwhile the slow re-read does its work.
	quiet = 20 * time.Second
	pong  = 5 * time.Second
)

// subscription listens on one connection until it breaks or ctx ends.
func (c *Cache) subscription(ctx context.Context) error {
	sub := c.store.rdb.Subscribe(ctx, c.store.channel())
	defer sub.Close()
	// A subscription that is not confirmed may not exist: go-redis reconnects without it when the
	// command could not be sent, and answers to pings would keep that connection alive for ever.
	if _, err := sub.ReceiveTimeout(ctx, storeTimeout); err != nil {
		return fmt.Errorf("subscribing to events: %w", err)
	}
	// A blocked receive does not notice the end of ctx, only that of its connection. Not before
	// there is one: Close waits for the attempt to make it.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer stop()
	// Whatever was published meanwhile is lost. First everything is read, then events count.
	if err := c.reread(ctx, c.kept()); err != nil {
		return err
	}
	c.store.health.subscribed.Store(true)
	c.store.health.subscribeErr.Store(nil)
	c.opts.Observe(Event{Result: ResultSubscribed})
	for wait := quiet; ; {
		message, err := sub.ReceiveTimeout(ctx, wait)
		var timeout net.Error
		switch {
		case err == nil, wait == pong && answered(err): // a proxy or an ACL may refuse the ping: that is an answer, too
			wait = quiet
		case errors.As(err, &timeout) && timeout.Timeout() && wait == quiet:
			wait = pong
			if err := sub.Ping(ctx); err != nil {
				return fmt.Errorf("testing the subscription to events: %w", err)
			}
			continue
		default:
			return fmt.Errorf("listening for events: %w", err)
		}
		if m, ok := message.(*redis.Message); ok {
			c.announced(m.Payload)
		}
	}
}

// announced notes that an event says that a credential changed. It does no I/O: a flood of events
// must cost neither Redis a look each, nor the connection that they come on.
func (c *Cache) announced(payload string) {
	e, ok := decodeEvent(payload)
	if !ok {
		return
	}
	sl := c.lookup(e.key())
	if sl == nil {
		return
	}
	sl.eventAnnounced(e.Version)
	c.pending.add(sl, e.At)
}

// pendingLooks are the credentials that events announced and that have not been read since. Events
// of one credential merge. Safe for concurrent use.
type pendingLooks struct {
	mu    sync.Mutex
	first map[*slot]int64 // when the first event was published, in ms by Redis' clock; 0: it does not say
	wake  chan struct{}   // of 1: first is not empty
}

func (p *pendingLooks) add(sl *slot, at int64) {
	p.mu.Lock()
	if _, ok := p.first[sl]; !ok {
		p.first[sl] = at
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take empties the set.
func (p *pendingLooks) take() map[*slot]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.first
	p.first = map[*slot]int64{}
	return first
}

// lookGap is the least time between two rounds of looks that events cause: a flood costs 100 a
// second at most.
const lookGap = 10 * time.Millisecond

// readAnnounced reads what events announced, until ctx ends.
func (c *Cache) readAnnounced(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.pending.wake:
		}
		c.lookAtAnnounced(ctx)
		if !sleep(ctx, lookGap) {
			return
		}
	}
}

// lookAtAnnounced reads what events have announced so far.
func (c *Cache) lookAtAnnounced(ctx context.Context) {
	first := c.pending.take()
	// The slow re-read tries again what cannot be read now.
	_, _ = c.look(ctx, slices.Collect(maps.Keys(first)), false, func(sl *slot, st state, asked instant) {
		c.adopt(sl, st, asked)
		if at := first[sl]; at != 0 {
			// Both times are of the clock of the one Redis that has the key.
			c.observe(sl, Event{Result: ResultAdopted, Took: max(0, st.now-duration(at))})
		}
	})
}

// rereadNowAndThen is for lost events.
func (c *Cache) rereadNowAndThen(ctx context.Context) {
	listeners := 0
	tick := func() time.Duration { return c.opts.Reread + rand.N(c.opts.Reread/2) }
	// Replicas that start together, as after an upgrade, must not stay in step. So the first tick
	// comes as if this replica had been running for long. Nor does a slow Redis, which answers many
	// of them at one moment, bring them into step: no tick counts from the end of the one before.
	next := time.Now().Add(rand.N(tick()))
	for before := now(); sleep(ctx, time.Until(next)); {
		if next = next.Add(tick()); time.Until(next) < 0 {
			next = time.Now().Add(rand.N(tick()))
		}
		n := now()
		if d := n.drift(before); d.Abs() >= stepNoticed {
			c.opts.Observe(Event{Result: ResultClockStepped, Took: d})
		}
		before = n
		// While subscriptions break, the replicas are still there: the number only falls slowly.
		listeners = max(c.store.countListeners(ctx), listeners*3/4)
		c.dropIdle()
		kept := c.kept()
		every := rereadEvery(c.opts.Reread, listeners*len(kept))
		c.store.health.rereadBound.Store(int64(every + c.opts.Reread*3/2))
		_ = c.reread(ctx, chooseForReread(kept, c.opts.Reread, every)) // the next one tries again
	}
}

const (
	// looksPerSecond is how many looks the slow re-reads of all replicas together take on average, at
	// most. When all of them looked at one moment, because they started together or Redis was away,
	// one second of the time after it has half as many more.
	looksPerSecond = 1800
	// rereadAtMost keeps a value from becoming unconfirmed for want of a look.
	rereadAtMost = unconfirmed - 30*time.Second
)

// rereadEvery returns how long a credential is not read again at most, if all replicas together
// keep so many that many times: least, while that is within [looksPerSecond]. On average it is two
// thirds of that, see [snapshot.rereadAfter].
func rereadEvery(least time.Duration, kept int) time.Duration {
	return max(least, min(time.Duration(kept)*(time.Second*3/2/looksPerSecond), rereadAtMost))
}

// rereadAfter returns how long after this look the next one comes: between a third of every and all
// of it. Less of a spread, and replicas that looked at one moment, for an event say, would do so
// again and again.
func (v *snapshot) rereadAfter(every time.Duration) time.Duration {
	return every/3 + time.Duration(v.patience*float64(every*2/3))
}

// chooseForReread returns which credentials are read at a tick: those whose time has come, so that
// none waits for longer than every and a tick. There is always one: the look says whether Redis
// answers.
func chooseForReread(kept []*slot, tick, every time.Duration) []*slot {
	if every <= tick {
		return kept
	}
	n := now()
	var chosen []*slot
	for _, sl := range kept {
		if v := sl.snapshot.Load(); n.since(v.asOf) >= v.rereadAfter(every) {
			chosen = append(chosen, sl)
		}
	}
	if len(chosen) == 0 {
		chosen = kept[:min(1, len(kept))]
	}
	return chosen
}

// stepNoticed is how far the clocks must part between two re-reads to be worth telling: more than
// what adjusts a clock gently.
const stepNoticed = time.Second

// batch is how many credentials one round trip reads.
const batch = 128

// reread reads credentials in case an event was lost. It returns an error if Redis is away, and nil
// if only single ones cannot be read.
func (c *Cache) reread(ctx context.Context, kept []*slot) error {
	whole, err := c.look(ctx, kept, true, func(sl *slot, st state, asked instant) {
		missed := sl.reread(st.version)
		c.adopt(sl, st, asked)
		if missed {
			c.observe(sl, Event{Result: ResultEventMissed})
		}
	})
	if whole {
		c.opts.Observe(Event{Result: ResultReread})
	}
	return err
}

// look asks Redis for crs, a batch in each round trip, and calls found with each answer. It returns
// an error if Redis is away; whole says that every one was read. brief is as of [store.loadAll].
func (c *Cache) look(ctx context.Context, crs []*slot, brief bool, found func(*slot, state, instant)) (whole bool, err error) {
	whole = true
	for part := range slices.Chunk(crs, batch) {
		if ctx.Err() != nil {
			return false, nil
		}
		specs := make([]*Credential, len(part))
		for i, sl := range part {
			specs[i] = sl.spec.Load()
		}
		asked := now()
		states, errs := c.store.loadAll(ctx, specs, brief)
		for i, sl := range part {
			if errs[i] == nil {
				found(sl, states[i], asked)
				continue
			}
			if !answered(errs[i]) {
				return false, errs[i] // the rest would only wait for the same
			}
			whole = false // this one alone cannot be read
		}
	}
	return whole, nil
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
