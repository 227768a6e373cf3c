package tokencache

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
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
	// Reread is how often everything is read again from Redis, in case an event was lost: the time
	// is drawn between it and half more. Default 10 s, so that an event lost costs at most 15 s.
	// Where replicas times credentials are more than Reread in s times 1200, the time grows, so
	// that all replicas together take some 1800 looks a second, up to 4 minutes: see [Health].
	Reread time.Duration
	// Observe is called with what the cache does, for logs and metrics. The calls come from the
	// cache's own goroutines, and must not block. A panic in Observe loses that event and nothing
	// else. Default: none.
	Observe func(Event)
	// Missing is asked for a credential that a caller wants and that is not in the set; it is then
	// added, as by [Cache.Add]. Its error is the caller's: [ErrUnknown] for one that there is not. It
	// may be called concurrently, also for one key. Default: there is none.
	Missing func(context.Context, Key) (Credential, error)
	// Secrets are the passwords that rdb sends to Redis. A server that does not know AUTH repeats
	// them in its error, so they are taken out of the text of every error. Default: none.
	Secrets []secret.String
}

// Cache keeps credentials in memory and in Redis. Safe for concurrent use. Create it with [New];
// [Cache.Run] does the work ahead of time, and without it everything is done when asked.
type Cache struct {
	store *store
	opts  Options
	creds atomic.Pointer[slots] // those of Set; a map is never changed
	added sync.Map              // those of Add, *slot by Key
	set   sync.Mutex            // held to change either: two at once would make two states of one key

	schedule   schedule
	refreshing atomic.Int64  // refreshes that were started and have not ended
	turns      chan struct{} // one for each refresh that may run at once

	pending pendingLooks // that events announced
	values  valueIndex   // for Lookup

	ctx    context.Context // of every refresh: a caller who gives up cancels nothing
	cancel context.CancelFunc
	last   context.Context // ends closeTime after ctx, for what a lease guards and its release

	closing sync.RWMutex // held to add to refreshes, against Close waiting for them
	flights sync.WaitGroup
}

// slots are credentials by the id of their app, which has a few: a read then hashes one short string,
// which is most of what it costs beside the clock.
type slots map[string][]*slot

// New returns a cache without credentials; [Cache.Set] and [Cache.Add] give it some. It does no I/O
// and starts no goroutine. rdb should have ContextTimeoutEnabled, without which go-redis ignores
// the deadlines that the cache sets.
func New(rdb redis.UniversalClient, o Options) *Cache {
	if o.Namespace == "" {
		o.Namespace = "wxtoken"
	}
	if o.Replica == "" {
		host, _ := os.Hostname()
		o.Replica = host + "-" + rand.Text()[:6]
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
	c := &Cache{store: newStore(rdb, o.Namespace, o.Replica, o.Secrets...), opts: o, turns: make(chan struct{}, maxRefreshes)}
	c.schedule.wake = make(chan struct{}, 1)
	c.creds.Store(&slots{})
	c.pending = pendingLooks{first: map[*slot]int64{}, wake: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	last, cancelLast := context.WithCancel(context.Background())
	context.AfterFunc(c.ctx, func() { time.AfterFunc(closeTime, cancelLast) })
	c.last = last
	c.store.health.observe = c.observeStore
	return c
}

// Set replaces the set of credentials, those of [Cache.Add] included. What is known of those that
// stay is kept; a changed Fingerprint forgets their failures. It refuses the whole set, with an
// error that names the key, if any is not valid. Safe for concurrent use: the last call wins.
func (c *Cache) Set(creds ...Credential) error {
	c.set.Lock()
	defer c.set.Unlock()
	next := make(map[Key]*slot, len(creds))
	for _, spec := range creds {
		if err := spec.validate(); err != nil {
			return err
		}
		if next[spec.Key] != nil {
			return fmt.Errorf("tokencache: %s is there twice", spec.Key)
		}
		if next[spec.Key] = c.lookup(spec.Key); next[spec.Key] == nil {
			next[spec.Key] = c.newSlot(spec.Key)
		}
	}
	// Only now, when nothing can fail any more, does anything change.
	before := c.kept()
	for _, spec := range creds {
		next[spec.Key].specify(spec)
	}
	set := make(slots, len(next))
	for k, sl := range next {
		set[k.App] = append(set[k.App], sl)
	}
	c.creds.Store(&set)
	c.added.Clear()
	c.store.kept.Store(int64(len(next)))
	for _, sl := range before {
		if k := sl.spec.Load().Key; next[k] == nil {
			c.drop(sl)
		}
	}
	for _, sl := range next {
		c.plan(sl)
	}
	return nil
}

// Add adds a credential to the set, until the next call of Set, or until it is idle. Its cost does
// not depend on the size of the set. One that is there already stays as it is. The error says what
// is not valid. Safe for concurrent use.
func (c *Cache) Add(spec Credential) error {
	if err := spec.validate(); err != nil {
		return err
	}
	c.set.Lock()
	defer c.set.Unlock()
	if c.lookup(spec.Key) != nil {
		return nil
	}
	sl := c.newSlot(spec.Key)
	sl.specify(spec)
	sl.asked.Store(time.Now().UnixNano())
	c.added.Store(spec.Key, sl)
	c.store.kept.Add(1)
	c.plan(sl)
	c.observe(sl, Event{Result: ResultAdded})
	return nil
}

// dropIdle drops the credentials of Add that were not asked for.
func (c *Cache) dropIdle() {
	c.set.Lock()
	defer c.set.Unlock()
	c.added.Range(func(k, v any) bool {
		if sl := v.(*slot); sl.unused() {
			c.added.Delete(k)
			c.store.kept.Add(-1)
			c.drop(sl)
			c.observe(sl, Event{Result: ResultDropped})
		}
		return true
	})
}

// drop ends what the cache does for a slot that is not in the set any more. A refresh under way
// goes on, and is its last.
func (c *Cache) drop(sl *slot) {
	sl.gone.Store(true)
	c.schedule.remove(sl)
	sl.forgetValues()
}

func (c *Cache) newSlot(k Key) *slot {
	sl := newSlot(&c.values, lock.New(c.store.rdb, c.store.lockKey(k), leaseTTL))
	sl.kind = k.Kind
	return sl
}

// Lookup returns which credential a value is, or was until lately: of the last four that were
// replaced, also by other replicas and before this one started. Its cost does not depend on the
// number of credentials. Safe for concurrent use.
func (c *Cache) Lookup(value secret.String) (Key, bool) {
	k, ok := c.values.find(value)
	return k, ok && c.lookup(k) != nil
}

// mark identifies a value without revealing it: the first 12 hex digits of its SHA-256. The marks
// of the last values are in Redis.
type mark string

const markLength = 12

func markOf(value secret.String) mark {
	sum := sha256.Sum256([]byte(value.Reveal()))
	return mark(hex.EncodeToString(sum[:markLength/2]))
}

// marksOf returns the marks of values, empty ones excepted.
func marksOf(values ...secret.String) []mark {
	var marks []mark
	for _, v := range values {
		if !v.Empty() {
			marks = append(marks, markOf(v))
		}
	}
	return marks
}

// marksIn returns the marks in a text as Redis has it. Another program may have written it: then
// a mark fits no value.
func marksIn(text string) []mark {
	var marks []mark
	for ; len(text) >= markLength; text = text[markLength:] {
		marks = append(marks, mark(text[:markLength]))
	}
	return marks
}

// valueIndex finds the credential that a value belongs to, or belonged to. It compares digests, so
// the time of a look says nothing about the values. The zero value is empty. Safe for concurrent
// use.
type valueIndex struct {
	mu   sync.RWMutex
	keys map[mark]Key
}

func (x *valueIndex) find(value secret.String) (Key, bool) {
	m := markOf(value)
	x.mu.RLock()
	defer x.mu.RUnlock()
	k, ok := x.keys[m]
	return k, ok
}

// replace files marks under k, instead of those of before.
func (x *valueIndex) replace(k Key, before, marks []mark) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.keys == nil {
		x.keys = map[mark]Key{}
	}
	for _, m := range before {
		delete(x.keys, m)
	}
	for _, m := range marks {
		x.keys[m] = k
	}
}

func (c *Cache) lookup(k Key) *slot {
	for _, sl := range (*c.creds.Load())[k.App] {
		if sl.kind == k.Kind {
			return sl
		}
	}
	sl, _ := c.added.Load(k)
	added, _ := sl.(*slot)
	return added
}

// kept returns all credentials.
func (c *Cache) kept() []*slot {
	all := *c.creds.Load()
	list := make([]*slot, 0, len(all))
	for _, ofApp := range all {
		list = append(list, ofApp...)
	}
	c.added.Range(func(_, sl any) bool {
		list = append(list, sl.(*slot))
		return true
	})
	return list
}

// load asks Redis for one credential and adopts the answer.
func (c *Cache) load(ctx context.Context, sl *slot) (state, error) {
	asked := now()
	st, err := c.store.load(ctx, sl.spec.Load())
	if err != nil {
		return state{}, err
	}
	c.adopt(sl, st, asked)
	return st, nil
}

// plan plans the next refresh of sl ahead of time, after anything changed that it depends on.
func (c *Cache) plan(sl *slot) {
	if wait, busy := sl.untilDue(); !busy {
		c.schedule.set(sl, time.Now().Add(wait))
	}
}

// observeStore reports what concerns the way to Redis, and often a credential as well.
func (c *Cache) observeStore(e Event) {
	if sl := c.lookup(e.Key); sl != nil {
		c.observe(sl, e)
		return
	}
	c.opts.Observe(e)
}

// observe reports an event of a credential. It is the one place that fills in what every event
// says.
func (c *Cache) observe(sl *slot, e Event) {
	v := sl.snapshot.Load()
	e.Key, e.Version = sl.spec.Load().Key, v.version
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
