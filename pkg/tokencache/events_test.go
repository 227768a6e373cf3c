package tokencache_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// refusing lets the cluster's Redis refuse a command, as some proxies do.
func refusing(t *testing.T, c *cluster, name string) {
	t.Helper()
	c.Replicas[0].MustGet(t) // now it serves
	c.Redis.Server().SetPreHook(func(p *server.Peer, cmd string, _ ...string) bool {
		if !strings.EqualFold(cmd, name) {
			return false
		}
		p.WriteError("ERR unknown command '" + cmd + "'")
		return true
	})
}

func TestEventsThatAreRefusedAreReported(t *testing.T) {
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		refusing(t, c, "subscribe")
		c.Start()
		time.Sleep(10 * time.Second)
		h := c.Replicas[0].Cache.Health()
		why, ok := errors.AsType[*tokencache.StoreError](h.SubscribeErr)
		if h.Subscribed || !ok || !why.Answered() || !strings.Contains(why.Error(), "unknown command") {
			t.Errorf("refused: %+v", h)
		}
		if !h.RedisUp {
			t.Error("Redis counts as away")
		}
		c.Redis.Server().SetPreHook(nil)
		time.Sleep(10 * time.Second)
		if h := c.Replicas[0].Cache.Health(); !h.Subscribed || h.SubscribeErr != nil {
			t.Errorf("permitted: %+v", h)
		}
	})
}

// That a ping is refused shows as well as its answer that the connection lives.
func TestASubscriptionNeedsNoRightToPing(t *testing.T) {
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		refusing(t, c, "ping")
		c.Start()
		time.Sleep(5 * time.Minute)
		if n := c.Replicas[0].Count(tokencache.ResultSubscribed); n != 1 || !c.Replicas[0].Cache.Health().Subscribed {
			t.Errorf("subscribed %d times, and now: %t", n, c.Replicas[0].Cache.Health().Subscribed)
		}
	})
}

// A channel reaches all databases, the keys do not.
func TestListenersAreThoseOfOneDatabase(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	in := func(db int) *redis.Client {
		rdb := redis.NewClient(&redis.Options{Addr: addr, DB: db, DisableIdentity: true, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	}
	var caches []*tokencache.Cache
	for _, db := range []int{0, 3, 3} {
		c := tokencache.New(in(db), tokencache.Options{})
		t.Cleanup(c.Close)
		if err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: (&upstream{}).Source("x")}); err != nil {
			t.Fatal(err)
		}
		go func() { _ = c.Run(t.Context()) }()
		caches = append(caches, c)
	}
	for i, want := range []int{1, 2, 2} {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			seen, err := caches[i].Journal(t.Context(), 1)
			if err == nil && caches[i].Health().Subscribed && seen.Listeners == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("cache %d: %+v, %v; want %d listeners", i, seen, err, want)
			}
		}
	}
	if a, b := acl.Channel(in(0), "wxtoken"), acl.Channel(in(3), "wxtoken"); a != "wxtoken:events" || b != "wxtoken:events:3" {
		t.Errorf("%s and %s", a, b)
	}
}
