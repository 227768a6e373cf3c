package api

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
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

// documented returns the methods and paths that a section of docs/http.md names.
func documented(t *testing.T, heading string) [][2]string {
	t.Helper()
	page, err := os.ReadFile("../../../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var calls [][2]string
	for _, m := range regexp.MustCompile("`(?:(GET|POST) )?(/[^`]*)`").FindAllStringSubmatch(section, -1) {
		path := strings.NewReplacer("{app}", "shop", "{jsapi, wx_card or agent_config}", "jsapi", "<WeChat path>", "cgi-bin/menu/get").Replace(m[2])
		calls = append(calls, [2]string{cmp.Or(m[1], http.MethodGet), path})
	}
	return calls
}

// Every path of docs/http.md leads somewhere.
func TestTheDocumentedPathsAreServed(t *testing.T) {
	found := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	face := New(tokencache.New(nil, tokencache.Options{}), func(string) (tokencache.Key, bool) { return tokencache.Key{}, false },
		Options{Apps: func() *apps.Set { return apps.New("") }, Proxy: found, Plain: found})
	calls := documented(t, "The value listener")
	if len(calls) < 10 {
		t.Fatalf("found only %q", calls)
	}
	for _, call := range calls {
		if call[1] == "/proxy" {
			continue // the words "as /proxy"
		}
		r := httptest.NewRequest(call[0], "/", nil)
		r.URL.Path, r.Host = call[1], "localhost"
		w := httptest.NewRecorder()
		face.ServeHTTP(w, r)
		if r.Pattern == "" || r.Pattern == "/" || w.Code == http.StatusMethodNotAllowed {
			t.Errorf("%s %s: pattern %q, status %d", call[0], call[1], r.Pattern, w.Code)
		}
	}
}
