package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/callback"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/heap"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/listener"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/ops"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/resident"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/tlsface"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// sidecar is the program, wired:
//
//	config ──► source ──► tokencache ◄──► Redis, and the other replicas
//	              │            ▲
//	              ▼            │
//	           WeChat ◄─ proxy ◄─ api ◄── the pod's apps; operations
type sidecar struct {
	cfg     *config.Config
	log     *zap.Logger
	redis   redis.UniversalClient
	metrics *observe.Metrics
	tracer  *observe.Tracer
	cache   *tokencache.Cache

	platforms  []*platform.Platform // the configured ones
	closeVault func() error         // and the connections of the platforms; nil: there are none

	callback *callback.Handler // nil: there is no platform
	forward  *proxy.Proxy
	reloads  *reloads
	live     atomic.Pointer[settings] // what a new configuration replaces

	values, ops        net.Listener
	https              net.Listener // the values under WeChat's names; nil: not configured
	pushes             net.Listener // what WeChat reaches; nil: not configured
	certificate        *tls.Config
	valueFace, opsFace http.Handler
	callers            listener.Callers
	stopping           atomic.Bool
	asked              context.Context // ends with the first POST /quitquitquit
	quit               context.CancelFunc
}

// newSidecar makes the parts of the program and opens its listeners. It starts nothing. close frees
// what it holds.
func newSidecar(cfg *config.Config, log *zap.Logger) (_ *sidecar, err error) {
	s := &sidecar{cfg: cfg, log: log, reloads: newReloads(cfg)}
	s.asked, s.quit = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.redis, err = redisclient.Connect(cfg.Redis); err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.metrics = observe.NewMetrics(registry)
	logEvent := observe.LogEvents(log)
	s.tracer, err = observe.NewTracer(build.Version(), func(err error) { log.Debug("traces", zap.Error(err)) })
	if err != nil {
		log.Warn("no traces are sent", zap.Error(err)) // and the pod starts all the same
	}
	s.cache = tokencache.New(s.redis, tokencache.Options{
		Namespace: cfg.Namespace, Secrets: cfg.Redis.Secrets(),
		Missing: s.missing,
		Observe: func(e tokencache.Event) { s.metrics.Observe(e); logEvent(e); s.tracer.Observe(e) },
	})
	registry.MustRegister(s.metrics.Collector(s.cache.Status), observe.NewRedisCollector(s.cache.Health))
	if err := s.openPlatforms(cfg, registry); err != nil {
		return nil, err
	}
	if err := s.apply(cfg); err != nil {
		return nil, err
	}
	if err := s.openListeners(cfg); err != nil {
		return nil, err
	}
	configured := func() *apps.Set { return s.live.Load().apps }
	s.forward = proxy.New(s.cache, configured, proxy.Options{
		MaxKept: int64(cfg.KeptBodies), Observe: func(r proxy.Result) { observeCall(s.metrics, log, r) },
	})
	s.valueFace = api.New(s.cache, func(name string) (tokencache.Key, bool) { return configured().Lookup(name) }, api.Options{
		Apps: configured, Bearer: func() secret.String { return s.live.Load().bearer },
		Platform: s.platform, Callback: s.callback.Relayed, Proxy: s.forward, Plain: s.forward.Plain(), Metrics: s.metrics, Log: log,
	})
	quit := s.quit
	if !cfg.Quit {
		quit = nil
	}
	s.opsFace = ops.New(ops.Options{
		Quit:    quit,
		Started: func() (bool, string) { return s.started(s.cache.Status()) }, Gatherer: registry, Log: log,
		Page: statuspage.Options{Status: s.cache.Status, Journal: s.cache.Journal, Health: s.cache.Health, Apps: configured, Platforms: s.platformStatus,
			Configuration: s.reloads.status, Stopping: s.stopping.Load},
	})
	return s, nil
}

// openListeners opens what is to be served.
func (s *sidecar) openListeners(cfg *config.Config) (err error) {
	if s.values, err = listener.Open(cfg.Listen, cfg.SocketMode); err != nil {
		return err
	}
	if s.ops, err = listener.Open(cfg.OpsListen, cfg.SocketMode); err != nil {
		return err
	}
	if cfg.CallbackListen != "" {
		if s.pushes, err = listener.Open(cfg.CallbackListen, cfg.SocketMode); err != nil {
			return err
		}
	}
	return s.openTLS(cfg.TLS)
}

// openTLS opens the https face, if there is to be one.
func (s *sidecar) openTLS(c config.TLS) (err error) {
	if c.Listen == "" {
		return nil
	}
	s.certificate, err = tlsface.New(tlsface.Options{
		CertFile: c.CertFile, KeyFile: c.KeyFile, TrustDir: c.TrustDir, StateDir: c.StateDir,
		Names: apps.Hosts(), Domains: []string{"weixin.qq.com", "work.weixin.qq.com"}, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.https, err = listener.Open(c.Listen, 0)
	return err
}

// close frees what newSidecar has made, as far as it came.
func (s *sidecar) close() {
	s.quit()
	if s.forward != nil {
		s.forward.Close()
	}
	if s.callback != nil {
		s.callback.Close()
	}
	for _, l := range []net.Listener{s.values, s.ops, s.https, s.pushes} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.tracer != nil {
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.tracer.Close(last) // its failures are in the log
	}
	if s.closeVault != nil {
		_ = s.closeVault()
	}
	if s.redis != nil {
		_ = s.redis.Close()
	}
}

// run serves until ctx ends or a call of /quitquitquit. Then it releases its leases at once, and
// goes on serving until the pod's apps are gone or the drain is over. It returns nil when
// everything has stopped. up is called when both listeners answer, with their addresses.
func run(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), log *zap.Logger, up func(ctx context.Context, values, ops string)) error {
	s, err := newSidecar(cfg, log)
	if err != nil {
		return err
	}
	defer s.close()
	// The end of ctx begins the stop; that of serving ends it.
	g, serving := errgroup.WithContext(context.WithoutCancel(ctx))
	serving, end := context.WithCancel(serving)
	defer end()

	s.serve(serving, g)
	g.Go(func() error { return s.cache.Run(serving) })
	for _, p := range s.platforms {
		g.Go(func() error { p.Run(serving); return nil })
	}
	g.Go(func() error { s.watch(serving, load); return nil })
	g.Go(func() error { heap.Pace(serving); return nil })
	g.Go(func() error { trim(serving, log); return nil })
	g.Go(func() error {
		defer end()
		select {
		case <-ctx.Done():
		case <-s.asked.Done():
		case <-serving.Done(): // a listener broke
		}
		s.drain(serving)
		return nil
	})
	up(serving, listener.HostPort(s.values), listener.HostPort(s.ops))
	err = g.Wait()
	log.Info("stopped", zap.Error(err))
	return err
}

// startTime is after how long the sidecar has done what it does only once.
const startTime = 5 * time.Second

// trim gives back what only the start has needed.
func trim(ctx context.Context, log *zap.Logger) {
	select {
	case <-ctx.Done():
	case <-time.After(startTime):
		n, err := resident.Trim()
		log.Debug("pages of the program given back", zap.Int("bytes", n), zap.Error(err))
	}
}

// serve serves all listeners until ctx ends. A connection of WeChat's holds up no drain: pushes go to
// another replica.
func (s *sidecar) serve(ctx context.Context, g *errgroup.Group) {
	addresses := []zap.Field{zap.Stringer("listen", s.values.Addr()), zap.Stringer("ops_listen", s.ops.Addr())}
	values := s.tracer.Handler(s.valueFace)
	for _, l := range []struct {
		key     string // of a listener that need not be there
		socket  net.Listener
		handler func() http.Handler
		options listener.Options
	}{
		{"", s.values, func() http.Handler { return values }, listener.Options{Connections: listener.MaxValueConnections, Track: s.callers.Track}},
		{"tls_listen", s.https, func() http.Handler { return values }, listener.Options{Connections: listener.MaxTLSConnections, Track: s.callers.Track, TLS: s.certificate}},
		{"", s.ops, func() http.Handler { return s.opsFace }, listener.Options{Connections: listener.MaxOpsConnections}},
		{"callback_listen", s.pushes, s.callback.Public, listener.Options{Connections: listener.MaxCallbackConnections}},
	} {
		if l.socket == nil {
			continue
		}
		if l.key != "" {
			addresses = append(addresses, zap.Stringer(l.key, l.socket.Addr()))
		}
		g.Go(func() error { return listener.Serve(ctx, l.socket, l.handler(), l.options) })
	}
	s.log.Info("started", append(addresses, zap.String("version", build.Version()), zap.Int("apps", len(s.cfg.Apps)))...)
}

// drain releases the leases and takes no other. This replica goes on following what the other
// replicas do, until the apps of the pod are gone, the time for that is over, or a call of
// /quitquitquit ends it.
func (s *sidecar) drain(serving context.Context) {
	s.stopping.Store(true)
	s.log.Info("stopping", zap.Bool("asked_to_quit", s.asked.Err() != nil))
	s.cache.Close()
	patience, cancel := context.WithTimeout(serving, s.cfg.Drain.Max)
	defer cancel()
	defer context.AfterFunc(s.asked, cancel)()
	s.callers.Leave(patience, s.cfg.Drain.Quiet)
}

// started reports whether every credential has a value, or a failure that /status explains. A start
// that waited for WeChat or Redis to work would keep the pod's apps from starting, too. So would one
// that waited for the token of a platform, whose ticket comes by way of the app.
func (s *sidecar) started(all []tokencache.Status) (bool, string) {
	for _, c := range all {
		if !c.Known && c.Err == nil && s.platform(c.Key.App) == nil {
			return false, c.Key.String() + " has not been looked for yet"
		}
	}
	return true, ""
}

// observeCall counts a call of the proxy, and logs it if it brought no answer of WeChat.
func observeCall(metrics *observe.Metrics, log *zap.Logger, r proxy.Result) {
	retried := observe.Once
	if r.Retried {
		retried = observe.Twice
	}
	metrics.Proxied(r.App, string(r.Outcome), retried)
	if r.Foreign {
		metrics.ForeignToken(r.App, retried)
	}
	if r.Secret {
		metrics.Secret(r.App)
	}
	if r.Outcome != proxy.Answered {
		log.Debug("proxied call not answered", zap.String("app", r.App.App), zap.String("outcome", string(r.Outcome)),
			zap.Int("status", r.Status), zap.Int("errcode", r.Errcode), zap.Error(r.Err))
	}
}
