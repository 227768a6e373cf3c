package tokencache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A panic in one source must neither end the values of the others, nor print what it panicked with: the runtime
// would print it in clear.
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
