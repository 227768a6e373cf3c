package wechattest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// texts are the errmsgs of api.weixin.qq.com, and WeCom's where it has the code alone, without the
// rid. Those of 40243, 50007 and 895xx, and WeCom's of 40078 to 42009 but 40082, are not known and
// made up.
var texts = map[int]string{
	-1:    "system error",
	40001: "invalid credential, access_token is invalid or not latest",
	40002: "invalid grant_type",
	40013: "invalid appid",
	40014: "invalid access_token",
	40125: "invalid appsecret",
	40243: "appsecret is frozen",
	41001: "access_token missing",
	41002: "appid missing",
	41004: "appsecret missing",
	42001: "access_token expired",
	43002: "require POST method",
	44001: "empty media data",
	44002: "empty post data",
	45009: "reach max api daily quota limit",
	45011: "api minute-quota reach limit must slower retry next minute",
	45035: "access clientip is not registered, not in ip-white-list",
	46003: "menu no exist",
	47001: "data format error",
	48001: "api unauthorized",
	48004: "api forbidden for irregularities, view detail on mp.weixin.qq.com",
	48006: "forbid to clear quota because of reaching the limit",
	50002: "user limited",
	50004: "user not allow to use accesstoken, maybe for punishment",
	50007: "account is frozen",
	40078: "invalid authcode",
	40080: "invalid suite secret",
	40082: "invalid suite_acccess_token or provider_access_token", // sic
	40083: "invalid suite id",
	40084: "invalid permanent code",
	40085: "invalid suite ticket",
	40170: "args count exceed count limit",
	41021: "component_access_token missing",
	41022: "suite_access_token missing",
	41023: "suite_ticket missing",
	41024: "suite_secret missing",
	41025: "permanent_code missing",
	42009: "suite_access_token expired",
	61003: "component is not authorized by this account",
	61005: "component ticket is expired",
	61006: "component ticket is invalid",
	61009: "code is invalid",
	61010: "code is expired",
	61011: "invalid component",
	61014: "must use component token for component api",
	61015: "must use biz-account token, not component token",
	61023: "refresh_token is invalid",
	61024: "must use api(api_component_token) to get token for component acct",
	76003: "rid error",
	76021: "cgi_path not found",
	76022: "no permission",
	89501: "ip is waiting for confirmation",
	89503: "ip needs confirmation of the administrator",
	89506: "ip was refused, forbidden for 24 hours",
	89507: "ip was refused, forbidden for 1 hour",
}

// stableHint is what cgi-bin adds to some errmsgs since 2023 [U].
const stableHint = ", could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"

// fail is the reply to a call that gets an errcode, in the shape of the subsystem it was for.
func (c *call) fail(code int) reply { return c.failWith(code, c.text(code)) }

// text is the errmsg of a code, without its suffix.
func (c *call) text(code int) string {
	sns := strings.HasPrefix(c.r.URL.Path, "/sns/")
	switch {
	case c.corp:
		return c.corpText(code)
	case code == 40164:
		return fmt.Sprintf("invalid ip %s ipv6 ::ffff:%[1]s, not in whitelist", c.ip)
	case code == 61004:
		return "access clientip is not registered requestIP: " + c.ip
	case code == 40001 && !sns, code == 45009 && c.r.URL.Path == pathToken:
		return texts[code] + stableHint
	case texts[code] == "":
		return "error"
	}
	return texts[code]
}

// corpText is the errmsg of a code on WeCom.
func (c *call) corpText(code int) string {
	var text string
	switch code {
	case 40014:
		return texts[code] // without any suffix [U]
	case 40001:
		text = "invalid credential"
	case 40013:
		text = "invalid corpid"
	case 41004:
		text = "corpsecret missing"
	case 41021:
		text = "suite_id missing"
	case 60020:
		text = "not allow to access from your ip"
	case 50003:
		text = "app disabled"
	default:
		if text = texts[code]; text == "" {
			text = "error"
		}
	}
	return fmt.Sprintf("%s, hint: [%d%012d], from ip: %s, more info at https://open.work.weixin.qq.com/devtool/query?e=%d",
		text, c.now.Unix(), rand.N(int64(1e12)), c.ip, code)
}

// failWith is fail with another errmsg.
func (c *call) failWith(code int, text string) reply {
	switch {
	case c.corp:
	case strings.HasPrefix(c.r.URL.Path, "/sns/"):
		text += ", rid: " + c.rid()
	default:
		text += " rid: " + c.rid()
	}
	return c.errcode(code, text, "")
}

// errcode is a reply of errcode, errmsg and further members, written as they are in JSON.
func (c *call) errcode(code int, text, members string) reply {
	if members != "" {
		members = "," + members
	}
	rep := c.raw(fmt.Sprintf(`{"errcode":%d,"errmsg":%s%s}`, code, quote(text), members))
	if c.corp {
		// WeCom repeats both in the header [U]; an errmsg has no line breaks.
		rep.header["Error-Code"] = []string{strconv.Itoa(code)}
		rep.header["Error-Msg"] = []string{text}
	}
	return rep
}

// quote makes a JSON string.
func quote(text string) string {
	b, _ := json.Marshal(text) // a string always has JSON
	return string(b)
}

// success is a reply of the given JSON members. Only WeCom adds an errcode to it.
func (c *call) success(members string) reply {
	if c.corp {
		return c.errcode(0, "ok", members)
	}
	return c.raw("{" + members + "}")
}

// ok is the reply that says nothing else.
func (c *call) ok() reply { return c.errcode(0, "ok", "") }

// raw is a 200 with the content type of the platform.
func (c *call) raw(body string) reply {
	kind := "application/json; encoding=utf-8" // sic
	if c.corp {
		kind = "application/json; charset=UTF-8"
	}
	return reply{status: http.StatusOK, header: http.Header{"Content-Type": {kind}}, body: []byte(body)}
}

// badToken is the reply to a call whose token does not work. WeCom sends the endpoint's empty
// default members along [U].
func (c *call) badToken(code int) reply {
	c.app.calls.BadToken++
	if !c.corp {
		return c.fail(code)
	}
	if code != 42001 {
		code = 40014
	}
	var empty string
	switch c.r.URL.Path {
	case pathCallbackIP, pathDomainIP:
		empty = `"ip_list":[]`
	case pathCorpJSAPI, pathCorpTicket:
		empty = `"ticket":"","expires_in":0`
	case pathCorpSend:
		empty = `"invaliduser":"","msgid":""`
	}
	return c.errcode(code, c.text(code), empty)
}

// rid is WeChat's name of a request: three groups of 8 hex digits, the first the Unix time.
func (c *call) rid() string {
	return fmt.Sprintf("%08x-%08x-%08x", c.now.Unix(), rand.Uint32(), rand.Uint32())
}

// decode reads the JSON body into v and reports whether it is JSON.
func (c *call) decode(v any) bool {
	return json.NewDecoder(bytes.NewReader(c.body)).Decode(v) == nil
}
