package observe

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Tracer makes the spans. A nil one makes none, and costs nothing. Safe for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// NewTracer returns the Tracer that the environment asks for: nil, unless OTEL_TRACES_EXPORTER is
// otlp, or an OTLP endpoint is named and OTEL_TRACES_EXPORTER is not none; or if OTEL_SDK_DISABLED
// is true. failed is called for spans that could not be sent. The error says which variable asks
// for what cannot be done.
//
// OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS and _TIMEOUT, each also with TRACES_ after OTLP_, say where
// the spans go; OTEL_SERVICE_NAME (default wxtoken) and OTEL_RESOURCE_ATTRIBUTES whose they are;
// OTEL_TRACES_SAMPLER and OTEL_BSP_* are as the SDK has them. The protocol is http/protobuf, the
// default of the specification; grpc would add 3.5 MB to the image of every pod.
func NewTracer(version string, failed func(error)) (*Tracer, error) {
	to, err := exporterOf(os.Getenv) // as the SDK, which takes no other environment
	if to == nil || err != nil {
		return nil, err
	}
	name := os.Getenv("OTEL_SERVICE_NAME")
	if name == "" {
		name = "wxtoken"
	}
	// What the environment says of the service goes over what is known here.
	res, err := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.version", version)), resource.WithFromEnv(),
		resource.WithAttributes(attribute.String("service.name", name)))
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(failed)) // the SDK has no other way to say it
	p := sdk.NewTracerProvider(sdk.WithBatcher(to), sdk.WithResource(res))
	return &Tracer{provider: p, tracer: p.Tracer("github.com/wxtoken/sidecar")}, nil
}

// Close sends what is left, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Observe makes the span of a refresh, or of a report, that has ended. It is for
// [tokencache.Options].
func (t *Tracer) Observe(e tokencache.Event) {
	if t == nil || e.Reason == "" {
		return
	}
	switch e.Result {
	case tokencache.ResultFetched, tokencache.ResultProbed, tokencache.ResultLeaseWaited: // parts of one
		return
	}
	end := time.Now()
	_, span := t.tracer.Start(context.Background(), "refresh", trace.WithTimestamp(end.Add(-e.Took)), trace.WithAttributes(
		attribute.String("wxtoken.app", e.Key.App), attribute.String("wxtoken.kind", e.Key.Kind),
		attribute.String("wxtoken.reason", string(e.Reason)), attribute.String("wxtoken.result", string(e.Result)),
		attribute.Int64("wxtoken.version", e.Version)))
	if e.Err != nil {
		span.SetStatus(codes.Error, e.Err.Error())
	}
	span.End(trace.WithTimestamp(end))
}

// Handler returns h with a span around each call, whose parent is the caller's, by W3C's
// traceparent. The span is named after the method and the pattern that h's mux leaves in
// [http.Request.Pattern], so that must be one of a closed set: a path is the caller's to choose,
// and may hold a secret. A call that h refuses before its mux is asked has no route.
func (t *Tracer) Handler(h http.Handler) http.Handler {
	if t == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		method := methodOf(r.Method)
		ctx, span := t.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("http.request.method", method)))
		answer := &answeredStatus{ResponseWriter: w, status: http.StatusOK}
		r = r.WithContext(ctx)
		defer func() {
			if r.Pattern != "" {
				span.SetName(method + " " + r.Pattern)
				span.SetAttributes(attribute.String("http.route", r.Pattern))
			}
			span.SetAttributes(attribute.Int("http.response.status_code", answer.status))
			if answer.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, "")
			}
			span.End()
		}()
		h.ServeHTTP(answer, r)
	})
}

func methodOf(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER" // as OpenTelemetry's conventions call it
}

// answeredStatus keeps the status of an answer.
type answeredStatus struct {
	http.ResponseWriter
	status int
}

func (a *answeredStatus) WriteHeader(status int) {
	if status >= http.StatusOK { // the others are on the way to one
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController], by which answers are streamed.
func (a *answeredStatus) Unwrap() http.ResponseWriter { return a.ResponseWriter }
