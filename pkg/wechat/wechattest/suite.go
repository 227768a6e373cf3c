package wechattest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The calls of suites, templates and providers.
const (
	pathsService        = "/cgi-bin/service/"
	pathSuiteToken      = pathsService + "get_suite_token"
	pathPermanentCode   = pathsService + "get_permanent_code"
	pathPermanentCodeV2 = pathsService + "v2/get_permanent_code"
	pathCorpBySuite     = pathsService + "get_corp_token"
	pathProviderToken   = pathsService + "get_provider_token"
	pathPreAuthSuite    = pathsService + "get_pre_auth_code"
	pathAuthInfo        = pathsService + "get_auth_info"
	pathAuthInfoV2      = pathsService + "v2/get_auth_info"
	pathLoginInfo       = pathsService + "get_login_info"
	pathToOpenCorp      = pathsService + "corpid_to_opencorpid"
	pathsLicense        = "/cgi-bin/license/"
)

// service returns what serves a call of a suite or a provider, or nil. Caller holds s.mu.
func (s *Server) service(path string) func(*call) reply {
	switch path {
	case pathSuiteToken:
		return platformPost(s.suiteToken)
	case pathProviderToken:
		return platformPost(s.providerToken)
	case pathPermanentCode, pathPermanentCodeV2:
		return s.withSuiteToken(s.permanentCode)
	case pathCorpBySuite:
		return s.withSuiteToken(s.corpTokenBySuite)
	case pathPreAuthSuite:
		return s.withSuiteToken(func(c *call, _ *platform) reply {
			return c.success(fmt.Sprintf(`"pre_auth_code":%q,"expires_in":1200`, randomText(86)))
		})
	case pathAuthInfo, pathAuthInfoV2:
		return s.withSuiteToken(corpInfo)
	case pathLoginInfo: // the one that says access_token [T] W 91125
		return s.withProviderToken("access_token")
	case pathToOpenCorp:
		return s.withProviderToken("provider_access_token")
	}
	if strings.HasPrefix(path, pathsLicense) {
		return s.withProviderToken("provider_access_token")
	}
	return nil
}

// withProviderToken serves calls that need the provider's token, in the parameter that each has for
// it.
func (s *Server) withProviderToken(param string) func(*call) reply {
	return platformPost(func(c *call) reply {
		code := 40082
		if c.token != nil && c.token.app.isPlatform() && c.token.app.platform.Kind == Provider && c.query.Has(param) {
			code = s.check(c.token, c.now)
		}
		if code != 0 {
			c.app.calls.BadToken++
			return c.fail(code)
		}
		return c.success(`"corpid":"sim"`)
	})
}

// corpInfo is what a suite may know of a corp that has installed it.
func corpInfo(c *call, p *platform) reply {
	a := p.authorizers[c.platform.AuthCorp]
	switch {
	case c.platform.PermanentCode == "":
		return c.fail(41025)
	case a == nil || !a.accepts(c.platform.PermanentCode, c.now):
		return c.fail(40084)
	}
	return c.success(fmt.Sprintf(`"auth_corp_info":{"corpid":%q,"corp_name":"sim"},"auth_info":{"agent":[{"agentid":1000002,"name":"sim"}]}`, a.account.ID))
}

// suiteToken is POST get_suite_token.
func (s *Server) suiteToken(c *call) reply {
	p, b := c.app.platform, c.platform
	switch {
	case b.Suite == "":
		return c.fail(41021)
	case b.SuiteSecret == "":
		return c.fail(41024)
	case b.SuiteTicket == "":
		return c.fail(41023)
	case p == nil || p.Kind == Provider:
		return c.fail(40083)
	case b.SuiteSecret != p.self.Secret:
		return c.fail(40080)
	case c.app.refusal != 0:
		return c.fail(c.app.refusal)
	case !c.app.admits(c.ip):
		return c.fail(60020)
	}
	code := p.checkTicket(b.SuiteTicket, c.now, 40085, 40085)
	if code == 0 {
		code = s.spend(c)
	}
	if code != 0 {
		return c.fail(code)
	}
	t := p.self.classic.newest()
	if t == nil || t.status(c.now) != Current || !p.knobs.SuiteTokenRepeats {
		t = s.issue(p.self, &p.self.classic, pathSuiteToken, p.knobs.Overlap)
	}
	return c.granted(p, fmt.Sprintf(`"suite_access_token":%q,"expires_in":%d`, t.value, t.remaining(c.now)))
}

// providerToken is POST get_provider_token: the same one while it is valid [T].
func (s *Server) providerToken(c *call) reply {
	p := c.app.platform
	switch {
	case p == nil || p.Kind != Provider:
		return c.fail(40013)
	case c.platform.ProviderSecret != p.self.Secret:
		return c.fail(40001)
	case c.app.refusal != 0:
		return c.fail(c.app.refusal)
	case !c.app.admits(c.ip):
		return c.fail(60020)
	}
	if code := s.spend(c); code != 0 {
		return c.fail(code)
	}
	t := p.self.classic.newest()
	if t == nil || t.status(c.now) != Current || t.remaining(c.now) < 1 {
		t = s.issue(p.self, &p.self.classic, pathProviderToken, 0)
	}
	return c.granted(p, fmt.Sprintf(`"provider_access_token":%q,"expires_in":%d`, t.value, t.remaining(c.now)))
}

// granted is a success of WeCom, which leaves errcode out of some.
func (c *call) granted(p *platform, members string) reply {
	if p.knobs.OmitErrcode {
		return c.raw("{" + members + "}")
	}
	return c.success(members)
}

// withSuiteToken serves calls that need the suite's token.
func (s *Server) withSuiteToken(serve func(*call, *platform) reply) func(*call) reply {
	return func(c *call) reply {
		switch get := c.r.URL.Path == pathPreAuthSuite; { // the one that is a GET [T]
		case get != (c.r.Method == http.MethodGet):
			return c.fail(43002)
		case !get && !c.readable:
			return c.fail(47001)
		}
		if !c.query.Has("suite_access_token") {
			return c.fail(41022)
		}
		code := 40082
		if c.token != nil && c.token.app.isPlatform() && c.token.app.platform.Kind != Provider {
			switch s.check(c.token, c.now) {
			case 0:
				code = 0
			case 42001:
				code = 42009
			}
		}
		if code != 0 {
			c.app.calls.BadToken++
			return c.fail(code)
		}
		p := c.token.app.platform
		if !p.self.admits(c.ip) {
			return c.fail(60020)
		}
		if code := s.spendFor(c, p); code != 0 {
			return c.fail(code)
		}
		return serve(c, p)
	}
}

// permanentCode exchanges an auth_code, in the form of 2019 or in that of 2025.
func (s *Server) permanentCode(c *call, p *platform) reply {
	a, code := p.exchange(c.platform.AuthCode, c.now, 40078, 40078)
	switch {
	case code != 0:
		return c.fail(code)
	case !a.authorized:
		return c.fail(40084) // cancelled since; what WeCom says is not known
	}
	members := fmt.Sprintf(`"permanent_code":%q,"auth_corp_info":{"corpid":%q,"corp_name":"sim"}`, a.secret, a.account.ID)
	if c.r.URL.Path == pathPermanentCode {
		members += `,"auth_info":{"agent":[{"agentid":1000002,"name":"sim"}]},"auth_user_info":{"name":"sim"}`
		if p.Kind == Suite {
			t := s.issue(a.account, &a.account.classic, pathPermanentCode, p.knobs.AuthorizerOverlap)
			members += fmt.Sprintf(`,"access_token":%q,"expires_in":%d`, t.value, t.remaining(c.now))
		}
	}
	if p.Kind == Template {
		a.account.Secret = a.secret // gettoken takes it for the app's own
	}
	return c.granted(p, members)
}

// corpTokenBySuite is POST get_corp_token. That each call makes a new token is an assumption.
func (s *Server) corpTokenBySuite(c *call, p *platform) reply {
	a := p.authorizers[c.platform.AuthCorp]
	switch {
	case c.platform.PermanentCode == "":
		return c.fail(41025)
	case a == nil || p.Kind != Suite:
		return c.fail(40084)
	case p.flap(a):
		return c.fail(p.knobs.FlapCode)
	case !a.accepts(c.platform.PermanentCode, c.now):
		return c.fail(40084)
	}
	t := s.issue(a.account, &a.account.classic, pathCorpBySuite, p.knobs.AuthorizerOverlap)
	a.fetches++
	return c.granted(p, fmt.Sprintf(`"access_token":%q,"expires_in":%d`, t.value, t.remaining(c.now)))
}

// templateApp returns the app of a corp that was developed on its behalf, or nil: the one with the
// permanent code, else any. Caller holds s.mu.
func (s *Server) templateApp(corpid, permanentCode string) (found *account) {
	for _, p := range s.platforms {
		a := p.authorizers[corpid]
		if p.Kind != Template || a == nil {
			continue
		}
		if a.accepts(permanentCode, time.Now()) {
			return a.account
		}
		found = a.account
	}
	return found
}

// takesPlatformToken reports whether a call of an account's API works with the token of a platform
// itself: the list of WeChat's addresses, and the templates of mini programs [T].
func takesPlatformToken(path string) bool {
	return path == pathCallbackIP || path == pathDomainIP || strings.HasPrefix(path, "/wxa/gettemplate")
}
