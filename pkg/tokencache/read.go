package tokencache

import (
	"context"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Token is a value as it is handed out.
type Token struct {
	Value secret.String
	// Version grows with every value of the credential. 0 if it was fetched without Redis.
	Version int64
	// ExpiresIn is the remaining true life. In doubt, it is what is sure of it, which may be 0.
	// ExpiresAt is when that is over, by this host's clock.
	ExpiresIn time.Duration
	ExpiresAt time.Time
	// Stale says that the value may no longer work, and that nothing better can be had now. Err, an
	// *[UnavailableError] or nil, says why not, as far as it is known. Rejected says that upstream
	// was found to reject the value.
	Stale    bool
	Rejected bool
	Err      error
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

// token returns the value as it is handed out. Everything on the hot path is here.
func (v *snapshot) token(n instant) Token {
	age := n.since(v.asOf)
	left := v.left(age)
	return Token{Value: v.value, Version: v.version, ExpiresIn: left, ExpiresAt: n.plus(left), Stale: !v.freshFor(age), Rejected: v.rejected, From: FromMemory}
}

// Get returns the value to use now. A fresh one comes from memory: no lock, no I/O, no allocation.
// Otherwise Get joins the refresh: for at most 2 s if there is an old value that still lives, which
// it then returns as Stale; else until ctx ends. A refresh goes on without its callers.
//
// The error is [ErrUnknown], what [Options.Missing] returned, or an *[UnavailableError].
func (c *Cache) Get(ctx context.Context, k Key) (Token, error) {
	sl, err := c.demanded(ctx, k)
	if err != nil {
		return Token{}, err
	}
	v := sl.snapshot.Load()
	if t := v.token(now()); !t.Stale {
		return t, nil
	}
	if v.alive(now()) {
		if sl.backingOff() {
			return sl.best(k, FromMemory, sl.whyNotNow())
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, refreshWait)
		defer cancel()
	}
	from, err := c.ensure(ctx, sl, need{reason: ReasonMissing, version: v.version, since: now()})
	return sl.best(k, from, err)
}

// Fresh returns the value if it is in memory, good, and has more life than least left: where
// [Cache.Get] and [Cache.GetAtLeast] would not wait.
func (c *Cache) Fresh(k Key, least time.Duration) (Token, bool) {
	sl := c.wanted(k)
	if sl == nil {
		return Token{}, false
	}
	t := sl.snapshot.Load().token(now())
	if t.Stale || t.ExpiresIn <= least {
		return Token{}, false
	}
	return t, true
}

// Report says that upstream rejected value, and returns the one to use instead. A value that is not
// the current one costs nothing and gets the current one back. The current one is probed, if the
// credential has a Probe, and replaced if upstream really rejects it: once in the whole cluster,
// however many report it.
//
// The Token may be the reported one: if the probe found that upstream accepts it, or (then Stale)
// if there is nothing better now. The error is [ErrUnknown], or an *[UnavailableError].
func (c *Cache) Report(ctx context.Context, k Key, value secret.String) (Token, error) {
	sl, err := c.demanded(ctx, k)
	if err != nil {
		return Token{}, err
	}
	start := now()
	if c.isStale(ctx, sl, value) {
		c.observe(sl, Event{Reason: ReasonReport, Result: ResultNotCurrent})
		return c.Get(ctx, k)
	}
	w := need{reason: ReasonReport, version: sl.snapshot.Load().version, value: value, since: start}
	from, err := c.ensure(ctx, sl, w)
	token, unavailable := sl.best(k, from, err)
	if err != nil && token.Value.Equal(value) {
		token.Stale = true // it is not known whether upstream rejects it
	}
	return token, unavailable
}

// isStale reports whether value is not the current one, looking into Redis if memory does not say.
func (c *Cache) isStale(ctx context.Context, sl *slot, value secret.String) bool {
	if sl.snapshot.Load().value.Equal(value) {
		return false
	}
	if sl.replaced(value) {
		return true
	}
	// Neither current nor replaced: garbage, or newer than the snapshot. A storm
	// of garbage must not become a storm of reads.
	if now().since(sl.snapshot.Load().asOf) > minReread {
		_, _ = c.load(ctx, sl) // without Redis, memory decides
	}
	return !sl.snapshot.Load().value.Equal(value)
}

const minReread = 100 * time.Millisecond

// refreshWait is how long a read waits for a refresh while it has an old value to fall back on.
const refreshWait = 2 * time.Second

// turnSoon is how long a caller of GetAtLeast waits for the moment from which upstream has a better
// value. Further away, waiting does not help.
const turnSoon = 5 * time.Second

// GetAtLeast is [Cache.Get] for callers who subtract a reserve from ExpiresIn and take the rest for
// the value's life: it joins the refresh when there is no more life than least left, although the
// value is good. While upstream is well, ExpiresIn of the answer is greater than least, if upstream
// has a better value by then; otherwise it is what there is, after at most 7 s.
func (c *Cache) GetAtLeast(ctx context.Context, k Key, least time.Duration) (Token, error) {
	sl, err := c.demanded(ctx, k)
	if err != nil {
		return Token{}, err
	}
	v, n := sl.snapshot.Load(), now()
	if !v.fresh(n) {
		// Redis may confirm the value, which says nothing of its life.
		t, err := c.Get(ctx, k)
		if err != nil || t.Stale || t.ExpiresIn > least {
			return t, err
		}
		v, n = sl.snapshot.Load(), now()
	}
	if !v.fresh(n) || v.expiresIn(n) > least || sl.backingOff() {
		return c.Get(ctx, k)
	}
	wait := v.turn - n.since(v.asOf)
	if wait > turnSoon || wait > 0 && !sleep(ctx, wait) {
		return v.token(now()), nil
	}
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	from, err := c.ensure(ctx, sl, need{reason: ReasonMissing, version: v.version, since: now(), least: least})
	return sl.best(k, from, err)
}

// Probe asks upstream whether it accepts value, with the Probe of the credential: nil for yes, and
// if there is no Probe; [ErrRejected] for no; any other error for no clear answer, [ErrUnknown]
// among them. It is for a caller who cannot repeat what it is about to do with the value. What it
// finds changes nothing: a rejected value is to be reported.
func (c *Cache) Probe(ctx context.Context, k Key, value secret.String) error {
	sl, err := c.demanded(ctx, k)
	if err != nil {
		return err
	}
	spec := sl.spec.Load()
	if spec.Probe == nil {
		return nil
	}
	return c.probe(ctx, sl, spec, ReasonReport, value)
}

// demanded is wanted for a caller who can wait: one that is not kept yet is asked for.
func (c *Cache) demanded(ctx context.Context, k Key) (*slot, error) {
	sl := c.wanted(k)
	if sl != nil {
		return sl, nil
	}
	if c.opts.Missing == nil {
		return nil, ErrUnknown
	}
	spec, err := c.opts.Missing(ctx, k)
	if err != nil {
		return nil, err
	}
	if spec.Key != k {
		return nil, ErrUnknown
	}
	if err := c.Add(spec); err != nil {
		return nil, err
	}
	if sl = c.wanted(k); sl == nil {
		return nil, ErrUnknown // the set was replaced meanwhile
	}
	return sl, nil
}

// wanted is lookup for a caller who wants the value.
func (c *Cache) wanted(k Key) *slot {
	sl := c.lookup(k)
	if sl != nil && sl.spec.Load().Idle != 0 {
		sl.asked.Store(time.Now().UnixNano())
	}
	return sl
}
