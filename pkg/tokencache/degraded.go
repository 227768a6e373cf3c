package tokencache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// withoutRedis does what one replica can do alone when Redis gives no answer, or refuses to write.
// It finds out whether upstream rejects a reported value, because a rejected one must not be handed
// out as good. Where asking upstream harms no other replica, it fetches a value for this replica,
// rarely. Where every fetch invalidates the value of the others, it fetches nothing.
func (c *Cache) withoutRedis(ctx context.Context, sl *slot, spec *Credential, w need, cause error) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if _, ok := errors.AsType[*StoreError](cause); !ok {
		// The time was over before Redis was asked: that says nothing about Redis.
		return &UnavailableError{Key: spec.Key, RetryAfter: time.Second, Err: cause}
	}
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	if v := sl.snapshot.Load(); w.reason == ReasonReport && v.value.Equal(w.value) && !v.rejected {
		switch err := c.probeAlone(ctx, sl, spec, w.value); {
		case err == nil:
			c.observe(sl, Event{Reason: w.reason, Result: ResultAccepted})
			return nil
		case !errors.Is(err, ErrRejected):
			c.observe(sl, Event{Reason: w.reason, Result: ResultUnknown, Err: err})
			return &UnavailableError{Key: spec.Key, RetryAfter: time.Second, Err: cause}
		}
	}
	v, n := sl.snapshot.Load(), now()
	gone := &UnavailableError{Key: spec.Key, RetryAfter: time.Second, Err: cause}
	if spec.Overlap > 0 {
		gone.Err = fmt.Errorf("%w; without Redis this endpoint is not asked, because every fetch there ends the value that others use", cause)
	}
	mayAsk := spec.Overlap == 0 && (v.rejected || w.reason != ReasonReport && n.since(v.asOf) >= v.key)
	if refused := sl.refusedHere(); mayAsk && refused != nil {
		return refused
	}
	// What the cluster agreed on, as far as this replica knows it, holds without Redis, too.
	if left := v.backoffLeft(n); mayAsk && left > 0 {
		return &UnavailableError{Key: spec.Key, RetryAfter: left, Err: v.note.err()}
	}
	if !mayAsk || !sl.mayFetchDirectly() {
		c.observe(sl, Event{Reason: w.reason, Result: ResultNoRedis})
		return gone
	}
	return c.fetchAlone(ctx, sl, spec, w, v)
}

// fetchAlone fetches a value for this replica. It never asks with force: that would invalidate the
// value of the others, and the count of forced fetches is in Redis.
func (c *Cache) fetchAlone(ctx context.Context, sl *slot, spec *Credential, w need, v *snapshot) error {
	asked := now()
	value, failed := c.fetch(ctx, sl, spec, w.reason, Request{})
	if failed == nil && v.rejected && value.Value.Equal(v.value) {
		failed = &FetchError{Class: ClassTransient, Message: "upstream repeats the value that it rejects"}
	}
	if failed != nil {
		if failed.Class == ClassEnded {
			sl.end(v)
		}
		if failed.Class != ClassTransient {
			sl.failLocally(spec, failed) // the backoff of the cluster cannot be written
		}
		c.observe(sl, Event{Reason: w.reason, Result: ResultFailed, Took: now().since(asked), Err: failed})
		return &UnavailableError{Key: spec.Key, RetryAfter: max(time.Second, failed.RetryAfter), Err: failed}
	}
	c.keep(sl, spec, value, asked, v)
	sl.fetched()
	c.observe(sl, Event{Reason: w.reason, Result: ResultDirect, Took: now().since(asked)})
	return nil
}

// probeAlone finds out whether upstream accepts a reported value, at most once in probeGap: within
// it, the last finding is the answer. Without a Probe, the report counts as true. A rejected value
// is marked as such in the snapshot.
func (c *Cache) probeAlone(ctx context.Context, sl *slot, spec *Credential, value secret.String) error {
	asked := now()
	err := ErrRejected
	if spec.Probe != nil {
		sl.mu.Lock()
		last := sl.lastProbe
		sl.mu.Unlock()
		if last.value.Equal(value) && asked.since(last.at) < probeGap {
			return last.err
		}
		err = c.probe(ctx, sl, spec, ReasonReport, value)
		sl.mu.Lock()
		sl.lastProbe = finding{value: value, at: asked, err: err}
		sl.mu.Unlock()
	}
	if errors.Is(err, ErrRejected) {
		sl.refute(value, asked)
	}
	return err
}

// keep puts a value that could not be committed into this replica's memory, unless a version later
// than before has come meanwhile. It stays due, so that the cluster agrees again as soon as Redis
// is back.
func (c *Cache) keep(sl *slot, spec *Credential, v Value, asked instant, before *snapshot) {
	v = v.normal(0)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	old := sl.snapshot.Load()
	if old.version != before.version {
		return
	}
	sl.replace(old, &snapshot{
		value: v.Value, version: old.version, uncommitted: true, asOf: asked, spread: old.spread, young: old.young,
		end: v.Life, good: v.Life, key: v.Life - spec.margin(v.Life),
		refutedAt: old.refutedAt, refutedValue: old.refutedValue,
	})
}
