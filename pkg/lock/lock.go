// Package lock provides the lease that one replica holds while it refreshes a credential: a thin
// layer over bsm/redislock.
//
// It guarantees that Redis holds at most one lease on a key at a time. It does not guarantee
// that a holder notices the end of its lease: a process can be stopped for minutes and go on. So a
// holder (1) bounds its work by [Lease.Deadline], and (2) makes every write conditional on
// [Lease.Value] still standing under the key, in one script on the same Redis. The second is the
// fence; the first only saves work. There is no watchdog: the work is bounded inside the lease, and
// a stuck holder must not live on.
//
// The package imports nothing else of this module.
package lock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
)

// ErrHeld is returned by [Lock.Obtain] when another holder has the lease.
var ErrHeld = errors.New("lock: held by another")

// releaseTimeout bounds a release, whose caller may already be gone.
const releaseTimeout = 200 * time.Millisecond

// Lock names a lease that can be obtained. Safe for concurrent use.
type Lock struct {
	client *redislock.Client
	key    string
	ttl    time.Duration

	mu      sync.Mutex
	unclear string // token of an Obtain whose answer was lost; the key may hold it
}

// New returns the lock at key, whose leases last ttl. It does no I/O.
func New(rdb redis.Scripter, key string, ttl time.Duration) *Lock {
	return &Lock{client: redislock.New(rdb), key: key, ttl: ttl}
}

// Obtain tries once and does not wait: it returns [ErrHeld] when another holds the lease, and any
// other error when Redis gave no clear answer. After an unclear answer Redis may hold a lease
// that no caller uses: Obtain tries to release it, for at most 200 ms, and if that is unclear too,
// the next Obtain on this Lock takes it over instead of waiting for it to run out.
func (l *Lock) Obtain(ctx context.Context) (*Lease, error) {
	token := l.token()
	lease, err := l.try(ctx, token)
	if err != nil && !errors.Is(err, ErrHeld) && !l.abandon(ctx, token) {
		l.mu.Lock()
		l.unclear = token
		l.mu.Unlock()
	}
	return lease, err
}

func (l *Lock) try(ctx context.Context, token string) (*Lease, error) {
	asked := time.Now()
	held, err := l.client.Obtain(ctx, l.key, l.ttl, &redislock.Options{Token: token})
	switch {
	case errors.Is(err, redislock.ErrNotObtained), err != nil && strings.Contains(err.Error(), "WRONGTYPE"):
		return nil, ErrHeld // a key of another type is in the way just as a lease is
	case err != nil:
		return nil, fmt.Errorf("lock: obtaining: %w", err)
	}
	return &Lease{lock: held, value: token, deadline: asked.Add(l.ttl)}, nil
}

// abandon reports whether the lease with this token is gone. Only its holder can release it, and
// obtaining it again with the same token makes this Lock the holder.
func (l *Lock) abandon(ctx context.Context, token string) bool {
	// Detached from ctx, which may be what ended the attempt; with a deadline of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	lease, err := l.try(ctx, token)
	if err != nil {
		return errors.Is(err, ErrHeld)
	}
	return lease.Release(ctx) == nil
}

// Unclear reports whether an Obtain had no clear answer: the lease that another holder seems to
// have may be its own.
func (l *Lock) Unclear() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unclear != ""
}

// token takes over the token of an unclear attempt, at most once, or draws a new one.
func (l *Lock) token() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := l.unclear
	l.unclear = ""
	if token == "" {
		token = rand.Text()[:16] // 80 bits: never the same twice
	}
	return token
}

// Lease is held from [Lock.Obtain] until its Release, its end, or a loss of data in Redis. Its
// methods are safe for concurrent use.
type Lease struct {
	lock     *redislock.Lock
	value    string
	deadline time.Time
}

// Deadline returns the moment at which Redis may give the lease to another, counted from before it
// was asked for.
func (l *Lease) Deadline() time.Time { return l.deadline }

// Value returns the value of the lock's key while this lease is held.
func (l *Lease) Value() string { return l.value }

// Release ends the lease if it is still held. It works after ctx has ended, for at most 200 ms:
// when a caller is canceled, other replicas wait for the lease.
func (l *Lease) Release(ctx context.Context) error {
	// Detached from ctx, with a deadline of its own, for the reason above.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := l.lock.Release(ctx); err != nil && !errors.Is(err, redislock.ErrLockNotHeld) {
		return fmt.Errorf("lock: releasing: %w", err)
	}
	return nil
}
