package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// apply puts a configuration into force. Of one that it refuses, nothing is.
func (s *sidecar) apply(cfg *config.Config) error {
	set, err := source.Apps(cfg)
	if err != nil {
		return err
	}
	creds := source.WeChat{}.Credentials(cfg.Apps, s.cache)
	for _, p := range s.platforms {
		creds = append(creds, p.Credentials()...)
	}
	var keys []tokencache.Key
	for _, c := range creds {
		keys = append(keys, c.Key)
	}
	s.metrics.SetMaxApps(cfg.MetricsApps)
	s.metrics.Track(keys...)
	if err := s.cache.Set(creds...); err != nil {
		return err
	}
	s.live.Store(&settings{configured: cfg.Apps, apps: set, bearer: cfg.Bearer})
	return nil
}

// watch applies new configurations until ctx ends. SIGHUP makes it look at once.
func (s *sidecar) watch(ctx context.Context, load func() (*config.Config, error)) {
	warn(s.log, s.cfg)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	running := s.cfg
	failed := func(message string, err error) {
		s.metrics.Reloaded(err)
		s.reloads.failed(err)
		s.log.Error(message, zap.Error(err))
	}
	config.Watcher{
		Now: hangup,
		Changed: func(next *config.Config) {
			effective, restart := running.Reload(next)
			if err := s.apply(effective); err != nil {
				failed("configuration not applied", err)
				return
			}
			running = effective
			s.metrics.Reloaded(nil)
			s.reloads.applied(effective, restart)
			s.log.Info("configuration applied", zap.Int("apps", len(effective.Apps)), zap.Strings("needs_restart", restart))
			warn(s.log, effective)
		},
		Failed: func(err error) { failed("the new configuration is not valid, the old one stays", err) },
		Recovered: func() {
			s.reloads.recovered()
			s.metrics.ConfigValid()
			s.log.Info("the configuration is valid again")
		},
	}.Run(ctx, running, load)
}

func warn(log *zap.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings {
		log.Warn(fmt.Sprintf("configuration: %s", w))
	}
}

// reloads remembers how the configuration was last read, for the status page.
type reloads struct {
	mu   sync.Mutex
	last statuspage.Configuration
}

func newReloads(cfg *config.Config) *reloads {
	return &reloads{last: statuspage.Configuration{Warnings: cfg.Warnings}}
}

func (r *reloads) status() statuspage.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *reloads) applied(cfg *config.Config, needsRestart []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = statuspage.Configuration{Warnings: cfg.Warnings, Read: time.Now(), NeedsRestart: needsRestart}
}

// failed notes that what was read is not in force.
func (r *reloads) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Read, r.last.Err = time.Now(), err
}

// recovered notes that what is in force is valid again, after failed.
func (r *reloads) recovered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Read, r.last.Err = time.Now(), nil
}

// settings is what a new configuration replaces at once. It is immutable.
type settings struct {
	configured []config.App
	apps       *apps.Set
	bearer     secret.String
}
