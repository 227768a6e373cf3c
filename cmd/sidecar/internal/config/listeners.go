package config

import "github.com/wxtoken/sidecar/pkg/secret"

// Listeners says how to call a sidecar that runs on this host.
type Listeners struct {
	Listen, OpsListen string        // as of [Config]
	Bearer            secret.String // as of [Config]
	// Doubts are the mistakes in what says so, one line each. If a call fails, they may be why.
	Doubts []string
}

// LoadListeners reads the part of the configuration that a caller of a running sidecar needs, from
// the same places as [Load]. It refuses nothing: the sidecar keeps its configuration when a new one
// is wrong, and the caller may have neither the secrets nor the URL of Redis.
func LoadListeners(o Overrides, getenv func(string) string) Listeners {
	l := loader{env: getenv}
	f := l.file(o.Config)
	c := l.general(o, f)
	l.listeners(c, f)
	list := Listeners{Listen: c.Listen, OpsListen: c.OpsListen, Bearer: c.Bearer}
	for _, m := range l.mistakes {
		list.Doubts = append(list.Doubts, m.String())
	}
	return list
}
