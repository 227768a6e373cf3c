package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// The pattern of a request becomes the name of a span, so it must not hold what a caller sends.
func TestThePatternOfARequestIsOneThatWasRegistered(t *testing.T) {
	found := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	face := New(tokencache.New(nil, tokencache.Options{}), func(string) (tokencache.Key, bool) { return tokencache.Key{}, false },
		Options{Apps: func() *apps.Set { return &apps.Set{} }, Proxy: found, Plain: found})
	for _, test := range []struct {
		method, path, want string
	}{
		{"GET", "/v1/apps/CANARY/token", "/v1/apps/{app}/token"},
		{"PUT", "/v1/apps/CANARY/token", "/v1/apps/{app}/token"},
		{"POST", "/v1/apps/CANARY/token/report", "/v1/apps/{app}/token/report"},
		{"GET", "/v1/apps/CANARY/tickets/CANARY", "/v1/apps/{app}/tickets/{ticket}"},
		{"GET", "/v1/CANARY", "/v1/"},
		{"GET", "/v1", "/v1/"},
		{"GET", "/proxy/CANARY/cgi-bin/menu/get", "/proxy/"},
		{"GET", "/proxy/CANARY/cgi-bin/token", "/proxy/"},
		{"GET", "/cgi-bin/token", "/cgi-bin/token"},
		{"GET", "/cgi-bin/CANARY", "/"},
		{"CANARY", "/CANARY", "/"},
		{"GET", "", ""}, // the guard refuses it, and what follows
		{"GET", "/CANARY/../v1/apps/x/token", ""},
		{"CONNECT", "/v1", ""}, // of a path without its last slash, http.ServeMux would make the pattern
	} {
		r := httptest.NewRequest(test.method, "/", nil)
		r.URL.Path, r.Host = test.path, "localhost"
		face.ServeHTTP(httptest.NewRecorder(), r)
		if r.Pattern != test.want {
			t.Errorf("%s %s: got %q, want %q", test.method, test.path, r.Pattern, test.want)
		}
	}
}
