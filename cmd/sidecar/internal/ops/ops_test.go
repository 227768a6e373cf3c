package ops_test

import (
	"cmp"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/ops"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func TestStartupAndReadinessAreStickyAndHealthIsUnconditional(t *testing.T) {
	started, asked := false, 0
	h := ops.New(ops.Options{Started: func() (bool, string) {
		asked++
		return started, "wx1/access_token has no value yet"
	}})
	check := func(path string, status int, text string) {
		t.Helper()
		w := webtest.Serve(h, "GET", path, "")
		if w.Code != status || !strings.Contains(w.Body.String(), text) {
			t.Errorf("%s: got %d %s, want %d %s", path, w.Code, w.Body, status, text)
		}
	}
	check("/healthz", 200, "ok")
	check("/startupz", 503, "wx1/access_token has no value yet")
	check("/readyz", 503, "wx1/access_token has no value yet")
	started = true
	check("/readyz", 200, "ok")
	check("/startupz", 200, "ok")
	// From here on nothing that happens elsewhere takes the pod out of service.
	started = false
	before := asked
	check("/readyz", 200, "ok")
	check("/startupz", 200, "ok")
	check("/healthz", 200, "ok")
	if asked != before {
		t.Errorf("asked %d times after the first yes", asked-before)
	}
}

func TestOpsPathsAndMethods(t *testing.T) {
	h := ops.New(ops.Options{})
	for _, path := range []string{"/healthz", "/startupz", "/readyz", "/metrics", "/status"} {
		if w := webtest.Serve(h, "GET", path, ""); w.Code != 200 {
			t.Errorf("GET %s: got %d", path, w.Code)
		}
		if w := webtest.Serve(h, "HEAD", path, ""); w.Code != 200 {
			t.Errorf("HEAD %s: got %d", path, w.Code)
		}
		if w := webtest.WantProblem(t, webtest.Serve(h, "POST", path, ""), 405, "method-not-allowed"); w.Detail != "It takes GET, HEAD." {
			t.Errorf("POST %s: %+v", path, w)
		}
	}
	for _, path := range []string{"/v1/apps/shop/token", "/debug/pprof/", "/debug/vars"} {
		webtest.WantProblem(t, webtest.Serve(h, "GET", path, ""), 404, "not-found")
	}
}

// The operations listener is open to the cluster; the end of a pod's sidecar is the pod's business.
func TestQuitIsForThePodAlone(t *testing.T) {
	quits := 0
	h := ops.New(ops.Options{Quit: func() { quits++ }})
	for _, test := range []struct {
		from string
		code int
	}{{"10.0.0.1:4711", 403}, {"[2001:db8::1]:4711", 403}, {"127.0.0.1:4711", 200}, {"[::1]:4711", 200}, {"[::ffff:127.0.0.1]:4711", 200}, {"@", 200}} {
		before := quits
		r := httptest.NewRequest("POST", "http://localhost:7201/quitquitquit", nil)
		r.Header.Set("X-Wxtoken-Quit", "1")
		r.RemoteAddr = test.from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.code || (quits > before) != (test.code == 200) {
			t.Errorf("from %s: got %d, quit %t, want %d", test.from, w.Code, quits > before, test.code)
		}
	}
	webtest.WantProblem(t, webtest.Serve(h, "GET", "/quitquitquit", ""), 405, "method-not-allowed")
}

// Kubelet and Prometheus come by the pod's address or a name of the cluster, perhaps through a
// proxy. A web page that rebinds its site's name to this address comes by that name.
func TestOpsAnswersUnderNamesThatNoSiteHas(t *testing.T) {
	h := ops.New(ops.Options{})
	for host, code := range map[string]int{
		"": 200, "10.1.2.3:7201": 200, "[fd00::1]:7201": 200, "[::1]": 200, "localhost:7201": 200, "LOCALHOST": 200, "sidecar": 200,
		"wxtoken.default.svc:7201": 200, "wxtoken.default.svc.cluster.local": 200, "wxtoken.default.svc.cluster.local.:7201": 200,
		"ip-10-0-0-1.ec2.internal:7201": 200, "app.localhost:7201": 200,
		"evil.example:7201": 403, "evil.example.": 403, "127.0.0.1.evil.example": 403, "10.0.0.1.nip.io": 403,
		"localhost.evil.example": 403, "cluster.local.evil.example": 403, "svc.example": 403, "127.0.0.1.": 200,
	} {
		for _, path := range []string{"/status", "/metrics", "/startupz", "/readyz", "/"} {
			w := webtest.Serve(h, "GET", path, "", "Host", host, "X-Forwarded-For", "10.0.0.1")
			if got := w.Code == 403; got != (code == 403) {
				t.Errorf("%s by Host %q: got %d", path, host, w.Code)
			}
			if code == 403 {
				if webtest.WantProblem(t, w, 403, "forbidden-host"); host != "" && strings.Contains(w.Body.String(), "evil") {
					t.Errorf("the answer repeats the Host: %s", w.Body)
				}
			}
		}
		if w := webtest.Serve(h, "GET", "/healthz", "", "Host", host); w.Code != 200 {
			t.Errorf("/healthz by Host %q: got %d", host, w.Code)
		}
	}
}

// Behind kubectl port-forward every page in the same browser reaches the listener from loopback.
func TestWebPagesGetNothingOfOps(t *testing.T) {
	quits := 0
	h := ops.New(ops.Options{Quit: func() { quits++ }})
	quit := []string{"X-Wxtoken-Quit", "1"}
	for _, test := range []struct {
		method, path string
		headers      []string
		code         int
	}{
		{"POST", "/quitquitquit", nil, 403},
		{"POST", "/quitquitquit", []string{"Content-Type", "application/x-www-form-urlencoded"}, 403},
		{"POST", "/quitquitquit", append(quit, "Origin", "http://evil.example"), 403},
		{"POST", "/quitquitquit", append(quit, "Origin", "null"), 403},
		{"POST", "/quitquitquit", append(quit, "Sec-Fetch-Site", "cross-site"), 403},
		{"POST", "/quitquitquit", append(quit, "Sec-Fetch-Site", "same-site"), 403},
		{"POST", "/quitquitquit", append(quit, "Host", "evil.example:7201"), 403},
		{"POST", "/quitquitquit", append(quit, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 403},
		{"OPTIONS", "/quitquitquit", []string{"Origin", "http://evil.example", "Access-Control-Request-Headers", "x-wxtoken-quit"}, 403},
		{"GET", "/status", []string{"Origin", "http://localhost:3000"}, 403},
		{"GET", "/status", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 403},
		{"GET", "/status", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"GET", "/metrics", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"GET", "/status", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200}, // a link in a runbook
		{"GET", "/status", []string{"Sec-Fetch-Site", "none"}, 200},
		{"GET", "/status", []string{"Sec-Fetch-Site", "same-origin"}, 200}, // the page loads itself again
	} {
		w := webtest.Serve(h, test.method, test.path, "", test.headers...)
		if w.Code != test.code || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s with %q: got %d, want %d", test.method, test.path, test.headers, w.Code, test.code)
		}
	}
	if quits != 0 {
		t.Errorf("a page ended the sidecar %d times", quits)
	}
}

func TestTheRootOfOpsLeadsToStatus(t *testing.T) {
	h := ops.New(ops.Options{})
	for _, method := range []string{"GET", "HEAD"} {
		if w := webtest.Serve(h, method, "/", ""); w.Code != http.StatusFound || w.Header().Get("Location") != "/status" {
			t.Errorf("%s: got %d, Location %q", method, w.Code, w.Header().Get("Location"))
		}
	}
}

// Redis and upstream are away for ten minutes: no probe fails, and the outage can be seen.
func TestOutageShowsInStatusAndMetricsButNotInProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &tokencachetest.Upstream{}
		var away atomic.Bool
		u.Fault = func(int, string) tokencachetest.Fault {
			if away.Load() {
				return tokencachetest.Fault{Err: errors.New("away")}
			}
			return tokencachetest.Fault{}
		}
		cluster := tokencachetest.New(t, 1, u)
		replica := cluster.Replicas[0]
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(observe.NewMetrics(registry).Collector(replica.Cache.Status))
		h := ops.New(ops.Options{Gatherer: registry, Page: statuspage.Options{Status: replica.Cache.Status}})
		cluster.Start()
		replica.MustGet(t)
		if w := webtest.Serve(h, "GET", "/metrics", ""); !strings.Contains(w.Body.String(), `wxtoken_token_fresh{app="wx0000000000000001",kind="access_token"} 1`) {
			t.Errorf("before: %s", w.Body)
		}
		away.Store(true)
		replica.Link.Refuse()
		for range 10 {
			time.Sleep(time.Minute)
			for _, path := range []string{"/healthz", "/readyz", "/startupz"} {
				if w := webtest.Serve(h, "GET", path, ""); w.Code != http.StatusOK {
					t.Errorf("%s: got %d", path, w.Code)
				}
			}
		}
		if w := webtest.Serve(h, "GET", "/status", ""); !strings.Contains(w.Body.String(), `"state": "stale"`) {
			t.Errorf("after: %s", w.Body)
		}
		if w := webtest.Serve(h, "GET", "/metrics", ""); !strings.Contains(w.Body.String(), `wxtoken_token_fresh{app="wx0000000000000001",kind="access_token"} 0`) {
			t.Errorf("after: %s", w.Body)
		}
		replica.Link.Heal()
		time.Sleep(5 * time.Second) // go-redis dials on for a while after it is closed
	})
}

func TestPanicOnOpsIsAnswered(t *testing.T) {
	h := ops.New(ops.Options{Gatherer: prometheus.GathererFunc(nil), Page: statuspage.Options{Status: func() []tokencache.Status { panic("CANARY") }}})
	w := webtest.Serve(h, "GET", "/status", "")
	webtest.WantProblem(t, w, 500, "internal")
	if secrettest.Find(w.Body.String(), "CANARY") != "" {
		t.Error(w.Body)
	}
}

// Every path of docs/http.md for this listener leads somewhere.
func TestTheDocumentedPathsAreServed(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## The operations listener\n")
	paths := regexp.MustCompile("(?m)^\\| (?:`(/[^`]*)`, )?`(?:(POST) )?(/[^`]*)`").FindAllStringSubmatch(section, -1)
	if len(paths) < 5 {
		t.Fatalf("found only %q", paths)
	}
	h := ops.New(ops.Options{Quit: func() {}})
	for _, m := range paths {
		for _, path := range []string{m[1], m[3]} {
			if path == "" {
				continue
			}
			if w := webtest.Serve(h, cmp.Or(m[2], "GET"), path, ""); w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed {
				t.Errorf("%s: status %d", path, w.Code)
			}
		}
	}
}
