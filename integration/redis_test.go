package integration

import (
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a real redis-server process on a port of its own.
type redisServer struct {
	t    *testing.T
	addr string
	dir  string
	args []string

	cmd    *exec.Cmd
	exited chan struct{}
}

// startRedis skips the test where redis-server is not installed, unless WXTOKEN_REQUIRE_REDIS is set.
func startRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("WXTOKEN_REQUIRE_REDIS") == "1" {
			t.Fatal("WXTOKEN_REQUIRE_REDIS=1, and redis-server is not installed")
		}
		t.Skip("redis-server is not installed")
	}
	s := &redisServer{t: t, dir: t.TempDir(), args: args}
	t.Cleanup(s.stop)
	for range 3 { // somebody may take the port between the question and the start
		s.addr = freeAddr(t)
		if s.try() {
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

func (s *redisServer) start() {
	s.t.Helper()
	if !s.try() {
		s.t.Fatal("redis-server does not start")
	}
}

// try starts it, and reports whether it answers.
func (s *redisServer) try() bool {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() { _ = s.cmd.Wait(); close(exited) }()
	up := false
	eventually(s.t, 10*time.Second, "redis-server answers or ends", func() bool {
		select {
		case <-exited:
			return true
		default:
		}
		conn, err := net.Dial("tcp", s.addr)
		if up = err == nil; up {
			_ = conn.Close()
		}
		return up
	})
	return up
}

// stop kills it: nothing is saved.
func (s *redisServer) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// client is somebody with full access, for looking on.
func (s *redisServer) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.addr})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// reader reads the public key as an app with direct access does, all the time, until stopped.
type reader struct {
	stop context.CancelFunc
	done chan struct{}
	// valid once stopped:
	looks, missing, dead int
}

func (c *cluster) directReader(rdb *redis.Client) *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			switch v, err := rdb.Get(ctx, valueKey).Result(); {
			case ctx.Err() != nil:
			case err != nil:
				r.missing++
			case !c.upstream.works(v):
				r.dead++
			}
			r.looks++
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return r
}

func (r *reader) finish() {
	r.stop()
	<-r.done
}
