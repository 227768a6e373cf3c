package observe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

const canary = "CANARYc0ffee/+00"

// FuzzEnvironment: what the variables ask for can be done, or an error says at the start which one
// asks for what cannot, and repeats nothing of it (SECRET is replaced by a password).
func FuzzEnvironment(f *testing.F) {
	f.Add("", "http://fakeCollector:4318", "http/protobuf", "10000", "Authorization=Basic%20SECRET, X-Tenant = shop")
	f.Add("otlp", "", "", "", "")
	f.Add("none", "http://x", "grpc", "-1", "x")
	f.Add("OTLP", "https://user:SECRET@[::1]:1/x?y=SECRET", "", "2147483648", "=SECRET,,")
	f.Add("otlp", "http://[SECRET", "http/json", "0", "SECRET")
	f.Add("SECRET", "SECRET://c", "SECRET", "SECRET", "a=%zzSECRET")
	f.Add("otlp", "http://c", "", "1e3", "")
	f.Add("otlp", "http://c", "", "", "a=SECRET%0d%0aX: y")
	f.Add("otlp", "http://c", "", "", "SECRET SECRET=x, a=SECRET%0d%0aX: y, \x00=1, é=1, Host=x, Content-Length=5")
	f.Fuzz(func(t *testing.T, exporter, endpoint, protocol, timeout, headers string) {
		env := map[string]string{"OTEL_TRACES_EXPORTER": exporter, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
			"OTEL_EXPORTER_OTLP_TIMEOUT": timeout, "OTEL_EXPORTER_OTLP_TRACES_HEADERS": headers}
		e, err := exporterOf(func(name string) string { return strings.ReplaceAll(env[name], "SECRET", canary) })
		if err != nil {
			if e != nil || !strings.HasPrefix(err.Error(), "OTEL_") || secrettest.Find(err.Error(), canary) != "" {
				t.Errorf("%v", err)
			}
			return
		}
		if e == nil {
			return
		}
		if u, err := url.Parse(e.url); err != nil || u.Host == "" || e.client.Timeout <= 0 {
			t.Errorf("%q, %v", e.url, e.client.Timeout)
		}
		// What net/http would refuse each time is refused at the start: it finds fault with a
		// request before it dials.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url, nil)
		if err != nil {
			return
		}
		for name, value := range e.headers {
			r.Header.Set(name, value.Reveal())
		}
		dialled := false
		transport := &http.Transport{DialContext: refuse(&dialled), DialTLSContext: refuse(&dialled)}
		if _, err := transport.RoundTrip(r); !dialled {
			t.Errorf("headers %q: %v", headers, err)
		}
	})
}

// FuzzSpan: of what a caller sends, a span holds the ids of its trace and nothing else that is free
// to choose.
func FuzzSpan(f *testing.F) {
	f.Add("GET", "/v1/apps/SECRET/token", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")
	f.Add("SECRET", "/proxy/SECRET/cgi-bin/menu/get", "00-SECRET-b7ad6b7169203331-01", "SECRET")
	f.Add("POST", "/cgi-bin/token", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-SECRET", "a=b,")
	f.Add("", "/cgi-bin/ticket/getticket/SECRET", strings.Repeat("0", 10000), strings.Repeat("a=b,", 10000))
	f.Add("get", "/v1/apps/x/token/report/", "00-00000000000000000000000000000000-0000000000000000-00", "\x00=\xff")
	patterns := []string{"/", "/proxy/", "/v1/", "/v1/apps/{app}/token", "/v1/apps/{app}/token/report", "/v1/apps/{app}/tickets/{ticket}", "/cgi-bin/token"}
	mux := http.NewServeMux()
	for _, pattern := range patterns {
		mux.Handle(pattern, http.NotFoundHandler())
	}
	var body []byte
	fakeCollector := roundTrip(func(r *http.Request) (*http.Response, error) {
		body, _ = io.ReadAll(r.Body)
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	p := sdk.NewTracerProvider(sdk.WithSyncer(&exporter{url: "http://fakeCollector", client: &http.Client{Transport: fakeCollector}}), sdk.WithSampler(sdk.AlwaysSample()))
	tracer := &Tracer{provider: p, tracer: p.Tracer("test")}
	handler := tracer.Handler(mux)
	f.Fuzz(func(t *testing.T, method, path, parent, state string) {
		reveal := func(s string) string { return strings.ReplaceAll(s, "SECRET", canary) }
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL.Path, r.URL.RawQuery = reveal(method), reveal(path), "access_token="+canary
		r.Header["Traceparent"], r.Header["Tracestate"] = []string{reveal(parent)}, []string{state}
		r.Header.Set("Authorization", "Bearer "+canary)
		body = nil
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if len(body) > 8<<10 {
			t.Fatalf("%d bytes", len(body))
		}
		if form := secrettest.Find(string(body), canary); form != "" {
			t.Errorf("%s in %q", form, body)
		}
		span := decode(t, body).ResourceSpans[0].ScopeSpans[0].Spans[0]
		_, pattern, routed := strings.Cut(span.Name, " ")
		if routed && !slices.Contains(patterns, pattern) || len(span.TraceId) != 16 || len(span.SpanId) != 8 || len(span.ParentSpanId) != 8 && len(span.ParentSpanId) != 0 {
			t.Errorf("%v", span)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// refuse notes that it was called, and makes no connection.
func refuse(called *bool) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		*called = true
		return nil, errors.New("refused")
	}
}
