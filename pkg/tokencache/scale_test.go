package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// fleet is an upstream of many credentials. It counts fetches, and how many it served at once.
type fleet struct {
	latency time.Duration

	mu         sync.Mutex
	fetches    map[string]int // by app
	order      []string       // of the beginnings
	busy, most int
}

func fleetKey(i int) tokencache.Key {
	return tokencache.Key{App: fmt.Sprintf("wx%05d", i), Kind: "access_token"}
}

// credentials returns n of them.
func (f *fleet) credentials(n int) []tokencache.Credential {
	list := make([]tokencache.Credential, n)
	for i := range list {
		list[i] = tokencache.Credential{Key: fleetKey(i), Source: member{f, fleetKey(i).App}, Fingerprint: "f"}
	}
	return list
}

type member struct {
	f   *fleet
	app string
}

func (m member) Fetch(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
	f := m.f
	f.mu.Lock()
	if f.fetches == nil {
		f.fetches = map[string]int{}
	}
	f.fetches[m.app]++
	f.order = append(f.order, m.app)
	f.busy++
	f.most = max(f.most, f.busy)
	n := len(f.order)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.busy--
		f.mu.Unlock()
	}()
	select {
	case <-time.After(f.latency):
	case <-ctx.Done():
		return tokencache.Value{}, ctx.Err()
	}
	return tokencache.Value{Value: secret.New(fmt.Sprintf("TOKEN-%s-%d", m.app, n)), Life: 2 * time.Hour, RenewLeft: 5 * time.Minute}, nil
}

func (f *fleet) total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.order)
}

// wantOneEach waits until n credentials have a value everywhere, for at most limit.
func (f *fleet) wantOneEach(t *testing.T, c *cluster, n int, limit time.Duration) {
	t.Helper()
	start := time.Now()
	for ready := false; !ready; time.Sleep(100 * time.Millisecond) {
		ready = true
		for _, r := range c.Replicas {
			fresh := 0
			for _, s := range r.Cache.Status() {
				if s.Fresh {
					fresh++
				}
			}
			ready = ready && fresh == n
		}
		if time.Since(start) > limit {
			t.Fatalf("not all of %d credentials have a value after %v; %d fetches", n, limit, f.total())
		}
	}
	if got := f.total(); got != n {
		t.Errorf("%d fetches for %d credentials", got, n)
	}
}

// set gives every replica of the cluster n credentials.
func (f *fleet) set(t *testing.T, c *cluster, n int) {
	t.Helper()
	for _, r := range c.Replicas {
		if err := r.Cache.Set(f.credentials(n)...); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever is due at once: a replica asks upstream for a bounded number of values at a time.
func TestAReplicaRunsABoundedNumberOfRefreshes(t *testing.T) {
	t.Parallel()
	f := &fleet{latency: time.Second}
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		f.set(t, c, 600)
		c.Start()
		f.wantOneEach(t, c, 600, 20*time.Second)
		if f.most != 64 {
			t.Errorf("%d fetches at once ahead of time, want 64", f.most)
		}
	})
}

// Callers wait for none of the refreshes that the schedule could start.
func TestCallersAreServedBeforeTheSchedule(t *testing.T) {
	t.Parallel()
	f := &fleet{latency: time.Second}
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		f.set(t, c, 2000)
		c.Start()
		time.Sleep(3 * time.Second)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 200 {
			wg.Go(func() {
				if _, err := c.Replicas[0].Cache.Get(t.Context(), fleetKey(1999-i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("200 callers waited for up to %v", took)
		}
		if f.most > 128 {
			t.Errorf("%d fetches at once, want at most 128", f.most)
		}
	})
}

// Redis answers, but each operation takes a while, and thousands are wanted at once. Waiting for
// one's own turn is no outage: nothing is fetched twice, and no error is reported.
func TestASlowRedisIsNoOutageHoweverManyWait(t *testing.T) {
	t.Parallel()
	const credentials = 400
	f := &fleet{latency: 100 * time.Millisecond}
	bubble(t, 2, &upstream{}, func(t *testing.T, c *cluster) {
		f.set(t, c, credentials)
		for _, r := range c.Replicas {
			r.Link.Delay(200 * time.Millisecond)
		}
		c.Start()
		f.wantOneEach(t, c, credentials, 5*time.Minute)
		for _, r := range c.Replicas {
			for _, e := range r.Events() {
				if e.Result == tokencache.ResultFailed || e.Result == tokencache.ResultNoRedis || e.Result == tokencache.ResultDirect {
					t.Fatalf("%+v", e)
				}
			}
		}
	}, tokencachetest.Redis(func(o *redis.Options) { o.ReadTimeout = time.Second }))
}

// A Redis that answers nothing is found out once, and not by each of many refreshes in turn.
func TestASilentRedisIsFoundOutTogether(t *testing.T) {
	t.Parallel()
	f := &fleet{latency: 100 * time.Millisecond}
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		f.set(t, c, 300)
		c.Replicas[0].Link.BlackHole()
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 120 {
			wg.Go(func() {
				token, err := c.Replicas[0].Cache.Get(t.Context(), fleetKey(i))
				if err != nil || token.From != tokencache.FromUpstream {
					t.Errorf("%+v, %v", token, err) // where a fetch harms no other replica, one is made
				}
			})
		}
		wg.Wait()
		took := time.Since(start)
		t.Log(took)
		if took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A thousand credentials are renewed, re-read, replaced by another set and given up, at a cost that
// no step multiplies by their number.
func TestManyCredentialsAreRenewedReloadedAndStopped(t *testing.T) {
	t.Parallel()
	const credentials = 100
	f := &fleet{latency: 100 * time.Millisecond}
	bubble(t, 3, &upstream{}, func(t *testing.T, c *cluster) {
		f.set(t, c, credentials)
		c.Start()
		f.wantOneEach(t, c, credentials, time.Minute)
		time.Sleep(119 * time.Minute) // each is renewed once
		if n := f.total(); n != 2*credentials {
			t.Errorf("%d fetches after one life, want %d", n, 2*credentials)
		}
		f.set(t, c, credentials) // a reload changes nothing
		f.set(t, c, credentials/2)
		time.Sleep(2 * time.Hour)
		if n := f.total(); n != 2*credentials+credentials/2 {
			t.Errorf("%d fetches after half of them were dropped, want %d", n, 2*credentials+credentials/2)
		}
		start := time.Now()
		for _, r := range c.Replicas {
			r.Stop()
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to stop", took)
		}
	}, rarely(3*time.Minute))
}

// What the slow re-read costs Redis, per credential: one script with three commands.
func TestASlowRereadTakesThreeCommands(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: tokencachetest.RedisServer(t), ContextTimeoutEnabled: true})
	defer rdb.Close()
	const credentials = 50
	f := &fleet{latency: time.Millisecond}
	rereads := make(chan struct{}, 100)
	c := tokencache.New(rdb, tokencache.Options{Reread: 50 * time.Millisecond, Observe: func(e tokencache.Event) {
		if e.Result == tokencache.ResultReread {
			rereads <- struct{}{}
		}
	}})
	defer c.Close()
	if err := c.Set(f.credentials(credentials)...); err != nil {
		t.Fatal(err)
	}
	for i := range credentials {
		for {
			_, err := c.Get(t.Context(), fleetKey(i))
			if err == nil {
				break
			}
			if !errors.As(err, new(*tokencache.StoreError)) {
				t.Fatal(err)
			}
		}
	}
	calls := func() map[string]int {
		all := map[string]int{}
		info, err := rdb.Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(info) {
			name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
			var n int
			_, _ = fmt.Sscan(strings.SplitN(rest, ",", 2)[0], &n)
			all[name] = n
		}
		return all
	}
	before := calls()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for range 5 {
		<-rereads
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	after := calls()
	looks := after["evalsha"] - before["evalsha"]
	if looks < 5*credentials {
		t.Fatalf("%d looks in 5 re-reads of %d credentials", looks, credentials)
	}
	inside := 0
	for _, name := range []string{"time", "hmget", "getrange", "hget", "pttl", "get"} {
		inside += after[name] - before[name]
	}
	if inside > 3*looks {
		t.Errorf("%d commands in %d looks: %v", inside, looks, after)
	}
}
