package wechattest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// The paths that are distinguished.
const (
	pathToken      = "/cgi-bin/token"
	pathStable     = "/cgi-bin/stable_token"
	pathTicket     = "/cgi-bin/ticket/getticket"
	pathCallbackIP = "/cgi-bin/getcallbackip"
	pathDomainIP   = "/cgi-bin/get_api_domain_ip"
	pathMenuGet    = "/cgi-bin/menu/get"
	pathMenuCreate = "/cgi-bin/menu/create"
	pathSend       = "/cgi-bin/message/custom/send"
	pathUpload     = "/cgi-bin/media/upload"
	pathMaterial   = "/cgi-bin/material/add_material"
	pathMediaGet   = "/cgi-bin/media/get"
	pathQuotaGet   = "/cgi-bin/openapi/quota/get"
	pathCode       = "/wxa/getwxacode"
	pathCodeScene  = "/wxa/getwxacodeunlimit"
	pathCodeSquare = "/cgi-bin/wxaapp/createwxaqrcode"
	pathTemplates  = "/wxaapi/newtmpl/gettemplate"
	pathClear      = "/cgi-bin/clear_quota"
	pathClearV2    = "/cgi-bin/clear_quota/v2"
	pathCorpToken  = "/cgi-bin/gettoken"
	pathCorpJSAPI  = "/cgi-bin/get_jsapi_ticket"
	pathCorpTicket = "/cgi-bin/ticket/get"
	pathCorpSend   = "/cgi-bin/message/send"
	pathCorpList   = "/cgi-bin/department/list"
)

// route returns what serves a call. Caller holds s.mu.
func (s *Server) route(c *call) func(*call) reply {
	path := c.r.URL.Path
	switch {
	case c.corp:
		return s.routeCorp(path)
	case strings.HasPrefix(path, pathsComponent):
		return s.component(path)
	case isComponentLogin(path):
		return s.componentLogin
	case strings.HasPrefix(path, "/sns/"):
		return s.sns
	}
	switch path {
	case pathToken:
		return s.classicToken
	case pathStable:
		return s.stableToken
	case pathClearV2:
		return s.clearQuotaV2
	case pathTicket:
		return s.withToken(s.getTicket)
	case pathCallbackIP, pathDomainIP:
		return s.withToken(ipList)
	case pathMenuGet:
		return s.withToken(menuGet)
	case pathMenuCreate:
		return s.withToken(menuCreate)
	case pathSend:
		return s.withToken(postOnly(s.generic))
	case pathUpload, pathMaterial:
		return s.withToken(postOnly(s.uploadMedia))
	case pathMediaGet:
		return s.withToken(mediaGet)
	case pathCode, pathCodeScene, pathCodeSquare:
		return s.withToken(postOnly(codeImage))
	case pathTemplates:
		return s.withToken(templates)
	case pathQuotaGet:
		return s.withToken(postOnly(s.quotaGet))
	case pathClear:
		return s.withToken(postOnly(s.clearQuota))
	}
	return s.withToken(s.generic)
}

// routeCorp is route for WeCom, which answers 404 on every path that it does not know.
func (s *Server) routeCorp(path string) func(*call) reply {
	if serve := s.service(path); serve != nil {
		return serve
	}
	switch path {
	case pathCorpToken:
		return s.corpToken
	case pathCorpJSAPI, pathCorpTicket:
		return s.withToken(s.getTicket)
	case pathCallbackIP, pathDomainIP:
		return s.withToken(ipList)
	case pathCorpSend:
		return s.withToken(postOnly(s.generic))
	case pathCorpList:
		return s.withToken(departments)
	case pathUpload:
		return s.withToken(postOnly(s.uploadMedia))
	case pathMediaGet:
		return s.withToken(mediaGet)
	}
	return func(*call) reply { return reply{status: http.StatusNotFound} }
}

// withToken serves calls that need an access token, which is checked before anything else.
func (s *Server) withToken(serve func(*call) reply) func(*call) reply {
	return func(c *call) reply {
		if c.query.Get("access_token") == "" {
			return c.fail(41001)
		}
		code := 40001
		if c.token != nil {
			code = s.check(c.token, c.now)
		}
		if code != 0 {
			return c.badToken(code)
		}
		if c.app.isPlatform() && !takesPlatformToken(c.r.URL.Path) {
			if c.corp {
				return c.badToken(40014)
			}
			return c.fail(61015)
		}
		if s.knobs.WhitelistCalls && !c.app.admits(c.ip) {
			if c.corp {
				return c.fail(60020)
			}
			return c.fail(s.knobs.WhitelistCode)
		}
		if code := s.spend(c); code != 0 {
			return c.fail(code)
		}
		return serve(c)
	}
}

// postOnly serves calls that answer 43002 to anything but POST.
func postOnly(serve func(*call) reply) func(*call) reply {
	return func(c *call) reply {
		if c.r.Method != http.MethodPost {
			return c.fail(43002)
		}
		return serve(c)
	}
}

// generic answers for every API that is not simulated: it wants JSON in a POST and says ok. The
// digest of what arrived is in the header X-Sim-Body-Sha256.
func (s *Server) generic(c *call) reply {
	if c.upload != nil {
		return s.uploadMedia(c)
	}
	if c.r.Method == http.MethodPost {
		switch {
		case len(c.body) == 0:
			return c.fail(44002)
		case !json.Valid(c.body):
			return c.fail(47001)
		}
	}
	rep := c.ok()
	sum := sha256.Sum256(c.body)
	rep.header.Set("X-Sim-Body-Sha256", hex.EncodeToString(sum[:]))
	return rep
}

func (s *Server) getTicket(c *call) reply {
	kind := c.query.Get("type")
	if c.r.URL.Path == pathCorpJSAPI {
		kind = "jsapi"
	}
	switch {
	case !c.corp && kind != "jsapi" && kind != "wx_card", c.corp && kind != "jsapi" && kind != "agent_config":
		return c.fail(47001) // what WeChat says is not known
	}
	value := s.ticket(c.app, kind, c.r.URL.Path)
	// Here WeChat, too, sends an errcode with a success; and 7200 whatever the age of the ticket.
	return c.errcode(0, "ok", fmt.Sprintf(`"ticket":%q,"expires_in":7200`, value))
}

func ipList(c *call) reply { return c.success(`"ip_list":["106.55.206.146","106.55.206.211"]`) }

func departments(c *call) reply {
	return c.success(`"department":[{"id":1,"name":"sim","parentid":0,"order":1}]`)
}

// templates are those of subscription messages. This answer has an errcode, too.
func templates(c *call) reply {
	return c.errcode(0, "ok", `"data":[{"priTmplId":"sim-template","title":"sim","content":"{{thing1.DATA}}","example":"sim","type":2}]`)
}

func menuGet(c *call) reply {
	switch {
	case c.app.Kind == MiniProgram:
		return c.fail(48001)
	case c.app.Menu == "":
		return c.fail(46003)
	}
	return c.success(`"menu":` + c.app.Menu)
}

func menuCreate(c *call) reply {
	switch {
	case c.r.Method != http.MethodPost:
		return c.fail(43002)
	case c.app.Kind == MiniProgram:
		return c.fail(48001)
	case len(c.body) == 0:
		return c.fail(44002)
	case !json.Valid(c.body):
		return c.fail(47001)
	}
	c.app.Menu = string(c.body)
	return c.ok()
}

func (s *Server) quotaGet(c *call) reply {
	var body struct {
		Path string `json:"cgi_path"`
	}
	switch {
	case !c.decode(&body) || !strings.HasPrefix(body.Path, "/"):
		return c.fail(76003)
	case strings.HasPrefix(body.Path, "/sns/"):
		return c.fail(76022)
	}
	limit, ok := s.knobs.PerDay[body.Path]
	if !ok {
		return c.fail(76021) // it has no quota here
	}
	used, perMinute := 0, s.knobs.PerMinute[body.Path]
	if u := c.app.usage[body.Path]; u != nil {
		u.roll(c.now)
		used = u.day
	}
	return c.errcode(0, "ok", fmt.Sprintf(
		`"quota":{"daily_limit":%d,"used":%d,"remain":%d},"rate_limit":{"call_count":%d,"refresh_second":60},"component_rate_limit":{"call_count":0,"refresh_second":0}`,
		limit, used, limit-used, perMinute))
}

func (s *Server) clearQuota(c *call) reply {
	var body struct {
		AppID string `json:"appid"`
	}
	if !c.decode(&body) || body.AppID != c.app.ID {
		return c.fail(40013)
	}
	return s.clear(c)
}

// clearQuotaV2 takes appid and secret instead of a token: in the query as the page's example has
// it, or in the body as its table says.
func (s *Server) clearQuotaV2(c *call) reply {
	var body struct {
		AppID  string `json:"appid"`
		Secret string `json:"appsecret"`
	}
	if c.r.Method != http.MethodPost {
		return c.fail(43002)
	}
	body.AppID, body.Secret = c.query.Get("appid"), c.query.Get("appsecret")
	if body.AppID == "" {
		c.decode(&body) // a body that is not JSON names no appid
	}
	c.app = s.byAppID(body.AppID)
	if rep, ok := s.authenticate(c, "client_credential", body.Secret); !ok {
		return rep
	}
	return s.clear(c)
}

// clear resets the quotas of every path, so many times a month.
func (s *Server) clear(c *call) reply {
	n := &c.app.clears
	if month := c.now.In(china).Format("2006-01"); n.onDay != month {
		n.day, n.onDay = 0, month
	}
	if n.day >= s.knobs.ClearPerMonth {
		return c.fail(48006)
	}
	n.day++
	clear(c.app.usage)
	return c.ok()
}

// sns serves the endpoints that take a user's OAuth token, or an appid and secret.
func (s *Server) sns(c *call) reply {
	given := c.query.Get("access_token")
	switch c.r.URL.Path {
	case "/sns/userinfo", "/sns/auth":
		if given == "" {
			return c.fail(41001)
		}
		if !s.users[given] {
			return c.fail(40001)
		}
		if c.r.URL.Path == "/sns/auth" {
			return c.ok()
		}
		return c.success(`"openid":` + quote(c.query.Get("openid")) + `,"nickname":"sim"`)
	case "/sns/jscode2session", "/sns/oauth2/access_token":
		if rep, ok := s.authenticate(c, "client_credential", c.query.Get("secret")); !ok {
			return rep
		}
		if c.r.URL.Path == "/sns/jscode2session" {
			return c.success(`"openid":"sim","session_key":"c2ltdWxhdGVkIGtleQ=="`)
		}
		user := tokenValue(OfficialAccount)
		s.users[user] = true
		return c.success(fmt.Sprintf(`"access_token":%q,"expires_in":7200,"refresh_token":%q,"openid":"sim","scope":"snsapi_userinfo"`,
			user, tokenValue(OfficialAccount)))
	}
	return c.fail(48001)
}
