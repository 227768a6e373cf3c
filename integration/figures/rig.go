package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const appSecret = "figures-only"

// rig is what sidecars need, and everything that must be stopped.
type rig struct {
	ctx       context.Context
	dir       string
	binary    string
	apps      []string
	upstream  string
	redisURL  string
	redisName string
	redisPid  int // 0: it is embedded
	redis     *redis.Client
	cleanup   []func()
}

func newRig(ctx context.Context, apps int) (_ *rig, err error) {
	r := &rig{ctx: ctx}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "wxtoken-figures"); err != nil {
		return nil, err
	}
	r.cleanup = append(r.cleanup, func() { _ = os.RemoveAll(r.dir) })
	r.binary = filepath.Join(r.dir, "sidecar")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", r.binary, "./cmd/sidecar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the sidecar, in the root of the repository: %w\n%s", err, out)
	}
	var accounts []wechattest.App
	for i := range apps {
		r.apps = append(r.apps, fmt.Sprintf("wx%016x", i+1))
		accounts = append(accounts, wechattest.App{ID: r.apps[i], Secret: appSecret})
	}
	upstream, stop := serve(wechattest.New(accounts...))
	r.upstream = upstream
	r.cleanup = append(r.cleanup, stop)
	if err := r.startRedis(); err != nil {
		return nil, err
	}
	o, err := redis.ParseURL(r.redisURL)
	if err != nil {
		return nil, err
	}
	o.ContextTimeoutEnabled = true
	r.redis = redis.NewClient(o)
	r.cleanup = append(r.cleanup, func() { _ = r.redis.Close() })
	return r, nil
}

// serve answers on loopback until it is stopped.
func serve(h http.Handler) (url string, stop func()) {
	s := httptest.NewServer(h)
	return s.URL, func() { s.CloseClientConnections(); s.Close() }
}

// stop ends everything, the last first.
func (r *rig) stop() {
	for _, f := range slices.Backward(r.cleanup) {
		f()
	}
}

func (r *rig) startRedis() error {
	path, err := exec.LookPath(cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server"))
	if err != nil {
		m := miniredis.NewMiniRedis()
		m.ClockTTL(true)
		if err := m.StartAddr("127.0.0.1:0"); err != nil {
			return err
		}
		r.cleanup = append(r.cleanup, m.Close)
		r.redisURL, r.redisName = "redis://"+m.Addr(), "an embedded Redis, since no redis-server is installed"
		return nil
	}
	addr := freeAddr()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "no")
	if err := r.start(cmd); err != nil {
		return err
	}
	r.redisURL, r.redisName, r.redisPid = "redis://"+addr, filepath.Base(path), cmd.Process.Pid
	return poll(r.ctx, "redis-server", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (r *rig) start(cmd *exec.Cmd) error { return r.startUntil(syscall.SIGKILL, cmd) }

// startUntil starts a program that a signal ends.
func (r *rig) startUntil(end syscall.Signal, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	r.cleanup = append(r.cleanup, func() {
		_ = cmd.Process.Signal(end)
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		_ = cmd.Wait()
	})
	return nil
}

// sidecar starts one that keeps apps, under a namespace of Redis.
func (r *rig) sidecar(namespace string, apps []string) (*server, error) {
	return r.sidecarOn(r.upstream, namespace, apps)
}

// sidecarOn starts one whose WeChat is another.
func (r *rig) sidecarOn(upstream, namespace string, apps []string) (*server, error) {
	var config strings.Builder
	fmt.Fprintf(&config, "redis: {url: %s}\nnamespace: %s\napps:\n", r.redisURL, namespace)
	for _, id := range apps {
		fmt.Fprintf(&config, "  - {id: %s, secret_env: FIGURES_SECRET, api_base: %q}\n", id, upstream)
	}
	s, err := r.launch(namespace, config.String())
	if err == nil {
		s.tokensOf(apps)
	}
	return s, err
}

// launch starts a sidecar with a configuration.
func (r *rig) launch(name, config string) (*server, error) {
	path := filepath.Join(r.dir, name+".yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s := &server{log: &strings.Builder{}, addr: freeAddr(), ops: freeAddr()}
	s.cmd = exec.Command(r.binary, "--config", path, "--listen", s.addr, "--ops-listen", s.ops, "--log-level", "warn")
	s.cmd.Env = append(goEnv(), "FIGURES_SECRET="+appSecret)
	s.cmd.Stderr = s.log
	s.began = time.Now()
	return s, r.start(s.cmd)
}

func goEnv() []string {
	var env []string
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// starts returns how long it takes to the first token, for the first replica and for another one.
func (r *rig) starts(n int) (cold, warm time.Duration, err error) {
	var fetched, found []time.Duration
	for i := range n {
		for _, into := range []*[]time.Duration{&fetched, &found} {
			s, err := r.sidecar(fmt.Sprintf("start%d", i), r.apps[:1])
			if err != nil {
				return 0, 0, err
			}
			if err := s.ready(r.ctx); err != nil {
				return 0, 0, err
			}
			*into = append(*into, time.Since(s.began))
			s.cmd.Process.Kill() // the rig waits for it
		}
	}
	slices.Sort(fetched)
	slices.Sort(found)
	return fetched[n/2], found[n/2], nil
}

const baselineArg = "baseline"

// baseline is this program again, as an HTTP server that knows one answer.
func (r *rig) baseline() (*server, error) {
	s, err := r.self(baselineArg)
	if err == nil {
		s.tokensOf(r.apps[:1])
	}
	return s, err
}

func serveBaseline() {
	// As long as a real one.
	answer := []byte(`{"access_token":"` + strings.Repeat("x", 136) + `","expires_in":7199,"expires_at":1795372997,"version":1795372997919,"stale":false}` + "\n")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/apps/{app}/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(answer)
	})
	listen(mux)
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ""
	}
	defer l.Close()
	return l.Addr().String()
}

// poll returns when ok, or with an error after 20 s.
func poll(ctx context.Context, awaited string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return errors.New("timed out waiting for " + awaited)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
