package wechattest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The calls of platforms. [T] for all paths.
const (
	pathsComponent     = "/cgi-bin/component/"
	pathComponentToken = pathsComponent + "api_component_token"
	pathStartPush      = pathsComponent + "api_start_push_ticket"
	pathPreAuthCode    = pathsComponent + "api_create_preauthcode"
	pathQueryAuth      = pathsComponent + "api_query_auth"
	pathAuthorizer     = pathsComponent + "api_authorizer_token"
	pathAuthorizerInfo = pathsComponent + "api_get_authorizer_info"
	pathAuthorizerList = pathsComponent + "api_get_authorizer_list"
)

// platformBody has the members of the bodies of all calls of platforms and suites.
type platformBody struct {
	Component    string `json:"component_appid"`
	AppSecret    string `json:"component_appsecret"`
	StartSecret  string `json:"component_secret"`
	Ticket       string `json:"component_verify_ticket"`
	Authorizer   string `json:"authorizer_appid"`
	RefreshToken string `json:"authorizer_refresh_token"`
	Code         string `json:"authorization_code"`
	Offset       int    `json:"offset"`
	Count        int    `json:"count"`

	Suite          string `json:"suite_id"`
	SuiteSecret    string `json:"suite_secret"`
	SuiteTicket    string `json:"suite_ticket"`
	AuthCode       string `json:"auth_code"`
	AuthCorp       string `json:"auth_corpid"`
	PermanentCode  string `json:"permanent_code"`
	CorpID         string `json:"corpid"`
	ProviderSecret string `json:"provider_secret"`
}

// resolvePlatform is resolve for the calls that a platform makes for itself; it reports whether c
// is one. The app is the platform, and the authorizer if its token is fetched. Caller holds s.mu.
func (s *Server) resolvePlatform(c *call) bool {
	path := c.r.URL.Path
	c.corp = strings.HasPrefix(path, pathsService) || strings.HasPrefix(path, pathsLicense)
	if !c.corp && !strings.HasPrefix(path, pathsComponent) && !isComponentLogin(path) {
		return false
	}
	c.readable = json.Unmarshal(c.body, &c.platform) == nil
	// Current pages say access_token, older ones and the SDKs the longer names.
	c.token = s.tokens[cmp.Or(c.query.Get("component_access_token"), c.query.Get("suite_access_token"), c.query.Get("provider_access_token"), c.query.Get("access_token"))]
	if c.token != nil && c.corp != (c.token.app.Kind == Corp) {
		c.token = nil
	}
	c.app = s.apps[0]
	named := cmp.Or(c.platform.Component, c.platform.Suite, c.platform.CorpID, c.query.Get("component_appid"))
	p := s.platforms[named]
	if c.token != nil {
		p = c.token.app.platform
	}
	if p == nil || c.corp != p.onWeCom() {
		return true
	}
	c.app = p.self
	if path == pathAuthorizer || path == pathCorpBySuite {
		if a := p.authorizers[cmp.Or(c.platform.Authorizer, c.platform.AuthCorp)]; a != nil {
			c.app = a.account
		}
	}
	return true
}

// isComponentLogin reports whether a path is for users of an authorizer, who log in by way of the
// platform: these calls take the platform's token.
func isComponentLogin(path string) bool {
	return strings.HasPrefix(path, "/sns/component/") || strings.HasPrefix(path, "/sns/oauth2/component/")
}

// component returns what serves a call of a third-party platform. Caller holds s.mu.
func (s *Server) component(path string) func(*call) reply {
	switch path {
	case pathComponentToken:
		return platformPost(s.componentToken)
	case pathStartPush:
		return platformPost(s.startPush)
	case pathPreAuthCode:
		return s.withComponentToken(preAuthCode)
	case pathQueryAuth:
		return s.withComponentToken(s.queryAuth)
	case pathAuthorizer:
		return s.withComponentToken(s.authorizerToken)
	case pathAuthorizerInfo:
		return s.withComponentToken(authorizerInfo)
	case pathAuthorizerList:
		return s.withComponentToken(authorizerList)
	}
	return s.withComponentToken(func(c *call, _ *platform) reply { return s.generic(c) })
}

// platformPost serves calls that need a JSON body.
func platformPost(serve func(*call) reply) func(*call) reply {
	return func(c *call) reply {
		switch {
		case c.r.Method != http.MethodPost:
			return c.fail(43002)
		case !c.readable:
			return c.fail(47001)
		}
		return serve(c)
	}
}

// withComponentToken serves calls that need the platform's token.
func (s *Server) withComponentToken(serve func(*call, *platform) reply) func(*call) reply {
	return platformPost(func(c *call) reply {
		p, code := s.checkPlatform(c)
		if code == 0 && c.platform.Component != p.ID {
			code = 61011 // which code another platform's appid gets is not known
		}
		if code != 0 {
			return c.fail(code)
		}
		return serve(c, p)
	})
}

// checkPlatform returns the platform whose token a call has, or why it is rejected. Caller holds
// s.mu.
func (s *Server) checkPlatform(c *call) (*platform, int) {
	if !c.query.Has("component_access_token") && !c.query.Has("access_token") {
		return nil, 41021
	}
	code := 40001
	if c.token != nil {
		code = s.check(c.token, c.now)
	}
	if code != 0 {
		c.app.calls.BadToken++
		return nil, code
	}
	if !c.token.app.isPlatform() {
		return nil, 61014
	}
	p := c.token.app.platform
	if !p.self.admits(c.ip) {
		return nil, 61004
	}
	return p, s.spendFor(c, p)
}

// spendFor is spend; the fetches of an authorizer's token can have a quota that all share.
func (s *Server) spendFor(c *call, p *platform) int {
	if p.knobs.QuotaPerPlatform {
		c.app = p.self
	}
	return s.spend(c)
}

// authenticatePlatform checks the appid and the secret of a platform. Caller holds s.mu.
func (s *Server) authenticatePlatform(c *call, given string) (*platform, int) {
	p := c.app.platform
	switch {
	case p == nil:
		return nil, 40013
	case given == "":
		return nil, 41004
	case given != p.self.Secret:
		return nil, s.knobs.WrongSecretCode
	case c.app.refusal != 0:
		return nil, c.app.refusal
	case !c.app.admits(c.ip):
		return nil, 61004
	}
	return p, s.spend(c)
}

// componentToken is POST api_component_token: a new token every time [U].
func (s *Server) componentToken(c *call) reply {
	p, code := s.authenticatePlatform(c, c.platform.AppSecret)
	if code == 0 {
		code = p.checkTicket(c.platform.Ticket, c.now, 61006, 61005)
	}
	if code != 0 {
		return c.fail(code)
	}
	t := s.issue(p.self, &p.self.classic, pathComponentToken, p.knobs.Overlap)
	return c.success(fmt.Sprintf(`"component_access_token":%q,"expires_in":%d`, t.value, t.remaining(c.now)))
}

// checkTicket returns the errcode of a ticket that was never pushed, of one that is too old, or 0.
func (p *platform) checkTicket(given string, now time.Time, unknown, expired int) int {
	i := slices.IndexFunc(p.tickets, func(t pushedTicket) bool { return t.value == given })
	switch {
	case i < 0:
		return unknown
	case now.Sub(p.tickets[i].at) >= p.knobs.TicketLife:
		return expired
	}
	return 0
}

func (s *Server) startPush(c *call) reply {
	p, code := s.authenticatePlatform(c, c.platform.StartSecret)
	if code != 0 {
		return c.fail(code)
	}
	s.startTickets(p)
	return c.ok()
}

func preAuthCode(c *call, _ *platform) reply {
	return c.success(fmt.Sprintf(`"pre_auth_code":"preauthcode@@@%s","expires_in":1800`, randomText(86)))
}

// funcInfo is the same for every authorizer.
const funcInfo = `"func_info":[{"funcscope_category":{"id":1}},{"funcscope_category":{"id":15}}]`

func (s *Server) queryAuth(c *call, p *platform) reply {
	a, code := p.exchange(c.platform.Code, c.now, 61009, 61010)
	switch {
	case code != 0:
		return c.fail(code)
	case !a.authorized:
		return c.fail(61003) // withdrawn since
	case p.knobs.NoPermissions:
		return c.success(fmt.Sprintf(`"authorization_info":{"authorizer_appid":%q,%s}`, a.account.ID, funcInfo))
	}
	t := s.issue(a.account, &a.account.classic, pathQueryAuth, p.knobs.AuthorizerOverlap)
	return c.success(fmt.Sprintf(`"authorization_info":{"authorizer_appid":%q,"authorizer_access_token":%q,"expires_in":%d,"authorizer_refresh_token":%q,%s}`,
		a.account.ID, t.value, t.remaining(c.now), a.secret, funcInfo))
}

// flap reports whether this fetch of an authorizer's token gets [PlatformKnobs.FlapCode].
func (p *platform) flap(a *authorizer) bool {
	a.flaps++
	return p.knobs.FlapCode != 0 && p.knobs.FlapEvery > 0 && a.flaps%p.knobs.FlapEvery == 0
}

func (s *Server) authorizerToken(c *call, p *platform) reply {
	a := p.authorizers[c.platform.Authorizer]
	switch {
	case a == nil || !a.authorized:
		return c.fail(61003)
	case p.flap(a):
		return c.fail(p.knobs.FlapCode)
	case !a.accepts(c.platform.RefreshToken, c.now):
		return c.fail(61023)
	}
	t := s.issue(a.account, &a.account.classic, pathAuthorizer, p.knobs.AuthorizerOverlap)
	a.fetches++
	next := a.secret
	switch p.knobs.Refresh {
	case RefreshRotates:
		next = newSecret(p)
		a.old, a.oldEnd, a.secret = a.secret, c.now.Add(p.knobs.RotateOverlap), next
	case RefreshEmpty:
		next = ""
	}
	return c.success(fmt.Sprintf(`"authorizer_access_token":%q,"expires_in":%d,"authorizer_refresh_token":%q`, t.value, t.remaining(c.now), next))
}

func authorizerInfo(c *call, p *platform) reply {
	a := p.authorizers[c.platform.Authorizer]
	if a == nil || !a.authorized {
		return c.fail(61003)
	}
	refreshToken := a.secret
	if a.exchanged == 0 || p.knobs.InfoOmitsTokens || p.knobs.NoPermissions {
		refreshToken = ""
	}
	return c.success(fmt.Sprintf(`"authorizer_info":{"nick_name":"sim"},"authorization_info":{"authorizer_appid":%q,"authorizer_refresh_token":%q,%s}`,
		a.account.ID, refreshToken, funcInfo))
}

// authorizerList is a page of those that are authorised now, the oldest first.
func authorizerList(c *call, p *platform) reply {
	if c.platform.Count > 500 || c.platform.Count < 1 || c.platform.Offset < 0 {
		return c.fail(40170)
	}
	var all []*authorizer
	for _, a := range p.authorizers {
		if a.authorized {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *authorizer) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.account.ID, b.account.ID))
	})
	begin := min(c.platform.Offset, len(all))
	var entries []string
	for _, a := range all[begin:min(begin+c.platform.Count, len(all))] {
		refreshToken := ""
		if a.exchanged > 0 && !p.knobs.ListOmitsTokens && !p.knobs.NoPermissions {
			refreshToken = fmt.Sprintf(`"refresh_token":%q,`, a.secret)
		}
		entries = append(entries, fmt.Sprintf(`{"authorizer_appid":%q,%s"auth_time":%d}`, a.account.ID, refreshToken, a.at.Unix()))
	}
	return c.success(fmt.Sprintf(`"total_count":%d,"list":[%s]`, len(all), strings.Join(entries, ",")))
}

// componentLogin serves the logins of an authorizer's users.
func (s *Server) componentLogin(c *call) reply {
	p, code := s.checkPlatform(c)
	switch {
	case code != 0:
		return c.fail(code)
	case c.query.Get("component_appid") != p.ID:
		return c.fail(61011)
	}
	return c.success(`"openid":"sim","session_key":"c2ltdWxhdGVkIGtleQ=="`)
}
