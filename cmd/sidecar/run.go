package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/ops"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// run is the program, top to bottom:
//
//	config ──► source ──► tokencache ◄──► Redis, and the other replicas
//	              │            ▲
//	              ▼            │
//	           WeChat ◄─ proxy ◄─ api ◄── the pod's apps; operations
//
// When ctx ends, it releases its leases at once and goes on serving until the pod's apps are gone,
// or the drain is over. It returns nil when everything is stopped. up is called when both listeners
// answer, with their addresses.
func run(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), log *zap.Logger, up func(values, ops string)) error {
	// The shared copy, and what this process knows of it.
	rdb, err := connect(cfg.Redis)
	if err != nil {
		return err
	}
	defer rdb.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := observe.NewMetrics(registry)
	logEvent := observe.LogEvents(log)
	tracer, err := observe.NewTracer(build.Version(), func(err error) { log.Debug("traces", zap.Error(err)) })
	if err != nil {
		log.Warn("no traces are sent", zap.Error(err)) // and the pod starts all the same
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tracer.Close(last) // it has told failed
	}()
	cache := tokencache.New(rdb, tokencache.Options{
		Namespace: cfg.Namespace, Secrets: cfg.Redis.Secrets(),
		Observe: func(e tokencache.Event) { metrics.Observe(e); logEvent(e); tracer.Observe(e) },
	})

	registry.MustRegister(observe.NewCollector(cache.Status), observe.NewRedisCollector(cache.Health))

	// What a new configuration can change while the program runs.
	var live atomic.Pointer[settings]
	apply := func(next *config.Config) error {
		set, err := newSettings(next)
		if err != nil {
			return err
		}
		creds := source.Credentials(next.Apps, cache)
		kept, onDemand := keys(creds)
		metrics.TrackOnDemand(onDemand...)
		metrics.Track(kept...)
		if err := cache.Set(creds...); err != nil {
			return err
		}
		live.Store(set)
		return nil
	}
	if err := apply(cfg); err != nil {
		return err
	}

	reloads := newReloads(cfg)

	// The faces.
	values, err := listen(cfg.Listen, cfg.SocketMode)
	if err != nil {
		return err
	}
	opsListener, err := listen(cfg.OpsListen, cfg.SocketMode)
	if err != nil {
		_ = values.Close()
		return err
	}
	forward := proxy.New(cache, func() *proxy.Apps { return live.Load().proxied }, proxy.Options{
		MaxKept: int64(cfg.KeptBodies), Observe: func(r proxy.Result) { observeCall(metrics, log, r) },
	})
	defer forward.Close()
	lookup := func(name string) (tokencache.Key, bool) { return live.Load().apps.Lookup(name) }
	valueFace := api.New(cache, lookup, api.Options{
		Apps: func() *apps.Set { return live.Load().apps }, Bearer: func() secret.String { return live.Load().bearer },
		Proxy: forward, Plain: forward.Plain(), Metrics: metrics, Log: log,
	})
	// The end of ctx begins the stop; that of serving ends it.
	g, serving := errgroup.WithContext(context.WithoutCancel(ctx))
	serving, end := context.WithCancel(serving)
	defer end()
	asked, quit := context.WithCancel(serving)
	defer quit()
	opsFace := ops.New(ops.Options{
		Started: func() (bool, string) { return started(cache.Status()) },
		Page: statuspage.Options{
			Status: cache.Status, Journal: cache.Journal, Apps: func() *apps.Set { return live.Load().apps }, Configuration: reloads.status,
			Stopping: func() bool { return ctx.Err() != nil || asked.Err() != nil },
		},
		Quit: quitIf(cfg.Quit, quit), Gatherer: registry, Log: log,
	})

	log.Info("started", zap.String("version", build.Version()), zap.Stringer("listen", values.Addr()),
		zap.Stringer("ops_listen", opsListener.Addr()), zap.Int("apps", len(cfg.Apps)))
	var apps callers
	g.Go(func() error {
		return serve(serving, values, maxValueConnections, tracer.Handler(valueFace), apps.track)
	})
	g.Go(func() error { return serve(serving, opsListener, maxOpsConnections, opsFace, nil) })
	g.Go(func() error { return cache.Run(serving) })
	g.Go(func() error { watch(serving, cfg, load, apply, metrics, reloads, log); return nil })
	g.Go(func() error {
		defer end()
		select {
		case <-ctx.Done():
		case <-asked.Done(): // or a listener broke
		}
		log.Info("stopping", zap.Bool("asked_to_quit", asked.Err() != nil))
		// A stopping replica gives its lease back at once and takes no other. It goes on following
		// what the other replicas do, for the apps that are not gone yet.
		cache.Close()
		patience, cancel := context.WithTimeout(asked, cfg.Drain.Max)
		defer cancel()
		apps.leave(patience, cfg.Drain.Quiet)
		return nil
	})
	up(hostPort(values), hostPort(opsListener))
	err = g.Wait()
	log.Info("stopped", zap.Error(err))
	return err
}

// watch applies new configurations until ctx ends; SIGHUP makes it look at once.
func watch(ctx context.Context, running *config.Config, load func() (*config.Config, error), apply func(*config.Config) error, metrics *observe.Metrics, reloads *reloads, log *zap.Logger) {
	warn(log, running)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	config.Watcher{
		Now: hangup,
		Changed: func(next *config.Config) {
			effective, restart := running.Reload(next)
			if err := apply(effective); err != nil {
				metrics.Reloaded(err)
				reloads.failed(err)
				log.Error("configuration not applied", zap.Error(err))
				return
			}
			running = effective
			metrics.Reloaded(nil)
			reloads.applied(effective, restart)
			log.Info("configuration applied", zap.Int("apps", len(effective.Apps)), zap.Strings("needs_restart", restart))
			warn(log, effective)
		},
		Failed: func(err error) {
			metrics.Reloaded(err)
			reloads.failed(err)
			log.Error("the new configuration is not valid, the old one stays", zap.Error(err))
		},
		Recovered: func() {
			reloads.recovered()
			metrics.ConfigValid()
			log.Info("the configuration is valid again")
		},
	}.Run(ctx, running, load)
}

// quitIf returns quit if it is permitted.
func quitIf(permitted bool, quit func()) func() {
	if !permitted {
		return nil
	}
	return quit
}

func warn(log *zap.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings {
		log.Warn(fmt.Sprintf("configuration: %s", w))
	}
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
	if r.Outcome != proxy.Answered {
		log.Debug("proxied call not answered", zap.String("app", r.App.App), zap.String("outcome", string(r.Outcome)),
			zap.Int("status", r.Status), zap.Int("errcode", r.Errcode), zap.Error(r.Err))
	}
}
