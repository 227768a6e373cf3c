package rig

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// Redis is a real redis-server process on a port of its own. It saves nothing.
type Redis struct {
	Addr string // host:port, the same after every start

	t    testing.TB
	bin  string
	dir  string
	args []string
	env  []string // besides this process' own
	proc *process

	client redis.UniversalClient
}

// StartRedis starts a server with more arguments as redis-server takes them: "--maxmemory", "1mb".
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	return startRedis(t, nil, args)
}

func startRedis(t testing.TB, env, args []string) *Redis {
	t.Helper()
	bin := tokencachetest.NeedRedis(t)
	s := &Redis{t: t, bin: bin, dir: t.TempDir(), args: args, env: env}
	t.Cleanup(s.Kill)
	for range 3 { // another process may take the port between the question and the start
		s.Addr = FreeAddr(t)
		if s.try() {
			s.client = redis.NewClient(patient(&redis.Options{Addr: s.Addr, DisableIdentity: true}))
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

// patient returns o with time for a Redis on a busy machine. What must not wait has a context with
// a deadline.
func patient(o *redis.Options) *redis.Options {
	o.ContextTimeoutEnabled = true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = time.Minute, time.Minute, time.Minute
	return o
}

// try starts it, and reports whether it serves.
func (s *Redis) try() bool {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args := []string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}
	cmd := exec.Command(s.bin, append(args, s.args...)...)
	cmd.Env = append(os.Environ(), s.env...)
	var log Buffer
	cmd.Stdout = &log
	proc, err := start(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.proc = proc
	// Its own word: on its port, another process may answer.
	serves := func() bool { return strings.Contains(log.String(), "Ready to accept connections") }
	Eventually(s.t, "redis-server serves or ends", func() bool { return serves() || !proc.alive() })
	return serves()
}

// Kill ends it at once; its data is lost.
func (s *Redis) Kill() {
	if s.proc != nil {
		s.proc.kill()
	}
}

// Freeze stops the process: connections stay, and nothing answers. Until [Redis.Thaw].
func (s *Redis) Freeze() {
	s.proc.signal(syscall.SIGSTOP)
	Eventually(s.t, "redis-server has stopped", s.proc.stopped)
}

// Thaw lets a frozen server run on.
func (s *Redis) Thaw() { s.proc.signal(syscall.SIGCONT) }

// URL implements [Store].
func (s *Redis) URL() string { return "redis://" + s.Addr }

// Client implements [Store].
func (s *Redis) Client() redis.UniversalClient { return s.client }

// FreeAddr returns host:port of a port that was free a moment ago: see [tokencachetest.FreePort].
func FreeAddr(t testing.TB) string {
	t.Helper()
	return "127.0.0.1:" + tokencachetest.FreePort(t)
}
