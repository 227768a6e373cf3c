package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// replicas are caches of this process, each with its own connections. They are what a sidecar has
// for each app, without HTTP.
type replicas struct {
	caches []*tokencache.Cache
	close  []func()
}

// upstreamLatency is what one fetch takes.
const upstreamLatency = 200 * time.Millisecond

type slowSource struct {
	mu     sync.Mutex
	issued int
}

// Fetch implements [tokencache.Source].
func (s *slowSource) Fetch(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
	pause(ctx, upstreamLatency)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	return tokencache.Value{Value: secret.New(fmt.Sprintf("TOKEN-%d", s.issued)), Life: 2 * time.Hour, RenewLeft: 5 * time.Minute}, ctx.Err()
}

func (s *slowSource) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issued
}

var fleetKey = tokencache.Key{App: "fleet", Kind: "access_token"}

// oneApp is what replicas of one app are given.
func oneApp(source tokencache.Source) []tokencache.Credential {
	return []tokencache.Credential{{Key: fleetKey, Source: source, Fingerprint: "f"}}
}

func (r *rig) replicas(ctx context.Context, n int, creds []tokencache.Credential, observe func(i int, e tokencache.Event)) (*replicas, error) {
	if err := r.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	f := &replicas{}
	o, err := redis.ParseURL(r.redisURL)
	if err != nil {
		return nil, err
	}
	o.ContextTimeoutEnabled = true
	for i := range n {
		options := *o
		rdb := redis.NewClient(&options)
		c := tokencache.New(rdb, tokencache.Options{Namespace: "fleet", Observe: func(e tokencache.Event) { observe(i, e) }})
		if err := c.Set(creds...); err != nil {
			return nil, err
		}
		f.caches = append(f.caches, c)
		f.close = append(f.close, func() { c.Close(); _ = rdb.Close() })
	}
	return f, nil
}

// run lets the background work of every replica run until the returned function was called.
func (f *replicas) run(ctx context.Context) (stop func()) {
	running, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, c := range f.caches {
		wg.Go(func() { _ = c.Run(running) }) // it returns nil
	}
	return func() { cancel(); wg.Wait() }
}

func (f *replicas) stop() {
	for _, c := range f.close {
		c()
	}
}

// coldStart measures how long n replicas take that all ask at once while none has a token.
func (r *rig) coldStart(ctx context.Context, n int) ([]figure, error) {
	source := &slowSource{}
	f, err := r.replicas(ctx, n, oneApp(source), func(int, tokencache.Event) {})
	if err != nil {
		return nil, err
	}
	defer f.stop()
	began := time.Now()
	var wg sync.WaitGroup
	failed := make(chan error, n)
	for _, c := range f.caches {
		wg.Go(func() {
			if _, err := c.Get(ctx, fleetKey); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	last := time.Since(began)
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	return []figure{{fmt.Sprintf("%d cold replicas at once: the last has its token after", n), fmt.Sprintf("%.0f ms, by %d fetches", ms(last), source.fetches()),
		fmt.Sprintf("upstream alone: %.0f ms", ms(upstreamLatency)), float64(last) / float64(upstreamLatency)}}, nil
}

// manyCredentials are those of n apps.
func manyCredentials(n int, source tokencache.Source) []tokencache.Credential {
	list := make([]tokencache.Credential, n)
	for i := range list {
		list[i] = tokencache.Credential{Key: tokencache.Key{App: fmt.Sprintf("app%d", i), Kind: "access_token"}, Source: source, Fingerprint: "f"}
	}
	return list
}

// allFresh reports whether c has a value of every credential.
func allFresh(c *tokencache.Cache) bool {
	return !slices.ContainsFunc(c.Status(), func(s tokencache.Status) bool { return !s.Fresh })
}

// coldFleet measures how long n replicas of so many apps take, of which none has a token.
func (r *rig) coldFleet(ctx context.Context, n, apps int) ([]figure, error) {
	source := &slowSource{}
	var direct, unanswered atomic.Int64 // what a machine that is too slow for all of them does
	f, err := r.replicas(ctx, n, manyCredentials(apps, source), func(_ int, e tokencache.Event) {
		switch {
		case e.Result == tokencache.ResultDirect || e.Result == tokencache.ResultOrphaned:
			direct.Add(1)
		case e.Result == tokencache.ResultFailed && e.Reason == "":
			unanswered.Add(1)
		}
	})
	if err != nil {
		return nil, err
	}
	defer f.stop()
	began := time.Now()
	defer f.run(ctx)()
	var after string
	for after == "" && ctx.Err() == nil {
		pause(ctx, 100*time.Millisecond)
		if took := time.Since(began); allFreshIn(f.caches) {
			after = fmt.Sprintf("%.1f s", took.Seconds())
		} else if took > 5*time.Minute {
			after = "more than 5 minutes"
		}
	}
	return []figure{{what: fmt.Sprintf("%d cold replicas of %d apps: all have all tokens after", n, apps),
		value: fmt.Sprintf("%s, by %d fetches", after, source.fetches()),
		baseline: fmt.Sprintf("one a token: %d; %d of them without Redis, which left %d operations unanswered",
			apps, direct.Load(), unanswered.Load())}}, ctx.Err()
}

func allFreshIn(caches []*tokencache.Cache) bool {
	return !slices.ContainsFunc(caches, func(c *tokencache.Cache) bool { return !allFresh(c) })
}

// spread measures how soon n replicas have a version that one of them has committed, and what a
// look costs Redis.
func (r *rig) spread(ctx context.Context, n int) ([]figure, error) {
	source := &slowSource{}
	var mu sync.Mutex
	var committed time.Time
	var took []time.Duration
	f, err := r.replicas(ctx, n, oneApp(source), func(_ int, e tokencache.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Result {
		case tokencache.ResultCommitted:
			committed = time.Now()
		case tokencache.ResultAdopted:
			if !committed.IsZero() {
				took = append(took, time.Since(committed))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	defer f.stop()
	defer f.run(ctx)()
	if err := poll(ctx, "the subscriptions", func() bool {
		return !slices.ContainsFunc(f.caches, func(c *tokencache.Cache) bool { return !c.Health().Subscribed })
	}); err != nil {
		return nil, err
	}
	pause(ctx, time.Second)
	var all []time.Duration
	for range 5 {
		token, err := f.caches[0].Get(ctx, fleetKey)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		committed, took = time.Time{}, nil
		mu.Unlock()
		if _, err := f.caches[0].Report(ctx, fleetKey, token.Value); err != nil {
			return nil, err
		}
		if err := poll(ctx, "the new version everywhere", func() bool {
			return !slices.ContainsFunc(f.caches, func(c *tokencache.Cache) bool {
				t, ok := c.Fresh(fleetKey, 0)
				return !ok || t.Value.Equal(token.Value)
			})
		}); err != nil {
			return nil, err
		}
		pause(ctx, 100*time.Millisecond)
		mu.Lock()
		all = append(all, took...)
		mu.Unlock()
	}
	return []figure{{what: fmt.Sprintf("a new version at %d replicas after", n), value: quantiles(all), baseline: "without events: up to 15 s"}}, nil
}

// quantiles prints those of some durations, and sorts them.
func quantiles(all []time.Duration) string {
	slices.Sort(all)
	at := func(q float64) float64 { return ms(all[int(q*float64(len(all)-1))]) }
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", at(.5), at(.99))
}

// tenThousand computes what 10 000 replicas of 100 apps cost Redis, from the cost of one look.
func (r *rig) tenThousand(ctx context.Context) ([]figure, error) {
	if r.redisPid == 0 {
		return []figure{{what: "10 000 replicas of 100 apps", value: "not computed: redis-server is not installed"}}, nil
	}
	const credentials = 500
	if err := r.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	rereads := make(chan struct{}, 1000)
	c := tokencache.New(r.redis, tokencache.Options{Namespace: "fleet", Reread: 20 * time.Millisecond, Observe: func(e tokencache.Event) {
		if e.Result == tokencache.ResultReread {
			select {
			case rereads <- struct{}{}:
			default:
			}
		}
	}})
	defer c.Close()
	if err := c.Set(manyCredentials(credentials, &slowSource{})...); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(running) }() // it returns nil
	defer func() { cancel(); <-done }()
	if err := poll(ctx, "tokens", func() bool { return allFresh(c) }); err != nil {
		return nil, err
	}
	before, commands := r.redisCPU(), r.looks(ctx)
	pause(ctx, 5*time.Second)
	looks := r.looks(ctx) - commands
	each := float64((r.redisCPU() - before).Microseconds()) / float64(max(1, looks))
	// Each replica reads each of its credentials between a third of 3.5 minutes and all of it after
	// the last time, at the next of its ticks: see docs/performance.md.
	const perSecond = 10_000 * 100 / (210*2/3.0 + 6)
	return []figure{
		{what: "a look of the slow re-read costs Redis", value: fmt.Sprintf("%.1f us of CPU", each)},
		{what: "10 000 replicas of 100 apps, computed", value: fmt.Sprintf("%.0f looks a second, %.0f %% of one core of Redis", perSecond, perSecond*each/1e4)},
	}, nil
}
