package api

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzReadsToken: what does without the mux is what the mux would have found, for the same app.
func FuzzReadsToken(f *testing.F) {
	for _, path := range []string{
		"/v1/apps/shop/token", "/v1/apps/shop/token/", "/v1/apps/shop/tokens", "/v1/apps/token", "/v1/apps//token", "/v1/apps/a/b/token",
		"/v1/apps/shop/token/report", "/v1/apps/platform:wx1/token", "/v1/apps/%20/token", "/v1/apps/a%25b/token", "/v1/apps/a%2fb/token",
		"/v1/apps/%7Bapp%7D/token", "/v1/apps/sho%70/token", "/%76%31/apps/shop/token", "/v1/apps/shop/token?x=/y", "//v1/apps/shop/token",
		"/v1/apps/é/token", "/v1/apps/...shop/token", "/x/v1/apps/shop/token", "/v1/apps/a;b/token", "/v1/apps/token/token",
	} {
		f.Add("GET", path)
	}
	f.Add("HEAD", "/v1/apps/shop/token")
	f.Add("POST", "/v1/apps/shop/token")
	f.Fuzz(func(t *testing.T, method, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil || !plainTarget(r) {
			return // nothing gets here
		}
		var found bool
		var app string
		mux := http.NewServeMux()
		mux.HandleFunc(pathV1Token, func(_ http.ResponseWriter, r *http.Request) {
			found, app = r.Method == http.MethodGet, r.PathValue("app")
		})
		mux.ServeHTTP(httptest.NewRecorder(), r)
		got, reads := readsToken(r)
		if reads != found || reads && got != app {
			t.Errorf("%q: %t for %q, and the mux %t for %q", r.URL.Path, reads, got, found, app)
		}
	})
}
