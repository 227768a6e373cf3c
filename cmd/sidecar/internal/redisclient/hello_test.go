package redisclient

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// There are proxies that close the connection on which HELLO is sent.
func TestProtocol2SendsNoHello(t *testing.T) {
	m := miniredis.RunT(t)
	m.RequireUserAuth("u", "p")
	var hellos atomic.Int64
	m.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		if strings.ToUpper(cmd) != "HELLO" {
			return false
		}
		hellos.Add(1)
		c.Close()
		return true
	})
	for _, form := range []string{"", "&addr=" + m.Addr()} {
		rdb := connect(t, "redis://u:p@"+m.Addr()+"?protocol=2"+form)
		if err := works(t, rdb, "k"); err != nil {
			t.Errorf("form %q: %v", form, err)
		}
		sub := rdb.Subscribe(t.Context(), "c")
		if _, err := sub.ReceiveTimeout(t.Context(), time.Minute); err != nil {
			t.Errorf("form %q: a subscription: %v", form, err)
		}
		_ = sub.Close()
	}
	if n := hellos.Load(); n != 0 {
		t.Errorf("%d times HELLO", n)
	}
	if err := connect(t, "redis://u:p@"+m.Addr()).Set(t.Context(), "k", "v", 0).Err(); err == nil || hellos.Load() == 0 {
		t.Errorf("without the option: %v, %d times HELLO", err, hellos.Load())
	}
}
