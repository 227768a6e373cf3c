package observe

import (
	"sync"
	"time"
)

// Complaints keeps what lasts from being logged at each occurrence. The zero value is ready for
// use. Safe for concurrent use. Its keys are of a bounded set.
type Complaints struct {
	mu  sync.Mutex
	all map[string]*complaint
}

type complaint struct {
	logged time.Time
	since  int // occurrences since then
}

// complainEvery is the least time between two log lines about the same.
const complainEvery = time.Minute

// Due counts an occurrence, and returns how many there were since the last log line if it is time
// for another, else 0.
func (c *Complaints) Due(what string, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]*complaint{}
	}
	one := c.all[what]
	if one == nil {
		one = &complaint{}
		c.all[what] = one
	}
	one.since++
	if !one.logged.IsZero() && now.Sub(one.logged) < complainEvery {
		return 0
	}
	n := one.since
	one.logged, one.since = now, 0
	return n
}
