package tokencache

import "time"

// For the random histories, which watch a cache without asking it: asking starts refreshes.

// Scripts returns the names of the scripts by their hashes.
func Scripts() map[string]string {
	s := newStore(nil, "", "").scripts
	return map[string]string{
		s.load.Hash(): "load", s.begin.Hash(): "begin", s.commit.Hash(): "commit", s.finish.Hash(): "finish", s.cut.Hash(): "cut",
		s.revoke.Hash(): "revoke", s.retry.Hash(): "retry",
	}
}

// Glimpse is what a replica would say now.
type Glimpse struct {
	Value   string
	Version int64
	Good    bool          // a read would hand it out as good, from memory
	Alive   bool          // a read would hand it out
	End     time.Duration // until its true end, as far as the replica knows
	// Uncommitted says that the replica has fetched it for itself.
	Uncommitted bool
}

// Peek looks at what c knows of k.
func (c *Cache) Peek(k Key) Glimpse {
	v, n := c.lookup(k).snapshot.Load(), now()
	return Glimpse{
		Value: v.value.Reveal(), Version: v.version, Good: v.fresh(n) && !v.value.Empty(), Alive: v.alive(n), End: v.end - n.since(v.asOf),
		Uncommitted: v.uncommitted,
	}
}
