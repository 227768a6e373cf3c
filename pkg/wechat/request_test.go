package wechat_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

// TestRequestsAreWhatWeChatExpects pins method, URL, body and framing of every call.
func TestRequestsAreWhatWeChatExpects(t *testing.T) {
	const api, corp = "https://api.weixin.qq.com/cgi-bin/", "https://qyapi.weixin.qq.com/cgi-bin/"
	stableBody := func(force string) string {
		return `{"grant_type":"client_credential","appid":"wx1","secret":"` + secretCanary + `","force_refresh":` + force + `}`
	}
	want := map[string][2]string{
		"token":        {"GET " + api + "token?appid=wx1&grant_type=client_credential&secret=" + secretCanary, ""},
		"stable":       {"POST " + api + "stable_token", stableBody("false")},
		"forced":       {"POST " + api + "stable_token", stableBody("true")},
		"corp":         {"GET " + corp + "gettoken?corpid=ww1&corpsecret=" + secretCanary, ""},
		"ticket":       {"GET " + api + "ticket/getticket?access_token=" + tokenCanary + "&type=jsapi", ""},
		"card":         {"GET " + api + "ticket/getticket?access_token=" + tokenCanary + "&type=wx_card", ""},
		"corp ticket":  {"GET " + corp + "get_jsapi_ticket?access_token=" + tokenCanary, ""},
		"agent ticket": {"GET " + corp + "ticket/get?access_token=" + tokenCanary + "&type=agent_config", ""},
		"probe":        {"GET " + api + "getcallbackip?access_token=" + tokenCanary, ""},
		"menu probe":   {"GET " + api + "menu/get?access_token=" + tokenCanary, ""},
		"corp probe":   {"GET " + corp + "getcallbackip?access_token=" + tokenCanary, ""},

		"component": {"POST " + api + "component/api_component_token",
			`{"component_appid":"wxp","component_appsecret":"` + secretCanary + `","component_verify_ticket":"` + codeCanary + `"}`},
		"start push": {"POST " + api + "component/api_start_push_ticket", `{"component_appid":"wxp","component_secret":"` + secretCanary + `"}`},
		"authorizer": {"POST " + api + "component/api_authorizer_token?component_access_token=" + tokenCanary,
			`{"component_appid":"wxp","authorizer_appid":"wxa","authorizer_refresh_token":"` + codeCanary + `"}`},
		"query auth": {"POST " + api + "component/api_query_auth?component_access_token=" + tokenCanary,
			`{"component_appid":"wxp","authorization_code":"` + codeCanary + `"}`},
		"info": {"POST " + api + "component/api_get_authorizer_info?component_access_token=" + tokenCanary,
			`{"component_appid":"wxp","authorizer_appid":"wxa"}`},
		"list": {"POST " + api + "component/api_get_authorizer_list?component_access_token=" + tokenCanary,
			`{"component_appid":"wxp","offset":1000,"count":500}`},

		"suite": {"POST " + corp + "service/get_suite_token",
			`{"suite_id":"wws","suite_secret":"` + secretCanary + `","suite_ticket":"` + codeCanary + `"}`},
		"provider":       {"POST " + corp + "service/get_provider_token", `{"corpid":"wwp","provider_secret":"` + secretCanary + `"}`},
		"permanent code": {"POST " + corp + "service/get_permanent_code?suite_access_token=" + tokenCanary, `{"auth_code":"` + codeCanary + `"}`},
		"corp info": {"POST " + corp + "service/get_auth_info?suite_access_token=" + tokenCanary,
			`{"auth_corpid":"wwc","permanent_code":"` + codeCanary + `"}`},
		"short corp info": {"POST " + corp + "service/v2/get_auth_info?suite_access_token=" + tokenCanary,
			`{"auth_corpid":"wwc","permanent_code":"` + codeCanary + `"}`},
		"suite corp": {"POST " + corp + "service/get_corp_token?suite_access_token=" + tokenCanary,
			`{"auth_corpid":"wwc","permanent_code":"` + codeCanary + `"}`},
	}
	for name, call := range allCalls {
		t.Run(name, func(t *testing.T) {
			c := &wechat.Client{HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				if got := [2]string{r.Method + " " + r.URL.String(), string(body)}; got != want[name] {
					t.Errorf("request %q\nwant    %q", got, want[name])
				}
				if r.ContentLength != int64(len(body)) {
					t.Errorf("ContentLength = %d for %d bytes: WeChat answers 412", r.ContentLength, len(body))
				}
				if got, want := r.Header.Get("Content-Type") == "application/json", len(body) > 0; got != want {
					t.Errorf("has a JSON content type: %v, want %v", got, want)
				}
				if !r.Close {
					t.Error("the connection may be reused, and a GET on it sent twice")
				}
				if _, ok := r.Context().Deadline(); !ok {
					t.Error("the call has no deadline")
				}
				return nil, io.EOF
			})}}
			_, err := call(c)
			if !errors.Is(err, io.EOF) {
				t.Errorf("error = %v, want one that is io.EOF", err)
			}
			// This transport says nothing about connections: it may have sent anything.
			if e, ok := errors.AsType[*wechat.Error](err); !ok || !e.Sent {
				t.Errorf("%v counts as not sent", err)
			}
		})
	}
}

func TestBaseURL(t *testing.T) {
	for base, want := range map[string]string{
		"http://127.0.0.1:80":        "http://127.0.0.1:80/cgi-bin/token",
		"http://127.0.0.1:80/":       "http://127.0.0.1:80/cgi-bin/token",
		"https://gw.example/wechat":  "https://gw.example/wechat/cgi-bin/token",
		"https://gw.example/wechat/": "https://gw.example/wechat/cgi-bin/token",
		"":                           "https://api.weixin.qq.com/cgi-bin/token",
		"gw.example":                 "",
		"ftp://gw.example":           "",
		"https://":                   "",
		"http://[::1":                "",
		"\x7f":                       "",
	} {
		var got string
		c := &wechat.Client{BaseURL: base, HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			got, _, _ = strings.Cut(r.URL.String(), "?")
			return nil, io.EOF
		})}}
		_, err := callToken(c)
		if got != want {
			t.Errorf("BaseURL %q: called %q, want %q", base, got, want)
		}
		if want == "" {
			e, _ := errors.AsType[*wechat.Error](err)
			if e == nil || e.Sent || e.MayHaveIssued() || e.Class() != wechat.ClassConfig || e.Advice() == "" {
				t.Errorf("BaseURL %q: %v is not a mistake in the configuration that was never sent", base, err)
			}
		}
	}
}

func TestTicketTypesOfTheOtherPlatformAreRefusedUnsent(t *testing.T) {
	c := &wechat.Client{HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, io.EOF
	})}}
	_, err1 := c.Ticket(t.Context(), token, wechat.TicketAgentConfig)
	_, err2 := c.CorpTicket(t.Context(), token, wechat.TicketWXCard)
	err3 := c.Probe(t.Context(), token, wechat.Probe(99))
	for _, err := range []error{err1, err2, err3} {
		if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Sent || e.Class() != wechat.ClassConfig {
			t.Errorf("error = %v, want an unsent one", err)
		}
	}
}

func TestSuppliedClientFollowsNoRedirectAndSendsNoCookie(t *testing.T) {
	var elsewhere int
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	for name, call := range allCalls {
		c := &wechat.Client{BaseURL: srv.URL, HTTP: &http.Client{}}
		_, err := call(c)
		if got := describe(t, err); got.Status != http.StatusTemporaryRedirect || got.Class != wechat.ClassConfig {
			t.Errorf("%s: %+v, want the redirect itself", name, got)
		}
	}
	if elsewhere != 0 {
		t.Errorf("%d requests were redirected", elsewhere)
	}
}

// TestNothingIsSentTwice: WeChat acts on a request and the connection dies without an answer.
// net/http would send a GET again if it had come over a reused connection.
func TestNothingIsSentTwice(t *testing.T) {
	var conns, requests atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("the request came over %s", r.Proto)
		}
		if requests.Add(1)%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"access_token":"97_x","expires_in":7200}`)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	// The client of the package, and one that is given to it and would reuse connections.
	for name, h := range map[string]*http.Client{"own": nil, "given": srv.Client()} {
		conns.Store(0)
		requests.Store(0)
		c := &wechat.Client{BaseURL: srv.URL, HTTP: h}
		_, err1 := callToken(c)
		_, err2 := callToken(c)
		if err1 != nil || err2 == nil || !describe(t, err2).MayIssued {
			t.Errorf("%s: %v, then %v; want a token, then an unclear error", name, err1, err2)
		}
		if conns.Load() != 2 || requests.Load() != 2 {
			t.Errorf("%s: %d requests over %d connections, want 2 over 2", name, requests.Load(), conns.Load())
		}
	}
}
