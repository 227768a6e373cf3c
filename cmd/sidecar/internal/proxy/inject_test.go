package proxy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	menu = "/proxy/shop/cgi-bin/menu/get"
	send = "/proxy/shop/cgi-bin/message/custom/send"
)

// The token goes in front; a caller's own goes away however it is written; the rest stays as it was
// written, even where that is odd.
func TestQueryKeepsItsBytes(t *testing.T) {
	r := newRig(t, options{})
	token := url.QueryEscape(r.Token(r.t, shop))
	for in, want := range map[string]string{
		"":                                "",
		"?":                               "",
		"?a=1":                            "&a=1",
		"?access_token=":                  "",
		"?access_token=X":                 "",
		"?access_token":                   "",
		"?b=2&access_token=X&a=1":         "&b=2&a=1",
		"?access%5Ftoken=X&a=1":           "&a=1",
		"?%61ccess_token=X":               "",
		"?access_token=X&access_token=Y":  "",
		"?z=%7e+%20&a=%zz&&a=;b":          "&z=%7e+%20&a=%zz&&a=;b",
		"?a=%E4%BD%A0&b=\xe4\xbd\xa0":     "&a=%E4%BD%A0&b=\xe4\xbd\xa0",
		"?xaccess_token=1&Access_Token=2": "&xaccess_token=1&Access_Token=2",
		"?a=access_token=X":               "&a=access_token=X",
	} {
		a := r.call("GET", menu+in, "")
		if want = "/cgi-bin/menu/get?access_token=" + token + want; a.status != 200 {
			t.Errorf("%q: %v", in, a)
		} else if got := r.calls()[0].uri; got != want {
			t.Errorf("%q went out as %q, want %q", in, got, want)
		}
	}
}

// Calls with other credentials go through as they are, and their errors say nothing of our token.
func TestOtherCredentialsPassUntouched(t *testing.T) {
	for _, tt := range []struct{ app, method, path string }{
		{"shop", "GET", "/sns/userinfo?access_token=user%40token&openid=o"},
		{"shop", "GET", "/sns/userinfo?access_token=dead&openid=o"},
		{"shop", "GET", "/SNS/userinfo/?access_token=dead"},
		{"shop", "GET", "/sns/auth?access_token=dead&openid=o"},
		{"shop", "GET", "/sns/jscode2session?appid=" + shop.ID + "&secret=s1&js_code=x"},
		{"shop", "GET", "/sns/oauth2/component/access_token?component_access_token=dead"},
		{"shop", "GET", "/cgi-bin/token?grant_type=client_credential&appid=" + shop.ID + "&secret=no"},
		{"shop", "POST", "/cgi-bin/stable_token"},
		{"shop", "POST", "/cgi-bin/clear_quota/v2?appid=" + shop.ID + "&appsecret=s1"},
		{"shop", "POST", "/cgi-bin/component/api_component_token"},
		{"shop", "POST", "/cgi-bin/component/api_query_auth?access_token=components"},
		{"shop", "GET", "/cgi-bin/menu/get?component_access_token=dead"},
		{"shop", "GET", "/cgi-bin/menu/get?cloudbase_access_token=dead&access_token=x"},
		{"hr", "GET", "/cgi-bin/gettoken?corpid=" + agent1.ID + "&corpsecret=no"},
		{"hr", "POST", "/cgi-bin/service/get_suite_token"},
		{"hr", "POST", "/cgi-bin/service/get_provider_token"},
		{"hr", "GET", "/cgi-bin/service/get_pre_auth_code?suite%5faccess_token=dead"},
		{"hr", "GET", "/cgi-bin/user/get?provider_access_token=dead"},
	} {
		r := newRig(t, options{})
		ours := map[string]string{"shop": r.Token(r.t, shop), "hr": r.Token(r.t, agent1)}[tt.app]
		a := r.call(tt.method, "/proxy/"+tt.app+tt.path, `{"appid":"x"}`)
		calls := r.calls()
		if len(calls) != 1 || calls[0].uri != tt.path {
			t.Errorf("%s reached WeChat as %+v", tt.path, calls)
		}
		if v := a.header.Get("X-Wxtoken-Version"); v != "" || strings.Contains(a.body, ours) {
			t.Errorf("%s: version %q, %v", tt.path, v, a)
		}
		if n := r.WeChat.Calls(shop.CredentialID()).Issued + r.WeChat.Calls(agent1.CredentialID()).Issued; n != 2 {
			t.Errorf("%s: %d tokens were fetched, want the 2 of before", tt.path, n)
		}
		if res := r.last(); res.Injected || res.Outcome != proxy.Answered {
			t.Errorf("%s: %+v", tt.path, res)
		}
	}
}

// Whatever code WeChat rejects a token with, the call is repeated with a new one, body and all.
func TestBadTokenIsReplacedAndTheCallRepeated(t *testing.T) {
	body := `{"touser":"o","text":"` + strings.Repeat("x", 100_000) + `"}`
	sum := sha256.Sum256([]byte(body))
	for _, code := range []int{40001, 40014, 42001} {
		r := newRig(t, options{})
		r.WeChat.Tune(func(k *wechattest.Knobs) { k.KilledCode = code })
		old := r.Token(r.t, shop)
		r.WeChat.KillTokens(shop.CredentialID())

		a := r.call("POST", send+"?lang=zh", body)
		if got := a.header.Get("X-Sim-Body-Sha256"); a.status != 200 || got != hex.EncodeToString(sum[:]) {
			t.Fatalf("%d: %v", code, a)
		}
		calls := r.calls()
		if len(calls) != 2 || calls[1].length != int64(len(body)) || !strings.Contains(calls[0].uri, old) || strings.Contains(calls[1].uri, old) {
			t.Errorf("%d: WeChat saw %+v", code, calls)
		}
		if a.header.Get("X-Wxtoken-Retried") != "1" || len(a.header.Get("X-Wxtoken-Version")) < 13 {
			t.Errorf("%d: headers %v", code, a.header)
		}
		if n := r.WeChat.Calls(shop.CredentialID()).Issued; n != 2 {
			t.Errorf("%d: %d tokens were issued, want 2", code, n)
		}
		if res := r.last(); !res.Retried || !res.Injected || res.App != source.Key(shop) || res.Status != 200 || res.Errcode != 0 {
			t.Errorf("%d: %+v", code, res)
		}
		if a := r.call("GET", menu, ""); a.header.Get("X-Wxtoken-Retried") != "" {
			t.Errorf("%d: the next call: %v", code, a)
		}
	}
}

func TestWeComHasItsOwnCodes(t *testing.T) {
	r := newRig(t, options{})
	r.Token(r.t, agent1)
	r.WeChat.KillTokens(agent1.CredentialID())
	a := r.call("GET", "/proxy/ww3333333333333333:1000001/cgi-bin/getcallbackip", "")
	if a.status != 200 || !strings.Contains(a.body, `"ip_list":["106`) || a.header.Get("X-Wxtoken-Retried") != "1" {
		t.Errorf("40014 on WeCom: %v", a)
	}
	if got := r.calls()[0].host; got != "qyapi.weixin.qq.com" {
		t.Errorf("the host was %q", got)
	}
	// 40001 there is a wrong secret, which no other token can help.
	r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/user/get", Effect: wechattest.EffectErrcode, Code: 40001})
	a = r.call("GET", "/proxy/ww3333333333333333%3a1000001/cgi-bin/user/get", "")
	probes := r.WeChat.Calls(agent1.CredentialID()).Probes - 3 // one of the report above, two calls of the same path
	if calls := r.calls(); len(calls) != 1 || !strings.Contains(a.body, "40001") || probes != 0 {
		t.Errorf("40001 on WeCom: %d calls, %d probes, %v", len(calls), probes, a)
	}
}

// WeChat says 40001 for a token that a probe finds good, because its servers disagree for a moment:
// the call is repeated once with the same token, and what comes then is the answer.
func TestATokenThatWorksIsTriedOnceMore(t *testing.T) {
	for _, times := range []int{1, 2, 3} {
		r := newRig(t, options{})
		before := r.Token(r.t, shop)
		r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/menu/get", Effect: wechattest.EffectErrcode, Code: 40001, Message: "exactly this", Count: times})
		a := r.call("GET", menu, "")
		failed := strings.Contains(a.body, `"errcode":40001`)
		if a.status != 200 || a.header.Get("X-Wxtoken-Retried") != "1" || failed != (times > 1) {
			t.Errorf("rejected %d times: got %v", times, a)
		}
		if n := len(r.calls()); n != 2 {
			t.Errorf("rejected %d times: WeChat saw %d calls, want 2", times, n)
		}
		if r.Token(r.t, shop) != before {
			t.Error("a token that works was replaced")
		}
	}
}

// A probe that says nothing is no reason to call again: nothing suggests that the same token works.
// WeChat's answer would make an SDK ask for a token, get the same one and call again, without an
// end.
func TestARejectionThatCannotBeHealedNowDoesNotPass(t *testing.T) {
	r := newRig(t, options{})
	r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/menu/get", Effect: wechattest.EffectErrcode, Code: 40001, Message: "exactly this"})
	r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/getcallbackip", Effect: wechattest.EffectErrcode, Code: -1})
	a := r.call("GET", menu, "")
	if a.status != 200 || !strings.Contains(a.body, `"errcode":-1`) || a.header.Get("Retry-After") == "" || a.header.Get("X-Wxtoken-Error") != "no_token" {
		t.Errorf("got %v, want -1 and when to come back", a)
	}
	if res := r.last(); res.Errcode != -1 || res.Outcome != proxy.NoToken || len(r.calls()) != 1 {
		t.Errorf("%+v", res)
	}
}

// A token that WeChat is known to reject is not sent at all while there is no other: until the
// allowance has room again, say.
func TestATokenThatIsKnownDeadIsNotSent(t *testing.T) {
	r := newRig(t, options{spec: func(c *tokencache.Credential) { c.Fetches = tokencache.Limit{PerDay: 1} }})
	r.Token(r.t, shop)
	r.WeChat.KillTokens(shop.CredentialID())
	for range 3 {
		a := r.call("GET", menu, "")
		if a.status != 200 || !strings.Contains(a.body, `"errcode":-1`) || a.header.Get("Retry-After") == "" {
			t.Errorf("got %v, want -1 and when to come back", a)
		}
	}
	if n := len(r.calls()); n != 1 {
		t.Errorf("WeChat saw %d calls with a dead token, want the one that found out", n)
	}
}

// A photo of 10 MB cannot be sent twice, so WeChat is asked before whether it accepts the token.
func TestALongUploadIsSentWithATokenThatWorks(t *testing.T) {
	r := newRig(t, options{})
	const size = 10 << 20
	for range 3 {
		if got, a := r.upload(size); got.Size == 0 || strings.Contains(a.body, "errcode") {
			t.Errorf("got %v", a)
		}
		r.WeChat.KillTokens(shop.CredentialID())
		if got, a := r.upload(size); got.Size == 0 || strings.Contains(a.body, "errcode") {
			t.Errorf("after the token died: %v", a)
		}
	}
	// Many at once ask once, and many in a row go by what the others saw.
	before := r.WeChat.Calls(shop.CredentialID()).Probes
	for range 60 {
		r.upload(2 << 20)
	}
	if n := r.WeChat.Calls(shop.CredentialID()).Probes - before; n < 10 || n > 30 {
		t.Errorf("60 uploads in a row made %d probes, want some 20", n)
	}
	// Without a clear answer the call decides.
	r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/getcallbackip", Effect: wechattest.EffectErrcode, Code: 45009})
	if got, a := r.upload(size); got.Size == 0 {
		t.Errorf("without a clear answer of the probe: %v", a)
	}
}

// After the one retry whatever comes goes back, be it another rejection.
func TestThereIsOneRetry(t *testing.T) {
	r := newRig(t, options{})
	r.Token(r.t, shop)
	r.WeChat.KillTokens(shop.CredentialID())
	r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/menu/get", Skip: 1, Effect: wechattest.EffectErrcode, Code: 42001})
	a := r.call("GET", menu, "")
	if n := len(r.calls()); n != 2 || !strings.Contains(a.body, "42001") || a.header.Get("X-Wxtoken-Retried") != "1" {
		t.Errorf("WeChat saw %d calls, want 2; %v", n, a)
	}
}

// Bodies around the limit: with a length, one that cannot be kept is sent once, with a token that
// was tried before; without, it is refused before WeChat sees it. What goes out always has a
// length.
func TestBodiesAroundTheLimit(t *testing.T) {
	const limit = 5000
	body := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	for _, tt := range []struct {
		name     string
		size     int
		chunked  bool
		status   int
		attempts int // with a dead token
	}{
		{"empty", 0, false, 200, 2},
		{"small", 10, false, 200, 2},
		{"small and chunked", 10, true, 200, 2},
		{"at the limit", limit, false, 200, 2},
		{"at the limit and chunked", limit, true, 200, 2},
		{"over the limit", limit + 1, false, 200, 1},
		{"over the limit and chunked", limit + 1, true, 411, 0},
	} {
		r := newRig(t, options{Options: proxy.Options{MaxReplay: limit}})
		r.Token(r.t, shop)
		text := ""
		if tt.size > 0 {
			text = body(tt.size)
		}
		do := func() answer {
			var body io.Reader = strings.NewReader(text)
			if tt.chunked {
				body = io.MultiReader(body) // whose length net/http cannot see
			}
			a, err := r.try(t.Context(), "POST", send, body)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			return a
		}
		sum := sha256.Sum256([]byte(text))
		a := do()
		if tt.status == 200 && tt.size > 0 && a.header.Get("X-Sim-Body-Sha256") != hex.EncodeToString(sum[:]) || a.status != tt.status {
			t.Errorf("%s: %v", tt.name, a)
		}
		for _, c := range r.calls() {
			if c.length != int64(tt.size) || c.header.Get("Transfer-Encoding") != "" {
				t.Errorf("%s: WeChat was told the length %d", tt.name, c.length)
			}
		}
		r.WeChat.KillTokens(shop.CredentialID())
		a = do()
		calls := r.calls()
		if len(calls) != tt.attempts {
			t.Errorf("%s with a dead token: WeChat saw %d calls, want %d", tt.name, len(calls), tt.attempts)
		}
		if strings.Contains(a.body, `"errcode":40001`) {
			t.Errorf("%s with a dead token: %v", tt.name, a)
		}
	}
}
