package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// Every reason for which there is no value has an errcode that SDKs know.
func TestDropInSaysWhyThereIsNoValue(t *testing.T) {
	spent := func(c *tokencache.Credential) { c.Fetches = tokencache.Limit{PerDay: -1} }
	fault := func(code int) func(*stack) {
		return func(s *stack) { s.WeChat.AddFault(wechattest.Fault{Effect: wechattest.EffectErrcode, Code: code}) }
	}
	for _, c := range []struct {
		name    string
		spoil   func(*stack)
		adjust  func(*tokencache.Credential)
		errcode int
		text    string
	}{
		{"wrong secret", fault(40125), nil, 40125, "invalid appsecret rid: "},
		{"frozen secret", fault(40243), nil, 40243, ""},
		{"not in the whitelist", fault(40164), nil, 40164, "invalid ip 203.0.113.7"},
		{"WeChat's quota", fault(45009), nil, 45009, "reach max api daily quota limit"},
		{"WeChat's minute", fault(45011), nil, 45011, "api minute-quota"},
		{"busy", fault(-1), nil, -1, "system error rid: "},
		{"no answer", func(s *stack) { s.WeChat.AddFault(wechattest.Fault{Effect: wechattest.EffectHang}) }, nil, -1, "system error (wxtoken: "},
		{"broken answer", func(s *stack) { s.WeChat.AddFault(wechattest.Fault{Effect: wechattest.EffectStatus, Status: 502}) }, nil, -1, "system error (wxtoken: "},
		{"our allowance", func(*stack) {}, spent, 45009, "reach max api daily quota limit (wxtoken: The sidecar limits"},
		{"no Redis", func(s *stack) { s.Redis.SetError("LOADING") }, nil, -1, "system error (wxtoken: Redis"},
		{"closed", func(s *stack) { s.Cache.Close() }, nil, -1, "system error (wxtoken: "},
		{"not in the cache", func(s *stack) { _ = s.Cache.Set() }, nil, -1, "system error (wxtoken: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStack(t, api.Options{}, c.adjust, classic)
				c.spoil(s)
				for range 2 { // the second one finds the failure remembered
					w := s.call("GET", "/cgi-bin/token?grant_type=client_credential&secret=CANARY-x&appid="+classic.ID, "")
					if text := wantErrcode(t, w, c.errcode); !strings.HasPrefix(text, c.text) {
						t.Errorf("errmsg %q, want it to begin with %q", text, c.text)
					}
					if strings.Contains(w.Body.String(), "CANARY") {
						t.Errorf("a secret in %s", w.Body)
					}
				}
			})
		})
	}
}

// Too many at once, and a bug, look like WeChat's own bad moments: SDKs wait and try again.
func TestDropInOverloadIsASystemError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{MaxInFlight: 1, Timeout: time.Minute}, nil, classic)
		s.WeChat.AddFault(wechattest.Fault{Delay: 5 * time.Second})
		const target = "/cgi-bin/token?grant_type=client_credential&appid=wx0000000000000002"
		go s.call("GET", target, "")
		synctest.Wait()
		w := s.call("GET", target, "")
		if text := wantErrcode(t, w, -1); !strings.HasPrefix(text, "system error") || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %s %v", text, w.Header())
		}
		time.Sleep(time.Minute)
	})
}

// force_refresh is a report: a value that works stays, one that WeChat rejects is replaced once,
// and nothing is replaced more often than the budget allows.
func TestForcedRefreshIsAReport(t *testing.T) {
	const body = `{"grant_type":"client_credential","appid":"wx0000000000000001","force_refresh":true}`
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		first := s.Token(t, plain)
		force := func() string {
			var a answer
			w := s.call("POST", "/cgi-bin/stable_token", body)
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.AccessToken == "" {
				t.Fatalf("got %s, %v", w.Body, err)
			}
			return a.AccessToken
		}
		time.Sleep(time.Minute)
		for range 3 {
			if force() != first {
				t.Error("a token that works was replaced")
			}
		}
		if n := s.Fetches(plain); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		s.WeChat.KillTokens(plain.ID)
		got := make(chan string, 20)
		for range cap(got) {
			go func() { got <- force() }()
		}
		second := <-got
		for range cap(got) - 1 {
			if next := <-got; next != second {
				t.Error("two callers got different tokens")
			}
		}
		if second == first || !s.WeChat.Valid(plain.ID, second) {
			t.Errorf("the dead token is still handed out")
		}
		if n := s.Fetches(plain); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// A value in doubt has a life of which nothing is sure. SDKs take a minute or less for an error, or
// ask again at each call.
func TestDropInStaleValueHasALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, classic)
		first := s.Token(t, classic)
		s.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/token", Effect: wechattest.EffectStatus, Status: 502})
		time.Sleep(2*time.Hour - time.Minute)
		unsure := 0
		for range 120 {
			token, err := s.Cache.Get(context.Background(), tokencache.Key{App: classic.ID, Kind: "access_token"})
			w := s.call("GET", "/cgi-bin/token?grant_type=client_credential&appid="+classic.ID, "")
			if err == nil && token.ExpiresIn < time.Second {
				unsure++
			}
			said := int(token.ExpiresIn.Seconds())
			if token.Stale {
				said = max(61, said)
			}
			if err != nil || said < 2 {
				wantErrcode(t, w, -1)
			} else if want := fmt.Sprintf(`{"access_token":%q,"expires_in":%d}`, first, said); w.Body.String() != want {
				t.Fatalf("got %s, want %s", w.Body, want)
			}
			time.Sleep(time.Second)
		}
		if unsure == 0 {
			t.Error("the test has not seen what it is about")
		}
	})
}

// A token that WeChat rejects, and that may not be replaced now, is none for an SDK: with it, it
// would call, be refused and ask again, without an end (wechatpy: 485 calls of one).
func TestADeadTokenIsNotGivenToAnSDK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, func(c *tokencache.Credential) { c.Fetches = tokencache.Limit{PerDay: 1} }, plain)
		first := s.Token(t, plain)
		s.WeChat.KillTokens(plain.ID)
		time.Sleep(time.Minute)
		if w := s.call("POST", "/v1/apps/shop/token/report", `{"access_token":"`+first+`"}`); w.Code != 200 || !strings.Contains(w.Body.String(), `"stale":true`) {
			t.Fatalf("the report: %d %s", w.Code, w.Body)
		}
		for _, w := range []*httptest.ResponseRecorder{
			s.call("GET", "/cgi-bin/token?grant_type=client_credential&appid=shop", ""),
			s.call("POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"shop"}`),
			s.call("POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"shop","force_refresh":true}`),
		} {
			if w.Code != 200 || strings.Contains(w.Body.String(), "access_token") || w.Header().Get("Retry-After") == "" {
				t.Errorf("an SDK gets %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
			}
		}
		if w := s.call("GET", "/v1/apps/shop/token", ""); !strings.Contains(w.Body.String(), `"stale":true`) {
			t.Errorf("/v1 says %s", w.Body)
		}
	})
}

// Secrets, tokens and tickets leave through answers of their own and through nothing else.
func TestDropInRevealsNoOtherValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, everyApp...)
		var told []string // to callers
		all := func() {
			for _, a := range everyApp {
				q := "grant_type=client_credential&appid=" + a.ID + "&corpid=" + a.ID + "&secret=" + a.Secret.Reveal() + "&corpsecret=" + a.Secret.Reveal()
				body, _ := json.Marshal(map[string]any{"grant_type": "client_credential", "appid": a.ID, "secret": a.Secret.Reveal(), "force_refresh": true})
				told = append(told, s.call("GET", "/cgi-bin/token?"+q, "").Body.String(), s.call("POST", "/cgi-bin/token", q).Body.String(),
					s.call("POST", "/cgi-bin/stable_token", string(body)).Body.String(), s.call("GET", "/cgi-bin/gettoken?"+q, "").Body.String(),
					s.call("GET", "/cgi-bin/"+a.Secret.Reveal(), "").Body.String())
				for _, path := range []string{"ticket/getticket?type=jsapi", "ticket/get?type=agent_config", "get_jsapi_ticket?x"} {
					for _, value := range []string{a.Secret.Reveal(), "CANARY-token"} {
						told = append(told, s.call("GET", "/cgi-bin/"+path+"&access_token="+value, "").Body.String())
					}
				}
				name := url.PathEscape(a.CredentialID())
				told = append(told, s.call("GET", "/v1/apps/"+name+"/tickets/jsapi", "").Body.String(),
					s.call("POST", "/v1/apps/"+name+"/jssdk", `{"url":"https://CANARY.example/"}`).Body.String())
			}
		}
		all()
		s.WeChat.AddFault(wechattest.Fault{Effect: wechattest.EffectHTML}) // which quotes the request
		time.Sleep(119*time.Minute + 55*time.Second)
		all()
		time.Sleep(time.Minute)
		all()
		if text := strings.Join(told, ""); strings.Contains(text, "CANARY") || !strings.Contains(text, "access_token") || !strings.Contains(text, `"ticket"`) {
			t.Errorf("callers were told %s", text)
		}
		var logs strings.Builder
		for _, e := range s.logs.All() {
			fmt.Fprintln(&logs, e.Message, e.ContextMap())
		}
		metrics, err := testutil.GatherAndCount(s.registry)
		if err != nil || metrics == 0 || logs.Len() == 0 {
			t.Fatalf("%d metrics, %v, log: %s", metrics, err, logs.String())
		}
		families, _ := s.registry.Gather()
		seen := logs.String() + fmt.Sprint(families)
		hidden := []string{"CANARY", "CANARY-token"}
		for _, a := range everyApp {
			hidden = append(hidden, a.Secret.Reveal())
			for _, issue := range s.WeChat.Issued(a.CredentialID()) {
				hidden = append(hidden, issue.Value)
			}
		}
		if form := secrettest.Find(seen, hidden...); form != "" {
			t.Errorf("%s went to another host", form)
		}
	})
}
