// Package apps is the set of configured apps, and answers which of them a call means.
package apps

import (
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Platform is whose API an app belongs to, and so whose words it is answered in.
type Platform int

// The platforms.
const (
	WeChat Platform = iota
	WeCom
)

// String returns the platform's name.
func (p Platform) String() string {
	if p == WeCom {
		return "WeCom"
	}
	return "WeChat"
}

// App is what the faces know of a configured app.
type App struct {
	// Key is the credential that is the app's access token.
	Key tokencache.Key
	// ID is the appid, or the corpid. Alias is another name for Key.App; empty: none.
	ID, Alias string
	// Agent is the agent of a WeCom app.
	Agent    string
	Platform Platform

	// Secret is what the drop-in paths compare with the secret that a caller sends: to demand it,
	// if RequireSecret is set, and to tell the agents of one corp apart.
	Secret        secret.String
	RequireSecret bool

	// Tickets are the tickets that the app can have, by WeChat's names for them: jsapi, wx_card,
	// agent_config.
	Tickets map[string]tokencache.Key
	// Host is the upstream's name, without a port, if callers may call by it: those whose name
	// service says that it is here. Empty: they may not.
	Host string
}

// Apps is a set of apps with their names. It is immutable, so safe for concurrent use. The zero
// value and nil are empty.
type Set struct {
	byName map[string]*App // id or corpid:agent, and alias
	ByKey  map[tokencache.Key]*App
	byCorp map[string][]*App
	on     map[Platform][]*App
	Hosts  map[string]bool
}

// New returns the set of the given apps. Of two with the same name, the last one has it.
func New(apps ...App) *Set {
	s := &Set{byName: map[string]*App{}, ByKey: map[tokencache.Key]*App{}, byCorp: map[string][]*App{}, on: map[Platform][]*App{}, Hosts: map[string]bool{}}
	for _, a := range apps {
		s.byName[a.Key.App] = &a
		if a.Alias != "" {
			s.byName[a.Alias] = &a
		}
		s.ByKey[a.Key] = &a
		s.on[a.Platform] = append(s.on[a.Platform], &a)
		if a.Platform == WeCom {
			s.byCorp[a.ID] = append(s.byCorp[a.ID], &a)
		}
		if a.Host != "" {
			s.Hosts[strings.ToLower(a.Host)] = true
		}
	}
	return s
}

// Lookup is a [Lookup].
func (s *Set) Lookup(name string) (tokencache.Key, bool) {
	if s == nil || s.byName[name] == nil {
		return tokencache.Key{}, false
	}
	return s.byName[name].Key, true
}

// Named returns the app of a name, or one of which nothing else is known.
func (s *Set) Named(name string) App {
	if s == nil || s.byName[name] == nil {
		return App{}
	}
	return *s.byName[name]
}

// Find returns the app of a name on a platform, or nil.
func (s *Set) Find(p Platform, name string) *App {
	if a := s.byName[name]; a != nil && a.Platform == p {
		return a
	}
	return nil
}

// Agents returns the apps that a corpid can mean. A name that means one, corpid:agent or an alias,
// will do in its place.
func (s *Set) Agents(corpid string) []*App {
	if a := s.Find(WeCom, corpid); a != nil {
		return []*App{a}
	}
	return s.byCorp[corpid]
}

// Owner returns the app whose access token value is, or was until lately; nil if there is none.
func (s *Set) Owner(cache *tokencache.Cache, p Platform, value secret.String) *App {
	k, ok := cache.Lookup(value)
	if !ok {
		return nil
	}
	if a := s.ByKey[k]; a != nil && a.Platform == p {
		return a
	}
	return nil
}

// Only returns the app of a platform if there is no other, else nil.
func (s *Set) Only(p Platform) *App {
	if all := s.on[p]; len(all) == 1 {
		return all[0]
	}
	return nil
}
