package tokencache

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// Options are optional; the zero value is ready for use.
type Options struct {
	// Namespace starts every Redis key. Default "wxtoken".
	Namespace string
	// Replica is this process' name in the journal. Default: the host name and a random part.
	Replica string
	// RefreshWait is how long a read waits for a refresh while it has an old value to fall back on.
	// Default 2 s.
	RefreshWait time.Duration
	// Reread is how often everything is read again from Redis, in case an event was lost: the time is drawn
	// between it and half more. Default 10 s, so that an event lost costs at most 15 s.
	Reread time.Duration
	// Observe is called with what the cache does, for logs and metrics. The calls come from the cache's own
	// goroutines, and must not block. A panic in Observe loses that event and nothing else. Default: none.
	Observe func(Event)
	// Secrets are the passwords that rdb sends to Redis. A server that does not know AUTH repeats them in
	// its error, so they are taken out of the text of every error. Default: none.
	Secrets []secret.String
}

// Cache keeps credentials in memory and in Redis. Safe for concurrent use. Create it with [New];
// [Cache.Run] does the work ahead of time, and without it everything is done when asked.
type Cache struct {
	store *store
	opts  Options
	creds atomic.Pointer[map[Key]*credential]
	set   sync.Mutex    // held by Set: two at once would make two states of one key
	wake  chan struct{} // of 1: something changed, look at the schedule

	pending pendingLooks // that events announced

	ctx    context.Context // of every refresh: a caller who gives up cancels nothing
	cancel context.CancelFunc
	last   context.Context // ends closeTime after ctx, for what a lease guards and its release

	closing sync.RWMutex // held to add to refreshes, against Close waiting for them
	flights sync.WaitGroup
}

// New returns a cache without credentials; [Cache.Set] gives it some. It does no I/O and starts no
// goroutine. rdb should have ContextTimeoutEnabled, without which go-redis ignores the deadlines that the
// cache sets.
func New(rdb redis.UniversalClient, o Options) *Cache {
	if o.Namespace == "" {
		o.Namespace = "wxtoken"
	}
	if o.Replica == "" {
		host, _ := os.Hostname()
		o.Replica = host + "-" + rand.Text()[:6]
	}
	if o.RefreshWait <= 0 {
		o.RefreshWait = 2 * time.Second
	}
	if o.Reread <= 0 {
		o.Reread = 10 * time.Second
	}
	observe := o.Observe
	o.Observe = func(e Event) {
		if observe != nil {
			_ = guard("observer", func() error { observe(e); return nil })
		}
	}
	c := &Cache{store: newStore(rdb, o.Namespace, o.Replica, o.Secrets...), opts: o, wake: make(chan struct{}, 1)}
	c.creds.Store(&map[Key]*credential{})
	c.pending = pendingLooks{first: map[*credential]int64{}, wake: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	last, cancelLast := context.WithCancel(context.Background())
	context.AfterFunc(c.ctx, func() { time.AfterFunc(closeTime, cancelLast) })
	c.last = last
	c.store.health.observe = c.observeStore
	return c
}

// credential is one credential on this replica.
type credential struct {
	spec atomic.Pointer[Credential]
	view atomic.Pointer[view]
	lock *lock.Lock

	mu      sync.Mutex
	flight  *flight
	changed chan struct{}    // closed when the view is replaced
	past    [8]secret.String // values replaced lately
	nPast   int              // how many there ever were
	local   holdback         // upstream refuses this pod
	retry   holdback         // the last refresh failed; its schedule
	untold  *cut             // nil: nothing
	news    news
	direct  [2]time.Time // the last fetches without Redis

	lastProbe finding // without Redis

	idle  atomic.Int64 // as of [Credential].Idle
	asked atomic.Int64 // when it was asked for last, in Unix ns by this host's clock; 0: never
}

// holdback is a reason not to try before a moment.
type holdback struct {
	until time.Time
	err   error
	tries int
}

func (h *holdback) left() time.Duration { return max(0, time.Until(h.until)) }

// Set replaces the set of credentials. What is known of those that stay is kept; a changed
// Fingerprint forgets their failures. It refuses the whole set, with an error that names the key,
// if any is not valid. Safe for concurrent use: the last call wins.
func (c *Cache) Set(creds ...Credential) error {
	c.set.Lock()
	defer c.set.Unlock()
	old := *c.creds.Load()
	next := make(map[Key]*credential, len(creds))
	for _, spec := range creds {
		if err := spec.Key.validate(); err != nil {
			return err
		}
		if spec.Source == nil {
			return fmt.Errorf("tokencache: %s has no Source", spec.Key)
		}
		if next[spec.Key] != nil {
			return fmt.Errorf("tokencache: %s is there twice", spec.Key)
		}
		next[spec.Key] = c.credential(old[spec.Key])
	}
	// Only now, when nothing can fail any more, does anything change.
	for _, spec := range creds {
		cr := next[spec.Key]
		if cr.lock == nil {
			cr.lock = lock.New(c.store.rdb, c.store.lockKey(spec.Key), leaseTTL)
		}
		cr.idle.Store(int64(spec.Idle))
		before := cr.spec.Swap(&spec)
		if before != nil && before.Fingerprint != spec.Fingerprint {
			cr.forgive()
		}
	}
	c.creds.Store(&next)
	c.poke()
	return nil
}

func (c *Cache) credential(old *credential) *credential {
	if old != nil {
		return old
	}
	cr := &credential{changed: make(chan struct{})}
	cr.view.Store(&view{asOf: now()})
	return cr
}

// forgive forgets the failures of a secret that is no longer used.
func (cr *credential) forgive() {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.local, cr.retry = holdback{}, holdback{}
	v := *cr.view.Load()
	v.backoff, v.note, v.due = 0, note{}, 0
	cr.replace(cr.view.Load(), &v)
}

func (c *Cache) lookup(k Key) *credential { return (*c.creds.Load())[k] }

// wanted is lookup for a caller who wants the value.
func (c *Cache) wanted(k Key) *credential {
	cr := c.lookup(k)
	if cr != nil && cr.idle.Load() != 0 {
		cr.asked.Store(time.Now().UnixNano())
	}
	return cr
}

// dormant reports whether the credential is kept only while it is asked for, and is not.
func (cr *credential) dormant() bool {
	idle := cr.idle.Load()
	return idle != 0 && time.Now().UnixNano()-cr.asked.Load() >= idle
}

// awake returns the credentials that are kept.
func (c *Cache) awake() []*credential {
	all := *c.creds.Load()
	list := make([]*credential, 0, len(all))
	for _, cr := range all {
		if !cr.dormant() {
			list = append(list, cr)
		}
	}
	return list
}

// adopt merges an answer of Redis into the view, and tells who waits for it.
func (c *Cache) adopt(cr *credential, st state, asked instant) {
	if cr.lock.Unclear() || st.overlong {
		st.held = 0 // it may be our own, or no lease at all: the next try takes it over, and must not wait for its end
	}
	if st.scope != cr.spec.Load().Fingerprint {
		st.backoff, st.note = 0, note{} // of a secret that was replaced while Redis was asked
	}
	cr.mu.Lock()
	old := cr.view.Load()
	next := old.merge(st, asked)
	cr.replace(old, next)
	emptied := next != old && cr.news.emptied(st.version < old.version)
	cr.mu.Unlock()
	c.poke()
	if emptied {
		c.observe(cr, Event{Result: Emptied})
	}
}

// replace must be called with mu held.
func (cr *credential) replace(old, next *view) {
	if next == old {
		return
	}
	if !old.value.Empty() && !old.value.Equal(next.value) {
		cr.past[cr.nPast%len(cr.past)] = old.value
		cr.nPast++
	}
	cr.view.Store(next)
	close(cr.changed)
	cr.changed = make(chan struct{})
}

// load asks Redis for one credential and adopts the answer.
func (c *Cache) load(ctx context.Context, cr *credential) (state, error) {
	asked := now()
	st, err := c.store.load(ctx, cr.spec.Load())
	if err != nil {
		return state{}, err
	}
	c.adopt(cr, st, asked)
	return st, nil
}

func (c *Cache) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// observeStore reports what concerns the way to Redis, and often a credential as well.
func (c *Cache) observeStore(e Event) {
	if cr := c.lookup(e.Key); cr != nil {
		c.observe(cr, e)
		return
	}
	c.opts.Observe(e)
}

// observe reports an event of a credential. It is the one place that fills in what every event says.
func (c *Cache) observe(cr *credential, e Event) {
	v := cr.view.Load()
	e.Key, e.Version = cr.spec.Load().Key, v.version
	e.ForeignRefresher = v.young >= 2
	c.opts.Observe(e)
}

// Close cancels the refreshes in flight, releases their leases and waits for that: at most 200 ms
// after the last of them has noticed. Afterwards the cache hands out what it has and asks upstream
// for nothing. It may be called more than once.
func (c *Cache) Close() {
	c.closing.Lock()
	c.cancel()
	c.closing.Unlock()
	c.flights.Wait()
}

// Token is a value as it is handed out.
type Token struct {
	Value secret.String
	// Version grows with every value of the credential. 0 if it was fetched without Redis.
	Version int64
	// ExpiresIn is the remaining true life. In doubt, it is what is sure of it, which may be 0.
	ExpiresIn time.Duration
	// Stale says that the value may no longer work, and that nothing better can be had now.
	Stale bool
	// From says what the caller waited for.
	From From
}

// From says where a [Token] came from.
type From string

// What an answer waited for.
const (
	FromMemory   From = "memory"   // nothing
	FromRedis    From = "redis"    // a refresh that found in Redis what another replica had fetched
	FromUpstream From = "upstream" // a fetch by this replica
)

func (v *view) token(n instant, stale bool) Token {
	return Token{Value: v.value, Version: v.version, ExpiresIn: v.expiresIn(n), Stale: stale, From: FromMemory}
}

// Get returns the value to use now. A fresh one comes from memory: no lock, no I/O, no allocation.
// Otherwise Get joins the refresh: for at most RefreshWait if there is an old value that still
// lives, which it then returns as Stale; else until ctx ends. A refresh goes on without its
// callers.
//
// The error is [ErrUnknown], or an *[UnavailableError].
func (c *Cache) Get(ctx context.Context, k Key) (Token, error) {
	cr := c.wanted(k)
	if cr == nil {
		return Token{}, ErrUnknown
	}
	if v, n := cr.view.Load(), now(); v.fresh(n) {
		return v.token(n, false), nil
	}
	v := cr.view.Load()
	if v.alive(now()) {
		if cr.heldBack() {
			return v.token(now(), true), nil
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.RefreshWait)
		defer cancel()
	}
	from, err := c.ensure(ctx, cr, want{reason: Missing, version: v.version, since: now()})
	return cr.best(k, from, err)
}

// Fresh returns the value if it is in memory, good, and has more life than least left: where [Cache.Get] and
// [Cache.GetLasting] would not wait.
func (c *Cache) Fresh(k Key, least time.Duration) (Token, bool) {
	cr := c.wanted(k)
	if cr == nil {
		return Token{}, false
	}
	v, n := cr.view.Load(), now()
	if !v.fresh(n) || v.expiresIn(n) <= least {
		return Token{}, false
	}
	return v.token(n, false), true
}

// best returns what there is after err.
func (cr *credential) best(k Key, from From, err error) (Token, error) {
	v, n := cr.view.Load(), now()
	if !v.alive(n) {
		return Token{}, cr.unavailable(k, err)
	}
	t := v.token(n, !v.fresh(n))
	t.From = from
	return t, nil
}

// heldBack reports whether there is no point in trying now.
func (cr *credential) heldBack() bool {
	if cr.view.Load().backoffLeft(now()) > 0 {
		return true
	}
	cr.mu.Lock()
	defer cr.mu.Unlock()
	// Nor is there in waiting for a try whose predecessor failed: the old value is what comes of it.
	return cr.local.left() > 0 || cr.retry.left() > 0 || cr.retry.tries > 0 && cr.flight != nil
}

// Report says that upstream rejected value, and returns the one to use instead. A value that is not
// the current one costs nothing and gets the current one back. The current one is probed, if the
// credential has a Probe, and replaced if upstream really rejects it: once in the whole cluster,
// however many report it.
//
// The Token may be the reported one: if the probe found that upstream accepts it, or (then Stale)
// if there is nothing better now. The error is [ErrUnknown], or an *[UnavailableError].
func (c *Cache) Report(ctx context.Context, k Key, value secret.String) (Token, error) {
	cr := c.wanted(k)
	if cr == nil {
		return Token{}, ErrUnknown
	}
	start := now()
	if c.isStale(ctx, cr, value) {
		c.observe(cr, Event{Reason: Report, Result: Stale})
		return c.Get(ctx, k)
	}
	w := want{reason: Report, version: cr.view.Load().version, value: value, since: start}
	from, err := c.ensure(ctx, cr, w)
	token, unavailable := cr.best(k, from, err)
	if err != nil && token.Value.Equal(value) {
		token.Stale = true // nobody could find out
	}
	return token, unavailable
}

// isStale reports whether value is not the current one, looking into Redis if memory cannot tell.
func (c *Cache) isStale(ctx context.Context, cr *credential, value secret.String) bool {
	if cr.view.Load().value.Equal(value) {
		return false
	}
	if cr.replaced(value) {
		return true
	}
	// Neither current nor replaced: garbage, or newer than what this replica has heard of. A storm
	// of garbage must not become a storm of reads.
	if now().since(cr.view.Load().asOf) > minReread {
		_, _ = c.load(ctx, cr) // without Redis, memory decides
	}
	return !cr.view.Load().value.Equal(value)
}

const minReread = 100 * time.Millisecond
