package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
)

// onward is behind the faces: it notes what would go on to WeChat.
type onward struct{ paths []string }

func (o *onward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.paths = append(o.paths, r.URL.Path+"?"+r.URL.RawQuery)
}

// No spelling of a path that asks for a token takes a caller's secret to WeChat.
func TestNoSpellingOfATokenCallGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var on onward
		s := newStack(t, api.Options{Proxy: &on, Plain: &on}, nil, plain, lone)
		query := map[string]string{
			"/cgi-bin/token":    "grant_type=client_credential&appid=wx0000000000000001&secret=CANARY",
			"/cgi-bin/gettoken": "corpid=ww0000000000000004&corpsecret=CANARY",
		}
		for path, q := range query {
			for _, spelled := range []string{
				path, "/" + path, path + "/", path + "//", strings.ToUpper(path), strings.Replace(path, "t", "%74", 1), strings.ReplaceAll(path, "/", "//"),
				"/proxy/shop" + path, "/proxy/lone/" + path, "/proxy/shop" + strings.ToUpper(path) + "/", "//proxy//shop" + path,
			} {
				if w := s.call("GET", spelled+"?"+q, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"access_token":"`) && !strings.Contains(w.Body.String(), "errcode") {
					t.Errorf("%s: got %d %s", spelled, w.Code, w.Body)
				}
			}
		}
		if len(on.paths) > 0 {
			t.Errorf("went on to WeChat: %q", on.paths)
		}
		// Another path goes on, with single slashes.
		s.call("POST", "//cgi-bin/message//mass/delete?access_token=x", "")
		if len(on.paths) != 1 || on.paths[0] != "/cgi-bin/message/mass/delete?access_token=x" {
			t.Errorf("went on to WeChat: %q", on.paths)
		}
	})
}

// SDKs ask for tickets by POST, with the parameters where they like.
func TestTicketsAreGivenByPOST(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain, lone)
		wechat, wecom := s.Token(t, plain), s.Token(t, lone)
		for _, c := range []struct{ path, body string }{
			{"/cgi-bin/ticket/getticket?type=jsapi&access_token=" + wechat, ""},
			{"/cgi-bin/ticket/getticket/?type=jsapi", "access_token=" + wechat},
			{"/cgi-bin/ticket/getticket", `{"type":"jsapi","access_token":"` + wechat + `"}`},
			{"//cgi-bin/get_jsapi_ticket?access_token=" + wecom, ""},
			{"/cgi-bin/ticket/get?type=agent_config&access_token=" + wecom, ""},
		} {
			var a struct{ Ticket string }
			w := s.call("POST", c.path, c.body)
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 || a.Ticket == "" {
				t.Errorf("%s: got %d %s", c.path, w.Code, w.Body)
			}
		}
	})
}

// A ticket needs no entry in the configuration, and costs nothing until it is asked for.
func TestATicketIsKeptFromTheFirstTimeThatItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, classic, agent2)
		if n := len(s.Cache.Status()); n != 2 {
			t.Errorf("%d credentials are kept before any ticket is asked for, want the 2 tokens", n)
		}
		for _, path := range []string{
			"/cgi-bin/ticket/getticket?type=wx_card&access_token=" + s.Token(t, classic),
			"/cgi-bin/ticket/get?type=agent_config&access_token=" + s.Token(t, agent2),
		} {
			if w := s.call("GET", path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"ticket":"`) {
				t.Errorf("%s: got %d %s", path, w.Code, w.Body)
			}
		}
		if w := s.call("POST", "/v1/apps/wx0000000000000002/jssdk", `{"url":"https://a"}`); w.Code != 200 {
			t.Errorf("jssdk: got %d %s", w.Code, w.Body)
		}
		if n := len(s.Cache.Status()); n != 5 {
			t.Errorf("%d credentials are kept, want 5", n)
		}
	})
}

// Of several agents of a corp, a call gets the one that it names by path or header, whatever secret
// it sends.
func TestGettokenGivesTheAgentThatTheCallNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var on onward
		s := newStack(t, api.Options{Proxy: &on, Plain: &on}, nil, agent1, agent2, lone, guarded)
		const dummy = "?corpid=ww0000000000000005&corpsecret=dummy"
		for _, c := range []struct{ path, header, want string }{
			{"/proxy/ww0000000000000005:1000001/cgi-bin/gettoken" + dummy, "", s.Token(t, agent1)},
			{"/proxy/ww0000000000000005:1000002/cgi-bin/gettoken" + dummy, "", s.Token(t, agent2)},
			{"/proxy/ww0000000000000005:1000002/cgi-bin/gettoken?corpid=anything", "", s.Token(t, agent2)},
			{"/cgi-bin/gettoken" + dummy, "ww0000000000000005:1000002", s.Token(t, agent2)},
			{"/cgi-bin/gettoken" + dummy, "lone", "40013"},
			{"/cgi-bin/gettoken" + dummy, "", "40001"},
			{"/cgi-bin/gettoken?corpid=ww0000000000000007&corpsecret=dummy", "ww0000000000000007:1000001", "40001"},
		} {
			var header []string
			if c.header != "" {
				header = []string{"X-Wxtoken-App", c.header}
			}
			if w := s.call("GET", c.path, "", header...); !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%s (%s): got %s, want %s", c.path, c.header, w.Body, c.want)
			}
		}
	})
}

// Below /proxy/{app} the path decides for which app a call of a drop-in path is: an SDK with that
// base URL gets the tokens and tickets of that app from the cache, and those of no other.
func TestThePathDecidesForWhichAppATokenOrATicketIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var on onward
		s := newStack(t, api.Options{Proxy: &on, Plain: &on}, nil, everyApp...)
		shop, two := "/proxy/shop", "/proxy/ww0000000000000005:1000002"
		for _, c := range []struct{ method, path, body, want string }{
			{"GET", shop + "/cgi-bin/token?grant_type=client_credential&secret=x", "", s.Token(t, plain)},
			{"GET", shop + "/cgi-bin/token?grant_type=client_credential&appid=wx0000000000000001", "", s.Token(t, plain)},
			{"POST", shop + "/cgi-bin/stable_token", `{"grant_type":"client_credential"}`, s.Token(t, plain)},
			{"GET", shop + "/cgi-bin/ticket/getticket?type=jsapi&access_token=unknown", "", s.Ticket(t, plain, "jsapi")},
			{"GET", shop + "/cgi-bin/ticket/getticket?type=jsapi&access_token=" + s.Token(t, classic), "", s.Ticket(t, plain, "jsapi")},
			{"GET", shop + "/cgi-bin/ticket/getticket/?type=wx_card", "", s.Ticket(t, plain, "wx_card")},
			{"GET", two + "/cgi-bin/gettoken", "", s.Token(t, agent2)},
			{"GET", two + "/cgi-bin/get_jsapi_ticket", "", `"ticket":"`},
			{"GET", two + "/cgi-bin/ticket/get?type=agent_config", "", `"ticket":"`},
			// Another account, or a path of the other platform.
			{"GET", shop + "/cgi-bin/token?grant_type=client_credential&appid=wx0000000000000002", "", "40013"},
			{"POST", shop + "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"wx0000000000000002"}`, "40013"},
			{"GET", shop + "/cgi-bin/ticket/getticket?type=jsapi&appid=wx0000000000000002", "", "40013"},
			{"GET", two + "/cgi-bin/gettoken?corpid=ww0000000000000004", "", "40013"},
			{"GET", shop + "/cgi-bin/gettoken", "", "40013"},
			{"GET", two + "/cgi-bin/token?grant_type=client_credential", "", "40013"},
			{"GET", two + "/cgi-bin/ticket/getticket?type=jsapi", "", "40013"},
			{"GET", "/proxy/unknown/cgi-bin/ticket/getticket?type=jsapi", "", "40013"},
			// An app that demands its secret goes on demanding it.
			{"GET", "/proxy/wx0000000000000003/cgi-bin/token?grant_type=client_credential", "", "41004"},
			{"GET", "/proxy/wx0000000000000003/cgi-bin/ticket/getticket?type=jsapi&access_token=" + s.Token(t, plain), "", "40001"},
			{"GET", "/proxy/wx0000000000000003/cgi-bin/ticket/getticket?type=jsapi&access_token=" + s.Token(t, strict), "", s.Ticket(t, strict, "jsapi")},
		} {
			if w := s.call(c.method, c.path, c.body); w.Code != 200 || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%s %s: got %d %s, want %s", c.path, c.body, w.Code, w.Body, c.want)
			}
		}
		if len(on.paths) > 0 {
			t.Errorf("went on to WeChat: %q", on.paths)
		}
	})
}

// What is in memory is given however many calls wait: for WeChat, for a refresh, or for their own
// body.
func TestMemoryAnswersWhateverOthersWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		s := newStack(t, api.Options{MaxInFlight: 2, Proxy: hang, Plain: hang, Timeout: time.Minute}, nil, plain)
		s.Token(t, plain)
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		call := func(method, path string, body func() (byte, error)) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, path, nil)
			if body != nil {
				r = httptest.NewRequest(method, path, slow(body))
			}
			r.Host = "localhost"
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r.WithContext(ctx))
			return w
		}
		for range 5 {
			go call("GET", "/proxy/shop/cgi-bin/menu/get", nil)
			go call("GET", "/cgi-bin/menu/get", nil)
			go call("POST", tokenPath+"/report", func() (byte, error) { <-ctx.Done(); return 0, ctx.Err() })
		}
		synctest.Wait()
		if w := call("GET", "/cgi-bin/menu/get", nil); !strings.Contains(w.Body.String(), `"errcode":-1,`) || w.Header().Get("Retry-After") != "1" {
			t.Errorf("one proxied call more: %d %s", w.Code, w.Body)
		}
		for range 100 {
			if w := s.call("GET", tokenPath, ""); w.Code != 200 {
				t.Fatalf("a read from memory: %d %s", w.Code, w.Body)
			}
		}
	})
}

// slow is a body whose bytes come one by one.
type slow func() (byte, error)

func (s slow) Read(p []byte) (int, error) {
	b, err := s()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}
