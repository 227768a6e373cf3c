package config

import (
	"cmp"
	"slices"
)

// Equal reports whether the program would do the same with both. Secrets are compared by content,
// wherever they came from; the order of apps and tickets and the warnings do not matter.
func (c *Config) Equal(o *Config) bool {
	return len(c.NeedsRestart(o)) == 0 &&
		c.AllowRemote == o.AllowRemote &&
		c.AllowUpstreamHost == o.AllowUpstreamHost &&
		c.Bearer.Equal(o.Bearer) &&
		c.DefaultApp == o.DefaultApp &&
		slices.EqualFunc(sortedApps(c.Apps), sortedApps(o.Apps), App.equal)
}

// NeedsRestart names the settings, as keys of the file, that differ and that a running program
// cannot take over: where it listens, how it logs and stops, and which keys of which Redis it
// shares with the others.
func (c *Config) NeedsRestart(o *Config) []string {
	var keys []string
	for _, s := range []struct {
		key  string
		same bool
	}{
		{"listen", c.Listen == o.Listen},
		{"ops_listen", c.OpsListen == o.OpsListen},
		{"socket_mode", c.SocketMode == o.SocketMode},
		{"namespace", c.Namespace == o.Namespace},
		{"log", c.Log == o.Log},
		{"drain", c.Drain == o.Drain},
		{"quit", c.Quit == o.Quit},
		{"kept_bodies", c.KeptBodies == o.KeptBodies},
		{"redis", c.Redis.Form == o.Redis.Form && c.Redis.URL.Equal(o.Redis.URL) && c.Redis.TLS == o.Redis.TLS},
	} {
		if !s.same {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// Reload returns what a program that runs with c can make of next, and the settings that have to
// wait for a restart: these keep the values of c. While the listener waits, so do AllowRemote and
// a Bearer that next does without: next was checked for another listener, and one that strangers
// reach must not lose its token.
func (c *Config) Reload(next *Config) (effective *Config, restart []string) {
	e := *next
	e.Listen, e.OpsListen, e.Namespace, e.Redis = c.Listen, c.OpsListen, c.Namespace, c.Redis
	e.SocketMode = c.SocketMode
	e.Log, e.Drain, e.Quit = c.Log, c.Drain, c.Quit
	restart = c.NeedsRestart(next)
	if slices.Contains(restart, "listen") {
		e.AllowRemote = c.AllowRemote
		if e.Bearer.Empty() {
			e.Bearer, e.BearerTokenFile = c.Bearer, c.BearerTokenFile
		}
	}
	return &e, restart
}

// equal leaves out SecretFile: where a secret came from changes nothing.
func (a App) equal(b App) bool {
	return a.ID == b.ID && a.Agent == b.Agent && a.Alias == b.Alias &&
		a.Platform == b.Platform && a.Endpoint == b.Endpoint && a.APIBase == b.APIBase &&
		slices.Equal(a.APIFallbacks, b.APIFallbacks) &&
		a.Secret.Equal(b.Secret) &&
		slices.Equal(slices.Sorted(slices.Values(a.Tickets)), slices.Sorted(slices.Values(b.Tickets))) &&
		a.Probe == b.Probe && a.Margin == b.Margin &&
		a.FetchesPerDay == b.FetchesPerDay && a.ReportsPerDay == b.ReportsPerDay &&
		a.RequireSecret == b.RequireSecret
}

func sortedApps(apps []App) []App {
	return slices.SortedFunc(slices.Values(apps), func(a, b App) int {
		return cmp.Compare(a.CredentialID(), b.CredentialID())
	})
}
