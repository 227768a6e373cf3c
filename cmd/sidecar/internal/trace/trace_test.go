package trace

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// collector is an OpenTelemetry collector that remembers what it was sent.
type collector struct {
	*httptest.Server
	bodies  chan []byte
	headers chan http.Header
	paths   chan string
}

func startCollector(t *testing.T, status int) *collector {
	c := &collector{bodies: make(chan []byte, 9), headers: make(chan http.Header, 9), paths: make(chan string, 9)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.bodies <- body
		c.headers <- r.Header
		c.paths <- r.URL.Path
		w.WriteHeader(status)
	}))
	t.Cleanup(c.Close)
	return c
}

func newTracer(t *testing.T, failed func(error), env ...string) *Tracer {
	t.Helper()
	for i := 0; i < len(env); i += 2 {
		t.Setenv(env[i], env[i+1])
	}
	tracer, err := New("v1.2.3", failed)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func TestTracesAreOffByDefault(t *testing.T) {
	for _, env := range [][]string{
		nil, {"OTEL_SERVICE_NAME", "x"}, {"OTEL_TRACES_EXPORTER", "none", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"},
		{"OTEL_SDK_DISABLED", "true", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"},
	} {
		t.Run(strings.Join(env, " "), func(t *testing.T) {
			tracer := newTracer(t, nil, env...)
			if tracer != nil {
				t.Fatal("they are on")
			}
			h := http.NewServeMux()
			if tracer.Handler(h) != http.Handler(h) {
				t.Error("a handler in between, for nothing")
			}
			tracer.Observe(tokencache.Event{Reason: tokencache.Due})
			if err := tracer.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a collector sees of a call and of a refresh, and what it does not see.
func TestACallAndARefreshAreSpansWithoutValues(t *testing.T) {
	c := startCollector(t, 200)
	tracer := newTracer(t, func(err error) { t.Error(err) },
		"OTEL_EXPORTER_OTLP_ENDPOINT", c.URL, "OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc, X-Tenant = shop",
		"OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=web-1")
	h := tracer.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
	}))
	r := httptest.NewRequest("GET", "/v1/apps/CANARY-app/token?access_token=CANARY-token", nil)
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if !w.Flushed || w.Code != 503 {
		t.Errorf("the answer lost something on its way: %d, flushed %t", w.Code, w.Flushed)
	}
	tracer.Observe(tokencache.Event{
		Key: tokencache.Key{App: "wx1", Kind: "access_token"}, Reason: tokencache.Due, Result: tokencache.Failed,
		Version: 7, Took: 250 * time.Millisecond, Err: errors.New("errcode -1"),
	})
	tracer.Observe(tokencache.Event{Result: tokencache.Reread}) // of nobody's interest
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	if got := <-c.paths; got != "/v1/traces" {
		t.Errorf("sent to %s", got)
	}
	if got := <-c.headers; got.Get("Authorization") != "Basic abc" || got.Get("X-Tenant") != "shop" || got.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", got)
	}
	body := <-c.bodies
	if secrettest.Find(string(body), "CANARY-app", "CANARY-token", "Basic abc") != "" {
		t.Errorf("it says too much:\n%s", body)
	}
	var sent request
	if err := json.Unmarshal(body, &sent); err != nil {
		t.Fatal(err)
	}
	text := func(kvs []keyValue) map[string]any {
		m := map[string]any{}
		for _, kv := range kvs {
			if kv.Value.Int != nil {
				m[kv.Key] = *kv.Value.Int
			} else {
				m[kv.Key] = *kv.Value.String
			}
		}
		return m
	}
	wantResource := map[string]any{"service.name": "wxtoken", "service.version": "v1.2.3", "k8s.pod.name": "web-1"}
	if diff := cmp.Diff(wantResource, text(sent.ResourceSpans[0].Resource.Attributes)); diff != "" {
		t.Errorf("resource (-want +got):\n%s", diff)
	}
	spans := sent.ResourceSpans[0].ScopeSpans[0].Spans
	if len(spans) != 2 {
		t.Fatalf("%d spans, want 2:\n%s", len(spans), body)
	}
	call, refresh := spans[0], spans[1]
	if call.TraceID != "0af7651916cd43dd8448eb211c80319c" || call.ParentSpanID != "b7ad6b7169203331" || call.Kind != 2 || call.Status.Code != 2 {
		t.Errorf("the call: %+v", call)
	}
	if diff := cmp.Diff(map[string]any{"http.request.method": "GET", "http.route": "/v1/apps/{app}/token", "http.response.status_code": int64(503)}, text(call.Attributes)); diff != "" {
		t.Errorf("the call (-want +got):\n%s", diff)
	}
	if refresh.Name != "refresh" || refresh.ParentSpanID != "" || refresh.End-refresh.Start != int64(250*time.Millisecond) ||
		refresh.Status != (status{2, "errcode -1"}) {
		t.Errorf("the refresh: %+v", refresh)
	}
	want := map[string]any{"wxtoken.app": "wx1", "wxtoken.kind": "access_token", "wxtoken.reason": "due", "wxtoken.result": "failed", "wxtoken.version": int64(7)}
	if diff := cmp.Diff(want, text(refresh.Attributes)); diff != "" {
		t.Errorf("the refresh (-want +got):\n%s", diff)
	}
	for _, want := range []string{`"intValue":"503"`, `"startTimeUnixNano":"`, `"traceId":"0af7651916cd43dd8448eb211c80319c"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("not as OTLP writes it, no %s:\n%s", want, body)
		}
	}
}

// Nothing that goes wrong with traces reaches a caller; it is told, without what authenticates.
func TestACollectorThatRefusesIsToldOf(t *testing.T) {
	dead := startCollector(t, 200)
	dead.Close()
	for _, endpoint := range []string{startCollector(t, 503).URL, dead.URL} {
		var told []string
		tracer := newTracer(t, func(err error) { told = append(told, err.Error()) },
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", strings.Replace(endpoint, "://", "://user:CANARY@", 1)+"/x")
		tracer.Observe(tokencache.Event{Reason: tokencache.Due})
		if err := tracer.Close(t.Context()); err != nil {
			told = append(told, err.Error())
		}
		if len(told) == 0 || !strings.Contains(told[0], "sending 1 spans") || strings.Contains(strings.Join(told, ""), "CANARY") {
			t.Errorf("%s: told %q", endpoint, told)
		}
	}
}

func TestTheEndpointForTracesIsTakenAsItIs(t *testing.T) {
	c := startCollector(t, 200)
	tracer := newTracer(t, func(err error) { t.Error(err) }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.URL+"/mine")
	tracer.Observe(tokencache.Event{Reason: tokencache.Due})
	_ = tracer.Close(t.Context())
	if got := <-c.paths; got != "/mine" {
		t.Errorf("sent to %s", got)
	}
}

func TestWhatCannotBeDoneIsExplained(t *testing.T) {
	for variable, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317",
		"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s", "OTEL_EXPORTER_OTLP_HEADERS": "CANARY",
	} {
		env := map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}
		env[variable] = value
		_, err := exporterOf(func(name string) string { return env[name] })
		if err == nil || !strings.Contains(err.Error(), variable) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s=%s: %v", variable, value, err)
		}
	}
}

// A caller can make neither a new name nor a new attribute.
func TestRoutesAreOfAClosedSet(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/apps/shop/token":        "/v1/apps/{app}/token",
		"/v1/apps/shop/token/report": "/v1/apps/{app}/token/report",
		"/v1/apps/shop/token/x":      "/",
		"/v1/apps/shop/tickets/mine": "/",
		"/v1/apps/":                  "/",
		"/proxy/shop/cgi-bin/x":      "/proxy/{app}/",
		"/cgi-bin/token":             "/cgi-bin/token",
		"/cgi-bin/menu/get":          "/",
		"":                           "/",
	} {
		if got := routeOf(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
	if got := methodOf("CANARY"); got != "_OTHER" {
		t.Errorf("got %q", got)
	}
}
