package apps

import (
	"errors"
	"regexp"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Values of [App.TokenParam].
const (
	ComponentToken = "component_access_token"
	SuiteToken     = "suite_access_token"
	ProviderToken  = "provider_access_token"
)

// Placeholder is what callers get in place of a refresh token or a permanent code, which never leave
// the sidecar.
const Placeholder = "wxtoken"

// IsThirdParty reports whether it is a third-party platform, a suite or a provider.
func (a *App) IsThirdParty() bool { return a.TokenParam != "" }

// HasAccounts reports whether it is a third-party platform or a suite, which other accounts
// authorise. Each of them is an app as well, whose name is the platform's, a colon and the
// account's.
func (a *App) HasAccounts() bool { return a.IsThirdParty() && a.TokenParam != ProviderToken }

// HasAccount reports whether account is one of this platform's, whether or not it has authorised it.
func (a *App) HasAccount(account *App) bool {
	return a.HasAccounts() && account.Key.App == AccountName(a.Key.App, account.ID)
}

// ErrNotAuthorized says that an account has not authorised a third-party platform.
var ErrNotAuthorized = errors.New("the account has not authorised this platform")

var accountPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// IsAccount reports whether id can be an account's: an appid or a corpid.
func IsAccount(id string) bool { return len(id) <= 63 && accountPattern.MatchString(id) }

// AccountName returns the name of an account as an app of a third-party platform.
func AccountName(platform, account string) string { return platform + ":" + account }

// authorizer returns an account as an app, whether or not it has authorised the platform: the vault
// knows that.
func (a *App) authorizer(id string) *App {
	if !IsAccount(id) {
		return nil
	}
	return &App{
		Key: tokencache.Key{App: AccountName(a.Key.App, id), Kind: "access_token"}, ID: id, Platform: a.Platform,
		Tickets: a.Tickets, Upstreams: a.Upstreams, AllowHost: a.AllowHost,
	}
}

// bare returns the account that an id alone names, or nil.
func (s *Set) bare(id string) *App {
	if _, known := s.byID[id]; known || id == "" || s.parent == nil || s.parent.ID == id {
		return nil
	}
	return s.parent.authorizer(id)
}

// ThirdParty returns the platform, suite or provider that a call means which is made for it, or
// nil. kind is a value of [App.TokenParam]. In this order: the id, which rules out any other; the
// token, if it is a current or lately replaced one in cache; the header; the only one of its kind.
func (s *Set) ThirdParty(kind string, c Call, cache *tokencache.Cache) *App {
	if s == nil {
		return nil
	}
	of := func(a *App) *App {
		if a == nil || a.TokenParam != kind {
			return nil
		}
		return a
	}
	if c.ID != "" {
		return of(s.byName[c.ID])
	}
	if k, ok := cache.Lookup(c.Token); ok {
		if a := of(s.byKey[k]); a != nil {
			return a
		}
	}
	if a := of(s.byName[c.Name]); a != nil {
		return a
	}
	var only *App
	for _, a := range s.third {
		if of(a) == nil {
			continue
		}
		if only != nil {
			return nil
		}
		only = a
	}
	return only
}

// HasThirdParties reports whether a platform, suite or provider is configured.
func (s *Set) HasThirdParties() bool { return s != nil && len(s.third) > 0 }
