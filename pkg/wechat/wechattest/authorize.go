package wechattest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// authCode is an authorization_code or auth_code.
type authCode struct {
	value     string
	of        *authorizer
	made      time.Time
	update    bool // of updateauthorized
	exchanged int
	refused   int
}

// Authorize lets the administrator of an account or corp authorise a platform, for the first time or
// again. It pushes authorized or create_auth and returns the code that the browser's redirect
// brings. Authorising again voids the earlier refresh token [T].
func (s *Server) Authorize(platform, authorizerID string) (redirectCode string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platform(platform)
	a := p.authorizers[authorizerID]
	if a == nil {
		a = &authorizer{account: s.authorizerAccount(p, authorizerID)}
		p.authorizers[authorizerID] = a
	}
	if a.authorized && p.knobs.ReauthorizeKills {
		a.account.killTokens(time.Now())
	}
	a.authorized, a.at, a.exchanged, a.old = true, time.Now(), 0, ""
	if p.Kind == OpenPlatform {
		a.secret = newSecret(p)
	}
	infoType := "authorized"
	if p.onWeCom() {
		infoType = "create_auth"
	}
	return s.pushCode(p, a, infoType, !p.knobs.NoCodePush)
}

// UpdateAuthorization changes the permission sets: updateauthorized with a code for a platform,
// change_auth without one for a suite. The refresh token stays [U]. It returns the code, if any.
func (s *Server) UpdateAuthorization(platform, authorizerID string) (redirectCode string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, a := s.authorizer(platform, authorizerID)
	if p.onWeCom() {
		s.push(p, Push{InfoType: "change_auth", Authorizer: authorizerID})
		return ""
	}
	return s.pushCode(p, a, "updateauthorized", true)
}

// Withdraw ends an authorisation: unauthorized, or cancel_auth.
func (s *Server) Withdraw(platform, authorizerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, a := s.authorizer(platform, authorizerID)
	a.authorized, a.secret, a.old = false, "", ""
	a.account.Secret = ""
	if !p.knobs.WithdrawKeeps {
		a.account.killTokens(time.Now())
	}
	infoType := "unauthorized"
	if p.onWeCom() {
		infoType = "cancel_auth"
	}
	s.push(p, Push{InfoType: infoType, Authorizer: authorizerID})
}

// ResetPermanentCode is "get secret again" in the console of a [Template]: it pushes
// reset_permanent_code. That the old permanent code works until the new one is fetched is an
// assumption.
func (s *Server) ResetPermanentCode(platform, authorizerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, a := s.authorizer(platform, authorizerID)
	s.pushCode(p, a, "reset_permanent_code", true)
}

// authorizer returns an authorizer that must exist. Caller holds s.mu.
func (s *Server) authorizer(platform, id string) (*platform, *authorizer) {
	p := s.platform(platform)
	a := p.authorizers[id]
	if a == nil {
		panic(fmt.Sprintf("wechattest: %s never authorised %s", id, platform))
	}
	return p, a
}

// authorizerAccount makes the account of a new authorizer: a copy of the app of this id, if there
// is one. Caller holds s.mu.
func (s *Server) authorizerAccount(p *platform, id string) *account {
	app := App{ID: id}
	if i := slices.IndexFunc(s.apps, func(a *account) bool { return a.ID == id }); i >= 0 {
		app = App{ID: id, Kind: s.apps[i].Kind, Menu: s.apps[i].Menu}
	}
	if p.onWeCom() {
		app.Kind = Corp
	}
	a := newAccount(app)
	a.platform = p
	return a
}

// pushCode makes the codes of one event, and pushes one of them. Caller holds s.mu.
func (s *Server) pushCode(p *platform, a *authorizer, infoType string, push bool) (redirectCode string) {
	update := infoType == "updateauthorized"
	redirectCode = p.newCode(a, update)
	if !push {
		return redirectCode
	}
	pushed := redirectCode
	if p.knobs.SeparateCodes {
		pushed = p.newCode(a, update)
	}
	s.push(p, Push{InfoType: infoType, Authorizer: a.account.ID, Code: pushed})
	return redirectCode
}

func (p *platform) newCode(a *authorizer, update bool) string {
	value := "queryauthcode@@@" + randomText(86)
	if p.onWeCom() {
		value = randomText(128)
	}
	p.codes[value] = &authCode{value: value, of: a, made: time.Now(), update: update}
	return value
}

func newSecret(p *platform) string {
	if p.onWeCom() {
		return randomText(86)
	}
	return "refreshtoken@@@" + randomText(43)
}

// exchange spends a code. Its answer is the errcode for one that is unknown or spent, the errcode
// for one that is too old, or 0. Caller holds s.mu.
func (p *platform) exchange(value string, now time.Time, unknown, expired int) (*authorizer, int) {
	code := p.codes[value]
	switch {
	case code == nil:
		return nil, unknown
	case code.exchanged > 0:
		code.refused++
		return nil, unknown
	case now.Sub(code.made) >= p.knobs.CodeLife:
		code.refused++
		return nil, expired
	}
	a := code.of
	second := a.exchanged > 0 && !code.update && p.knobs.SecondExchangeVoids
	if a.authorized && (second || p.onWeCom()) {
		a.secret = newSecret(p) // on WeCom, each exchange gives another one
	}
	code.exchanged++
	a.exchanged++
	a.exchanges++
	return a, 0
}

// Ledger is what happened to the secrets of a platform.
type Ledger struct {
	// Authorizers has all that ever authorised, by id.
	Authorizers map[string]AuthorizerLedger `json:"authorizers"`
	// Codes has every code, the oldest first.
	Codes []CodeLedger `json:"codes"`
}

// AuthorizerLedger is one authorizer of a [Ledger].
type AuthorizerLedger struct {
	Authorized bool `json:"authorized"`
	// Accepts are the refresh tokens or permanent codes that fetch a token now, the current one
	// first. It includes one that was never exchanged.
	Accepts []string `json:"accepts"`
	// Exchanges and Fetches count the successful ones.
	Exchanges int `json:"exchanges"`
	Fetches   int `json:"fetches"`
}

// CodeLedger is one code of a [Ledger].
type CodeLedger struct {
	Code       string    `json:"code"`
	Authorizer string    `json:"authorizer"`
	Made       time.Time `json:"made"`
	// Exchanged is 0 or 1; Refused counts the attempts after that, or after its end.
	Exchanged int `json:"exchanged"`
	Refused   int `json:"refused"`
}

// Ledger returns the ledger of a platform as it is now.
func (s *Server) Ledger(platform string) Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, now := s.platform(platform), time.Now()
	l := Ledger{Authorizers: make(map[string]AuthorizerLedger, len(p.authorizers))}
	for id, a := range p.authorizers {
		entry := AuthorizerLedger{Authorized: a.authorized, Exchanges: a.exchanges, Fetches: a.fetches}
		for _, value := range []string{a.secret, a.old} {
			if a.accepts(value, now) {
				entry.Accepts = append(entry.Accepts, value)
			}
		}
		l.Authorizers[id] = entry
	}
	codes := slices.SortedFunc(maps.Values(p.codes), func(a, b *authCode) int {
		if c := a.made.Compare(b.made); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	for _, c := range codes {
		l.Codes = append(l.Codes, CodeLedger{c.value, c.of.account.ID, c.made, c.exchanged, c.refused})
	}
	return l
}

// Accepts reports whether a refresh token or permanent code would fetch a token of the authorizer
// now, without counting as a call.
func (s *Server) Accepts(platform, authorizerID, secretValue string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, a := s.authorizer(platform, authorizerID)
	return a.accepts(secretValue, time.Now())
}
