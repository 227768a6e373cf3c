package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe/observetest"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const tokenPath = "/v1/apps/shop/token"

type answer struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
	ExpiresAt   int64  `json:"expires_at"`
	Version     int64  `json:"version"`
	Stale       bool   `json:"stale"`
}

func decode(t *testing.T, w *httptest.ResponseRecorder) answer {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var a answer
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

// The answer is the contract: every byte of it counts.
func TestTokenAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		get := func() tokencache.Token {
			token, err := s.Cache.Get(t.Context(), source.Key(plain))
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		first := get()
		end := time.Now().Add(first.ExpiresIn).Unix()
		for _, wait := range []time.Duration{0, 10*time.Second + 300*time.Millisecond} {
			time.Sleep(wait)
			token := get()
			w := s.call("GET", tokenPath, "")
			want := fmt.Sprintf(`{"access_token":"%s","expires_in":%d,"expires_at":%d,"version":%d,"stale":false}`+"\n",
				token.Value.Reveal(), token.ExpiresIn/time.Second, end, token.Version)
			if got := w.Body.String(); w.Code != 200 || got != want {
				t.Errorf("got %d %s, want %s", w.Code, got, want)
			}
			wantHeader := http.Header{
				"Content-Type": {"application/json"}, "Cache-Control": {"no-store"},
				"X-Content-Type-Options": {"nosniff"},
			}
			if !maps.EqualFunc(w.Header(), wantHeader, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
				t.Errorf("got header %v, want %v", w.Header(), wantHeader)
			}
			if got := s.call("GET", "/v1/apps/"+plain.ID+"/token", "").Body.String(); got != want {
				t.Errorf("by id: got %s, want %s", got, want)
			}
			head := s.call("HEAD", tokenPath, "")
			if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("HEAD: got %d, %d bytes, %v", head.Code, head.Body.Len(), head.Header())
			}
		}
		if n := s.Fetches(plain); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		if got := testutil.ToFloat64(reads(s, "memory")); got != 6 {
			t.Errorf("%v reads counted from memory, want 6", got)
		}
	})
}

// reads returns the counter of one outcome.
func reads(s *stack, outcome string) prometheus.Collector {
	return observetest.Series(s.registry, "wxtoken_reads_total", "outcome", outcome)
}

func TestValueThatNeedsEscapingIsStillJSON(t *testing.T) {
	for _, value := range []string{`a"b\c`, "<&>", "a b", strings.Repeat("x", 4096)} {
		synctest.Test(t, func(t *testing.T) {
			s := newStack(t, api.Options{}, constant(value), plain)
			if got := decode(t, s.call("GET", tokenPath, "")).AccessToken; got != value {
				t.Errorf("got %q, want %q", got, value)
			}
		})
	}
}

// constant gives a credential a source that always has the same value.
func constant(value string) func(*tokencache.Credential) {
	return func(c *tokencache.Credential) {
		c.Source = sourceFunc(func() (tokencache.Value, error) {
			return tokencache.Value{Value: secret.New(value), Life: 2 * time.Hour}, nil
		})
	}
}

type sourceFunc func() (tokencache.Value, error)

func (f sourceFunc) Fetch(context.Context, tokencache.Request) (tokencache.Value, error) { return f() }

// What a client gets depends on what it prefers; libraries send more than they mean.
func TestAcceptDecidesBetweenJSONAndText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		value := s.Token(t, plain)
		for accept, text := range map[string]bool{
			"":                                   false,
			"*/*":                                false,
			"text/plain":                         true,
			"Text/Plain; charset=utf-8":          true,
			"text/*":                             true,
			"text/plain, */*;q=0.01":             true,
			"text/plain;q=0.9, application/json": false,
			"text/plain, application/json;q=0.5": true,
			"application/json, text/plain, */*":  false, // axios
			"text/html, image/gif, *; q=.2, */*; q=.2": false, // HttpURLConnection
			"text/plain, */*":                          false,
			"text/plain;q=0":                           false,
			"application/xml":                          false,
			"text/plain;q=x":                           true,
			";;,,;q=":                                  false,
		} {
			w := s.call("GET", tokenPath, "", "Accept", accept)
			if got := w.Body.String() == value; w.Code != 200 || got != text {
				t.Errorf("%q: text %v, want %v: %s", accept, got, text, w.Body)
			}
			want := "application/json"
			if text {
				want = "text/plain; charset=utf-8"
			}
			if got := w.Header().Get("Content-Type"); got != want {
				t.Errorf("%q: Content-Type %q, want %q", accept, got, want)
			}
		}
	})
}

func TestPathsAndMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		for _, c := range []struct {
			method, path, kind, allow string
			status                    int
		}{
			{"GET", "/v1/apps/other/token", "unknown-app", "", 404},
			{"POST", "/v1/apps/other/token/report", "unknown-app", "", 404},
			{"POST", "/", "method-not-allowed", "GET, HEAD", 405},
			{"GET", "/v1/apps/shop", "not-found", "", 404},
			{"GET", "/v1/apps/shop/token/", "not-found", "", 404},
			{"GET", "/v1/apps/shop/tokens", "not-found", "", 404},
			{"GET", "/metrics", "not-found", "", 404},
			{"POST", tokenPath, "method-not-allowed", "GET, HEAD", 405},
			{"DELETE", tokenPath, "method-not-allowed", "GET, HEAD", 405},
			{"TRACE", tokenPath, "method-not-allowed", "GET, HEAD", 405},
			{"GET", tokenPath + "/report", "method-not-allowed", "POST", 405},
		} {
			w := s.call(c.method, c.path, "")
			p := webtest.WantProblem(t, w, c.status, c.kind)
			if got := w.Header().Get("Allow"); got != c.allow {
				t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
			}
			if strings.Contains(w.Body.String(), "shop") || strings.Contains(w.Body.String(), plain.ID) {
				t.Errorf("%s %s names an app: %+v", c.method, c.path, p)
			}
		}
		if n := s.Fetches(plain); n != 0 {
			t.Errorf("%d fetches, want none", n)
		}
	})
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		first := decode(t, s.call("GET", tokenPath, ""))
		report := func(value string, code any) *httptest.ResponseRecorder {
			body, _ := json.Marshal(map[string]any{"access_token": value, "errcode": code, "rid": "for another program"})
			return s.call("POST", tokenPath+"/report", string(body))
		}
		// A report that upstream does not confirm changes nothing.
		if got := decode(t, report(first.AccessToken, 40001)); got.AccessToken != first.AccessToken {
			t.Errorf("accepted value replaced by %+v", got)
		}
		time.Sleep(time.Minute)
		s.WeChat.KillTokens(plain.ID)
		second := decode(t, report(first.AccessToken, "42001"))
		if second.AccessToken == first.AccessToken || second.Version <= first.Version || second.Stale {
			t.Errorf("got %+v after %+v", second, first)
		}
		// The old one gets the current one, for every code that is about the token, and for none.
		for _, code := range []any{0, nil, 40001, 40014, 42001, "40014"} {
			if got := decode(t, report(first.AccessToken, code)); got != second {
				t.Errorf("errcode %v: got %+v, want %+v", code, got, second)
			}
		}
		if w := s.call("POST", tokenPath+"/report", `{"access_token":"`+first.AccessToken+`"}`, "Accept", "text/plain"); w.Body.String() != second.AccessToken {
			t.Errorf("as text: got %s", w.Body)
		}
		if n := s.Fetches(plain); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

func TestReportsThatAreRefused(t *testing.T) {
	const value = "CANARY-REPORT"
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		for _, c := range []struct {
			body, kind string
			status     int
		}{
			{`{"access_token":"CANARY-REPORT","errcode":45009}`, "not-about-the-token", 400},
			{`{"access_token":"CANARY-REPORT","errcode":-1}`, "not-about-the-token", 400},
			{`{"access_token":"CANARY-REPORT","errcode":4.5}`, "bad-request", 400},
			{`{"access_token":"CANARY-REPORT","errcode":1e99}`, "bad-request", 400},
			{`{"access_token":"CANARY-REPORT","errcode":"CANARY-REPORT"}`, "bad-request", 400},
			{`{"access_token":"CANARY-REPORT","errcode":[]}`, "bad-request", 400},
			{`{"access_token":["CANARY-REPORT"]}`, "bad-request", 400},
			{`{"access_token":"CANARY-REPORT"} {"access_token":"CANARY-REPORT"}`, "bad-request", 400},
			{`{"access_token":"CANARY-REPORT"`, "bad-request", 400},
			{`CANARY-REPORT`, "bad-request", 400},
			{`"CANARY-REPORT"`, "bad-request", 400},
			{`access_token=CANARY-REPORT&errcode=40001`, "bad-request", 400},
			{`{"access_token":"","errcode":40001}`, "bad-request", 400},
			{`{"errcode":40001}`, "bad-request", 400},
			{`null`, "bad-request", 400},
			{``, "bad-request", 400},
			{`{"access_token":"CANARY-REPORT","x":"` + strings.Repeat("x", 8<<10) + `"}`, "too-large", 413},
		} {
			w := s.call("POST", tokenPath+"/report", c.body)
			p := webtest.WantProblem(t, w, c.status, c.kind)
			if strings.Contains(fmt.Sprint(w.Body, w.Header()), value) {
				t.Errorf("%.60s: the refusal repeats the value", c.body)
			}
			if c.kind == "not-about-the-token" && p.Errcode == 0 {
				t.Errorf("%s: no errcode in %+v", c.body, p)
			}
		}
		if n := s.Fetches(plain) + s.WeChat.Calls(plain.ID).Probes; n != 0 {
			t.Errorf("%d calls upstream, want none", n)
		}
	})
}

// Upstream is away and the margin has begun: the old value is better than none, and says what it
// is.
func TestStaleValueSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		first := decode(t, s.call("GET", tokenPath, ""))
		s.WeChat.AddFault(wechattest.Fault{Effect: wechattest.EffectErrcode, Code: -1})
		time.Sleep(2*time.Hour - 30*time.Second)
		got := decode(t, s.call("GET", tokenPath, ""))
		if !got.Stale || got.AccessToken != first.AccessToken || got.ExpiresIn != 29 && got.ExpiresIn != 30 {
			t.Errorf("got %+v", got)
		}
		if n := testutil.ToFloat64(reads(s, "stale")); n != 1 {
			t.Errorf("%v stale reads counted, want 1", n)
		}
		time.Sleep(30 * time.Second)
		webtest.WantProblem(t, s.call("GET", tokenPath, ""), 503, "upstream")
	})
}

func TestTheRootOfTheValueListenerSaysWhatItIs(t *testing.T) {
	s := newStack(t, api.Options{}, nil, plain)
	w := s.call("GET", "/", "")
	body := w.Body.String()
	if w.Code != 200 || strings.Count(body, "\n") != 1 || !strings.Contains(body, "wxtoken") || !strings.Contains(body, "/v1/apps/{app}/token") {
		t.Errorf("got %d %q, want one line with the paths", w.Code, body)
	}
	if w := s.call("HEAD", "/", ""); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD: got %d %q", w.Code, w.Body)
	}
	if w := webtest.Serve(s, "GET", "/", "", "Origin", "http://evil.example"); w.Code != 403 {
		t.Errorf("from a page: got %d", w.Code)
	}
}
