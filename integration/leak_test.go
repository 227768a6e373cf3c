package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// leakCheck searches the secret and every value ever issued in all that was printed or shown.
func (c *cluster) leakCheck() {
	needles := []string{appSecret}
	for _, i := range c.upstream.Issued(appID) {
		needles = append(needles, i.Value)
	}
	for _, p := range c.all {
		select {
		case <-p.exited:
		default:
			for _, path := range []string{"/metrics", "/status", "/healthz", "/readyz", "/startupz"} {
				_, _ = p.get("http://" + p.ops + path)
			}
		}
		for what, text := range map[string]string{"the log": p.log.String(), "an answer": p.bodies.String()} {
			for _, n := range needles {
				for _, form := range []string{n, url.QueryEscape(n), base64.StdEncoding.EncodeToString([]byte(n)), base64.RawURLEncoding.EncodeToString([]byte(n))} {
					if strings.Contains(text, form) {
						c.t.Errorf("%s of %s holds a secret or a value", what, p.name)
					}
				}
			}
		}
	}
	if len(c.all) > 0 && strings.HasPrefix(c.redisURL, "redis://127.0.0.1") {
		c.leakCheckRedis(needles)
	}
}

// leakCheckRedis looks into every key but the public one of the value.
func (c *cluster) leakCheckRedis(needles []string) {
	o, err := redis.ParseURL(c.redisURL)
	if err != nil {
		c.t.Fatal(err)
	}
	o.Username, o.Password = "", ""
	rdb := redis.NewClient(o)
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	keys, err := rdb.Keys(ctx, "*").Result()
	if err != nil {
		c.t.Logf("Redis was not searched: %v", err)
		return
	}
	for _, key := range keys {
		if kind := strings.TrimPrefix(key, namespace+":{"+appID+"}:"); kind != "journal" && !strings.Contains(kind, ":") {
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
		default:
			c.t.Errorf("unexpected key %s", key)
		}
		for _, n := range needles {
			if strings.Contains(dump, n) {
				c.t.Errorf("the Redis key %s holds a secret or a value", key)
			}
		}
	}
}
