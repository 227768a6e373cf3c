package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// manyApps measures a sidecar with so many apps, from its start on an empty Redis.
func (r *rig) manyApps(ctx context.Context, n int, base float64) ([]figure, error) {
	if err := r.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	ids := make([]string, n)
	var accounts []wechattest.App
	for i := range ids {
		ids[i] = fmt.Sprintf("wx%016x", 1<<20+i)
		accounts = append(accounts, wechattest.App{ID: ids[i], Secret: appSecret})
	}
	sim := wechattest.New(accounts...)
	upstream, stop := serve(sim)
	defer stop()
	before := r.upstream
	r.upstream = upstream
	s, err := r.sidecar(fmt.Sprintf("apps%d", n), ids)
	r.upstream = before
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.cmd.Process.Kill() }() // the rig waits for it
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	ready, err := allFetched(ctx, s, sim, ids)
	if err != nil {
		return nil, err
	}
	for _, url := range s.urls[max(0, n-100):] {
		if err := poll(ctx, url, func() bool { return get(ctx, client, url) == nil }); err != nil {
			return nil, err
		}
	}
	fetches := 0
	for _, id := range ids {
		fetches += sim.Calls(id).Fetches()
	}
	pause(ctx, 2*time.Second)
	const window = 20 * time.Second
	cpu := r.redisCPU()
	pause(ctx, window)
	cpu = r.redisCPU() - cpu
	rss := s.usage().rss
	size, err := r.metricsSize(ctx, client, s)
	if err != nil {
		return nil, err
	}
	name := countOf(n)
	figures := []figure{
		{what: name + ": all have a token after", value: fmt.Sprintf("%.1f s, by %d fetches", ready.Seconds(), fetches)},
		{what: name + ": RSS", value: fmt.Sprintf("%.1f MiB", rss)},
		{what: name + ": Redis CPU while nothing happens", value: fmt.Sprintf("%.2f s a minute", cpu.Seconds()*float64(time.Minute/window))},
		{what: name + ": /metrics", value: fmt.Sprintf("%d KiB", size/1024)},
	}
	if n > 1 {
		figures[1].baseline = fmt.Sprintf("1 app: %.1f MiB, so %.1f KiB for each further one", base, (rss-base)*1024/float64(n-1))
		figures[1].ratio = rss / base
	}
	return figures, nil
}

func countOf(apps int) string {
	if apps == 1 {
		return "1 app"
	}
	return fmt.Sprintf("%d apps", apps)
}

// allFetched waits until each app has been fetched, and returns how long after the start that was.
func allFetched(ctx context.Context, s *server, sim *wechattest.Server, ids []string) (time.Duration, error) {
	for fetched := 0; fetched < len(ids); {
		if time.Since(s.began) > 2*time.Minute {
			return 0, fmt.Errorf("%d apps have no token after 2 minutes\n%s", len(ids), s.log)
		}
		pause(ctx, 10*time.Millisecond)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if fetched = sim.Calls(ids[len(ids)-1]).Fetches(); fetched > 0 { // the last one may come early
			fetched = 0
			for _, id := range ids {
				fetched += min(1, sim.Calls(id).Fetches())
			}
		}
	}
	return time.Since(s.began), nil
}

// metricsSize returns the length of the scrape in bytes.
func (r *rig) metricsSize(ctx context.Context, client *http.Client, s *server) (int, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ops+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	ask.Header.Set("Accept-Encoding", "identity")
	answer, err := client.Do(ask)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return len(body), err
}

// redisCPU is the time that the redis-server has used; 0 if Redis is embedded.
func (r *rig) redisCPU() time.Duration {
	if r.redisPid == 0 {
		return 0
	}
	body, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.redisPid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(body))
	user, _ := strconv.ParseInt(fields[13], 10, 64)
	system, _ := strconv.ParseInt(fields[14], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

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

var fleetKey = tokencache.Key{App: "fleet", Kind: "access_token"}

func (r *rig) replicas(ctx context.Context, n int, source tokencache.Source, observe func(i int, e tokencache.Event)) (*replicas, error) {
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
		if err := c.Set(tokencache.Credential{Key: fleetKey, Source: source, Fingerprint: "f"}); err != nil {
			return nil, err
		}
		f.caches = append(f.caches, c)
		f.close = append(f.close, func() { c.Close(); _ = rdb.Close() })
	}
	return f, nil
}

func (f *replicas) stop() {
	for _, c := range f.close {
		c()
	}
}

// coldStart measures how long n replicas take that all ask at once while none has a token.
func (r *rig) coldStart(ctx context.Context, n int) ([]figure, error) {
	source := &slowSource{}
	f, err := r.replicas(ctx, n, source, func(int, tokencache.Event) {})
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
	return []figure{{fmt.Sprintf("%d cold replicas at once: the last has its token after", n), fmt.Sprintf("%.0f ms, by %d fetches", ms(last), source.issued),
		fmt.Sprintf("upstream alone: %.0f ms", ms(upstreamLatency)), float64(last) / float64(upstreamLatency)}}, nil
}

// spread measures how soon n replicas have a version that one of them has committed, and what a
// look costs Redis.
func (r *rig) spread(ctx context.Context, n int) ([]figure, error) {
	source := &slowSource{}
	var mu sync.Mutex
	var committed time.Time
	var took []time.Duration
	f, err := r.replicas(ctx, n, source, func(_ int, e tokencache.Event) {
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
	running, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for _, c := range f.caches {
		wg.Go(func() { _ = c.Run(running) }) // it returns nil
	}
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
	var creds []tokencache.Credential
	for i := range credentials {
		creds = append(creds, tokencache.Credential{Key: tokencache.Key{App: fmt.Sprintf("app%d", i), Kind: "access_token"}, Source: &slowSource{}, Fingerprint: "f"})
	}
	if err := c.Set(creds...); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(running) }() // it returns nil
	defer func() { cancel(); <-done }()
	if err := poll(ctx, "tokens", func() bool {
		return !slices.ContainsFunc(c.Status(), func(s tokencache.Status) bool { return !s.Fresh })
	}); err != nil {
		return nil, err
	}
	before, commands := r.redisCPU(), r.looks(ctx)
	pause(ctx, 5*time.Second)
	looks := r.looks(ctx) - commands
	each := float64((r.redisCPU() - before).Microseconds()) / float64(max(1, looks))
	// At most every 3.5 minutes, each replica reads each of its credentials.
	const perSecond = 10_000 * 100 / 210.0
	return []figure{
		{what: "a look of the slow re-read costs Redis", value: fmt.Sprintf("%.1f us of CPU", each)},
		{what: "10 000 replicas of 100 apps, computed", value: fmt.Sprintf("%.0f looks a second, %.0f %% of one core of Redis", perSecond, perSecond*each/1e4)},
	}, nil
}

// looks is how many scripts Redis has run.
func (r *rig) looks(ctx context.Context) (n int) {
	info, err := r.redis.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0
	}
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			_, _ = fmt.Sscan(strings.SplitN(rest, ",", 2)[0], &n)
		}
	}
	return n
}
