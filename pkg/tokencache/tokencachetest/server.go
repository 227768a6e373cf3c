package tokencachetest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// FindRedis returns the server that tests start: what the environment variable REDIS_SERVER names,
// redis-server otherwise. With --sentinel the same program is a Sentinel.
func FindRedis() (path string, err error) {
	return exec.LookPath(cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server"))
}

// NeedRedis is FindRedis for a test. Without one the test is skipped, or fails if the environment
// says WXTOKEN_REQUIRE_REDIS=1 or names one that is not there.
func NeedRedis(t testing.TB) (path string) {
	t.Helper()
	path, err := FindRedis()
	if err != nil && (os.Getenv("WXTOKEN_REQUIRE_REDIS") == "1" || os.Getenv("REDIS_SERVER") != "") {
		t.Fatalf("WXTOKEN_REQUIRE_REDIS=1 or REDIS_SERVER demands a Redis: %v", err)
	}
	if err != nil {
		t.Skip("there is no redis-server")
	}
	return path
}

// IsRedis6 reports whether that server is a Redis 6.2 or a KeyDB: it has no ACL for reading only,
// takes no subcommand away, and the nodes of a Cluster announce no names.
func IsRedis6(t testing.TB) bool {
	t.Helper()
	out, err := exec.Command(NeedRedis(t), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(out), "v=6.")
}

// RedisServer starts a real server for this test and returns its address: see [NeedRedis]. Not
// for a bubble.
func RedisServer(t testing.TB, args ...string) (addr string) {
	t.Helper()
	bin := NeedRedis(t)
	for range 3 { // another process may take the port between the question and the start
		port := FreePort(t)
		var log output
		cmd := exec.Command(bin, append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", ""}, args...)...)
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		go func() { _ = cmd.Wait(); close(exited) }()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-exited
		})
		if log.says("Ready to accept connections", exited) {
			return "127.0.0.1:" + port
		}
		t.Logf("redis-server does not serve on port %s:\n%s", port, &log)
	}
	t.Fatal("redis-server does not start")
	return ""
}

// FreePort returns a TCP port of this host that was free a moment ago, and that no other call is
// given before the test ends, in this process or another one: the UDP port of the same number is
// held so long, as the mark. It is none of those that the system gives to connections, so that a
// server which was killed can have it again. Nor is the one 10000 higher, which a node of a Redis
// Cluster needs, too.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))
		mark, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			_ = mark.Close()
			continue
		}
		_ = l.Close()
		t.Cleanup(func() { _ = mark.Close() })
		_, port, _ := net.SplitHostPort(addr)
		return port
	}
	t.Fatal("no port is free")
	return ""
}

// output collects what a program prints. Safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns everything printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// says waits until the text is printed or the program has exited, and reports whether the text is.
func (o *output) says(text string, exited <-chan struct{}) bool {
	for !strings.Contains(o.String(), text) {
		select {
		case <-exited:
			return strings.Contains(o.String(), text)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return true
}
