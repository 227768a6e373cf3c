package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

const garbage = "GARBAGE"

// spoil puts garbage into a cluster's Redis.
type spoil func(c *cluster)

func spoilMeta(field, value string) spoil {
	return func(c *cluster) { c.Redis.HSet(c.ValueKey()+":meta", field, value) }
}

func spoilBackoff(fields ...string) spoil {
	return func(c *cluster) { c.Redis.HSet(c.ValueKey()+":backoff", fields...) }
}

func spoilValue(v string) spoil {
	return func(c *cluster) { _ = c.Redis.Set(c.ValueKey(), v); c.Redis.SetTTL(c.ValueKey(), time.Hour) }
}

// spoilType puts a key of another type in the place of the value's key with a suffix.
func spoilType(suffix string) spoil {
	return func(c *cluster) {
		c.Redis.Del(c.ValueKey() + suffix)
		_, _ = c.Redis.Lpush(c.ValueKey()+suffix, garbage)
	}
}

// spoils are what no script can have written. Those of the first result are of the value's own key.
func spoils() (values, others map[string]spoil) {
	values = map[string]spoil{
		"a value of another writer": spoilValue(garbage),
		"an empty value":            spoilValue(""),
		"a value in binary":         spoilValue(garbage + "\x00\xff"),
		"a value of many lines":     spoilValue(garbage + "\n"),
		"a value of 1 MB":           spoilValue(strings.Repeat("G", 1<<20)),
		"a value for years":         func(c *cluster) { c.Redis.SetTTL(c.ValueKey(), 31*24*time.Hour) },
		"a value for ever":          func(c *cluster) { c.Redis.SetTTL(c.ValueKey(), 0) },
		"the value is a list":       spoilType(""),
	}
	soon := fmt.Sprint(time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli()) // a day ahead of a bubble's clock
	others = map[string]spoil{
		"an end in 300 years":       spoilBackoff("*:until", "11000000000000", "*:wait", "10000000000000", "*:tries", "3", "*:note", "{}"),
		"an end in 2 years":         spoilBackoff("f1:until", "1009843200000", "f1:wait", "63072000000", "f1:note", "{}"),
		"an end without a wait":     spoilBackoff("*:until", soon),
		"an end that is no number":  spoilBackoff("*:until", "inf", "*:wait", "inf"),
		"tries are no number":       spoilBackoff("*:tries", "nan", "f1:tries", "many"),
		"tries are many":            spoilBackoff("*:tries", "9223372036854775807"),
		"a note that is none":       spoilBackoff("*:until", "1", "*:wait", "5", "*:note", strings.Repeat("\xff\x00", 1<<16)),
		"a digest of another value": spoilMeta("digest", "abcdef"),
		"a digest that is none":     spoilMeta("digest", strings.Repeat("\xff", 1<<16)),
		"the meta is a list":        spoilType(":meta"),
		"the backoff is a list":     spoilType(":backoff"),
		"the lock is a list":        spoilType(":lock"),
		"the journal is a string":   func(c *cluster) { _ = c.Redis.Set("wxtoken:{"+tokencachetest.Key.App+"}:journal", garbage) },
		"a margin of years":         spoilMeta("margin", "99999999999"),
		"the state before a cut": func(c *cluster) {
			for _, field := range []string{"prior_expiry", "prior_margin", "prior_doubt", "prior_unclear_at"} {
				spoilMeta(field, "9223372036854775807")(c)
			}
		},
	}
	for _, field := range []string{"version", "rejected", "young", "margin", "renew_left", "doubt", "issued_at", "unclear_at", "confirmed_at",
		"fetch_tat", "report_tat", "force_tat", "probe_tat", "accepted_at", "granted", "finished", "cut_by", "cut_for"} {
		for _, v := range []string{"nan", "-inf", "1e300", "0x10", "9223372036854775807", "-1", "+5", " 5", "", "99999999999999"} {
			if long || len(field)%6 == len(v)%6 || field == "version" {
				others[fmt.Sprintf("%s is %q", field, v)] = spoilMeta(field, v)
			}
		}
	}
	return values, others
}

// Whatever is in Redis: what no script can have written counts as nothing, is replaced within a
// lease, costs one fetch (two where a fetch invalidates the value before), and is never handed out.
func TestGarbageInRedisIsReplacedAndNeverHandedOut(t *testing.T) {
	t.Parallel()
	values, others := spoils()
	for name, s := range values {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) { survives(t, mode, s) })
		})
	}
	for name, s := range others {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
				t.Run("with the value", func(t *testing.T) { survives(t, mode, s) })
				t.Run("without the value", func(t *testing.T) {
					survives(t, mode, func(c *cluster) { s(c); c.Redis.Del(c.ValueKey()) })
				})
			})
		})
	}
}

// survives lets a cluster meet garbage: a replica that has the value in memory, and one that starts
// then.
func survives(t *testing.T, mode tokencachetest.Mode, spoil spoil) {
	bubble(t, 1, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
		warm(t, c)
		time.Sleep(time.Minute)
		spoil(c)
		newcomer := c.Add() // it has nothing better in memory
		newcomer.Start()
		for end := time.Now().Add(11 * time.Second); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
			wantNoGarbage(t, c)
		}
		if token := newcomer.MustGet(t); token.Stale {
			t.Error("no good value after a lease")
		}
		time.Sleep(90 * time.Second) // a slow re-read of the other
		wantNoGarbage(t, c)
		if !c.Upstream.Valid(c.Value()) || c.Redis.TTL(c.ValueKey()) > 2*time.Hour || c.Redis.TTL(c.ValueKey()) <= 0 {
			t.Errorf("Redis has %.20q for %v", c.Value(), c.Redis.TTL(c.ValueKey()))
		}
		most := map[tokencachetest.Mode]int{repeating: 1, superseding: 2}[mode]
		wantFetchesBelow(t, c, 1+most+1)
		time.Sleep(2 * time.Hour) // and it goes on as if nothing had been
		wantNoGarbage(t, c)
		wantFetchesBelow(t, c, 1+most+2+1)
		for _, e := range newcomer.Events() {
			if e.Result == tokencache.ResultRefused || e.Result == tokencache.ResultThrottled || e.ForeignRefresher && e.Result == tokencache.ResultCommitted {
				t.Errorf("%+v", e)
			}
		}
	}, rarely(time.Minute))
}

// wantNoGarbage fails the test if a caller is given what upstream did not issue, or does not
// accept.
func wantNoGarbage(t *testing.T, c *cluster) {
	t.Helper()
	for _, r := range c.Replicas {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		token, err := r.Cache.Get(ctx, tokencachetest.Key)
		cancel()
		if err == nil && !c.Upstream.Valid(token.Value.Reveal()) {
			t.Fatalf("%s got %.20q, stale: %v", r.Name, token.Value.Reveal(), token.Stale)
		}
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
							if e.Result == tokencache.ResultLeaseCapped && strings.Contains(e.Err.Error(), lockKey) {
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

// What a Source says is bounded, too: the form of a value, its life, and how long the cluster waits
// for the next.
func TestWhatUpstreamSaysIsBounded(t *testing.T) {
	t.Parallel()
	const years = 10 * 365 * 24 * time.Hour
	for name, want := range map[string]struct {
		value tokencache.Value
		err   error
		good  bool
		wait  time.Duration // at most; at least half of it
	}{
		"a life of years":             {value: tokencache.Value{Value: secret.New("v"), Life: years, RenewLeft: -years}, good: true},
		"the longest value":           {value: tokencache.Value{Value: secret.New(strings.Repeat("v", 4096)), Life: time.Hour}, good: true},
		"a longer value":              {value: tokencache.Value{Value: secret.New(strings.Repeat("v", 4097)), Life: time.Hour}, wait: time.Second},
		"a value of two lines":        {value: tokencache.Value{Value: secret.New("v\n"), Life: time.Hour}, wait: time.Second},
		"a value that is not ASCII":   {value: tokencache.Value{Value: secret.New("\u00e9"), Life: time.Hour}, wait: time.Second},
		"a wait of years":             {err: &tokencache.FetchError{Class: tokencache.ClassQuota, RetryAfter: years}, wait: 24 * time.Hour},
		"a wait of years for one pod": {err: &tokencache.FetchError{Class: tokencache.ClassLocal, RetryAfter: years}, wait: 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			says := tokencachetest.Configure(func(_ string, c *tokencache.Credential) {
				c.Source = saying{want.value, want.err}
			})
			bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
				token, err := get(t.Context(), c.Replicas[0])
				unavailable, _ := errors.AsType[*tokencache.UnavailableError](err)
				switch {
				case want.good && (err != nil || token.ExpiresIn > 30*24*time.Hour || c.Redis.TTL(c.ValueKey()) > 30*24*time.Hour):
					t.Errorf("%v, for %v", err, token.ExpiresIn)
				case !want.good && (unavailable == nil || unavailable.RetryAfter > want.wait || unavailable.RetryAfter < want.wait/2):
					t.Errorf("got %v, %+v; want to wait %v", err, unavailable, want.wait)
				}
			}, says)
		})
	}
}

// saying is a Source that always says the same.
type saying struct {
	value tokencache.Value
	err   error
}

func (s saying) Fetch(context.Context, tokencache.Request) (tokencache.Value, error) {
	return s.value, s.err
}
