package api_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

func TestTicketAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, everyApp...)
		for path, want := range map[string]struct {
			app  config.App
			name string
		}{
			"/v1/apps/shop/tickets/jsapi":                              {plain, "jsapi"},
			"/v1/apps/wx0000000000000001/tickets/wx_card":              {plain, "wx_card"},
			"/v1/apps/lone/tickets/agent_config":                       {lone, "agent_config"},
			"/v1/apps/ww0000000000000005:1000001/tickets/agent_config": {agent1, "agent_config"},
			// Without an entry in the configuration.
			"/v1/apps/wx0000000000000002/tickets/jsapi":                {classic, "jsapi"},
			"/v1/apps/ww0000000000000005:1000002/tickets/agent_config": {agent2, "agent_config"},
		} {
			key := source.TicketKey(want.app, want.name)
			s.call("GET", path, "") // which lets the cache keep it, if the configuration does not name it
			token, err := s.Cache.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			golden := fmt.Sprintf(`{"ticket":"%s","expires_in":3600,"expires_at":%d,"version":%d,"stale":false}`+"\n",
				token.Value.Reveal(), time.Now().Add(time.Hour).Unix(), token.Version)
			w := s.call("GET", path, "")
			if w.Code != 200 || w.Body.String() != golden || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s: got %d %s, want %s", path, w.Code, w.Body, golden)
			}
			if got := s.call("GET", path, "", "Accept", "text/plain").Body.String(); got != token.Value.Reveal() {
				t.Errorf("%s as text: got %s", path, got)
			}
		}
		for path, hint := range map[string]string{
			"/v1/apps/shop/tickets/agent_config": "jsapi and wx_card",
			"/v1/apps/lone/tickets/wx_card":      "jsapi and agent_config",
			"/v1/apps/shop/tickets/CANARY":       "jsapi and wx_card",
		} {
			p := webtest.WantProblem(t, s.call("GET", path, ""), 404, "no-such-ticket")
			if !strings.Contains(p.Detail, hint) || strings.Contains(p.Detail, "CANARY") {
				t.Errorf("%s: %s", path, p.Detail)
			}
		}
		webtest.WantProblem(t, s.call("GET", "/v1/apps/other/tickets/jsapi", ""), 404, "unknown-app")
		webtest.WantProblem(t, s.call("POST", "/v1/apps/shop/tickets/jsapi", ""), 405, "method-not-allowed")
	})
}

// A ticket that cannot be had says why, and is logged under its own name.
func TestNoTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		s.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/ticket/getticket", Effect: wechattest.EffectErrcode, Code: 45009})
		p := webtest.WantProblem(t, s.call("GET", "/v1/apps/shop/tickets/jsapi", ""), 503, "upstream")
		if p.Errcode != 45009 || p.RetryAfter == 0 {
			t.Errorf("got %+v", p)
		}
		webtest.WantProblem(t, s.call("POST", "/v1/apps/shop/jssdk", `{"url":"https://a.example/"}`), 503, "upstream")
		got := s.logs.FilterMessage("callers got no value").All()
		if len(got) != 1 || got[0].ContextMap()["kind"] != "jsapi_ticket" {
			t.Errorf("log: %v", got)
		}
	})
}

// Which app a ticket is for: the token that an SDK sends says it, or whatever else names the app.
func TestDropInTicketFindsItsApp(t *testing.T) {
	second := config.App{ID: "wx0000000000000009", Alias: "second", Secret: secret.New("CANARY-s9"), Endpoint: config.EndpointStable, Tickets: []string{"jsapi"}}
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain, second, lone)
		const path = "/cgi-bin/ticket/getticket?type=jsapi"
		old := s.Token(t, plain)
		time.Sleep(time.Minute)
		s.WeChat.KillTokens(plain.ID)
		if _, err := s.Cache.Report(t.Context(), source.Key(plain), secret.New(old)); err != nil {
			t.Fatal(err)
		}
		one, two, corp := s.Ticket(t, plain, "jsapi"), s.Ticket(t, second, "jsapi"), s.Ticket(t, lone, "jsapi")
		if old == s.Token(t, plain) {
			t.Fatal("the token was not replaced")
		}
		for _, c := range []struct{ target, header, want string }{
			{path + "&access_token=" + s.Token(t, plain), "", one},
			{path + "&access_token=" + s.Token(t, second), "", two},
			{path + "&access_token=" + old, "", one},      // lately replaced
			{path + "&appid=wx0000000000000009", "", two}, // without a token
			{path + "&appid=second&access_token=garbage", "", two},
			{path + "&appid=second&access_token=" + old, "", two},
			{path, "second", two},
			{path + "&access_token=garbage", "shop", one},
			{path + "&access_token=" + s.Token(t, plain), "second", one}, // the token says more
			{"/cgi-bin/get_jsapi_ticket?access_token=garbage", "", corp}, // there is no other
			{"/cgi-bin/get_jsapi_ticket", "", corp},
		} {
			w := s.call("GET", c.target, "", "X-Wxtoken-App", c.header)
			if want := fmt.Sprintf(`"ticket":"%s"`, c.want); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s, %q: got %s, want %s", c.target, c.header, w.Body, want)
			}
		}
		for _, c := range []struct {
			target, header string
			errcode        int
		}{
			{path, "", 41001}, {path + "&access_token=garbage", "", 40001}, {path, "unknown", 41001},
			{path + "&access_token=" + one, "", 40001}, // a ticket is no token
			{path + "&appid=unknown", "second", 40013}, // a call that names an account must not be answered as another one
			{path + "&appid=lone", "", 40013},
		} {
			wantErrcode(t, s.call("GET", c.target, "", "X-Wxtoken-App", c.header), c.errcode)
		}
	})
}

type signature struct {
	AppID     string `json:"appId"`
	Timestamp int64  `json:"timestamp"`
	NonceStr  string `json:"nonceStr"`
	Signature string `json:"signature"`
}

// decodeStrict decodes the body of a 200 into v, which has a field for every key.
func decodeStrict(t *testing.T, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); w.Code != 200 || err != nil {
		t.Fatalf("got %d: %v", w.Code, err)
	}
}

// What comes back goes into wx.config as it is.
func TestPagesAreSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain, lone)
		const page = "https://shop.example/p?a=1&b=%E4%BD%A0#!/route?x"
		check := func(name string, got signature, id string, ticket, page string) {
			t.Helper()
			signed, _, _ := strings.Cut(page, "#")
			want := wechat.Sign(secret.New(ticket), got.NonceStr, got.Timestamp, signed)
			if got.AppID != id || got.Signature != want || len(got.NonceStr) != 16 || got.Timestamp != time.Now().Unix() {
				t.Errorf("%s: got %+v", name, got)
			}
		}
		var first, second signature
		decodeStrict(t, s.call("POST", "/v1/apps/shop/jssdk", `{"url":"`+page+`"}`), &first)
		check("WeChat", first, plain.ID, s.Ticket(t, plain, "jsapi"), page)
		decodeStrict(t, s.call("POST", "/v1/apps/shop/jssdk", `{"url":"`+page+`"}`), &second)
		if first.NonceStr == second.NonceStr {
			t.Error("a nonce was used twice")
		}
		decodeStrict(t, s.call("POST", "/v1/apps/lone/jssdk", `{"url":"`+page+`","ticket":"jsapi"}`), &first)
		check("WeCom", first, lone.ID, s.Ticket(t, lone, "jsapi"), page)

		var agent struct {
			CorpID  string `json:"corpid"`
			AgentID string `json:"agentid"`
			signature
		}
		decodeStrict(t, s.call("POST", "/v1/apps/lone/jssdk", `{"url":"`+page+`","ticket":"agent_config"}`), &agent)
		agent.AppID = agent.CorpID
		check("agentConfig", agent.signature, lone.ID, s.Ticket(t, lone, "agent_config"), page)
		if agent.AgentID != lone.Agent {
			t.Errorf("got agent %q", agent.AgentID)
		}

		var urls []string
		for i := range 100 {
			urls = append(urls, fmt.Sprintf("HTTP://h%d.example/?%s", i, strings.Repeat("x", 4000)))
		}
		body, _ := json.Marshal(map[string]any{"urls": urls})
		var many []signature
		w := s.call("POST", "/v1/apps/shop/jssdk", string(body))
		decodeStrict(t, w, &many)
		if len(many) != len(urls) {
			t.Fatalf("%d signatures", len(many))
		}
		for i, got := range many {
			check(urls[i][:20], got, plain.ID, s.Ticket(t, plain, "jsapi"), urls[i])
		}
		if strings.Contains(fmt.Sprint(s.logs.All()), "shop.example") {
			t.Error("the log shows a page")
		}
	})
}

func TestPagesThatAreNotSigned(t *testing.T) {
	many, _ := json.Marshal(map[string]any{"urls": strings.Split(strings.Repeat("https://a ", 101), " ")[:101]})
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain, classic)
		for _, body := range []string{
			``, `{}`, `null`, `[]`, `{"url":null}`, `{"urls":[]}`, `{"url":"https://a","urls":["https://a"]}`, `{"url":["https://a"]}`, string(many),
			`{"url":""}`, `{"url":"/CANARY"}`, `{"url":"//CANARY"}`, `{"url":"CANARY.example"}`, `{"url":"javascript://CANARY"}`, `{"url":"file:///CANARY"}`,
			`{"url":"http://"}`, `{"url":"http:///CANARY"}`, `{"url":"https://#CANARY"}`, `{"url":"https://?CANARY"}`, `{"url":"https://a/ CANARY"}`,
			`{"url":"https://a/\nCANARY"}`, `{"url":" https://CANARY"}`, `{"url":"https://a/` + strings.Repeat("x", 4096) + `"}`,
			"{\"url\":\"https://a/\xff\"}", `{"url":"https://a/\ud800"}`, "{\"url\":\"https://a/\uFFFD\"}",
			`{"urls":["https://a","CANARY"]}`, `{"url":"https://a","ticket":"CANARY"}`, `{"url":"https://a","ticket":"wx_card"}`,
		} {
			w := s.call("POST", "/v1/apps/shop/jssdk", body)
			webtest.WantProblem(t, w, 400, "bad-request")
			if strings.Contains(w.Body.String(), "CANARY") {
				t.Errorf("the refusal repeats what was sent: %s", w.Body)
			}
		}
		webtest.WantProblem(t, s.call("POST", "/v1/apps/shop/jssdk", strings.Repeat(" ", 500<<10)), 413, "too-large")
		webtest.WantProblem(t, s.call("POST", "/v1/apps/shop/jssdk", `{"url":"https://a","ticket":"agent_config"}`), 404, "no-such-ticket")
		webtest.WantProblem(t, s.call("POST", "/v1/apps/other/jssdk", `{"url":"https://a"}`), 404, "unknown-app")
		webtest.WantProblem(t, s.call("GET", "/v1/apps/shop/jssdk", ""), 405, "method-not-allowed")
		if n := s.WeChat.Calls(plain.ID).Tickets; n != 0 {
			t.Errorf("%d tickets fetched", n)
		}
	})
}
