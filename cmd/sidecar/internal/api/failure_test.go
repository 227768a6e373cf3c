package api_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe/observetest"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// Every reason for which there is no value has an answer that says which, and when to come back.
func TestNoValue(t *testing.T) {
	errcode := func(code int) wechattest.Fault {
		return wechattest.Fault{Effect: wechattest.EffectErrcode, Code: code}
	}
	for _, c := range []struct {
		name     string
		fault    wechattest.Fault
		spoil    func(s *stack)
		status   int
		kind     string
		errcode  int
		min, max int // of Retry-After
	}{
		{name: "transient", fault: errcode(-1), status: 503, kind: "upstream", errcode: -1, min: 1, max: 2},
		{name: "quota", fault: errcode(45009), status: 503, kind: "upstream", errcode: 45009, min: 60, max: 600},
		{name: "local", fault: errcode(40164), status: 503, kind: "upstream", errcode: 40164, min: 1, max: 60},
		{name: "permanent", fault: errcode(40125), status: 502, kind: "upstream-refuses", errcode: 40125, min: 10, max: 120},
		{name: "slow", fault: wechattest.Fault{Delay: time.Minute}, status: 503, kind: "timeout", min: 1, max: 1},
		{name: "no Redis", spoil: func(s *stack) { s.Replica.Link.Refuse() }, status: 503, kind: "redis", min: 1, max: 1},
		{name: "closed", spoil: func(s *stack) { s.Cache.Close() }, status: 503, kind: "stopping", min: 1, max: 1},
		{name: "not in the cache", spoil: func(s *stack) { _ = s.Cache.Set() }, status: 404, kind: "unknown-app"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				budget := 10 * time.Second
				if c.kind == "timeout" {
					budget = 2 * time.Second // before the fetch gives up
				}
				s := newStack(t, api.Options{Timeout: budget}, nil, classic)
				s.WeChat.AddFault(c.fault)
				if c.spoil != nil {
					c.spoil(s)
				}
				for range 3 { // the first asks upstream, the others meet what is remembered of it
					start := time.Now()
					w := s.call("GET", "/v1/apps/"+classic.ID+"/token", "", "Accept", "text/plain")
					p := webtest.WantProblem(t, w, c.status, c.kind)
					if p.Errcode != c.errcode || p.RetryAfter < c.min || p.RetryAfter > c.max {
						t.Errorf("got errcode %d, Retry-After %d, want %d and %d to %d", p.Errcode, p.RetryAfter, c.errcode, c.min, c.max)
					}
					if took := time.Since(start); took > budget {
						t.Errorf("took %v, the budget is %v", took, budget)
					}
					if strings.Contains(w.Body.String(), "CANARY") {
						t.Errorf("the answer shows a secret: %s", w.Body)
					}
				}
				want := 0
				if c.status >= 500 {
					want = 1 // callers got nothing: said once, not once per call
				}
				if n := s.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != want {
					t.Errorf("%d errors logged, want %d: %v", n, want, s.logs.All())
				}
				if got := testutil.ToFloat64(reads(s, "error")); got != 3 {
					t.Errorf("%v failed reads counted, want 3", got)
				}
				if got := testutil.ToFloat64(observetest.Series(s.registry, "wxtoken_http_problems_total", "type", c.kind)); got != 3 {
					t.Errorf("%v problems counted, want 3", got)
				}
			})
		})
	}
}

// Callers beyond the cap are turned away at once, and those within it are not harmed.
func TestCallsInFlightAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{MaxInFlight: 2}, nil, plain)
		s.WeChat.Tune(func(k *wechattest.Knobs) { k.Latency = 3 * time.Second })
		codes := make(chan int, 2)
		for range 2 {
			go func() { codes <- s.call("GET", tokenPath, "").Code }()
		}
		time.Sleep(time.Second)
		start := time.Now()
		if p := webtest.WantProblem(t, s.call("GET", tokenPath, ""), 429, "overloaded"); p.RetryAfter != 1 || time.Since(start) > 0 {
			t.Errorf("got %+v after %v", p, time.Since(start))
		}
		for range 2 {
			if code := <-codes; code != 200 {
				t.Errorf("got %d within the cap", code)
			}
		}
		if w := s.call("GET", tokenPath, ""); w.Code != 200 {
			t.Errorf("got %d afterwards", w.Code)
		}
	})
}

// A caller that hangs up is not a failure.
func TestCallerWhoHangsUpIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{}, nil, plain)
		s.WeChat.Tune(func(k *wechattest.Knobs) { k.Latency = 3 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		r := httptest.NewRequestWithContext(ctx, "GET", tokenPath, nil)
		r.Host = "localhost"
		time.AfterFunc(time.Second, cancel)
		s.ServeHTTP(httptest.NewRecorder(), r)
		if got := testutil.ToFloat64(reads(s, "canceled")); got != 1 {
			t.Errorf("%v canceled reads counted, want 1", got)
		}
		if n := s.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 0 {
			t.Errorf("%d errors logged, want none", n)
		}
	})
}

func TestPanicIsAnsweredAndLoggedWithoutItsValue(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	h := api.New(tokencache.New(nil, tokencache.Options{}), func(string) (tokencache.Key, bool) { panic("CANARY-PANIC") },
		api.Options{Log: zap.New(core)})
	w := webtest.Serve(h, "GET", tokenPath, "")
	webtest.WantProblem(t, w, 500, "internal")
	if logs.Len() != 1 || logs.All()[0].ContextMap()["type"] != "string" {
		t.Errorf("logged %v", logs.All())
	}
	if text := fmt.Sprint(w.Body, logs.All()); secrettest.Find(text, "CANARY-PANIC") != "" || !strings.Contains(text, "failure_test.go") {
		t.Errorf("want the place and not the value in %s", text)
	}
}

func TestBearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bearer := secret.New("CANARY-BEARER")
		s := newStack(t, api.Options{Bearer: func() secret.String { return bearer }}, nil, plain)
		for _, sent := range []string{"", "CANARY-BEARER", "Bearer", "Bearer ", "Bearer wrong", "Basic CANARY-BEARER", "Bearer CANARY-BEARER2", "Bearer CANARY"} {
			for _, path := range []string{tokenPath, "/v1/apps/other/token"} {
				w := s.call("GET", path, "", "Authorization", sent)
				webtest.WantProblem(t, w, 401, "unauthorized")
				if got := w.Header().Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer ") {
					t.Errorf("%q: WWW-Authenticate %q", sent, got)
				}
				if strings.Contains(w.Body.String(), "CANARY") {
					t.Errorf("%q: %s", sent, w.Body)
				}
			}
		}
		// Other hosts call by names that are not configured; a page that rebinds one has no token.
		if w := s.call("GET", tokenPath, "", "Host", "pod.example", "Authorization", "Bearer "+bearer.Reveal()); w.Code != 200 {
			t.Errorf("by another name: got %d", w.Code)
		}
		webtest.WantProblem(t, s.call("GET", tokenPath, "", "Host", "pod.example"), 401, "unauthorized")
		for _, scheme := range []string{"Bearer", "bearer"} {
			decode(t, s.call("GET", tokenPath, "", "Authorization", scheme+" CANARY-BEARER"))
		}
		bearer = secret.New("another") // the file was read again
		webtest.WantProblem(t, s.call("GET", tokenPath, "", "Authorization", "Bearer CANARY-BEARER"), 401, "unauthorized")
		bearer = secret.String{}
		decode(t, s.call("GET", tokenPath, ""))
	})
}
