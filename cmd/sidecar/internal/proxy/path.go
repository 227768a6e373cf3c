package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// checkTarget refuses what no client of WeChat sends, whatever the path. It repeats nothing of it.
func checkTarget(r *http.Request) *refusal {
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return refuse(http.StatusMethodNotAllowed, "this method is not forwarded")
	}
	if r.URL.Scheme != "" || r.URL.Host != "" || r.URL.Opaque != "" || r.URL.User != nil {
		return refuse(http.StatusBadRequest, "the request target has a scheme or a host: this is no forward proxy")
	}
	for i := range len(r.URL.RawQuery) {
		if c := r.URL.RawQuery[i]; c <= ' ' || c == 0x7f {
			return refuse(http.StatusBadRequest, "the query has a control character or a space")
		}
	}
	// Java's client offers h2c with every request and goes on without it. That is not forwarded;
	// a caller that asks for any other upgrade needs it.
	for _, protocol := range r.Header["Upgrade"] {
		if !strings.EqualFold(protocol, "h2c") {
			return refuse(http.StatusBadRequest, "upgrades are not forwarded")
		}
	}
	return nil
}

// isPlain reports whether path is one that WeChat may have: letters, digits and - . _ ~, no empty
// segment but the last, none of dots only. There is no way to encode anything in it, so it means
// the same to every reader.
func isPlain(path string) bool {
	if len(path) < 2 || path[0] != '/' {
		return false
	}
	dots, length := 0, 0 // of the present segment
	for i := 1; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			if length == dots {
				return false // empty, or . or ..
			}
			dots, length = 0, 0
			continue
		case c == '.':
			dots++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
		default:
			return false
		}
		length++
	}
	return length == 0 || length > dots
}

// pathTricks is the answer to a path that is not plain.
const pathTricks = "the path is not one of WeChat's: only letters, digits and - . _ ~ between single slashes, nothing encoded"

// prefix is where calls that name their app in the path begin.
const prefix = "/proxy/"

// splitPath takes /proxy/{app}/<path> apart.
func splitPath(u *url.URL) (app, path string, no *refusal) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok {
		return "", "", refuse(http.StatusBadRequest, "the path does not begin with /proxy/{app}/")
	}
	app, path, _ = strings.Cut(rest, "/")
	path = "/" + path
	// Only the colon of corpid:agent may be encoded, because encodeURIComponent and its kin do so.
	app = strings.NewReplacer("%3A", ":", "%3a", ":").Replace(app)
	if !isPlain("/"+strings.ReplaceAll(app, ":", "_")) || !isPlain(path) {
		return "", "", refuse(http.StatusBadRequest, pathTricks)
	}
	return app, path, nil
}

// The calls that carry other credentials than an access token of an app: an appid and secret, a
// user's OAuth token (in a parameter that is called access_token, too), a third-party platform's,
// or none. Those ending in a slash stand for everything below.
var (
	notInjected = []string{
		"/sns/",
		"/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/clear_quota/v2",
		// All of them take a component's credential, in newer texts under the name access_token.
		"/cgi-bin/component/",
		"/cgi-bin/showqrcode", "/cgi-bin/componentloginpage", "/connect/",
	}
	notInjectedCorp = []string{
		"/cgi-bin/gettoken", "/cgi-bin/service/get_suite_token", "/cgi-bin/service/get_provider_token",
	}
	// otherTokens are parameters with which a call says that it has a credential of another kind.
	otherTokens = []string{
		"component_access_token", "cloudbase_access_token", "suite_access_token", "provider_access_token",
	}
)

// injects reports whether a call takes an access token of an app. The path is plain. Upper and
// lower case, and a slash at the end, make no difference: if they make none to WeChat, a user's
// token must not be overwritten; if they do, there is no such path.
func injects(api wechat.API, path, rawQuery string) bool {
	list := notInjected
	if api == wechat.APICorpCall || api == wechat.APISuite {
		list = notInjectedCorp
	}
	path = strings.ToLower(strings.TrimSuffix(path, "/"))
	for _, p := range list {
		if below := strings.TrimSuffix(p, "/"); path == below || p != below && strings.HasPrefix(path, p) {
			return false
		}
	}
	for _, name := range otherTokens {
		if _, ok := param(rawQuery, name); ok {
			return false
		}
	}
	return true
}

// platformPaths take the token of a third-party platform, a suite or a provider under a name of its
// own; its other calls take it as an access token. What a path is for if nothing else of the call
// says so is its value.
var platformPaths = map[string]string{
	"/cgi-bin/component/": apps.ComponentToken, "/sns/component/": apps.ComponentToken, "/sns/oauth2/component/": apps.ComponentToken,
	"/cgi-bin/service/": apps.SuiteToken,
	"/cgi-bin/license/": apps.ProviderToken,
}

// loginInfo takes the token of a provider as an access token (WeCom's page 91125); all other calls
// of a provider below /cgi-bin/service/ and /cgi-bin/license/ take it as provider_access_token
// (90581, 90582, 95604, and WxJava 4.6.0).
const loginInfo = "/cgi-bin/service/get_login_info"

// platformParam returns the parameter that carries the token of a platform, a suite or a provider in
// a call of one of their own paths, whichever of them makes it; "" for any other path.
func platformParam(path, rawQuery string) string {
	path = strings.ToLower(strings.TrimSuffix(path, "/"))
	for below, usual := range platformPaths {
		if !strings.HasPrefix(path, below) {
			continue
		}
		for _, sent := range []string{apps.ComponentToken, apps.SuiteToken, apps.ProviderToken} {
			if _, ok := param(rawQuery, sent); ok {
				return sent
			}
		}
		if path == loginInfo {
			return apps.ProviderToken
		}
		return usual
	}
	return ""
}

// tokenParam returns the parameter in which a call takes the token of app; "" if it takes none.
func tokenParam(app *apps.App, path, rawQuery string) string {
	if app.IsThirdParty() && platformParam(path, rawQuery) != "" {
		_, long := param(rawQuery, app.TokenParam)
		_, short := param(rawQuery, accessToken)
		// WeChat's present pages say access_token for a platform's calls, too: the caller decides.
		if !long && (short || app.TokenParam == apps.ProviderToken && strings.EqualFold(strings.TrimSuffix(path, "/"), loginInfo)) {
			return accessToken
		}
		return app.TokenParam
	}
	if injects(app.API(), path, rawQuery) {
		return accessToken
	}
	return ""
}

// ownCalls are the calls of a third-party platform that the sidecar makes itself, each with the
// path that has its result. Made past it, they would end the tokens of all replicas, or spend a
// code without keeping what it brings.
var ownCalls = map[string]string{
	"/cgi-bin/component/api_component_token":   "GET /v1/apps/{platform}/token",
	"/cgi-bin/component/api_authorizer_token":  "GET /v1/apps/{platform}:{authorizer}/token",
	"/cgi-bin/component/api_query_auth":        "POST /v1/apps/{platform}/authorizations",
	"/cgi-bin/component/api_start_push_ticket": "nothing: it is called when tickets stop",
	"/cgi-bin/service/get_suite_token":         "GET /v1/apps/{platform}/token",
	"/cgi-bin/service/get_corp_token":          "GET /v1/apps/{platform}:{corpid}/token",
	"/cgi-bin/service/get_permanent_code":      "POST /v1/apps/{platform}/authorizations",
	"/cgi-bin/service/v2/get_permanent_code":   "POST /v1/apps/{platform}/authorizations",
	"/cgi-bin/service/get_provider_token":      "GET /v1/apps/{provider}/token",
}

// ownCall refuses a call that only the sidecar may make for app; nil for any other one.
func ownCall(app *apps.App, path string) *refusal {
	instead, own := ownCalls[strings.ToLower(strings.TrimSuffix(path, "/"))]
	if !app.IsThirdParty() || !own {
		return nil
	}
	return &refusal{outcome: Refused, status: http.StatusOK, errcode: 48001, text: "api unauthorized: the sidecar makes this call itself, for all replicas at once; what it brings: " + instead}
}

const accessToken = "access_token"

// param returns the first parameter of that name, decoded, and reports whether there is one.
func param(rawQuery, name string) (string, bool) {
	for part := range strings.SplitSeq(rawQuery, "&") {
		key, value, _ := strings.Cut(part, "=")
		if !isKey(key, name) {
			continue
		}
		if text, err := url.QueryUnescape(value); err == nil {
			value = text
		}
		return value, true
	}
	return "", false
}

// isKey reports whether key, as a query encodes it, decodes to name.
func isKey(key, name string) bool {
	if key == name {
		return true
	}
	if !strings.ContainsRune(key, '%') {
		return false
	}
	text, err := url.QueryUnescape(key)
	return err == nil && text == name
}

// withParam returns the query with the parameter in front and without any other of its name. The
// rest stays byte for byte, because a signature or a picky parser may depend on it. In front,
// because there a stray # or ; in the rest cannot swallow it.
func withParam(rawQuery, name string, value secret.String) string {
	var b strings.Builder
	escaped := url.QueryEscape(value.Reveal())
	b.Grow(len(name) + 1 + len(escaped) + 1 + len(rawQuery))
	b.WriteString(name)
	b.WriteByte('=')
	b.WriteString(escaped)
	if rawQuery == "" {
		return b.String()
	}
	for part := range strings.SplitSeq(rawQuery, "&") {
		if key, _, _ := strings.Cut(part, "="); isKey(key, name) {
			continue
		}
		b.WriteByte('&')
		b.WriteString(part)
	}
	return b.String()
}
