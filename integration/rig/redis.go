package rig

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis is a real redis-server process on a port of its own. It saves nothing.
type Redis struct {
	Addr string // host:port, the same after every start

	t    testing.TB
	dir  string
	args []string
	env  []string // besides this process' own
	proc *process

	client redis.UniversalClient
}

// NeedRedis skips the test where redis-server is not installed, or fails it where WXTOKEN_REQUIRE_REDIS
// is 1.
func NeedRedis(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("WXTOKEN_REQUIRE_REDIS") == "1" {
			t.Fatal("WXTOKEN_REQUIRE_REDIS=1, and redis-server is not installed")
		}
		t.Skip("redis-server is not installed")
	}
}

// StartRedis starts a server with more arguments as redis-server takes them: "--maxmemory", "1mb".
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	return startRedis(t, nil, args)
}

func startRedis(t testing.TB, env, args []string) *Redis {
	t.Helper()
	NeedRedis(t)
	s := &Redis{t: t, dir: t.TempDir(), args: args, env: env}
	t.Cleanup(s.Kill)
	for range 3 { // somebody may take the port between the question and the start
		s.Addr = FreeAddr(t)
		if s.try() {
			s.client = redis.NewClient(&redis.Options{Addr: s.Addr, DisableIdentity: true})
			t.Cleanup(func() { _ = s.client.Close() })
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

// Start starts it again, empty, on the same port.
func (s *Redis) Start() {
	s.t.Helper()
	if !s.try() {
		s.t.Fatal("redis-server does not start")
	}
}

// try starts it, and reports whether it answers.
func (s *Redis) try() bool {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args := []string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}
	cmd := exec.Command("redis-server", append(args, s.args...)...)
	cmd.Env = append(os.Environ(), s.env...)
	proc, err := start(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.proc = proc
	up := false
	Eventually(s.t, 10*time.Second, "redis-server answers or ends", func() bool {
		if !proc.alive() {
			return true
		}
		conn, err := net.Dial("tcp", s.Addr)
		if up = err == nil; up {
			_ = conn.Close()
		}
		return up
	})
	return up
}

// Kill ends it at once; its data is lost.
func (s *Redis) Kill() {
	if s.proc != nil {
		s.proc.kill()
	}
}

// Freeze stops the process: connections stand, and nothing answers. Until [Redis.Thaw].
func (s *Redis) Freeze() { s.proc.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server run on.
func (s *Redis) Thaw() { s.proc.signal(syscall.SIGCONT) }

// URL implements [Store].
func (s *Redis) URL() string { return "redis://" + s.Addr }

// Client implements [Store].
func (s *Redis) Client() redis.UniversalClient { return s.client }

// FreeAddr returns host:port of a port that was free a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
