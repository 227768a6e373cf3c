package tokencache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// Whatever stands in Redis: what no script can have written counts as nothing, is replaced within a lease, costs a
// fetch or two, and is never handed out.
func TestGarbageInRedisIsReplacedAndNeverHandedOut(t *testing.T) {
	t.Parallel()
	const garbage = "GARBAGE"
	meta := func(field, value string) func(c *cluster) {
		return func(c *cluster) { c.Redis.HSet(c.ValueKey()+":meta", field, value) }
	}
	backoff := func(fields ...string) func(c *cluster) {
		return func(c *cluster) { c.Redis.HSet(c.ValueKey()+":backoff", fields...); c.Redis.Del(c.ValueKey()) }
	}
	value := func(v string) func(c *cluster) {
		return func(c *cluster) { _ = c.Redis.Set(c.ValueKey(), v); c.Redis.SetTTL(c.ValueKey(), time.Hour) }
	}
	inputs := map[string]func(c *cluster){
		"an end in 300 years":       backoff("*:until", "11000000000000", "*:tries", "3", "*:note", "{}"),
		"an end without a wait":     backoff("*:until", fmt.Sprint(time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli())),
		"tries are no number":       backoff("*:tries", "nan", "f1:tries", "many"),
		"a value of another writer": value(garbage),
		"an empty value":            value(""),
		"a value in binary":         value(garbage + "\x00\xff"),
		"a value of many lines":     value(garbage + "\n"),
		"a value of 1 MB":           value(strings.Repeat("G", 1<<20)),
		"a value for years":         func(c *cluster) { c.Redis.SetTTL(c.ValueKey(), 31*24*time.Hour) },
		"a value for ever":          func(c *cluster) { c.Redis.SetTTL(c.ValueKey(), 0) },
		"another digest":            meta("digest", "abcdef"),
		"a margin of years":         meta("margin", "99999999999"),
		"the value is a list":       func(c *cluster) { c.Redis.Del(c.ValueKey()); _, _ = c.Redis.Lpush(c.ValueKey(), garbage) },
		"the meta is a string":      func(c *cluster) { c.Redis.Del(c.ValueKey() + ":meta"); _ = c.Redis.Set(c.ValueKey()+":meta", garbage) },
		"the backoff is a string":   func(c *cluster) { _ = c.Redis.Set(c.ValueKey()+":backoff", garbage); c.Redis.Del(c.ValueKey()) },
	}
	for _, field := range []string{"version", "rejected", "young", "renew_left", "issued_at", "fetch_tat"} {
		for _, v := range []string{"nan", "-inf", "1e300", "9223372036854775807", "-1", "", "99999999999999"} {
			inputs[field+" is "+v] = meta(field, v)
		}
	}
	for name, spoil := range inputs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mode := superseding
			if len(name)%2 == 0 {
				mode = repeating
			}
			bubble(t, 1, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
				warm(t, c)
				time.Sleep(time.Minute)
				spoil(c)
				newcomer := c.Add() // it has nothing better in memory
				newcomer.Start()
				time.Sleep(100 * time.Second) // a slow re-read, and a refresh
				for _, r := range c.Replicas {
					if token := r.MustGet(t); token.Stale || !c.Upstream.Valid(token.Value.Reveal()) {
						t.Errorf("%s got %.20q, stale: %v", r.Name, token.Value.Reveal(), token.Stale)
					}
				}
				if !c.Upstream.Valid(c.Value()) || c.Redis.TTL(c.ValueKey()) > 2*time.Hour {
					t.Errorf("Redis has %.20q for %v", c.Value(), c.Redis.TTL(c.ValueKey()))
				}
				wantFetchesBelow(t, c, 4)
				stop := c.Watch(5 * time.Minute)
				time.Sleep(3 * time.Hour) // and it goes on as if nothing had been
				wantServed(t, stop())
				wantFetchesBelow(t, c, 8)
				for _, e := range newcomer.Events() {
					if e.Result == tokencache.Refused || e.Result == tokencache.Throttled {
						t.Errorf("%+v", e)
					}
				}
			}, rarely(time.Minute))
		})
	}
}

// A lock key that no replica wrote stops the refreshes for one lease, and is named.
func TestALockKeyThatOutlivesEveryLeaseIsNamedAndTakenOver(t *testing.T) {
	t.Parallel()
	lockKey := "wxtoken:{" + tokencachetest.Key.App + "}:" + tokencachetest.Key.Kind + ":lock"
	for name, lock := range map[string]func(c *cluster){
		"without an end": func(c *cluster) { _ = c.Redis.Set(lockKey, "operator") },
		"for a day":      func(c *cluster) { _ = c.Redis.Set(lockKey, "restored"); c.Redis.SetTTL(lockKey, 24*time.Hour) },
		"another type":   func(c *cluster) { c.Redis.HSet(lockKey, "a", "b") },
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				bubble(t, 3, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
					c.Start()
					lock(c)
					a := storm(c, 2, get)
					if a.want(t, 6, 0, 0); a.last > 11*time.Second {
						t.Errorf("callers waited %v, want one lease", a.last)
					}
					wantFetches(t, c, 1)
					named := 0
					for _, r := range c.Replicas {
						for _, e := range r.Events() {
							if e.Result == tokencache.Capped && strings.Contains(e.Err.Error(), lockKey) {
								named++
							}
						}
					}
					if named != 1 {
						t.Errorf("named %d times, want once", named)
					}
				})
			})
		})
	}
}
