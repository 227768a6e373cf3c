package tokencache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A credential that is not in the set is asked for once, and is then one like any other.
func TestMissingCredentialsAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{Mode: superseding}
		asked, refused := 0, errors.New("refused")
		c := tokencachetest.New(t, 1, u, tokencachetest.Options(tokencache.Options{
			Missing: func(_ context.Context, k tokencache.Key) (tokencache.Credential, error) {
				switch asked++; k.App {
				case "wx1":
					return tokencache.Credential{Key: k, Source: u.Source("replica-0")}, nil
				case "wx2":
					return tokencache.Credential{}, refused
				}
				return tokencache.Credential{}, tokencache.ErrUnknown
			},
		}))
		cache := c.Replicas[0].Cache
		key := tokencache.Key{App: "wx1", Kind: "access_token"}
		if _, ok := cache.Fresh(key, 0); ok || asked != 0 {
			t.Error("Fresh does not wait, so it must not ask")
		}
		for range 2 {
			if got, err := cache.Get(t.Context(), key); err != nil || got.Value.Empty() {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		for app, want := range map[string]error{"wx2": refused, "wx3": tokencache.ErrUnknown} {
			k := tokencache.Key{App: app, Kind: "access_token"}
			if _, err := cache.Get(t.Context(), k); !errors.Is(err, want) {
				t.Errorf("Get of %s: %v", app, err)
			}
			if _, err := cache.Report(t.Context(), k, secret.New("x")); !errors.Is(err, want) {
				t.Errorf("Report of %s: %v", app, err)
			}
			if _, err := cache.GetAtLeast(t.Context(), k, 0); !errors.Is(err, want) {
				t.Errorf("GetAtLeast of %s: %v", app, err)
			}
			if err := cache.Probe(t.Context(), k, secret.New("x")); !errors.Is(err, want) {
				t.Errorf("Probe of %s: %v", app, err)
			}
		}
	})
}
