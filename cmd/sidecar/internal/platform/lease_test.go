package platform

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// What a lease fails with is logged, and a server that does not know a command repeats its
// arguments, those of AUTH too.
func TestTheErrorOfALeaseDoesNotRepeatThePassword(t *testing.T) {
	const password = "HUSH-redis-password"
	m := miniredis.RunT(t)
	m.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		c.WriteError("ERR unknown command '" + cmd + "', with args beginning with: 'HUSH-re' and not " + password)
		return true
	})
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	defer rdb.Close()
	p := &Platform{o: Options{ID: id, Namespace: "ns", Redis: rdb, Secrets: []secret.String{secret.New(password)}}}
	_, err := p.lease(t.Context(), "code", time.Minute)
	if text := fmt.Sprint(err); !strings.Contains(text, "unknown command") || strings.Contains(text, "HUSH") {
		t.Errorf("%v", err)
	}
}
