package tokencache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
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
	g.Go(func() error { c.rereadNowAndThen(ctx); return nil })
	return g.Wait()
}

// refreshAhead starts a refresh of whatever is due. Its own failures are rescheduled by the flight.
func (c *Cache) refreshAhead(ctx context.Context) {
	for {
		next := time.Hour
		for _, cr := range *c.creds.Load() {
			wait, busy := cr.untilDue()
			switch {
			case busy: // its end wakes us
			case wait <= 0:
				v := cr.view.Load()
				if _, _, err := c.board(cr, want{reason: v.dueReason(), version: v.version, since: now()}); err != nil {
					return // closed
				}
			default:
				next = min(next, wait)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (v *view) dueReason() Reason {
	if v.alive(now()) && !v.rejected {
		return Due
	}
	return Missing
}

// untilDue returns how long to wait before a refresh should start by itself.
func (cr *credential) untilDue() (wait time.Duration, busy bool) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	v, n := cr.view.Load(), now()
	wait = max(v.due-n.since(v.asOf), cr.retry.left(), cr.local.left())
	return wait, cr.flight != nil
}

// listen adopts what events announce, until ctx ends.
func (c *Cache) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.subscription(ctx)
		c.store.health.listening.Store(false)
		if err != nil && ctx.Err() == nil {
			_ = c.store.health.failed(Key{}, "watch", err)
			sleep(ctx, time.Second+rand.N(time.Second))
		}
	}
}

// quiet is how long a subscription may be silent before its connection is tested. Meanwhile the slow
// re-read does its work.
const quiet = time.Minute

// subscription listens on one connection until it breaks or ctx ends.
func (c *Cache) subscription(ctx context.Context) error {
	sub := c.store.rdb.Subscribe(ctx, c.store.channel())
	defer sub.Close()
	// A subscription that is not confirmed may be none: go-redis reconnects without it when the
	// command could not be sent, and answers to pings would keep that connection alive for ever.
	if _, err := sub.ReceiveTimeout(ctx, storeTimeout); err != nil {
		return fmt.Errorf("subscribing to events: %w", err)
	}
	// A blocked receive does not notice the end of ctx, only that of its connection. Not before
	// there is one: Close waits for the attempt to make it.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer stop()
	// Whatever was published meanwhile is lost. First everything is read, then events count.
	if err := c.rereadAll(ctx); err != nil {
		return err
	}
	c.store.health.listening.Store(true)
	c.opts.Observe(Event{Result: Subscribed})
	for tested := false; ; {
		message, err := sub.ReceiveTimeout(ctx, quiet)
		var timeout net.Error
		switch {
		case err == nil:
			tested = false
		case errors.As(err, &timeout) && timeout.Timeout() && !tested:
			if tested = true; sub.Ping(ctx) != nil {
				return err
			}
			continue
		default:
			return fmt.Errorf("listening for events: %w", err)
		}
		if m, ok := message.(*redis.Message); ok {
			c.heard(ctx, m.Payload)
		}
	}
}

// heard reads again what an event says has changed.
func (c *Cache) heard(ctx context.Context, payload string) {
	e, ok := decodeEvent(payload)
	cr := c.lookup(e.key())
	if !ok || cr == nil {
		return
	}
	cr.hear(e.Version)
	st, err := c.load(ctx, cr)
	if err != nil || e.At == 0 {
		return // the slow re-read tries again
	}
	// Both times are of the clock of the one Redis that has the key.
	c.observe(cr, Event{Result: Heard, Took: max(0, st.now-duration(e.At))})
}

// rereadNowAndThen is for lost events.
func (c *Cache) rereadNowAndThen(ctx context.Context) {
	for before := now(); sleep(ctx, c.opts.Reread+rand.N(c.opts.Reread/2)); {
		n := now()
		if d := n.drift(before); d.Abs() >= stepNoticed {
			c.opts.Observe(Event{Result: Stepped, Took: d})
		}
		before = n
		_ = c.rereadAll(ctx) // the next one tries again
	}
}

// stepNoticed is how far the clocks must part between two re-reads to be worth telling: more than what
// adjusts a clock gently.
const stepNoticed = time.Second

// batch is how many credentials one round trip reads.
const batch = 128

func (c *Cache) rereadAll(ctx context.Context) error {
	var failed error
	var crs []*credential
	for _, cr := range *c.creds.Load() {
		crs = append(crs, cr)
	}
	for len(crs) > 0 && ctx.Err() == nil {
		part := crs[:min(batch, len(crs))]
		crs = crs[len(part):]
		specs := make([]*Credential, len(part))
		for i, cr := range part {
			specs[i] = cr.spec.Load()
		}
		asked := now()
		states, errs := c.store.loadAll(ctx, specs)
		for i, cr := range part {
			if errs[i] != nil {
				var answer redis.Error
				if !errors.As(errs[i], &answer) && !errors.Is(errs[i], errReply) {
					return errs[i] // Redis is away; the rest would only wait for the same
				}
				failed = errs[i] // of this credential alone
				continue
			}
			missed := cr.reread(states[i].version)
			c.adopt(cr, states[i], asked)
			if missed {
				c.observe(cr, Event{Result: Missed})
			}
		}
	}
	if failed == nil {
		c.opts.Observe(Event{Result: Reread})
	}
	return nil
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
