package rig

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Store is the Redis that sidecars share.
type Store interface {
	// URL is what goes into REDIS_URL.
	URL() string
	// Client has full access, for the checks of a test; it is closed with the test.
	Client() redis.UniversalClient
}

// At returns the Redis that a URL for one server names, whether or not a server runs there.
func At(t testing.TB, url string) Store {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(patient(o))
	t.Cleanup(func() { _ = client.Close() })
	return at{url, client}
}

type at struct {
	url    string
	client redis.UniversalClient
}

func (a at) URL() string                   { return a.url }
func (a at) Client() redis.UniversalClient { return a.client }

// Cluster is some sidecars on one Redis and one upstream.
type Cluster struct {
	Upstream *Upstream
	// All is written by Add; goroutines other than the test's own read it through Others.
	All []*Sidecar
	// Linked puts a [Link] between each sidecar that is added from now on and a plain Redis.
	Linked bool
	// Build is how each sidecar is built that is added from now on.
	Build Build
	// Store is the Redis. It does not change.
	Store Store

	t        testing.TB
	env      []string
	platform *Platform // nil unless [Cluster.AddPlatform]

	mu       sync.Mutex // of All
	searched sync.Once
}

// New returns a cluster without sidecars; env goes over what the rig itself sets for each of them.
// At the end of the test all that was printed or shown is searched for secrets.
func New(t testing.TB, store Store, env ...string) *Cluster {
	return &Cluster{t: t, Store: store, Upstream: startUpstream(t), env: env}
}

// Add starts n sidecars and returns when they answer. env goes over that of [New].
func (c *Cluster) Add(n int, env ...string) []*Sidecar {
	c.t.Helper()
	var started []*Sidecar
	for i := range n {
		p := &Sidecar{Name: fmt.Sprintf("sidecar-%d", len(c.All)+i), t: c.t, build: c.Build, Log: &Buffer{}, bodies: &Buffer{}}
		own := env
		if c.Build == Clocked {
			p.Clock = newClock(c.t)
			own = append([]string{clockSetting + "=" + p.Clock.file}, env...)
		}
		if c.platform != nil {
			own = append([]string{"WXTOKEN_CONFIG=" + c.platform.Config(p.Name)}, own...)
		}
		url := c.Store.URL()
		if c.Linked {
			p.Link = NewLink(c.t, c.Store.(*Redis).Addr)
			url = "redis://" + p.Link.Addr
		}
		p.launch(slices.Concat([]string{
			"WECHAT_APPID=" + AppID, "WECHAT_SECRET=" + AppSecret, "WECHAT_ENDPOINT=token",
			"WECHAT_API_BASE=" + c.Upstream.URL + "/" + p.Name,
			"REDIS_URL=" + url, "WXTOKEN_LISTEN=127.0.0.1:0", "WXTOKEN_OPS_LISTEN=127.0.0.1:0",
			"WXTOKEN_DRAIN=0s", // the test, whose connections stay, is not an app that ends
		}, c.env, own))
		started = append(started, p)
	}
	for _, p := range started {
		Eventually(c.t, p.Name+" says where it listens, or ends", func() bool { return p.listens() || !p.proc.alive() })
		if !p.listens() {
			c.t.Fatalf("%s does not start:\n%s", p.Name, p.Log)
		}
	}
	c.mu.Lock()
	c.All = append(c.All, started...)
	c.mu.Unlock()
	// What is registered last is done first: while the sidecars still run.
	c.t.Cleanup(func() { c.searched.Do(c.searchForSecrets) })
	return started
}

// ByName returns the sidecar of that name.
func (c *Cluster) ByName(name string) *Sidecar {
	c.t.Helper()
	for _, p := range c.All {
		if p.Name == name {
			return p
		}
	}
	c.t.Fatalf("no sidecar %q", name)
	return nil
}

// Others returns the sidecars that run, but for p.
func (c *Cluster) Others(p *Sidecar) []*Sidecar {
	c.mu.Lock()
	all := slices.Clone(c.All)
	c.mu.Unlock()
	return slices.DeleteFunc(all, func(o *Sidecar) bool {
		_, there := o.present()
		return o == p || !there
	})
}

// Everywhere asks each sidecar of all times times at once, and returns the answers.
func Everywhere(t testing.TB, all []*Sidecar, times int, ask func(*Sidecar) (Answer, error)) []Answer {
	t.Helper()
	var mu sync.Mutex
	var answers []Answer
	var wg sync.WaitGroup
	for _, p := range all {
		for range times {
			wg.Go(func() {
				a, err := ask(p)
				if err != nil {
					t.Errorf("%s: %v", p.Name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, a)
			})
		}
	}
	wg.Wait()
	return answers
}

// MakeDue makes the value in Redis due for renewal now, as if nearly two hours had passed, and
// announces it to the replicas. (They spread their moment over the first minute of what they
// believe is left to do so.)
func (c *Cluster) MakeDue() {
	c.t.Helper()
	c.MakeDueUnheard()
	ctx, rdb := context.Background(), c.Store.Client()
	if err := rdb.Publish(ctx, Namespace+":events", `{"app":"`+AppID+`","kind":"access_token"}`).Err(); err != nil {
		c.t.Fatal(err)
	}
}

// MakeDueUnheard is MakeDue without telling.
func (c *Cluster) MakeDueUnheard() {
	c.t.Helper()
	c.Upstream.Ripen(AppID)
	ctx, rdb := context.Background(), c.Store.Client()
	left, err := rdb.PTTL(ctx, ValueKey).Result()
	if err != nil || left <= 0 {
		c.t.Fatalf("the value's life: %v, %v", left, err)
	}
	// Due for a minute already, with the margin of at most one, so that every draw has passed.
	renewLeft := left.Milliseconds() + 2*time.Minute.Milliseconds()
	if err := rdb.HSet(ctx, ValueKey+":meta", "renew_left", renewLeft).Err(); err != nil {
		c.t.Fatal(err)
	}
}
