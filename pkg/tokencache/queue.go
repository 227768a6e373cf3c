package tokencache

// queue tells how long one refresh waits for another replica's lease.
type queue struct {
	c      *Cache
	cr     *credential
	reason Reason
	since  instant
	in     bool
}

// enter notes that another holds the lease.
func (q *queue) enter() {
	if !q.in {
		q.in, q.since = true, now()
	}
}

// leave ends the wait, if there was one: the lease is ours, or not needed any more.
func (q *queue) leave() {
	if q.in {
		q.in = false
		q.c.observe(q.cr, Event{Reason: q.reason, Result: ResultLeaseWaited, Took: now().since(q.since)})
	}
}
