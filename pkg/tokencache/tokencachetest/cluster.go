// Package tokencachetest runs a cluster of caches in one process: real go-redis, real redislock and
// real Lua on miniredis, over connections that can fail, in front of an upstream that behaves.
//
// Inside a testing/synctest bubble all of it lives in virtual time: days of expiries pass in
// seconds.
//
//	synctest.Test(t, func(t *testing.T) {
//		c := tokencachetest.New(t, 5, &tokencachetest.Upstream{})
//		c.Start()
//		token := c.Replicas[0].MustGet(t)
//	})
//
// It is a test kit: its API is not under semantic versioning and may change in any release.
package tokencachetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Key is the one credential of a [Cluster].
var Key = tokencache.Key{App: "wx0000000000000001", Kind: "access_token"}

// Cluster is some replicas on one Redis and one upstream.
type Cluster struct {
	Redis    *miniredis.Miniredis
	Upstream *Upstream
	Replicas []*Replica

	configure func(replica string, c *tokencache.Credential)
	redis     func(*redis.Options)
	hook      func(replica string) redis.Hook
	options   tokencache.Options
	latency   time.Duration
	made      int // replicas, those replaced included
	t         testing.TB
}

// Option changes a [Cluster] before its replicas are made.
type Option func(*Cluster)

// Configure changes the credential that the replicas are given.
func Configure(f func(replica string, c *tokencache.Credential)) Option {
	return func(c *Cluster) { c.configure = f }
}

// Options are the caches' options; Replica is the cluster's own. With an Observe, replicas keep no
// events themselves.
func Options(o tokencache.Options) Option { return func(c *Cluster) { c.options = o } }

// Redis changes how the replicas talk to Redis.
func Redis(f func(*redis.Options)) Option { return func(c *Cluster) { c.redis = f } }

// Hook sees every command of a replica's, its retries as one.
func Hook(f func(replica string) redis.Hook) Option { return func(c *Cluster) { c.hook = f } }

// Latency is how long scripts take to reach Redis: up to d, never the same. Default 0.
func Latency(d time.Duration) Option { return func(c *Cluster) { c.latency = d } }

// New makes a cluster of n replicas whose background work does not run yet. Everything is stopped
// when the test ends.
func New(t testing.TB, n int, u *Upstream, options ...Option) *Cluster {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	t.Cleanup(m.Close)
	c := &Cluster{Redis: m, Upstream: u, t: t}
	for _, o := range options {
		o(c)
	}
	for range n {
		c.Add()
	}
	return c
}

// Add makes one more replica.
func (c *Cluster) Add() *Replica {
	r := c.make()
	c.Replicas = append(c.Replicas, r)
	return r
}

// Replace puts a new replica, which does not run yet, in the place of the i-th, and returns both.
// The old one is as it was: stop or kill it.
func (c *Cluster) Replace(i int) (old, young *Replica) {
	old, c.Replicas[i] = c.Replicas[i], c.make()
	return old, c.Replicas[i]
}

func (c *Cluster) make() *Replica {
	name := fmt.Sprintf("replica-%d", c.made)
	c.made++
	r := &Replica{Name: name, Link: newLink(c.Redis.Dial), t: c.t}
	r.Link.latency = c.latency
	r.Link.turn = c.made // so that no two are in step
	ro := redis.Options{
		Addr: "127.0.0.1:6379", Dialer: r.Link.Dial, ContextTimeoutEnabled: true,
		ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond,
		ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10, // a replica that is cut off makes many connections
		// Their handshake holds a lock across I/O, and the time of a bubble stops meanwhile.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if c.redis != nil {
		c.redis(&ro)
	}
	rdb := redis.NewClient(&ro)
	if c.hook != nil {
		rdb.AddHook(c.hook(name))
	}
	o := c.options
	if o.Replica = name; o.Observe == nil {
		o.Observe = r.observe
	}
	r.Cache = tokencache.New(rdb, o)
	r.Credential = c.Credential(name)
	if err := r.Cache.Set(r.Credential); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		r.Stop()
		_ = rdb.Close()
		if r.Link.refused() {
			time.Sleep(2 * time.Second) // go-redis looks once a second whether its pool is closed
		}
	})
	return r
}

// Credential is what a replica is given.
func (c *Cluster) Credential(replica string) tokencache.Credential {
	spec := tokencache.Credential{Key: Key, Source: c.Upstream.Source(replica), Probe: c.Upstream.Probe, Fingerprint: "f1"}
	if c.Upstream.Mode == Superseding {
		spec.Overlap = or(c.Upstream.Overlap, 5*time.Minute)
	} else {
		spec.Forced = tokencache.Limit{PerDay: 20}
	}
	if c.configure != nil {
		c.configure(replica, &spec)
	}
	return spec
}

// Start runs every replica's background work.
func (c *Cluster) Start() {
	for _, r := range c.Replicas {
		r.Start()
	}
}

// Value returns what a direct reader of Redis sees, "" for a missing key.
func (c *Cluster) Value() string {
	v, err := c.Redis.Get(c.ValueKey())
	if err != nil {
		return ""
	}
	return v
}

// ValueKey is the public key of the cluster's credential.
func (c *Cluster) ValueKey() string { return "wxtoken:{" + Key.App + "}:" + Key.Kind }

// Meta returns a field of the public meta hash.
func (c *Cluster) Meta(field string) string { return c.Redis.HGet(c.ValueKey()+":meta", field) }

// Watch looks every step at what a direct reader and every replica's callers see, until the
// returned function is called, and counts.
func (c *Cluster) Watch(step time.Duration) (stop func() Seen) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan Seen, 1)
	go func() {
		var seen Seen
		for ctx.Err() == nil {
			seen.add(c)
			select {
			case <-ctx.Done():
			case <-time.After(step):
			}
		}
		done <- seen
	}()
	return func() Seen {
		cancel()
		return <-done
	}
}

// Seen is what [Cluster.Watch] counted.
type Seen struct {
	Looks    int
	Missing  int // direct readers that met no key
	Dead     int // direct readers that met a value upstream rejects
	DeadGood int // replicas that handed out a dead value as good
	Errors   int // replicas that had no answer
	Stale    int // replicas that answered stale
}

func (s *Seen) add(c *Cluster) {
	s.Looks++
	if v := c.Value(); v == "" {
		s.Missing++
	} else if !c.Upstream.Valid(v) {
		s.Dead++
	}
	for _, r := range c.Replicas {
		if r.stopped() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		token, err := r.Cache.Get(ctx, Key)
		cancel()
		switch {
		case err != nil:
			s.Errors++
		case token.Stale:
			s.Stale++
		case !c.Upstream.Valid(token.Value.Reveal()):
			s.DeadGood++
		}
	}
}

// Replica is one cache, as one pod has it.
type Replica struct {
	Name       string
	Cache      *tokencache.Cache
	Credential tokencache.Credential
	Link       *Link

	t      testing.TB
	mu     sync.Mutex
	events []tokencache.Event
	cancel context.CancelFunc
	done   chan struct{}
	dead   bool
}

func (r *Replica) observe(e tokencache.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Events returns what the cache did, oldest first.
func (r *Replica) Events() []tokencache.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]tokencache.Event(nil), r.events...)
}

// Count returns how often the cache did something with a result.
func (r *Replica) Count(result tokencache.Result) int {
	n := 0
	for _, e := range r.Events() {
		if e.Result == result {
			n++
		}
	}
	return n
}

// Start runs the background work.
func (r *Replica) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		_ = r.Cache.Run(ctx)
	}()
}

// Stop ends the replica as SIGTERM does. It may be called more than once.
func (r *Replica) Stop() {
	r.mu.Lock()
	r.dead = true
	r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
	r.Cache.Close()
	if r.done != nil {
		<-r.done
	}
}

// Kill ends the replica as SIGKILL does: from this moment on nothing of it reaches Redis.
func (r *Replica) Kill() {
	r.Link.Refuse()
	r.Stop()
}

func (r *Replica) stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead
}

// MustGet returns the token, or ends the test.
func (r *Replica) MustGet(t testing.TB) tokencache.Token {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	token, err := r.Cache.Get(ctx, Key)
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	return token
}
