package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
)

// Which app a plain call is for: the appid, then a token of the cache, then the header, then the
// default.
func TestPlainCallFindsItsApp(t *testing.T) {
	withDefault := newRig(t, options{names: "hr"})
	without := newRig(t, options{})
	for _, tt := range []struct {
		name, query, header string
		with, without       string // the app, or the errcode
	}{
		{"nothing", "", "", "hr", "41002"},
		{"appid", "?appid=wx1111111111111111", "", "shop", "shop"},
		{"appid over token and header", "?access_token=OTHER&appid=wx1111111111111111", "other", "shop", "shop"},
		{"token", "?access_token=OTHER", "", "other", "other"},
		{"token over header", "?a=b&access_token=OTHER", "shop", "other", "other"},
		{"replaced token", "?access_token=REPLACED", "shop", "other", "other"},
		{"header with an alias", "", "shop", "shop", "shop"},
		{"header with an id", "?access_token=garbage", "ww3333333333333333:1000001", "hr", "hr"},
		{"unknown token", "?access_token=garbage", "", "hr", "40001"},
		{"empty appid", "?appid=", "", "hr", "41002"},
		{"unknown header", "", "unknown", "hr", "41002"},
		// A call that names an account must not be sent as the default one.
		{"unknown appid", "?appid=wx9999999999999999", "", "40013", "40013"},
		{"unknown appid, known token", "?appid=wx9999999999999999&access_token=OTHER", "", "other", "other"},
		{"an id that two apps share", "?appid=ww3333333333333333", "", "40013", "40013"},
	} {
		for r, want := range map[*rig]string{withDefault: tt.with, without: tt.without} {
			replaced := r.Token(r.t, other)
			r.WeChat.KillTokens(other.CredentialID())
			r.call("GET", "/proxy/other/cgi-bin/getcallbackip", "")
			tokens := map[string]string{"shop": r.Token(r.t, shop), "other": r.Token(r.t, other), "hr": r.Token(r.t, agent1)}
			r.calls()

			query := strings.NewReplacer("OTHER", url.QueryEscape(tokens["other"]), "REPLACED", url.QueryEscape(replaced)).Replace(tt.query)
			header := []string{"Host", "127.0.0.1:7200"}
			if tt.header != "" {
				header = append(header, "X-Wxtoken-App", tt.header)
			}
			a := r.call("GET", "/cgi-bin/getcallbackip"+query, "", header...)
			calls := r.calls()
			if token, isApp := tokens[want]; !isApp {
				if len(calls) != 0 || a.status != 200 || !strings.Contains(a.body, `"errcode":`+want) || a.header.Get("X-Wxtoken-Error") != "no_app" {
					t.Errorf("%s: want %s and no call, got %d calls, %v", tt.name, want, len(calls), a)
				}
			} else if len(calls) != 1 || a.status != 200 || !strings.Contains(calls[0].uri, "access_token="+token) {
				t.Errorf("%s: want the app %s, got %v", tt.name, want, a)
			} else if calls[0].header.Get("X-Wxtoken-App") != "" || strings.Count(calls[0].uri, "access_token=") != 1 {
				t.Errorf("%s: WeChat saw %+v", tt.name, calls[0])
			}
		}
	}
}

// By WeCom's name no call is for a WeChat app, and the other way round, whatever the default is.
func TestTheHostNameDecidesThePlatform(t *testing.T) {
	r := newRig(t, options{names: "hr"})
	const path = "/cgi-bin/getcallbackip"
	if a := r.call("GET", path, "", "Host", "qyapi.weixin.qq.com"); !strings.Contains(a.body, "ip_list") || r.calls()[0].host != "qyapi.weixin.qq.com" {
		t.Errorf("by WeCom's name: %v", a)
	}
	if a := r.call("GET", path, "", "Host", "api.weixin.qq.com:443"); !strings.Contains(a.body, "41002") || len(r.calls()) != 0 {
		t.Errorf("by WeChat's name, with two apps there and a default on WeCom: %v", a)
	}
	// An SDK takes only the code of its platform for a reason to fetch another token.
	for host, code := range map[string]string{"qyapi.weixin.qq.com": "40014", "hk.api.weixin.qq.com": "40001", "127.0.0.1": "40001"} {
		a := newRig(t, options{}).call("GET", path+"?access_token=garbage", "", "Host", host)
		if !strings.Contains(a.body, `"errcode":`+code) {
			t.Errorf("an unknown token by the name %s: want %s, got %v", host, code, a)
		}
	}
}

// A call that takes no token of the cache needs no app, only to know where WeChat is.
func TestPlainCallWithOtherCredentialsNeedsNoApp(t *testing.T) {
	r := newRig(t, options{})
	const path = "/sns/userinfo?access_token=user%40token&openid=o"
	if a := r.call("GET", path, "", "Host", "api.weixin.qq.com"); !strings.Contains(a.body, `"nickname"`) {
		t.Errorf("by the host: %v", a)
	}
	if calls := r.calls(); len(calls) != 1 || calls[0].uri != path {
		t.Errorf("WeChat saw %+v", calls)
	}
	// Two upstreams are configured; another name than theirs chooses none.
	if a := r.call("GET", path, "", "Host", "evil.example"); !strings.Contains(a.body, "41002") || len(r.calls()) != 0 {
		t.Errorf("by another host: %v", a)
	}
}

// An upstream may have a path prefix, and the set of apps may change while the proxy runs.
func TestUpstreamPrefixAndReload(t *testing.T) {
	r := newRig(t, options{})
	r.call("GET", menu, "")
	r.setBase("gateway.example/wechat/")
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	r.calls()
	a := r.call("GET", menu, "")
	if c := r.calls(); a.status != 204 || c[0].host != "gateway.example" || !strings.HasPrefix(c[0].uri, "/wechat/cgi-bin/menu/get?access_token=") {
		t.Errorf("%v, WeChat saw %+v", a, c)
	}
	if a := r.call("GET", "/proxy/unknown/cgi-bin/menu/get", ""); a.status != 404 || !strings.Contains(a.body, `"errcode":40013`) {
		t.Errorf("unknown app: %v", a)
	}
}

// What belongs between two hosts, to this listener, or to the machinery, does not go on. All else
// does.
func TestRequestHeaders(t *testing.T) {
	r := newRig(t, options{})
	a := r.call("POST", send, "{}",
		"Authorization", "Bearer ours", "Cookie", "a=b", "X-Forwarded-For", "1.2.3.4", "X-Forwarded-Port", "1", "Forwarded", "for=x", "X-Real-Ip", "1.2.3.4",
		"X-Wxtoken-App", "other", "X-Wxtoken-Version", "1", "Proxy-Authorization", "x", "Te", "trailers", "Keep-Alive", "1",
		"Connection", "X-Private, Content-Type", "X-Private", "x", "Accept-Encoding", "gzip", "Trailer", "X-T",
		"Wechatmp-Appid", "wx1", "Wechatmp-Signature", "a+b/c=", "Wechatmp-Timestamp", "1", "User-Agent", "sdk/1", "X-Sdk", "1")
	if a.status != 200 {
		t.Fatal(a)
	}
	got := r.calls()[0].header
	for name, want := range map[string]string{
		"Wechatmp-Appid": "wx1", "Wechatmp-Signature": "a+b/c=", "Wechatmp-Timestamp": "1", "User-Agent": "sdk/1", "X-Sdk": "1",
		"Accept-Encoding": "identity", "Content-Length": "2",
	} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
		got.Del(name)
	}
	if len(got) != 0 {
		t.Errorf("these went on, too: %v", got)
	}
	// Nothing is looked at where nothing is injected, so an encoding does no harm.
	r.call("GET", "/proxy/shop/sns/userinfo", "", "Accept-Encoding", "gzip")
	if got := r.calls()[0].header.Get("Accept-Encoding"); got != "gzip" {
		t.Errorf("Accept-Encoding of /sns: %q", got)
	}
}

// A sidecar that stops asks for no token any more, and says so.
func TestStoppedCacheGivesAnAnswer(t *testing.T) {
	r := newRig(t, options{Options: proxy.Options{Timeout: time.Second}})
	r.Cache.Close()
	a := r.call("GET", menu, "")
	if a.status != 200 || !strings.Contains(a.body, "stopping") || a.header.Get("X-Wxtoken-Error") != "no_token" {
		t.Error(a)
	}
}
