package tokencache_test

import (
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A credential with Idle costs nothing before it is asked for, is kept ahead of its end while it
// is, and nothing again when it is not asked for any more. Each replica goes by its own callers.
func TestAnIdleCredentialIsKeptWhileItIsAskedFor(t *testing.T) {
	t.Parallel()
	onDemand := tokencachetest.Configure(func(_ string, c *tokencache.Credential) { c.Idle = time.Hour })
	bubble(t, 2, &upstream{Life: 10 * time.Minute, RenewLeft: 3 * time.Minute}, func(t *testing.T, c *cluster) {
		c.Start()
		time.Sleep(3 * time.Hour)
		wantFetches(t, c, 0)
		one, other := c.Replicas[0], c.Replicas[1]
		if n := len(one.Cache.Status()); n != 0 {
			t.Errorf("%d credentials in the status before the first call", n)
		}
		one.MustGet(t)
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
		time.Sleep(61 * time.Minute)
		before := len(c.Upstream.Fetches())
		time.Sleep(5 * time.Hour)
		wantFetches(t, c, before)
		if n := len(one.Cache.Status()); n != 0 {
			t.Errorf("%d credentials in the status after 6 hours without a call", n)
		}
		if token := one.MustGet(t); token.Stale || !c.Upstream.Valid(token.Value.Reveal()) {
			t.Errorf("asked for again: %+v", token)
		}
		// A new set of credentials forgets none that is in use.
		if err := one.Cache.Set(one.Credential); err != nil {
			t.Fatal(err)
		}
		if n := len(one.Cache.Status()); n != 1 {
			t.Errorf("%d credentials in the status after a reload", n)
		}
	}, onDemand, rarely(time.Minute))
}
