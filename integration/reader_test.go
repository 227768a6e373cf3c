package integration

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// reader reads the public key as an app with direct access does, all the time, until stopped.
type reader struct {
	stop context.CancelFunc
	done chan struct{}
	// valid once stopped:
	looks, missing, dead int
}

func (c *cluster) directReader(rdb redis.UniversalClient) *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			switch v, err := rdb.Get(ctx, valueKey).Result(); {
			case ctx.Err() != nil:
			case err != nil:
				r.missing++
			case !c.Upstream.Works(v):
				r.dead++
			}
			r.looks++
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
