package proxy_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
)

// platformRig is a rig whose first app is a third-party platform. WeChat answers its calls as the
// handler says.
func platformRig(t *testing.T, upstream http.HandlerFunc) *rig {
	r := newRig(t, options{})
	base, err := url.Parse(shop.APIBase)
	if err != nil {
		t.Fatal(err)
	}
	r.Apps.Store(apps.New("", apps.App{Key: source.Key(shop), ID: shop.ID, Alias: "platform", TokenParam: apps.ComponentToken, Upstreams: []*url.URL{base}}))
	r.upstream = upstream
	return r
}

const list = "/proxy/platform/cgi-bin/component/api_get_authorizer_list"

// What WeChat says goes on without the refresh tokens: in whatever pieces it comes, by whatever
// spelling of the path it was asked, and with whatever status.
func TestAnAnswerWithRefreshTokensIsPassedOnWithoutThem(t *testing.T) {
	const with, without = `{"list":[{"authorizer_appid":"wx2","refresh_token":"CANARY-a"},{"refresh_token":"CANARY-b"}]}`, `{"list":[{"authorizer_appid":"wx2","refresh_token":"wxtoken"},{"refresh_token":"wxtoken"}]}`
	whole := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, with) }
	for name, c := range map[string]struct {
		path     string
		upstream http.HandlerFunc
		status   int
	}{
		"whole":        {list, whole, 200},
		"upper case":   {"/proxy/platform/CGI-BIN/component/API_get_authorizer_LIST", whole, 200},
		"a slash":      {list + "/", whole, 200},
		"encoded":      {strings.Replace(list, "api_get", "%61pi%5Fget", 1), whole, 400},
		"more slashes": {strings.Replace(list, "/component/", "/component//", 1), whole, 400},
		"the other":    {"/proxy/platform/cgi-bin/component/api_get_authorizer_info", whole, 200},
		"in pieces": {list, func(w http.ResponseWriter, _ *http.Request) {
			for _, piece := range []string{with[:40], with[40:60], with[60:]} { // cut within a token
				_, _ = io.WriteString(w, piece)
				w.(http.Flusher).Flush()
			}
		}, 200},
		"long": {list, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(" ", 300<<10)+with)
		}, 200},
		"as text": {list, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(500)
			_, _ = io.WriteString(w, with)
		}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			r := platformRig(t, c.upstream)
			a := r.call("POST", c.path, "{}")
			if strings.Contains(a.String(), "CANARY") {
				t.Errorf("a refresh token was passed on: %v", a)
			}
			if len(r.calls()) == 0 {
				if a.status != 400 || c.status != 400 {
					t.Errorf("WeChat was not asked: %v", a)
				}
			} else if a.status != c.status || strings.TrimSpace(a.body) != without || a.header.Get("Content-Length") == "" {
				t.Error(a)
			}
		})
	}
}

// An answer that cannot be read to its end, or not at all, does not go on.
func TestAnAnswerThatMayHideRefreshTokensIsNotPassedOn(t *testing.T) {
	const tokens = `{"refresh_token":"CANARY"`
	for name, upstream := range map[string]http.HandlerFunc{
		"compressed": func(w http.ResponseWriter, _ *http.Request) {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, tokens+"}")
			_ = z.Close()
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(b.Bytes())
		},
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, tokens+strings.Repeat(" ", 512<<10)+"}")
		},
		"without an end": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, tokens+strings.Repeat(" ", 64<<10)); err != nil {
					return
				}
			}
		},
		"breaks off": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, tokens+"}")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<xml>CANARY</xml>") },
		"two":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`+tokens+"}") },
	} {
		t.Run(name, func(t *testing.T) {
			r := platformRig(t, upstream)
			a := r.call("POST", list, "{}")
			if a.status != 502 || a.header.Get("X-Wxtoken-Error") != string(proxy.Broken) || strings.Contains(a.body, "CANARY") || a.header.Get("Content-Encoding") != "" || !strings.Contains(a.body, "not passed on") {
				t.Error(a)
			}
		})
	}
}

// Without a platform here, the refresh tokens of the answer are the caller's own.
func TestTheAnswersOfForeignPlatformsAreLeftAlone(t *testing.T) {
	r := newRig(t, options{names: "shop"})
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"refresh_token":"theirs"}`) })
	a := r.call("POST", "/cgi-bin/component/api_get_authorizer_list?component_access_token=x", "{}")
	if a.status != 200 || a.body != `{"refresh_token":"theirs"}` {
		t.Error(a)
	}
}
