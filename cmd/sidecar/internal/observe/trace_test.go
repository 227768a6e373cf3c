package observe

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// fakeCollector is an OpenTelemetry fakeCollector that remembers what it was sent.
type fakeCollector struct {
	*httptest.Server
	requests chan received
}

type received struct {
	path   string
	header http.Header
	body   []byte
}

func startFakeCollector(t *testing.T, status int) *fakeCollector {
	c := &fakeCollector{requests: make(chan received, 9)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.requests <- received{r.URL.Path, r.Header, body}
		w.WriteHeader(status)
	}))
	t.Cleanup(c.Close)
	return c
}

// next returns a request that has arrived. After [Tracer.Close], all have.
func (c *fakeCollector) next(t *testing.T) received {
	t.Helper()
	select {
	case r := <-c.requests:
		return r
	default:
		t.Fatal("the fakeCollector was sent nothing")
		return received{}
	}
}

func newTracer(t *testing.T, failed func(error), env ...string) *Tracer {
	t.Helper()
	for i := 0; i < len(env); i += 2 {
		t.Setenv(env[i], env[i+1])
	}
	tracer, err := NewTracer("v1.2.3", failed)
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
			tracer.Observe(tokencache.Event{Reason: tokencache.ReasonDue})
			if err := tracer.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a fakeCollector sees of a call and of a refresh, and what it does not see.
func TestACallAndARefreshAreSpansWithoutValues(t *testing.T) {
	c := startFakeCollector(t, 200)
	tracer := newTracer(t, func(err error) { t.Error(err) },
		"OTEL_EXPORTER_OTLP_ENDPOINT", c.URL, "OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc, X-Tenant = shop",
		"OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=web-1")
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/apps/{app}/token", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
	})
	h := tracer.Handler(mux)
	r := httptest.NewRequest("GET", "/v1/apps/CANARY-app/token?access_token=CANARY-token", nil)
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if !w.Flushed || w.Code != 503 {
		t.Errorf("the answer lost something on its way: %d, flushed %t", w.Code, w.Flushed)
	}
	tracer.Observe(tokencache.Event{
		Key: tokencache.Key{App: "wx1", Kind: "access_token"}, Reason: tokencache.ReasonDue, Result: tokencache.ResultFailed,
		Version: 7, Took: 250 * time.Millisecond, Err: errors.New("errcode -1 \xff"),
	})
	tracer.Observe(tokencache.Event{Result: tokencache.ResultReread}) // not traced
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	sentTo := c.next(t)
	if got := sentTo.path; got != "/v1/traces" {
		t.Errorf("sent to %s", got)
	}
	if got := sentTo.header; got.Get("Authorization") != "Basic abc" || got.Get("X-Tenant") != "shop" || got.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("headers %v", got)
	}
	body := sentTo.body
	if secrettest.Find(string(body), "CANARY-app", "CANARY-token", "Basic abc") != "" {
		t.Errorf("it says too much:\n%s", body)
	}
	sent := decode(t, body).ResourceSpans[0]
	values := func(kvs []*commonpb.KeyValue) map[string]any {
		m := map[string]any{}
		for _, kv := range kvs {
			if n, is := kv.Value.Value.(*commonpb.AnyValue_IntValue); is {
				m[kv.Key] = n.IntValue
			} else {
				m[kv.Key] = kv.Value.GetStringValue()
			}
		}
		return m
	}
	wantResource := map[string]any{"service.name": "wxtoken", "service.version": "v1.2.3", "k8s.pod.name": "web-1"}
	if diff := cmp.Diff(wantResource, values(sent.Resource.Attributes)); diff != "" {
		t.Errorf("resource (-want +got):\n%s", diff)
	}
	spans := sent.ScopeSpans[0].Spans
	if len(spans) != 2 {
		t.Fatalf("%d spans, want 2:\n%v", len(spans), sent)
	}
	call, refresh := spans[0], spans[1]
	if hex.EncodeToString(call.TraceId) != "0af7651916cd43dd8448eb211c80319c" || hex.EncodeToString(call.ParentSpanId) != "b7ad6b7169203331" ||
		call.Name != "GET /v1/apps/{app}/token" || call.Kind != tracepb.Span_SPAN_KIND_SERVER || call.Status.Code != tracepb.Status_STATUS_CODE_ERROR ||
		call.Flags != 0x301 { // sampled; the parent is known to be of another process
		t.Errorf("the call: %v", call)
	}
	if diff := cmp.Diff(map[string]any{"http.request.method": "GET", "http.route": "/v1/apps/{app}/token", "http.response.status_code": int64(503)}, values(call.Attributes)); diff != "" {
		t.Errorf("the call (-want +got):\n%s", diff)
	}
	if refresh.Name != "refresh" || len(refresh.ParentSpanId) != 0 || refresh.EndTimeUnixNano-refresh.StartTimeUnixNano != uint64(250*time.Millisecond) ||
		refresh.Status.Code != tracepb.Status_STATUS_CODE_ERROR || refresh.Status.Message != "errcode -1 \uFFFD" {
		t.Errorf("the refresh: %v", refresh)
	}
	want := map[string]any{"wxtoken.app": "wx1", "wxtoken.kind": "access_token", "wxtoken.reason": "due", "wxtoken.result": "failed", "wxtoken.version": int64(7)}
	if diff := cmp.Diff(want, values(refresh.Attributes)); diff != "" {
		t.Errorf("the refresh (-want +got):\n%s", diff)
	}
}

// decode returns what a fakeCollector reads, which must be no more and no less than the messages of
// OTLP.
func decode(t *testing.T, body []byte) *collectorpb.ExportTraceServiceRequest {
	t.Helper()
	sent := new(collectorpb.ExportTraceServiceRequest)
	if err := proto.Unmarshal(body, sent); err != nil {
		t.Fatal(err)
	}
	if len(sent.ResourceSpans) != 1 || len(sent.ResourceSpans[0].ScopeSpans) != 1 {
		t.Fatalf("not one resource with one scope: %v", sent)
	}
	return sent
}

// Nothing that goes wrong with traces reaches a caller; it is told, without what authenticates.
func TestACollectorThatRefusesIsToldOf(t *testing.T) {
	dead := startFakeCollector(t, 200)
	dead.Close()
	for _, endpoint := range []string{startFakeCollector(t, 503).URL, dead.URL} {
		var told []string
		tracer := newTracer(t, func(err error) { told = append(told, err.Error()) },
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", strings.Replace(endpoint, "://", "://user:CANARY@", 1)+"/x")
		tracer.Observe(tokencache.Event{Reason: tokencache.ReasonDue})
		if err := tracer.Close(t.Context()); err != nil {
			told = append(told, err.Error())
		}
		if len(told) == 0 || !strings.Contains(told[0], "sending 1 spans") || strings.Contains(strings.Join(told, ""), "CANARY") {
			t.Errorf("%s: told %q", endpoint, told)
		}
	}
}

func TestTheEndpointForTracesIsTakenAsItIs(t *testing.T) {
	c := startFakeCollector(t, 200)
	tracer := newTracer(t, func(err error) { t.Error(err) }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.URL+"/mine")
	tracer.Observe(tokencache.Event{Reason: tokencache.ReasonDue})
	_ = tracer.Close(t.Context())
	if got := c.next(t).path; got != "/mine" {
		t.Errorf("sent to %s", got)
	}
}

func TestWhatCannotBeDoneIsExplained(t *testing.T) {
	for variable, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "fakeCollector:4317",
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

func TestProtocols(t *testing.T) {
	for protocol, taken := range map[string]bool{"": true, "http/protobuf": true, "http/json": false, "grpc": false} {
		_, err := exporterOf(func(name string) string {
			return map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol}[name]
		})
		if taken && err != nil || !taken && (err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") || !strings.Contains(err.Error(), "http/protobuf")) {
			t.Errorf("%q: %v", protocol, err)
		}
	}
}

// A fakeCollector that takes a part of a batch says so with status 200.
func TestRejectedSpansAreReported(t *testing.T) {
	reply, err := proto.Marshal(&collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: "too old\n"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(reply) }))
	defer server.Close()
	var reported []string
	tracer := newTracer(t, func(err error) { reported = append(reported, err.Error()) }, "OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	tracer.Observe(tokencache.Event{Reason: tokencache.ReasonDue})
	if err := tracer.Close(t.Context()); err != nil {
		reported = append(reported, err.Error())
	}
	if len(reported) == 0 || !strings.Contains(reported[0], `rejects 1 of them: "too old\n"`) {
		t.Errorf("reported %q", reported)
	}
}

// A span is named after the pattern of the mux, never after what the caller sends.
func TestSpansAreNamedAfterPatterns(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/v1/apps/{app}/token", http.NotFoundHandler())
	mux.Handle("/proxy/", http.NotFoundHandler())
	refuses := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for _, test := range []struct {
		h                  http.Handler
		method, path, want string
	}{
		{mux, "GET", "/v1/apps/CANARY/token?CANARY", "GET /v1/apps/{app}/token"},
		{mux, "POST", "/proxy/CANARY/x", "POST /proxy/"},
		{mux, "CANARY", "/proxy/CANARY", "_OTHER /proxy/"},
		{mux, "GET", "/CANARY", "GET"},
		{refuses, "GET", "/v1/apps/CANARY/token", "GET"},
	} {
		c := startFakeCollector(t, 200)
		tracer := newTracer(t, func(err error) { t.Error(err) }, "OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
		tracer.Handler(test.h).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(test.method, test.path, nil))
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		body := c.next(t).body
		if got := decode(t, body).ResourceSpans[0].ScopeSpans[0].Spans[0].Name; got != test.want || strings.Contains(string(body), "CANARY") {
			t.Errorf("%s %s: got %q, want %q\n%q", test.method, test.path, got, test.want, body)
		}
	}
}
