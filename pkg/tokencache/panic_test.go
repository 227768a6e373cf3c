package tokencache_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A panic in one source must neither end the values of the others, nor print what it panicked with:
// the runtime would print it in clear.
func TestAPanicInASourceIsAFailureThatTellsNoValue(t *testing.T) {
	const canary = "CANARY-panicked-with"
	synctest.Test(t, func(t *testing.T) {
		broken := true
		c := tokencachetest.New(t, 1, &tokencachetest.Upstream{}, tokencachetest.Configure(func(_ string, spec *tokencache.Credential) {
			spec.Source = panics(func() tokencache.Value {
				if broken {
					panic(errors.New(canary))
				}
				return tokencache.Value{Value: secret.New("97_v"), Life: 2 * time.Hour, RenewLeft: 5 * time.Minute}
			})
		}))
		_, err := c.Replicas[0].Cache.Get(t.Context(), tokencachetest.Key)
		f, ok := errors.AsType[*tokencache.FetchError](err)
		if !ok || !f.Unclear || !strings.Contains(f.Message, "a *errors.errorString at panic_test.go:") {
			t.Errorf("got %v", err)
		}
		told := err.Error()
		for _, e := range c.Replicas[0].Events() {
			if e.Err != nil {
				told += e.Err.Error()
			}
		}
		for _, key := range c.Redis.Keys() {
			told += c.Redis.HGet(key, "*:note")
		}
		if form := secrettest.Find(told, canary); form != "" || !strings.Contains(told, "panicked") {
			t.Errorf("told %s: %s", form, told)
		}
		broken = false
		time.Sleep(2 * time.Minute)
		c.Replicas[0].MustGet(t)
	})
}

type panics func() tokencache.Value

func (f panics) Fetch(context.Context, tokencache.Request) (tokencache.Value, error) { return f(), nil }

// Whatever foreign code the cache calls: a panic costs that one call, and prints no value.
func TestAPanicInAProbeOrAnObserverCostsOneCall(t *testing.T) {
	const canary = "CANARY-panicked-with"
	t.Run("probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := tokencachetest.New(t, 1, &tokencachetest.Upstream{}, tokencachetest.Configure(func(_ string, spec *tokencache.Credential) {
				spec.Probe = func(context.Context, secret.String) error { panic(errors.New(canary)) }
			}))
			r := c.Replicas[0]
			for _, away := range []bool{false, true} {
				token := r.MustGet(t)
				if away {
					r.Link.Refuse()
				}
				got, err := r.Cache.Report(t.Context(), tokencachetest.Key, token.Value)
				if err != nil || !got.Stale {
					t.Errorf("Redis away: %v: %+v, %v; want the value, as stale", away, got, err)
				}
				time.Sleep(time.Minute)
			}
			told := ""
			for _, e := range r.Events() {
				if e.Err != nil {
					told += e.Err.Error()
				}
			}
			if form := secrettest.Find(told, canary); form != "" || strings.Count(told, "the probe panicked with a *errors.errorString at panic_test.go:") < 2 {
				t.Errorf("told %s: %s", form, told)
			}
		})
	})
	t.Run("observer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := tokencachetest.New(t, 0, &tokencachetest.Upstream{})
			rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", Dialer: func(context.Context, string, string) (net.Conn, error) { return c.Redis.Dial() },
				MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
			defer rdb.Close()
			cache := tokencache.New(rdb, tokencache.Options{Observe: func(tokencache.Event) { panic(canary) }})
			defer cache.Close()
			if err := cache.Set(c.Credential("one")); err != nil {
				t.Fatal(err)
			}
			if token, err := cache.Get(t.Context(), tokencachetest.Key); err != nil || token.Value.Empty() {
				t.Errorf("%+v, %v", token, err)
			}
		})
	})
}
