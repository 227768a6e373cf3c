package rig

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// searchForSecrets looks for the secrets and every value ever issued in all that was printed or
// shown, and in the Redis keys that must hold none.
func (c *Cluster) searchForSecrets() {
	values := []string{AppSecret}
	for _, i := range c.Upstream.Issued(AppID) {
		values = append(values, i.Value)
	}
	if c.platform != nil {
		values = append(values, PlatformSecrets...)
		values = append(values, c.platform.issued()...)
	}
	holds := finder(values)
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

// finder returns what reports whether a text holds a form of one of the values. It goes through the
// text once, however many there are: a platform's accounts have thousands.
func finder(values []string) func(text string) bool {
	const head = 6 // no form is shorter
	forms := map[string][]string{}
	for _, value := range values {
		for _, form := range secrettest.Forms(value) {
			forms[form[:head]] = append(forms[form[:head]], form)
		}
	}
	return func(text string) bool {
		for i := range len(text) - head + 1 {
			for _, form := range forms[text[i:i+head]] {
				if strings.HasPrefix(text[i:], form) {
					return true
				}
			}
		}
		return false
	}
}

// isPublic reports whether a key is that of a value, which direct readers use.
func isPublic(key string) bool {
	_, kind, ok := strings.Cut(key, "}:")
	return ok && kind != "journal" && kind != "vault" && !strings.Contains(kind, ":")
}

// searchRedis looks into every key but the public ones of values.
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
		if isPublic(key) {
			continue
		}
		dump := key
		switch rdb.Type(ctx, key).Val() {
		case "hash":
			dump += fmt.Sprint(rdb.HGetAll(ctx, key).Val())
		case "stream":
			dump += fmt.Sprint(rdb.XRange(ctx, key, "-", "+").Val())
		case "zset":
			dump += fmt.Sprint(rdb.ZRange(ctx, key, 0, -1).Val())
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
