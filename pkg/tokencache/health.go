package tokencache

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Health is what this replica knows of its ways to Redis.
type Health struct {
	// RedisUp: the last look at Redis was answered with what was asked for. There is one at least
	// every 1.5 times [Options].Reread while [Cache.Run] runs. A Redis that can be read but not
	// written is up.
	RedisUp bool
	// RedisAnswered is when a look was last answered so, by this host's clock. Zero: never.
	RedisAnswered time.Time
	// Subscribed: the events of the other replicas are received. A connection that is silently dead
	// is noticed after 25 s, because silence may mean that nothing has happened.
	Subscribed bool
	// SubscribeErr is the *[StoreError] that says why not. Nil while Subscribed, and before the
	// first failure.
	SubscribeErr error
	// RereadBound is how long it takes at most until a change is noticed whose event was lost. It
	// grows with the number of replicas and credentials, so that the load of Redis stays bounded.
	// Zero: not known yet.
	RereadBound time.Duration
}

// Health returns the present state, from memory.
func (c *Cache) Health() Health {
	h := &c.store.health
	now := Health{RedisUp: h.up.Load(), Subscribed: h.subscribed.Load(), RereadBound: time.Duration(h.rereadBound.Load())}
	if err := h.subscribeErr.Load(); err != nil && !now.Subscribed {
		now.SubscribeErr = err
	}
	if at := h.answeredAt.Load(); at != 0 {
		now.RedisAnswered = time.UnixMilli(at)
	}
	return now
}

// health follows every operation on Redis.
type health struct {
	observe      func(Event) // nil: none
	up           atomic.Bool
	answeredAt   atomic.Int64               // Unix time in ms
	rereadBound  atomic.Int64               // as of [Health]
	subscribed   atomic.Bool                // as of [Health]
	subscribeErr atomic.Pointer[StoreError] // as of [Health]

	// When any operation was answered, or was not in its time; in Unix ns.
	lastAnswer, lastSilence atomic.Int64
}

// silentSince reports whether since then operations had no answer, and none had one.
func (h *health) silentSince(t time.Time) bool {
	return h.lastSilence.Load() > t.UnixNano() && h.lastAnswer.Load() < t.UnixNano()
}

// opLoad is the one operation that every replica does again and again, and that needs no right to
// write.
const opLoad = "load"

func (h *health) answered(op string) {
	h.lastAnswer.Store(time.Now().UnixNano())
	if op == opLoad {
		h.up.Store(true)
		h.answeredAt.Store(time.Now().UnixMilli())
	}
}

// failed reports an operation that failed to the observer, and returns its error.
func (s *store) failed(k Key, op string, err error) *StoreError {
	h, failed := &s.health, &StoreError{Op: op, Err: secret.ScrubRedisError(err, s.secrets...)}
	if errors.Is(err, context.Canceled) {
		return failed // this replica is stopping, or a caller gave up
	}
	if op == opLoad {
		h.up.Store(false)
	}
	if answered(err) {
		h.lastAnswer.Store(time.Now().UnixNano())
	} else if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !errors.Is(err, errSilent) {
		h.lastSilence.Store(time.Now().UnixNano())
	}
	if h.observe != nil {
		h.observe(Event{Key: k, Result: ResultFailed, Err: failed})
	}
	return failed
}
