package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dev"
)

// A collector of a default set-up takes protobuf at v1/traces, and decodes what this test decodes.
func TestACollectorDecodesTheSpansOfTheProgram(t *testing.T) {
	bodies := make(chan []byte, 99)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s of type %q: %v", r.Method, r.URL.Path, r.Header.Get("Content-Type"), err)
		}
		bodies <- body
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds

	p := start(t, nil)
	p.call(http.DefaultClient, http.MethodGet, p.values+"/v1/apps/"+dev.App.ID+"/token")
	p.call(http.DefaultClient, http.MethodGet, p.values+"/proxy/"+dev.App.ID+"/cgi-bin/getcallbackip")
	want := map[string]bool{"refresh": true, "GET /v1/apps/{app}/token": true, "GET /proxy/": true}
	for deadline := time.After(patience); len(want) > 0; {
		select {
		case body := <-bodies:
			var sent collectorpb.ExportTraceServiceRequest
			if err := proto.Unmarshal(body, &sent); err != nil {
				t.Fatal(err)
			}
			for _, s := range sent.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans() {
				delete(want, s.GetName())
			}
		case <-deadline:
			t.Fatalf("no spans %v", want)
		}
	}
}
