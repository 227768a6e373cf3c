package rig

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// searchForSecrets looks for the secret and every value ever issued in all that was printed or
// shown, and in the Redis keys that must hold none.
func (c *Cluster) searchForSecrets() {
	forms := secrettest.Forms(AppSecret)
	for _, i := range c.Upstream.Issued(AppID) {
		forms = append(forms, secrettest.Forms(i.Value)...)
	}
	holds := func(text string) bool {
		return slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(text, form) })
	}
	for _, p := range c.All {
		if _, there := p.present(); there {
			for _, path := range []string{"/metrics", "/status", "/healthz", "/readyz", "/startupz"} {
				_, _ = p.Show(path)
			}
			_, _, _ = p.ShowAs("text/html", "/status")
		}
		p.proc.kill() // so that its last words are searched, too
		if holds(p.Log.String()) {
			c.t.Errorf("the log of %s holds a secret or a value", p.Name)
		}
		if holds(p.bodies.String()) {
			c.t.Errorf("an answer of %s holds a secret or a value", p.Name)
		}
	}
	c.searchRedis(holds)
}

// searchRedis looks into every key but the public one of the value.
func (c *Cluster) searchRedis(holds func(string) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	rdb := c.Store.Client()
	keys, err := allKeys(ctx, rdb)
	if err != nil {
		c.t.Logf("Redis was not searched: %v", err)
		return
	}
	for _, key := range keys {
		if kind := strings.TrimPrefix(key, Namespace+":{"+AppID+"}:"); kind != "journal" && !strings.Contains(kind, ":") {
			continue // the public key of a value
		}
		dump := key
		switch rdb.Type(ctx, key).Val() {
		case "hash":
			dump += fmt.Sprint(rdb.HGetAll(ctx, key).Val())
		case "stream":
			dump += fmt.Sprint(rdb.XRange(ctx, key, "-", "+").Val())
		case "string":
			dump += rdb.Get(ctx, key).Val()
		case "none": // it ended meanwhile
		default:
			c.t.Errorf("unexpected key %s", key)
		}
		if holds(dump) {
			c.t.Errorf("the Redis key %s holds a secret or a value", key)
		}
	}
}

// allKeys lists the keys of every master.
func allKeys(ctx context.Context, rdb redis.UniversalClient) (keys []string, err error) {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return rdb.Keys(ctx, "*").Result()
	}
	var mu sync.Mutex // masters are asked side by side
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, one *redis.Client) error {
		k, err := one.Keys(ctx, "*").Result()
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, k...)
		return err
	})
	return keys, err
}
