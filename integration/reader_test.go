package integration

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// reader reads the public key as an app with direct access does, all the time, until stopped.
type reader struct {
	stop context.CancelFunc
	done chan struct{}
	// valid once stopped:
	looks, missing, dead int

	mu   sync.Mutex
	seen map[string]bool // values
}

// saw reports whether it has read a value so far.
func (r *reader) saw(value string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[value]
}

func (c *cluster) directReader(rdb redis.UniversalClient) *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{stop: cancel, done: make(chan struct{}), seen: map[string]bool{}}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			asked := time.Now()
			v, err := rdb.Get(ctx, valueKey).Result()
			_, end, issued := c.Upstream.Life(appID, v)
			switch {
			case errors.Is(err, redis.Nil):
				r.missing++
			case err == nil && (!issued || !asked.Before(end)):
				r.dead++
			}
			if err == nil {
				r.looks++
				r.mu.Lock()
				r.seen[v] = true
				r.mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return r
}

func (r *reader) finish() {
	r.stop()
	<-r.done
}
