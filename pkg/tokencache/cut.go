package tokencache

import (
	"context"
	"time"
)

// cut is what has to be told to Redis without a lease: that upstream may have superseded what stands.
type cut struct {
	lease string // of the holder that asked: it is told once for each
	// Upstream was asked at these times, by holders who have not been able to tell so far.
	first, last instant
	reason      Reason
	why         Result
}

// cut is for what must not be dropped silently, whatever became of the lease.
func (h *attempt) cut(why Result) {
	if h.spec.Overlap == 0 || h.asked.mono.IsZero() {
		return // nothing was superseded
	}
	mine := cut{lease: h.lease.Value(), first: h.asked, last: h.asked, reason: h.need.reason, why: why}
	if h.c.cutNow(h.cr, mine) != nil {
		h.c.cutLater(h.cr, mine)
	}
}

func (c *Cache) cutNow(cr *credential, t cut) error {
	// Not longer than Close waits.
	ctx, cancel := context.WithTimeout(c.last, storeTimeout)
	defer cancel()
	return c.store.cut(ctx, cr.spec.Load(), t)
}

// cutLater goes on trying, beside the flights, whose callers need not wait for Redis; but Close does, for
// this too. What several holders have to tell is told at once: while Redis is too slow for anybody to tell
// it, each refresh has more.
func (c *Cache) cutLater(cr *credential, t cut) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	if cr.pendingCut != nil {
		cr.pendingCut.lease, cr.pendingCut.last = t.lease, t.last
		return
	}
	cr.pendingCut = &t
	c.flights.Go(func() {
		for wait := time.Second; sleep(c.ctx, wait); wait = min(2*wait, 5*time.Second) {
			cr.mu.Lock()
			now := *cr.pendingCut
			cr.mu.Unlock()
			if c.cutNow(cr, now) != nil {
				continue
			}
			cr.mu.Lock()
			told := cr.pendingCut.lease == now.lease
			if told {
				cr.pendingCut = nil
			}
			cr.mu.Unlock()
			if told {
				return
			}
		}
	})
}
