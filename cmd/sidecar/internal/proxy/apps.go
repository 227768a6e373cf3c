package proxy

import (
	"fmt"
	"net/url"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// App is one account whose API can be called.
type App struct {
	// Key is the credential that is injected: the app's access token.
	Key tokencache.Key
	// Names are what /proxy/{app} and X-Wxtoken-App may call it: its id and its alias.
	Names []string
	// AppID is what the query parameter appid calls it. Empty, or shared with another app (two
	// agents of one corp): it is not found that way.
	AppID string
	// API says what its errcodes mean and which calls take no token of it: [wechat.APICall] or
	// [wechat.APICorpCall].
	API wechat.API
	// Upstream is where its calls go: scheme and host, and a path prefix if need be. Required.
	Upstream *url.URL
	// Fallbacks are tried in this order when no connection to Upstream comes about. Default none.
	Fallbacks []*url.URL

	upstreams []*url.URL // Upstream and Fallbacks
}

// Apps is a set of apps with their names. It is immutable, so safe for concurrent use.
type Apps struct {
	byName, byAppID map[string]*App
	byKey           map[tokencache.Key]*App
	list            []*App
	standard        *App // the default, or nil
}

// NewApps returns the set of the given apps. defaultName is the name of the one that serves plain
// calls that name none; "" for no such app. The error says which app cannot be as it is.
func NewApps(apps []App, defaultName string) (*Apps, error) {
	set := &Apps{byName: map[string]*App{}, byAppID: map[string]*App{}, byKey: map[tokencache.Key]*App{}}
	shared := map[string]bool{}
	for _, a := range apps {
		a.upstreams = append([]*url.URL{a.Upstream}, a.Fallbacks...)
		for _, u := range a.upstreams {
			if !isBase(u) {
				return nil, fmt.Errorf("proxy: app %s: an upstream is not a plain http or https URL", a.Key.App)
			}
		}
		if a.API != wechat.APICall && a.API != wechat.APICorpCall {
			return nil, fmt.Errorf("proxy: app %s: the API is neither call nor corp_call", a.Key.App)
		}
		for _, name := range a.Names {
			if name == "" {
				continue // no alias
			}
			if set.byName[name] != nil {
				return nil, fmt.Errorf("proxy: app %s: the name %q is taken", a.Key.App, name)
			}
			set.byName[name] = &a
		}
		if a.AppID != "" {
			shared[a.AppID] = set.byAppID[a.AppID] != nil
			set.byAppID[a.AppID] = &a
		}
		set.byKey[a.Key] = &a
		set.list = append(set.list, &a)
	}
	for id, is := range shared {
		if is {
			delete(set.byAppID, id)
		}
	}
	if defaultName != "" {
		if set.standard = set.byName[defaultName]; set.standard == nil {
			return nil, fmt.Errorf("proxy: the default app %q is not there", defaultName)
		}
	}
	return set, nil
}

func isBase(u *url.URL) bool {
	return u != nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.Opaque == "" && u.RawQuery == "" && u.Fragment == ""
}

// of returns an app whose upstream serves calls that take no token and name no app: the first one
// with the host that was asked for, else any if they all have the same upstream.
func (s *Apps) of(host string) *App {
	for _, a := range s.list {
		if a.Upstream.Host == host {
			return a
		}
	}
	for _, a := range s.list {
		if a.Upstream.String() != s.list[0].Upstream.String() {
			return nil
		}
	}
	if len(s.list) == 0 {
		return nil
	}
	return s.list[0]
}
