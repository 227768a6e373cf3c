package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// A program that logs users in needs no AppSecret: whatever it sends in its place, or nothing.
func TestALoginGetsTheSecretOfItsApp(t *testing.T) {
	r := newRig(t, options{})
	for _, target := range []string{
		"/sns/jscode2session?appid=" + shop.ID + "&secret=any&js_code=c&grant_type=authorization_code",
		"/sns/jscode2session?appid=" + shop.ID + "&js_code=c",
		"/sns/jscode2session?js_code=c&secret=&appid=" + shop.ID,
		"/SNS/jscode2session/?appid=" + shop.ID + "&secret=any&secret=again",
		"/sns/oauth2/access_token?appid=" + shop.ID + "&secret=any&code=c&grant_type=authorization_code",
	} {
		for _, prefix := range []string{"", "/proxy/shop"} {
			a := r.call("GET", prefix+target, "")
			seen := r.calls()
			if len(seen) != 1 || !strings.Contains(seen[0].uri, "?secret="+shop.Secret.Reveal()+"&") || strings.Count(seen[0].uri, "secret=") != 1 || strings.Contains(seen[0].uri, "any") {
				t.Errorf("%s%s: WeChat saw %+v, and said %v", prefix, target, seen, a)
			}
			if res := r.last(); !res.Secret || res.App != source.Key(shop) || res.Injected {
				t.Errorf("%s%s: counted as %+v", prefix, target, res)
			}
			if form := secrettest.Find(a.String(), "CANARY", shop.Secret.Reveal()+"&"); form != "" {
				t.Errorf("%s%s: the caller sees %s", prefix, target, form)
			}
		}
	}
	// The path names the app, so the call need not.
	if r.call("GET", "/proxy/shop/sns/jscode2session?js_code=c", ""); r.calls()[0].uri != "/sns/jscode2session?appid="+shop.ID+"&secret=s1&js_code=c" {
		t.Error("by the path alone: not the appid and the secret")
	}
	r.last()
	// The true secret, and what is no login, pass as they are.
	for _, target := range []string{
		"/sns/jscode2session?appid=" + shop.ID + "&secret=" + shop.Secret.Reveal() + "&js_code=c",
		"/sns/oauth2/refresh_token?appid=" + shop.ID + "&refresh_token=x",
		"/sns/userinfo?access_token=u&secret=any&appid=" + shop.ID,
	} {
		r.call("GET", target, "")
		if seen := r.calls(); len(seen) != 1 || seen[0].uri != target || r.last().Secret {
			t.Errorf("%s: WeChat saw %+v", target, seen)
		}
	}
}

// The reset of a quota has its parameters in the query, in a JSON object or in a form.
func TestAQuotaResetGetsTheSecretOfItsApp(t *testing.T) {
	r := newRig(t, options{})
	var got string
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b := new(strings.Builder)
		_ = req.Write(b)
		_, got, _ = strings.Cut(b.String(), "\r\n\r\n")
		_, _ = w.Write([]byte(`{"errcode":0}`))
	})
	const path = "/cgi-bin/clear_quota/v2"
	for body, want := range map[string]string{
		`{"appid":"` + other.ID + `","appsecret":"any","x":[1, 2]}`: `{"appid":"` + other.ID + `","appsecret":"s2","x":[1,2]}`,
		`{"appid":"` + other.ID + `"}`:                              `{"appid":"` + other.ID + `","appsecret":"s2"}`,
		"appid=" + other.ID + "&appsecret=any":                      "appid=" + other.ID + "&appsecret=s2",
		`{"appid":"` + other.ID + `","appsecret":"s2"}`:             `{"appid":"` + other.ID + `","appsecret":"s2"}`,
		`{"appid":"wx9999999999999999","appsecret":"any"}`:          `{"appid":"wx9999999999999999","appsecret":"any"}`,
		`{"appid":1}`: `{"appid":1}`, "{": "{", "": "",
	} {
		a := r.call("POST", path, body, "Host", "api.weixin.qq.com")
		if a.status != 200 || got != want {
			t.Errorf("%s: WeChat got %q, want %q; %v", body, got, want, a)
		}
	}
	r.calls()
	r.call("POST", path+"?appid="+other.ID+"&appsecret=any", "")
	if seen := r.calls(); len(seen) != 1 || seen[0].uri != path+"?appsecret=s2&appid="+other.ID {
		t.Errorf("in the query: WeChat saw %+v", seen)
	}
	// By the path of another app, the body's appid is not believed.
	if r.call("POST", "/proxy/shop"+path, `{"appid":"`+other.ID+`","appsecret":"any"}`); !strings.Contains(got, `"any"`) {
		t.Errorf("by another app's path: WeChat got %q", got)
	}
}

// The secret goes to the upstream of its own app only, and not at all for an app that demands it.
func TestTheSecretStaysWithItsApp(t *testing.T) {
	r := newRig(t, options{})
	one, two := shop, other
	one.APIBase, one.Secret = "http://one.example", secret.New("CANARY1")
	two.APIBase, two.Secret, two.RequireSecret = "http://two.example", secret.New("CANARY2"), true
	r.Set(t, one, two)
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", "https://elsewhere.example/?"+req.URL.RawQuery)
		w.WriteHeader(http.StatusFound)
	})
	for _, c := range []struct{ target, host, secret string }{
		{"/sns/jscode2session?appid=" + shop.ID + "&secret=any", "one.example", "CANARY1"},
		{"/sns/jscode2session?appid=" + other.ID + "&secret=any", "two.example", "any"},
		{"/proxy/other/sns/jscode2session?appid=" + other.ID + "&secret=any", "two.example", "any"},
		{"/proxy/other/sns/jscode2session?secret=any", "two.example", "any"},
	} {
		a := r.call("GET", c.target, "", "Host", "two.example")
		seen := r.calls()
		if len(seen) != 1 || seen[0].host != c.host || !strings.Contains(seen[0].uri, "secret="+c.secret) {
			t.Errorf("%s: WeChat saw %+v", c.target, seen)
		}
		if strings.Contains(a.header.Get("Location"), "CANARY") {
			t.Errorf("%s: the caller sees the secret: %v", c.target, a)
		}
	}
	// Of another account nothing is known here: what was sent goes where a call without an app goes.
	const foreign = "/sns/jscode2session?appid=wx9999999999999999&secret=mine"
	if r.call("GET", foreign, "", "Host", "one.example"); len(r.calls()) != 1 {
		t.Error("another account's login did not pass")
	}
}

// The path decides for which app a call is.
func TestAnotherAppidThanThePathsIsRefused(t *testing.T) {
	r := newRig(t, options{})
	for _, path := range []string{"/cgi-bin/getcallbackip", "/sns/jscode2session"} {
		a := r.call("GET", "/proxy/shop"+path+"?secret=any&appid="+other.ID, "")
		if !strings.Contains(a.body, `"errcode":40013`) || a.header.Get("X-Wxtoken-Error") != "no_app" || len(r.calls()) != 0 {
			t.Errorf("%s: %v", path, a)
		}
		if a := r.call("GET", "/proxy/shop"+path+"?secret=any&appid="+shop.ID, ""); strings.Contains(a.body, "wxtoken") || len(r.calls()) != 1 {
			t.Errorf("%s with its own appid: %v", path, a)
		}
	}
}
