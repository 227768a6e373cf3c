package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
)

// FuzzReportBody: whatever the body, there is an answer; a refusal repeats nothing of it and shows
// no value; and nothing but the current value costs a call upstream.
func FuzzReportBody(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"x","errcode":40001}`, `{"access_token":"x"}`, `{"ACCESS_TOKEN":"x","errcode":"42001"}`,
		`{"access_token":"\u0000\ud800","errcode":0}`, `{"access_token":1}`, `[]`, `null`, ``, `{`, "\xff\xfe", `{"errcode":1e400}`,
		`{"access_token":"a","access_token":"b"}`, `{"access_token":"x","errcode":-9223372036854775809}`,
	} {
		f.Add(body)
	}
	s := newStack(f, api.Options{}, nil, plain)
	value := s.call("GET", tokenPath, "", "Accept", "text/plain").Body.String()
	f.Fuzz(func(t *testing.T, body string) {
		w := s.call("POST", tokenPath+"/report", body)
		switch w.Code {
		case 200, 400, 413:
		default:
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		if w.Code != 200 && strings.Contains(w.Body.String(), value) {
			t.Errorf("the refusal shows the value: %s", w.Body)
		}
		if n := s.Fetches(plain); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// FuzzPath: only the path itself gets at a value. What a router or a proxy might take for it does
// not.
func FuzzPath(f *testing.F) {
	for _, path := range []string{
		tokenPath, "/v1/apps/wx0000000000000001/token", "/v1/apps/shop/token/", "//v1/apps/shop/token", "/v1/apps/shop/../shop/token",
		"/v1/apps/%2e%2e/apps/shop/token", "/v1/apps/shop%2ftoken", "/v1/apps/shop%2Ftoken", "/v1/apps/shop\\token", "/v1/apps/shop%5ctoken",
		"/v1/apps/sho%70/token", "/v1/apps/shop;/token", "/v1/apps/shop%00/token", "/v1/apps/ shop/token", "/%76%31/apps/shop/token",
		"http://localhost/v1/apps/shop/token", "*", "", "/v1/apps/SHOP/token", "/v1/apps/shop/token?x=/../", "/v1/apps/shop/token#x",
	} {
		f.Add("GET", path)
	}
	f.Add("HEAD", tokenPath)
	f.Add("POST", tokenPath)
	f.Add("CONNECT", tokenPath)
	s := newStack(f, api.Options{}, nil, plain)
	face := api.New(s.Cache, s.Apps.Load().Lookup, api.Options{}) // without what else gives values
	value := s.call("GET", tokenPath, "", "Accept", "text/plain").Body.String()
	f.Fuzz(func(t *testing.T, method, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !token(method) {
			return // net/http does not let it through
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL, r.RequestURI, r.Host = method, u, target, "localhost"
		w := httptest.NewRecorder()
		face.ServeHTTP(w, r)
		plain := u.Scheme == "" && u.Host == "" && (u.Path == tokenPath || u.Path == "/v1/apps/"+plain.ID+"/token") &&
			!strings.Contains(strings.ToLower(u.EscapedPath()), "%2f")
		if ok := w.Code == http.StatusOK; ok != (plain && (method == "GET" || method == "HEAD")) {
			t.Errorf("%s %q: got %d", method, target, w.Code)
		}
		if w.Code != http.StatusOK && (w.Code < 400 || w.Code >= 500) {
			t.Errorf("%s %q: got %d, want a refusal", method, target, w.Code)
		}
		if w.Code != http.StatusOK && strings.Contains(w.Body.String(), value) {
			t.Errorf("%s %q: the refusal shows the value", method, target)
		}
	})
}

// token reports whether s can be a method.
func token(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) < 0
}
