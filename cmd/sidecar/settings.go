package main

import (
	"fmt"
	"net/url"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

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

// keys returns those of the credentials that are always kept, and of those that are kept while they are asked for.
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

// started reports whether every credential has a value, or a failure that /status tells of. A start
// that waited for WeChat or Redis to work would keep the pod's apps from starting, too.
func started(all []tokencache.Status) (bool, string) {
	for _, s := range all {
		if !s.Known && s.Err == nil {
			return false, s.Key.String() + " has not been looked for yet"
		}
	}
	return true, ""
}
