// Package apps is the set of configured apps, and answers which of them a call means.
package apps

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Platform is the operator of the API that an app belongs to.
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

// hosts are the names by which the platforms are called, by whose API each is. The first is the
// nearest one; api2 is the one for disasters, and the others are in Shanghai, Shenzhen and Hong
// Kong (Interface_field_description in WeChat's documentation).
var hosts = map[string]Platform{
	"api.weixin.qq.com": WeChat, "api2.weixin.qq.com": WeChat,
	"sh.api.weixin.qq.com": WeChat, "sz.api.weixin.qq.com": WeChat, "hk.api.weixin.qq.com": WeChat,
	"qyapi.weixin.qq.com": WeCom,
}

// HostPlatform returns the platform that has this host name, with or without a port.
func HostPlatform(host string) (Platform, bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	p, ok := hosts[strings.ToLower(host)]
	return p, ok
}

// Hosts returns the platforms' host names, sorted.
func Hosts() []string { return slices.Sorted(maps.Keys(hosts)) }

// App is one configured app, as every listener and the proxy know it. It is immutable.
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

	// Tickets are the kinds of tickets that the app can have, by WeChat's names for them: jsapi,
	// wx_card, agent_config.
	Tickets map[string]string

	// Upstreams are where its calls go: scheme and host, and a path prefix if need be. The second
	// and later ones are tried in order when no connection to the first comes about.
	Upstreams []*url.URL
	// TokenParam is the parameter in which the calls that are made for a third-party platform, a
	// suite or a provider carry its own token: one of the constants below. Empty for an account.
	TokenParam string

	// AllowHost permits callers to use the host name of the first upstream, and any of WeChat's
	// names, as Host: those whose name service says that it is here.
	AllowHost bool
}

// Ticket returns the key of a ticket of the app, by WeChat's name for it.
func (a *App) Ticket(name string) (tokencache.Key, bool) {
	kind, ok := a.Tickets[name]
	return tokencache.Key{App: a.Key.App, Kind: kind}, ok
}

// API returns which API the calls of the app belong to. It decides what their errcodes mean, and
// which of them take no token.
func (a *App) API() wechat.API {
	switch {
	case a.IsThirdParty() && a.Platform == WeCom:
		return wechat.APISuite
	case a.IsThirdParty():
		return wechat.APIComponent
	case a.Platform == WeCom:
		return wechat.APICorpCall
	}
	return wechat.APICall
}

// Set is a set of apps with their names. It is immutable, so safe for concurrent use. The zero
// value and nil are empty.
type Set struct {
	list     []*App          // all but the third-party platforms
	byName   map[string]*App // id or corpid:agent, and alias
	byID     map[string]*App // by appid or corpid; nil for one that several apps share
	byKey    map[tokencache.Key]*App
	byCorp   map[string][]*App
	on       map[Platform][]*App
	hosts    map[string]bool
	standard *App
	third    []*App // the third-party platforms, suites and providers
	parent   *App   // the only one that has accounts; nil if there are several
}

// New returns the set of the given apps. Of two with the same name, the last one has it.
// defaultName is the name of the app for calls that name none; empty: there is no such app.
func New(defaultName string, apps ...App) *Set {
	s := &Set{
		byName: map[string]*App{}, byID: map[string]*App{}, byKey: map[tokencache.Key]*App{},
		byCorp: map[string][]*App{}, on: map[Platform][]*App{}, hosts: map[string]bool{},
	}
	for _, a := range apps {
		s.byKey[a.Key] = &a
		s.byName[a.Key.App] = &a
		if a.Alias != "" {
			s.byName[a.Alias] = &a
		}
		if a.IsThirdParty() {
			s.third = append(s.third, &a)
			continue // only a call that names it means it
		}
		s.list = append(s.list, &a)
		if _, shared := s.byID[a.ID]; shared {
			s.byID[a.ID] = nil
		} else {
			s.byID[a.ID] = &a
		}
		s.on[a.Platform] = append(s.on[a.Platform], &a)
		if a.Platform == WeCom {
			s.byCorp[a.ID] = append(s.byCorp[a.ID], &a)
		}
		if a.AllowHost && len(a.Upstreams) > 0 {
			s.hosts[strings.ToLower(a.Upstreams[0].Hostname())] = true
			for name := range hosts {
				s.hosts[name] = true
			}
		}
	}
	s.standard = s.byName[defaultName]
	if parents := slices.DeleteFunc(slices.Clone(s.third), func(a *App) bool { return !a.HasAccounts() }); len(parents) == 1 {
		s.parent = parents[0]
	}
	return s
}

// Call is what a call of one of WeChat's own paths says about the app that it is for. The zero
// value says nothing.
type Call struct {
	ID    string        // the query parameter appid
	Token secret.String // the access token that it carries
	Name  string        // the header X-Wxtoken-App
	Host  string        // as of [http.Request]
}

// Of returns the app that a call means, or nil. In this order: the appid; the token, if it is a
// current or lately replaced one in cache; the header; the default app. An appid that is not
// configured rules the default out: a call that names an account must not be sent as another one.
// So does the name of a host that serves another platform, for which its only app takes the place.
func (s *Set) Of(c Call, cache *tokencache.Cache) *App {
	if s == nil {
		return nil
	}
	if a := s.Account(c.ID); a != nil {
		return a
	}
	if k, ok := cache.Lookup(c.Token); ok {
		if a := s.ByKey(k); a != nil {
			return a
		}
	}
	if a := s.Named(c.Name); a != nil {
		return a
	}
	if c.ID != "" {
		return nil
	}
	if p, ok := HostPlatform(c.Host); ok && (s.standard == nil || s.standard.Platform != p) {
		return s.Only(p)
	}
	return s.standard
}

// At returns an app whose upstream serves calls that take no token and name no app: the first one
// with the host that was called, or whose platform has this name; else any if all have the same
// upstream.
func (s *Set) At(host string) *App {
	if s == nil || len(s.list) == 0 {
		return nil
	}
	for _, a := range s.list {
		if a.Upstreams[0].Host == host {
			return a
		}
	}
	if p, ok := HostPlatform(host); ok {
		if len(s.on[p]) == 0 {
			return nil
		}
		return s.on[p][0]
	}
	for _, a := range s.list {
		if a.Upstreams[0].String() != s.list[0].Upstreams[0].String() {
			return nil
		}
	}
	return s.list[0]
}

// UnknownToken returns the errcode with which the platform that was called answers a token that it
// does not know: 40014 if it is WeCom, else 40001.
func (s *Set) UnknownToken(host string) int {
	p, ok := HostPlatform(host)
	if !ok && s != nil && len(s.on[WeCom]) > 0 && len(s.on[WeChat]) == 0 {
		p = WeCom
	}
	if p == WeCom {
		return 40014
	}
	return 40001
}

// Lookup returns the key of the access token of the app that name names.
func (s *Set) Lookup(name string) (tokencache.Key, bool) {
	a := s.Named(name)
	if a == nil {
		return tokencache.Key{}, false
	}
	return a.Key, true
}

// Named returns the app that an id, corpid:agent or an alias names, or nil. A third-party platform,
// a colon and an account's id name that account, which may not have authorised it; so does the
// account's id alone if there is one platform only, and no app with this id.
func (s *Set) Named(name string) *App {
	if s == nil {
		return nil
	}
	if a := s.byName[name]; a != nil || len(s.third) == 0 || name == "" {
		return a
	}
	if platform, id, ok := strings.Cut(name, ":"); ok {
		if p := s.byName[platform]; p != nil && p.HasAccounts() {
			return p.authorizer(id)
		}
		return nil
	}
	return s.bare(name)
}

// Account returns the app of an appid, or of a corpid with one agent; nil if there is none, or
// several.
func (s *Set) Account(id string) *App {
	if s == nil {
		return nil
	}
	if a := s.byID[id]; a != nil {
		return a
	}
	return s.bare(id)
}

// ByKey returns the app of an access token's key, or nil.
func (s *Set) ByKey(k tokencache.Key) *App {
	if s == nil {
		return nil
	}
	if a := s.byKey[k]; a != nil {
		return a
	}
	if a := s.Named(k.App); a != nil && a.Key == k {
		return a
	}
	return nil
}

// Find returns the account of a name on a platform, or nil.
func (s *Set) Find(p Platform, name string) *App {
	if a := s.Named(name); a != nil && a.Platform == p && !a.IsThirdParty() {
		return a
	}
	return nil
}

// Agents returns the apps that a corpid can mean. A name of one of them, corpid:agent or an alias,
// means that one.
func (s *Set) Agents(corpid string) []*App {
	if a := s.Find(WeCom, corpid); a != nil {
		return []*App{a}
	}
	if s == nil {
		return nil
	}
	return s.byCorp[corpid]
}

// Owner returns the app on a platform whose access token value is, or was until lately, or nil.
func (s *Set) Owner(cache *tokencache.Cache, p Platform, value secret.String) *App {
	k, ok := cache.Lookup(value)
	if a := s.ByKey(k); ok && a != nil && a.Platform == p {
		return a
	}
	return nil
}

// Only returns the app of a platform if there is no other, else nil.
func (s *Set) Only(p Platform) *App {
	if s != nil && len(s.on[p]) == 1 {
		return s.on[p][0]
	}
	return nil
}

// AllowsHost reports whether callers may use this host name of an upstream as Host.
func (s *Set) AllowsHost(name string) bool { return s != nil && s.hosts[strings.ToLower(name)] }
