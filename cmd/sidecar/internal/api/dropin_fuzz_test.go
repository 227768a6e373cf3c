package api_test

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// dropInTarget is a stack with what must not happen to it.
type dropInTarget struct {
	*stack
	values map[string]config.App // every value there is, and whose it is
}

func newDropInTarget(f *testing.F) *dropInTarget {
	d := &dropInTarget{newStack(f, api.Options{}, nil, everyApp...), map[string]config.App{}}
	for _, a := range everyApp {
		d.values[d.Token(f, a)] = a
		for _, name := range a.Tickets {
			d.values[d.Ticket(f, a, name)] = a
		}
	}
	return d
}

// check returns whose value an answer holds, if it holds one. Whatever was sent, it is an answer
// that an SDK can read, and shows neither a secret nor more than the one value.
func (d *dropInTarget) check(t *testing.T, w *httptest.ResponseRecorder) (config.App, bool) {
	t.Helper()
	var a struct {
		Errcode     int
		Errmsg      string
		AccessToken string `json:"access_token"`
		Ticket      string
		ExpiresIn   int `json:"expires_in"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); w.Code != 200 || err != nil {
		t.Fatalf("got %d %s: %v", w.Code, w.Body, err)
	}
	if strings.Contains(w.Body.String(), "CANARY") {
		t.Errorf("a secret in %s", w.Body)
	}
	value := a.AccessToken + a.Ticket
	if value == "" {
		if a.Errcode == 0 || a.Errmsg == "" || a.ExpiresIn != 0 {
			t.Errorf("got %s", w.Body)
		}
		return config.App{}, false
	}
	app, ok := d.values[value]
	if !ok || a.Errcode != 0 || a.ExpiresIn < 1 || a.AccessToken != "" && a.Ticket != "" {
		t.Errorf("got %s", w.Body)
	}
	return app, true
}

// named reports whether a caller may name an app so.
func named(a config.App, name string) bool {
	return name == a.CredentialID() || name == a.ID || a.Alias != "" && name == a.Alias
}

// FuzzDropInQuery: no caller gets a value without naming its app, or without its secret where one
// is demanded.
func FuzzDropInQuery(f *testing.F) {
	d := newDropInTarget(f)
	paths := []string{"/cgi-bin/token", "/cgi-bin/gettoken", "/cgi-bin/ticket/getticket", "/cgi-bin/get_jsapi_ticket", "/cgi-bin/ticket/get", "/cgi-bin/stable_token"}
	for i := range paths {
		for _, q := range []string{
			"", "grant_type=client_credential&appid=wx0000000000000001&secret=x", "appid=wx0000000000000003&grant_type=client_credential&secret=CANARY-s3",
			"appid=a&appid=wx0000000000000001&grant_type=client_credential", "corpid=ww0000000000000004&corpsecret=x", "corpid=ww0000000000000005&corpsecret=CANARY-s5",
			"corpid=ww0000000000000007&corpsecret=CANARY-s7", "access_token=x&type=jsapi", "type=agent_config&appid=lone", "appid=%zz;&&=&%00=%00", "APPID=wx0000000000000001",
			"access_token=" + d.Token(f, plain) + "&type=wx_card", "access_token=" + d.Token(f, guarded), "appid=wx0000000000000003&type=jsapi&access_token=" + d.Token(f, strict),
		} {
			f.Add(i, q, "")
		}
	}
	f.Add(2, "type=jsapi", "shop")
	f.Fuzz(func(t *testing.T, i int, query, header string) {
		path := paths[uint(i)%uint(len(paths))]
		r := httptest.NewRequest("GET", path, nil)
		r.Host, r.URL.RawQuery = "localhost", query
		r.Header.Set("X-Wxtoken-App", header)
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		app, got := d.check(t, w)
		if !got {
			return
		}
		q, _ := url.ParseQuery(query)
		switch path {
		case "/cgi-bin/token":
			if !named(app, q.Get("appid")) || q.Get("grant_type") != "client_credential" || app.RequireSecret && q.Get("secret") != app.Secret.Reveal() {
				t.Errorf("%q got a token of %s", query, app.CredentialID())
			}
		case "/cgi-bin/gettoken":
			if !named(app, q.Get("corpid")) || app.RequireSecret && q.Get("corpsecret") != app.Secret.Reveal() {
				t.Errorf("%q got a token of %s", query, app.CredentialID())
			}
		case "/cgi-bin/stable_token":
			t.Errorf("a GET got a token of %s", app.CredentialID())
		default:
			holds := d.values[q.Get("access_token")].CredentialID() == app.CredentialID()
			switch {
			case app.RequireSecret && !holds, q.Get("appid") != "" && !named(app, q.Get("appid")),
				q.Get("appid") == "" && !holds && !named(app, header):
				t.Errorf("%q, %q got a ticket of %s", query, header, app.CredentialID())
			}
		}
	})
}

// FuzzDropInBody is the same for what is posted.
func FuzzDropInBody(f *testing.F) {
	paths := []string{"/cgi-bin/token", "/cgi-bin/stable_token"}
	for i := range paths {
		for _, body := range []string{
			"", "{", "null", "[]", `{"appid":null}`, `{"appid":1,"grant_type":"client_credential"}`, "\xff\xfe{", `{"appid":"\ud800"}`,
			`{"grant_type":"client_credential","appid":"wx0000000000000001","secret":"x","force_refresh":true}`,
			`{"grant_type":"client_credential","appid":"wx0000000000000003","secret":"CANARY-s3"}`,
			`{"grant_type":"client_credential","appid":"wx0000000000000003","secret":"CANARY-s3","secret":"x"}`,
			"grant_type=client_credential&appid=wx0000000000000001", "appid=wx0000000000000003&secret=CANARY-s3&grant_type=client_credential",
		} {
			f.Add(i, body)
		}
	}
	d := newDropInTarget(f)
	f.Fuzz(func(t *testing.T, i int, body string) {
		path := paths[uint(i)%uint(len(paths))]
		before := d.Fetches(everyApp...)
		app, got := d.check(t, d.call("POST", path, body))
		if after := d.Fetches(everyApp...); after != before {
			t.Errorf("%q cost a fetch", body)
		}
		if !got {
			return
		}
		if app.Platform == config.PlatformWeCom || !slices.ContainsFunc([]string{app.ID, app.Alias}, func(name string) bool { return name != "" && mentions(body, name) }) {
			t.Errorf("%q got a token of %s", body, app.CredentialID())
		}
		if app.RequireSecret && !mentions(body, app.Secret.Reveal()) {
			t.Errorf("%q got a token of %s without its secret", body, app.CredentialID())
		}
	})
}

// mentions reports whether a body holds a text, in one of the encodings that a body can have.
func mentions(body, text string) bool {
	if strings.Contains(body, text) {
		return true
	}
	if form, err := url.QueryUnescape(body); err == nil && strings.Contains(form, text) {
		return true
	}
	var object map[string]any
	_ = json.Unmarshal([]byte(body), &object)
	for _, v := range object {
		if v == text {
			return true
		}
	}
	return strings.Contains(body, "%") || strings.Contains(body, `\`) // too clever for this test
}
