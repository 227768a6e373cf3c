package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	weChatType = "application/json; encoding=utf-8"
	weComType  = "application/json; charset=UTF-8"
)

// The answers are WeChat's: every byte of them counts.
func TestDropInHandsOutWhatWeChatWould(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, everyApp...)
		token, ticket := s.Token, s.Ticket
		weChat := func(a config.App) string {
			return `{"access_token":"` + token(t, a) + `","expires_in":7200}`
		}
		weCom := func(a config.App) string {
			return `{"errcode":0,"errmsg":"ok","access_token":"` + token(t, a) + `","expires_in":7200}`
		}
		ticketOf := func(a config.App, name string) string {
			return `{"errcode":0,"errmsg":"ok","ticket":"` + ticket(t, a, name) + `","expires_in":3600}`
		}
		const query = "/cgi-bin/token?grant_type=client_credential&appid=wx0000000000000001"
		const json = `{"grant_type":"client_credential","appid":"wx0000000000000001"`
		for _, c := range []struct{ method, target, body, kind, want string }{
			{"GET", query, "", weChatType, weChat(plain)},
			{"GET", query + "&secret=anything", "", weChatType, weChat(plain)},
			{"GET", "/cgi-bin/token?grant_type=client_credential&appid=shop", "", weChatType, weChat(plain)},
			{"GET", "/cgi-bin/token?grant_type=client_credential&appid=wx0000000000000002&secret=", "", weChatType, weChat(classic)},
			{"GET", "/cgi-bin/token?secret=CANARY-s3&appid=wx0000000000000003&grant_type=client_credential", "", weChatType, weChat(strict)},
			{"POST", query, "", weChatType, weChat(plain)},
			{"POST", "/cgi-bin/token", "grant_type=client_credential&appid=wx0000000000000001&secret=x", weChatType, weChat(plain)},
			{"POST", "/cgi-bin/token", " \n" + json + `,"secret":"x"}`, weChatType, weChat(plain)},
			{"POST", "/cgi-bin/token?appid=wx0000000000000003", `{"grant_type":"client_credential","appid":"wx0000000000000001","secret":"CANARY-s3"}`, weChatType, weChat(strict)},
			{"POST", "/cgi-bin/stable_token", json + "}", weChatType, weChat(plain)},
			{"POST", "/cgi-bin/stable_token", json + `,"secret":"x","force_refresh":false}`, weChatType, weChat(plain)},
			{"POST", "/cgi-bin/stable_token", json + `,"secret":"x","force_refresh":true}`, weChatType, weChat(plain)},
			{"POST", "/cgi-bin/stable_token?appid=other", json + `,"force_refresh":"yes"}`, weChatType, weChat(plain)},
			{"GET", "/cgi-bin/gettoken?corpid=ww0000000000000004&corpsecret=anything", "", weComType, weCom(lone)},
			{"GET", "/cgi-bin/gettoken?corpid=ww0000000000000004", "", weComType, weCom(lone)},
			{"GET", "/cgi-bin/gettoken?corpid=ww0000000000000005&corpsecret=CANARY-s5", "", weComType, weCom(agent1)},
			{"GET", "/cgi-bin/gettoken?corpid=ww0000000000000005&corpsecret=CANARY-s6", "", weComType, weCom(agent2)},
			{"GET", "/cgi-bin/gettoken?corpid=ww0000000000000005:1000002", "", weComType, weCom(agent2)},
			{"GET", "/cgi-bin/gettoken?corpid=ww0000000000000007&corpsecret=CANARY-s7", "", weComType, weCom(guarded)},
			{"GET", "/cgi-bin/ticket/getticket?type=jsapi&access_token=" + token(t, plain), "", weChatType, ticketOf(plain, "jsapi")},
			{"GET", "/cgi-bin/ticket/getticket?type=wx_card&access_token=" + token(t, plain), "", weChatType, ticketOf(plain, "wx_card")},
			{"GET", "/cgi-bin/get_jsapi_ticket?access_token=" + token(t, lone), "", weComType, ticketOf(lone, "jsapi")},
			{"GET", "/cgi-bin/ticket/get?type=agent_config&access_token=" + token(t, lone), "", weComType, ticketOf(lone, "agent_config")},
			{"GET", "/cgi-bin/ticket/get?type=agent_config&access_token=" + token(t, agent1), "", weComType, ticketOf(agent1, "agent_config")},
		} {
			w := s.call(c.method, c.target, c.body, "Accept", "text/plain") // WeChat does not look at it
			if got := w.Body.String(); w.Code != 200 || got != c.want {
				t.Errorf("%s %s %s: got %d %s, want %s", c.method, c.target, c.body, w.Code, got, c.want)
			}
			if kind, store := w.Header().Get("Content-Type"), w.Header().Get("Cache-Control"); kind != c.kind || store != "no-store" {
				t.Errorf("%s %s: Content-Type %q, Cache-Control %q", c.method, c.target, kind, store)
			}
		}
		if n := s.Fetches(everyApp...); n != len(everyApp) {
			t.Errorf("%d fetches for %d tokens", n, len(everyApp))
		}
	})
}

// refused is an error in WeChat's shape.
type refused struct {
	Errcode int    `json:"errcode"`
	Errmsg  string `json:"errmsg"`
}

// wantErrcode checks that w is an error in WeChat's shape, and returns its errmsg.
func wantErrcode(t *testing.T, w *httptest.ResponseRecorder, errcode int) string {
	t.Helper()
	var r refused
	d := json.NewDecoder(strings.NewReader(w.Body.String()))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("status %d, body %q: %v", w.Code, w.Body, err)
	}
	if w.Code != http.StatusOK || r.Errcode != errcode || r.Errmsg == "" {
		t.Errorf("got %d %s, want errcode %d", w.Code, w.Body, errcode)
	}
	if want := fmt.Sprintf(`{"errcode":%d,"errmsg":"`, r.Errcode); !strings.HasPrefix(w.Body.String(), want) {
		t.Errorf("got %s, want it to begin with %s", w.Body, want)
	}
	if kind := w.Header().Get("Content-Type"); kind != weChatType && kind != weComType {
		t.Errorf("Content-Type %q", kind)
	}
	return r.Errmsg
}

// What WeChat refuses is refused with its code and in its words, in its order, and costs no call.
func TestDropInRefusesAsWeChatDoes(t *testing.T) {
	const (
		token  = "/cgi-bin/token?"
		stable = "/cgi-bin/stable_token"
		corp   = "/cgi-bin/gettoken?"
		grant  = "grant_type=client_credential&"
	)
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, everyApp...)
		for _, c := range []refusedCall{
			{"GET", "/cgi-bin/token", "", 41002, "appid missing"},
			{"GET", token + grant, "", 41002, "appid missing"},
			{"GET", token + "appid=wx9999999999999999", "", 40013, "invalid appid"},            // before the grant_type
			{"GET", token + grant + "appid=WX0000000000000001", "", 40013, "invalid appid"},    // case counts
			{"GET", token + grant + "appid=ww0000000000000004", "", 40013, "invalid appid"},    // a corp
			{"GET", token + grant + "appid=lone&secret=CANARY-s4", "", 40013, "invalid appid"}, // likewise
			{"GET", token + "appid=wx0000000000000001", "", 40002, "invalid grant_type"},
			{"GET", token + "appid=wx0000000000000001&grant_type=x", "", 40002, "invalid grant_type"},
			{"GET", token + "appid=wx0000000000000003", "", 40002, "invalid grant_type"}, // before the secret
			{"GET", token + grant + "appid=wx0000000000000003", "", 41004, "appsecret missing"},
			{"GET", token + grant + "appid=wx0000000000000003&secret=CANARY-s1", "", 40125, "invalid appsecret"},
			{"GET", token + grant + "appid=wx0000000000000003&secret=CANARY-s3%20", "", 40125, "invalid appsecret"},
			{"POST", "/cgi-bin/token", "{", 41002, "appid missing"},
			{"POST", "/cgi-bin/token", strings.Repeat("x", 9<<10), 45002, "content size out of limit"},
			{"GET", stable, "", 43002, "require POST method"},
			{"GET", stable + "?appid=wx0000000000000001&" + grant, "", 43002, "require POST method"},
			{"POST", stable, grant + "appid=wx0000000000000001", 41002, "appid missing"}, // a form
			{"POST", stable + "?appid=wx0000000000000001&" + grant, "", 41002, "appid missing"},
			{"POST", stable, `{"appid":"wx9"}`, 40013, "invalid appid"},
			{"POST", stable, `{"appid":"wx0000000000000001"}`, 40002, "invalid grant_type"},
			{"POST", stable, `{"appid":"wx0000000000000003","grant_type":"client_credential"}`, 41004, "appsecret missing"},
			{"POST", stable, `{"appid":"wx0000000000000003","grant_type":"client_credential","secret":"CANARY-x"}`, 40125, "invalid appsecret"},
			{"POST", stable, `{"appid":"wx0000000000000003","grant_type":"client_credential","secret":"CANARY-x","force_refresh":true}`, 40125, "invalid appsecret"},
			{"POST", stable, strings.Repeat(" ", 9<<10), 45002, "content size out of limit"},
			{"GET", "/cgi-bin/gettoken", "", 41004, "corpsecret missing"},
			{"GET", corp + "corpid=ww9", "", 41004, "corpsecret missing"}, // before the corpid
			{"GET", corp + "corpid=ww9&corpsecret=CANARY-s4", "", 40013, "invalid corpid"},
			{"GET", corp + "corpsecret=CANARY-s4", "", 40013, "invalid corpid"},
			{"GET", corp + "corpid=wx0000000000000001&corpsecret=CANARY-s1", "", 40013, "invalid corpid"},
			{"GET", corp + "corpid=ww0000000000000005", "", 41004, "corpsecret missing"},
			{"GET", corp + "corpid=ww0000000000000005&corpsecret=CANARY-s4", "", 40001, "invalid credential"},
			{"GET", corp + "corpid=ww0000000000000007", "", 41004, "corpsecret missing"},
			{"GET", corp + "corpid=ww0000000000000007&corpsecret=CANARY-s4", "", 40001, "invalid credential"},
		} {
			s.refuses(t, c)
		}
	})
}

// Whose ticket is asked for comes before which one, as at WeChat.
func TestDropInRefusesTicketsAsWeChatDoes(t *testing.T) {
	const (
		ticket  = "/cgi-bin/ticket/getticket?"
		corpJS  = "/cgi-bin/get_jsapi_ticket?"
		corpTic = "/cgi-bin/ticket/get?"
	)
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, everyApp...)
		for _, c := range []refusedCall{
			{"GET", "/cgi-bin/ticket/getticket", "", 41001, "access_token missing"},
			{"GET", ticket + "access_token=CANARY-t&type=jsapi", "", 40001, "invalid credential, access_token is invalid or not latest"},
			{"GET", ticket + "access_token=" + s.Token(t, lone) + "&type=jsapi", "", 40001, "invalid credential"},
			{"GET", ticket + "appid=wx9&type=jsapi&access_token=" + s.Token(t, plain), "", 40013, "invalid appid"},
			{"GET", ticket + "appid=wx0000000000000003&type=jsapi", "", 41001, "access_token missing"},
			{"GET", ticket + "appid=wx0000000000000003&type=jsapi&access_token=" + s.Token(t, plain), "", 40001, "invalid credential"},
			{"GET", ticket + "access_token=" + s.Token(t, plain), "", 47001, "data format error"},
			{"GET", ticket + "type=CANARY&access_token=" + s.Token(t, plain), "", 47001, "data format error"},
			{"GET", ticket + "type=agent_config&access_token=" + s.Token(t, plain), "", 47001, "data format error"},
			{"GET", corpJS + "access_token=CANARY-t", "", 40014, "invalid access_token"},
			{"GET", corpJS + "access_token=" + s.Token(t, plain), "", 40014, "invalid access_token"},
			{"GET", corpTic + "type=agent_config", "", 41001, "access_token missing"},
			{"GET", corpTic + "access_token=" + s.Token(t, lone), "", 47001, "data format error"},
		} {
			s.refuses(t, c)
		}
	})
}

// refusedCall is a call, and the errcode and the beginning of the errmsg that it gets.
type refusedCall struct {
	method, target, body string
	errcode              int
	text                 string
}

// refuses checks that a call is refused, repeats nothing of it, and costs no fetch.
func (s *stack) refuses(t *testing.T, c refusedCall) {
	t.Helper()
	before := s.Fetches(everyApp...)
	w := s.call(c.method, c.target, c.body)
	text := wantErrcode(t, w, c.errcode)
	if !strings.HasPrefix(text, c.text) || !strings.Contains(text, " (wxtoken: ") {
		t.Errorf("%s %s %.80s: errmsg %q, want it to begin with %q", c.method, c.target, c.body, text, c.text)
	}
	if strings.Contains(fmt.Sprint(w.Body, w.Header()), "CANARY") {
		t.Errorf("%s %s: the refusal repeats what was sent: %s", c.method, c.target, w.Body)
	}
	if after := s.Fetches(everyApp...); after != before {
		t.Errorf("%s %s: %d fetches", c.method, c.target, after-before)
	}
	for _, e := range s.logs.TakeAll() {
		if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, "CANARY") {
			t.Errorf("the log repeats what was sent: %s", line)
		}
	}
}

// A caller that WeChat would not serve at all gets an HTTP error, as on every path.
func TestDropInIsGuardedAsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bearer := secret.String{}
		s := newStack(t, api.Options{Bearer: func() secret.String { return bearer }}, nil, everyApp...)
		const query = "?grant_type=client_credential&appid=wx0000000000000001"
		for _, refused := range []struct {
			w               *httptest.ResponseRecorder
			status, errcode int
		}{
			{s.call("GET", "/cgi-bin/token"+query, "", "Origin", "https://evil.example"), 403, -1},
			{s.call("GET", "/cgi-bin/token"+query, "", "X-Forwarded-For", "1.2.3.4"), 403, -1},
			{s.call("GET", "/cgi-bin/x/../token"+query, ""), 400, -1},
			{s.call("GET", "/wxa/a%2Fb"+query, ""), 400, -1},
			{s.call("DELETE", "/cgi-bin/token"+query, ""), 405, 43001},
		} {
			w := refused.w
			if w.Code != refused.status || w.Header().Get("Content-Type") == "application/problem+json" {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, refused.status)
			}
			w.Code = 200
			wantErrcode(t, w, refused.errcode)
		}
		// What WeChat takes, in the spellings of SDKs.
		for _, path := range []string{"//cgi-bin/token", "/cgi-bin//token", "/cgi-bin/token/", "/CGI-BIN/Token", "/cgi-bin/%74oken"} {
			if w := s.call("GET", path+query, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"access_token":"`) {
				t.Errorf("%s: got %d %s", path, w.Code, w.Body)
			}
		}
		bearer = secret.New("CANARY-bearer")
		for _, path := range []string{
			"/cgi-bin/token" + query, "/cgi-bin/stable_token", "/cgi-bin/ticket/getticket", "/cgi-bin/gettoken", "/cgi-bin/get_jsapi_ticket",
			"/cgi-bin/ticket/get",
		} {
			w := s.call("GET", path, "")
			if w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: got %d %v", path, w.Code, w.Header())
			}
			w.Code = 200
			wantErrcode(t, w, -1)
		}
		webtest.WantProblem(t, s.call("GET", "/v1/apps/shop/tickets/jsapi", ""), 401, "unauthorized")
		webtest.WantProblem(t, s.call("POST", "/v1/apps/shop/jssdk", `{"url":"https://a"}`), 401, "unauthorized")
		if w := s.call("GET", "/cgi-bin/token"+query, "", "Authorization", "Bearer CANARY-bearer"); !strings.Contains(w.Body.String(), s.Token(t, plain)) {
			t.Errorf("with the bearer token: %d %s", w.Code, w.Body)
		}
	})
}

// A pod may map WeChat's names to this listener. Only what speaks WeChat answers there.
func TestUpstreamsHostReachesTheDropInPathsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain, lone)
		send := func(host, target string) int {
			r := httptest.NewRequest("GET", target, nil)
			r.Host = host
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w.Code
		}
		const token = "/cgi-bin/token?grant_type=client_credential&appid=shop"
		for _, c := range []struct {
			host, target string
			want         int
		}{
			{"api.weixin.qq.com", token, 200}, {"API.Weixin.QQ.com:80", token, 200}, {"qyapi.weixin.qq.com", token, 200},
			{"api.weixin.qq.com", "/v1/apps/shop/token", 403}, {"qyapi.weixin.qq.com", "/v1/apps/shop/jssdk", 403},
			{"api.weixin.qq.com.evil.example", token, 403}, {"evil.example", token, 403}, {"mp.weixin.qq.com", token, 403},
			{"xapi.weixin.qq.com", token, 403}, {"", token, 403},
		} {
			if got := send(c.host, c.target); got != c.want {
				t.Errorf("%s at %s: got %d, want %d", c.target, c.host, got, c.want)
			}
		}
	})
}

// caller is an HTTP transport that ends at a handler.
type caller struct{ http.Handler }

func (c caller) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.RequestURI, in.Host = r.URL.RequestURI(), r.URL.Host
	in.URL.Scheme, in.URL.Host = "", ""
	if in.Body == nil {
		in.Body = http.NoBody
	}
	c.ServeHTTP(w, in)
	return w.Result(), nil
}

// The client that talks to WeChat cannot tell the drop-in paths from it.
func TestOurOwnClientTakesTheDropInForWeChat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, everyApp...)
		client := &wechat.Client{HTTP: &http.Client{Transport: caller{s}}}
		ctx, token := t.Context(), secret.New
		for name, c := range map[string]struct {
			call func() (wechat.Credential, error)
			want string
		}{
			"Token":       {func() (wechat.Credential, error) { return client.Token(ctx, classic.ID, token("x")) }, s.Token(t, classic)},
			"StableToken": {func() (wechat.Credential, error) { return client.StableToken(ctx, plain.ID, token("x"), wechat.Normal) }, s.Token(t, plain)},
			"forced": {func() (wechat.Credential, error) {
				return client.StableToken(ctx, strict.ID, strict.Secret, wechat.Forced)
			}, s.Token(t, strict)},
			"CorpToken": {func() (wechat.Credential, error) { return client.CorpToken(ctx, lone.ID, token("x")) }, s.Token(t, lone)},
			"agent":     {func() (wechat.Credential, error) { return client.CorpToken(ctx, agent2.ID, agent2.Secret) }, s.Token(t, agent2)},
			"Ticket": {func() (wechat.Credential, error) {
				return client.Ticket(ctx, token(s.Token(t, plain)), wechat.TicketWXCard)
			}, s.Ticket(t, plain, "wx_card")},
			"CorpTicket": {func() (wechat.Credential, error) {
				return client.CorpTicket(ctx, token(s.Token(t, lone)), wechat.TicketJSAPI)
			}, s.Ticket(t, lone, "jsapi")},
			"agent ticket": {func() (wechat.Credential, error) {
				return client.CorpTicket(ctx, token(s.Token(t, agent1)), wechat.TicketAgentConfig)
			}, s.Ticket(t, agent1, "agent_config")},
		} {
			if cred, err := c.call(); err != nil || cred.Value.Reveal() != c.want || cred.ExpiresIn < time.Hour || cred.ExpiresIn > 2*time.Hour {
				t.Errorf("%s: got %v for %v, %v", name, cred.Value.Equal(token(c.want)), cred.ExpiresIn, err)
			}
		}
		for code, call := range map[int]func() (wechat.Credential, error){
			40013: func() (wechat.Credential, error) { return client.Token(ctx, "wx9", token("x")) },
			40125: func() (wechat.Credential, error) {
				return client.StableToken(ctx, strict.ID, token("x"), wechat.Normal)
			},
			40001: func() (wechat.Credential, error) { return client.CorpToken(ctx, agent1.ID, token("x")) },
			40014: func() (wechat.Credential, error) { return client.CorpTicket(ctx, token("x"), wechat.TicketJSAPI) },
		} {
			_, err := call()
			if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Code != code || e.Status != 200 {
				t.Errorf("want %d, got %v", code, err)
			}
		}
	})
}
