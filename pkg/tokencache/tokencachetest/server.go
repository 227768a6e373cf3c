package tokencachetest

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// RedisServer starts a real redis-server for this test and returns its address. Without one installed
// the test is skipped, or fails if the environment says WXTOKEN_REQUIRE_REDIS=1. Not for a bubble.
func RedisServer(t testing.TB, args ...string) (addr string) {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("WXTOKEN_REQUIRE_REDIS") == "1" {
			t.Fatal("WXTOKEN_REQUIRE_REDIS=1, but there is no redis-server")
		}
		t.Skip("there is no redis-server")
	}
	addr = freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(bin, append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", ""}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not answer: %v", err)
		}
	}
}

// freeAddress returns an address that nobody listens on at this moment.
func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
