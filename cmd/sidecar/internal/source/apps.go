package source

import (
	"fmt"
	"net/url"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Apps returns the set of the configured apps. The error names the app whose API base cannot be
// used; a configuration that was checked has none.
func Apps(cfg *config.Config) (*apps.Set, error) {
	list := make([]apps.App, 0, len(cfg.Apps))
	bases := map[string]*url.URL{} // thousands of apps have the same
	for _, c := range cfg.Apps {
		a := apps.App{
			Key: Key(c), ID: c.ID, Alias: c.Alias, Agent: c.Agent, Secret: c.Secret, RequireSecret: c.RequireSecret,
			Tickets: Tickets(c), AllowHost: cfg.AllowUpstreamHost,
		}
		if c.Platform == config.PlatformWeCom {
			a.Platform = apps.WeCom
		}
		for _, base := range append([]string{c.APIBase}, c.APIFallbacks...) {
			if bases[base] == nil {
				u, err := url.Parse(base)
				if err != nil || !isBase(u) {
					return nil, fmt.Errorf("app %s: an API base is not a plain http or https URL", c.CredentialID())
				}
				bases[base] = u
			}
			a.Upstreams = append(a.Upstreams, bases[base])
		}
		list = append(list, a)
	}
	for _, c := range cfg.Platforms {
		a, err := thirdParty(c)
		if err != nil {
			return nil, err
		}
		a.AllowHost = cfg.AllowUpstreamHost
		list = append(list, a)
	}
	set := apps.New(cfg.DefaultApp, list...)
	if cfg.DefaultApp != "" && set.Named(cfg.DefaultApp) == nil {
		return nil, fmt.Errorf("the default app %q is not configured", cfg.DefaultApp)
	}
	return set, nil
}

// thirdParty returns a platform or a provider as an app: its calls take its own token.
func thirdParty(c config.ThirdParty) (apps.App, error) {
	base, err := url.Parse(c.APIBase)
	if err != nil || !isBase(base) {
		return apps.App{}, fmt.Errorf("platform %s: the API base is not a plain http or https URL", c.ID)
	}
	a := apps.App{ID: c.ID, Alias: c.Alias, TokenParam: apps.ComponentToken, Upstreams: []*url.URL{base}, Tickets: TicketKinds(config.PlatformWeChat)}
	switch c.Kind {
	case config.KindSuite, config.KindTemplate:
		a.Platform, a.TokenParam, a.Tickets = apps.WeCom, apps.SuiteToken, TicketKinds(config.PlatformWeCom)
	case config.KindProvider:
		a.Platform, a.TokenParam, a.Tickets = apps.WeCom, apps.ProviderToken, nil
	}
	a.Key = tokencache.Key{App: c.ID, Kind: a.TokenParam}
	return a, nil
}

func isBase(u *url.URL) bool {
	return (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.Opaque == "" && u.RawQuery == "" && u.Fragment == ""
}
