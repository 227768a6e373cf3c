package tokencache

import (
	"context"
	"time"
)

// turnSoon is how long a caller of GetLasting waits for the moment from which upstream has a better
// value. Further away, waiting helps nobody.
const turnSoon = 5 * time.Second

// GetLasting is [Cache.Get] for callers who subtract a reserve from ExpiresIn and take the rest for
// the value's life: it joins the refresh when there is no more life than least left, although the
// value is good. While upstream is well, ExpiresIn of the answer is greater than least, if upstream has a
// better value by then; otherwise it is what there is, after at most RefreshWait and 5 s.
func (c *Cache) GetLasting(ctx context.Context, k Key, least time.Duration) (Token, error) {
	cr := c.wanted(k)
	if cr == nil {
		return Token{}, ErrUnknown
	}
	v, n := cr.view.Load(), now()
	if !v.fresh(n) || v.expiresIn(n) > least || cr.heldBack() {
		return c.Get(ctx, k)
	}
	wait := v.turn - n.since(v.asOf)
	if wait > turnSoon || wait > 0 && !sleep(ctx, wait) {
		return v.token(now(), false), nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.RefreshWait)
	defer cancel()
	from, err := c.ensure(ctx, cr, want{reason: Missing, version: v.version, since: now(), least: least})
	return cr.best(k, from, err)
}
