package tokencache_test

import (
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A credential that comes by Add costs nothing before, is kept ahead of its end while it is asked
// for, and dropped when it is not any more. Each replica goes by its own callers.
func TestACredentialIsKeptWhileItIsAskedFor(t *testing.T) {
	t.Parallel()
	bubble(t, 2, &upstream{Life: 10 * time.Minute, RenewLeft: 3 * time.Minute}, func(t *testing.T, c *cluster) {
		one, other := c.Replicas[0], c.Replicas[1]
		for _, r := range c.Replicas {
			if err := r.Cache.Set(); err != nil {
				t.Fatal(err)
			}
		}
		c.Start()
		time.Sleep(3 * time.Hour)
		wantFetches(t, c, 0)
		if _, err := one.Cache.Get(t.Context(), tokencachetest.Key); err != tokencache.ErrUnknown {
			t.Errorf("before it is there: %v", err)
		}
		onDemand := one.Credential
		onDemand.Idle = time.Hour
		for range 2 { // the second one changes nothing
			if err := one.Cache.Add(onDemand); err != nil {
				t.Fatal(err)
			}
			one.MustGet(t)
		}
		for range 5 {
			time.Sleep(30 * time.Minute)
			before := len(c.Upstream.Fetches())
			if token := one.MustGet(t); token.From != tokencache.FromMemory || token.Stale {
				t.Errorf("after half an hour: %+v", token)
			}
			if got := len(c.Upstream.Fetches()); got != before {
				t.Error("a caller had to wait for a fetch")
			}
		}
		if len(one.Cache.Status()) != 1 || len(other.Cache.Status()) != 0 {
			t.Errorf("in the status: %v, %v", one.Cache.Status(), other.Cache.Status())
		}
		last := one.MustGet(t)
		time.Sleep(63 * time.Minute)
		before := len(c.Upstream.Fetches())
		time.Sleep(5 * time.Hour)
		wantFetches(t, c, before)
		if n := len(one.Cache.Status()); n != 0 {
			t.Errorf("%d credentials in the status after 6 hours without a call", n)
		}
		if k, ok := one.Cache.Lookup(last.Value); ok {
			t.Errorf("its value still belongs to %v", k)
		}
		if err := one.Cache.Add(onDemand); err != nil {
			t.Fatal(err)
		}
		if token := one.MustGet(t); token.Stale || !c.Upstream.Valid(token.Value.Reveal()) {
			t.Errorf("asked for again: %+v", token)
		}
		// A new set is the whole set.
		if err := one.Cache.Set(); err != nil {
			t.Fatal(err)
		}
		if n := len(one.Cache.Status()); n != 0 {
			t.Errorf("%d credentials in the status after a reload", n)
		}
	}, rarely(time.Minute))
}

// A refresh under way when its credential is dropped is its last.
func TestACredentialThatIsDroppedIsNotRefreshedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{Latency: 2 * time.Second}, func(t *testing.T, c *cluster) {
		c.Start()
		time.Sleep(time.Second) // the fetch is under way
		if err := c.Replicas[0].Cache.Set(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Hour)
		wantFetches(t, c, 1)
		if err := c.Replicas[0].Cache.Add(c.Replicas[0].Credential); err != nil {
			t.Fatal(err)
		}
		if k, ok := c.Replicas[0].Cache.Lookup(secret.New(c.Upstream.Fetches()[0].Issued)); ok {
			t.Errorf("a value that came after the drop belongs to %v", k)
		}
	}, rarely(time.Minute))
}

// A credential that cannot be kept is refused, and what is there stays as it is.
func TestAddRefusesWhatIsNotValid(t *testing.T) {
	t.Parallel()
	bubble(t, 1, &upstream{}, func(t *testing.T, c *cluster) {
		cache, spec := c.Replicas[0].Cache, c.Replicas[0].Credential
		spec.Key.App = "no id"
		if err := cache.Add(spec); err == nil {
			t.Error("an app id with a space is taken")
		}
		if err := cache.Add(tokencache.Credential{Key: tokencachetest.Key}); err == nil {
			t.Error("a credential without a Source is taken")
		}
		if n := len(cache.Status()); n != 1 {
			t.Errorf("%d credentials, want 1", n)
		}
		c.Replicas[0].MustGet(t)
	})
}
