package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// apply puts a configuration into force. Of one that it refuses, nothing is.
func (s *sidecar) apply(cfg *config.Config) error {
	set, err := newSettings(cfg)
	if err != nil {
		return err
	}
	creds := source.Credentials(cfg.Apps, s.cache)
	kept, onDemand := keys(creds)
	s.metrics.TrackOnDemand(onDemand...)
	s.metrics.Track(kept...)
	if err := s.cache.Set(creds...); err != nil {
		return err
	}
	s.live.Store(set)
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

// settings is what the faces need of a configuration. It is immutable.
type settings struct {
	apps    *apps.Set
	proxied *proxy.Apps
	bearer  secret.String
}

func newSettings(cfg *config.Config) (*settings, error) {
	s := &settings{bearer: cfg.Bearer}
	var faces []apps.App
	var proxied []proxy.App
	for _, app := range cfg.Apps {
		p, err := proxyApp(app)
		if err != nil {
			return nil, err
		}
		proxied = append(proxied, p)
		host := ""
		if cfg.AllowUpstreamHost {
			host = p.Upstream.Hostname()
		}
		faces = append(faces, faceApp(app, host))
	}
	s.apps = apps.New(faces...)
	var err error
	s.proxied, err = proxy.NewApps(proxied, cfg.DefaultApp)
	return s, err
}

func faceApp(app config.App, host string) apps.App {
	a := apps.App{
		Key: source.Key(app), ID: app.ID, Alias: app.Alias, Agent: app.Agent, Host: host,
		Secret: app.Secret, RequireSecret: app.RequireSecret, Tickets: map[string]tokencache.Key{},
	}
	if app.Platform == config.PlatformWeCom {
		a.Platform = apps.WeCom
	}
	for _, name := range source.Tickets(app) {
		a.Tickets[name] = source.TicketKey(app, name)
	}
	return a
}

func proxyApp(app config.App) (proxy.App, error) {
	a := proxy.App{Key: source.Key(app), Names: []string{app.CredentialID(), app.Alias}, AppID: app.ID, API: wechat.APICall}
	if app.Platform == config.PlatformWeCom {
		a.API = wechat.APICorpCall
	}
	for i, base := range append([]string{app.APIBase}, app.APIFallbacks...) {
		u, err := url.Parse(base)
		switch {
		case err != nil: // the configuration was checked
			return a, fmt.Errorf("app %s: an API base cannot be used", app.CredentialID())
		case i == 0:
			a.Upstream = u
		default:
			a.Fallbacks = append(a.Fallbacks, u)
		}
	}
	return a, nil
}

// keys returns those of the credentials that are always kept, and of those that are kept while they
// are asked for.
func keys(creds []tokencache.Credential) (kept, onDemand []tokencache.Key) {
	for _, c := range creds {
		if c.Idle == 0 {
			kept = append(kept, c.Key)
		} else {
			onDemand = append(onDemand, c.Key)
		}
	}
	return kept, onDemand
}
