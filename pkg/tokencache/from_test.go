package tokencache_test

import (
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A read says what it waited for: nothing, another replica, or upstream.
func TestATokenSaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		bubble(t, 3, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			want := func(r *replica, want tokencache.From) {
				t.Helper()
				if got := r.MustGet(t).From; got != want {
					t.Errorf("%s: from %q, want %q", r.Name, got, want)
				}
			}
			want(c.Replicas[0], tokencache.FromUpstream)
			want(c.Replicas[0], tokencache.FromMemory)
			want(c.Replicas[1], tokencache.FromRedis) // it stood there
			want(c.Replicas[1], tokencache.FromMemory)
			time.Sleep(3 * time.Hour)
			go c.Replicas[1].MustGet(t)
			time.Sleep(time.Millisecond)
			want(c.Replicas[2], tokencache.FromRedis) // another one was fetching it
			want(c.Replicas[1], tokencache.FromMemory)
			old := c.Replicas[1].MustGet(t).Value
			c.Upstream.Kill()
			token, err := c.Replicas[1].Cache.Report(t.Context(), c.Replicas[1].Credential.Key, old)
			if err != nil || token.From != tokencache.FromUpstream {
				t.Errorf("reported: from %q, %v", token.From, err)
			}
		})
	})
}
