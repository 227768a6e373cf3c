package api_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func TestStartupAndReadinessAreStickyAndHealthIsUnconditional(t *testing.T) {
	started, asked := false, 0
	h := api.NewOps(api.OpsOptions{Started: func() (bool, string) {
		asked++
		return started, "wx1/access_token has no value yet"
	}})
	check := func(path string, status int, text string) {
		t.Helper()
		w := serve(h, "GET", path, "")
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
	h := api.NewOps(api.OpsOptions{})
	for _, path := range []string{"/healthz", "/startupz", "/readyz", "/metrics", "/status"} {
		if w := serve(h, "GET", path, ""); w.Code != 200 {
			t.Errorf("GET %s: got %d", path, w.Code)
		}
		if w := serve(h, "HEAD", path, ""); w.Code != 200 {
			t.Errorf("HEAD %s: got %d", path, w.Code)
		}
		if w := wantProblem(t, serve(h, "POST", path, ""), 405, "method-not-allowed"); w.Detail != "It takes GET, HEAD." {
			t.Errorf("POST %s: %+v", path, w)
		}
	}
	for _, path := range []string{"/", "/v1/apps/shop/token", "/debug/pprof/", "/debug/vars"} {
		wantProblem(t, serve(h, "GET", path, ""), 404, "not-found")
	}
}

// The operations listener is open to the cluster; the end of a pod's sidecar is the pod's business.
func TestQuitIsForThePodAlone(t *testing.T) {
	quits := 0
	h := api.NewOps(api.OpsOptions{Quit: func() { quits++ }})
	for _, test := range []struct {
		from string
		code int
	}{{"10.0.0.1:4711", 403}, {"[2001:db8::1]:4711", 403}, {"127.0.0.1:4711", 200}, {"[::1]:4711", 200}, {"[::ffff:127.0.0.1]:4711", 200}, {"@", 200}} {
		before := quits
		r := httptest.NewRequest("POST", "/quitquitquit", nil)
		r.RemoteAddr = test.from
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.code || (quits > before) != (test.code == 200) {
			t.Errorf("from %s: got %d, quit %t, want %d", test.from, w.Code, quits > before, test.code)
		}
	}
	wantProblem(t, serve(h, "GET", "/quitquitquit", ""), 405, "method-not-allowed")
}

// Whoever probes comes under the pod's address: the operations listener has no Host to check.
func TestOpsAnswersUnderEveryHost(t *testing.T) {
	h := api.NewOps(api.OpsOptions{})
	if w := serve(h, "GET", "/healthz", "", "X-Forwarded-For", "10.0.0.1"); w.Code != 200 {
		t.Errorf("got %d", w.Code)
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
		f := newFace(t, u, api.Options{})
		f.registry.MustRegister(api.NewCollector(f.cache.Status))
		h := api.NewOps(api.OpsOptions{Gatherer: f.registry, Status: f.cache.Status})
		f.cluster.Start()
		f.cluster.Replicas[0].MustGet(t)
		if w := serve(h, "GET", "/metrics", ""); !strings.Contains(w.Body.String(), `wxtoken_token_fresh{app="wx0000000000000001",kind="access_token"} 1`) {
			t.Errorf("before: %s", w.Body)
		}
		away.Store(true)
		f.cluster.Replicas[0].Link.Cut()
		for range 10 {
			time.Sleep(time.Minute)
			for _, path := range []string{"/healthz", "/readyz", "/startupz"} {
				if w := serve(h, "GET", path, ""); w.Code != http.StatusOK {
					t.Errorf("%s: got %d", path, w.Code)
				}
			}
		}
		if w := serve(h, "GET", "/status", ""); !strings.Contains(w.Body.String(), `"state": "stale"`) {
			t.Errorf("after: %s", w.Body)
		}
		if w := serve(h, "GET", "/metrics", ""); !strings.Contains(w.Body.String(), `wxtoken_token_fresh{app="wx0000000000000001",kind="access_token"} 0`) {
			t.Errorf("after: %s", w.Body)
		}
		f.cluster.Replicas[0].Link.Heal()
		time.Sleep(5 * time.Second) // go-redis dials on for a while after it is closed
	})
}

func TestPanicOnOpsIsAnswered(t *testing.T) {
	h := api.NewOps(api.OpsOptions{Gatherer: prometheus.GathererFunc(nil), Status: func() []tokencache.Status { panic("CANARY") }})
	w := serve(h, "GET", "/status", "")
	wantProblem(t, w, 500, "internal")
	if secrettest.Find(w.Body.String(), "CANARY") != "" {
		t.Error(w.Body)
	}
}
