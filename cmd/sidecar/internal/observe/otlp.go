package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// exporter sends spans as OTLP over HTTP in protobuf (opentelemetry.io/docs/specs/otlp, "Binary
// Protobuf Encoding"). The SDK's own exporters are linked with gRPC: 3.5 MB more of image and 5 MB
// more of memory in every pod, traced or not.
type exporter struct {
	url     string
	headers map[string]secret.String // they authenticate
	client  *http.Client
}

// exporterOf returns what the environment asks for, nil for nothing.
func exporterOf(getenv func(string) string) (*exporter, error) {
	// Each setting of the exporter has a name for traces alone, which goes first.
	pick := func(name string) (variable, value string) {
		for _, variable := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
			if v := strings.TrimSpace(getenv(variable)); v != "" {
				return variable, v
			}
		}
		return "OTEL_EXPORTER_OTLP_" + name, ""
	}
	variable, endpoint := pick("ENDPOINT")
	switch exporter := strings.TrimSpace(getenv("OTEL_TRACES_EXPORTER")); {
	case strings.EqualFold(strings.TrimSpace(getenv("OTEL_SDK_DISABLED")), "true"), exporter == "none", exporter == "" && endpoint == "":
		return nil, nil
	case exporter != "" && exporter != "otlp":
		return nil, errors.New("OTEL_TRACES_EXPORTER: this program knows otlp and none")
	}
	if at, protocol := pick("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s: this program sends http/protobuf, which a collector takes at port 4318: unset it, or set it to http/protobuf", at)
	}
	if endpoint == "" {
		endpoint = "http://localhost:4318"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s: must be an http or https URL, such as http://localhost:4318", variable)
	}
	if !strings.Contains(variable, "TRACES") {
		u = u.JoinPath("v1/traces") // the one for all signals is a base, that for traces is the whole
	}
	e := &exporter{url: u.String(), headers: map[string]secret.String{}, client: &http.Client{Timeout: 10 * time.Second}}
	if at, ms := pick("TIMEOUT"); ms != "" {
		n, err := strconv.ParseUint(ms, 10, 31)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%s: must be a number of milliseconds", at)
		}
		e.client.Timeout = time.Duration(n) * time.Millisecond
	}
	at, headers := pick("HEADERS")
	for i, pair := range strings.Split(headers, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || err != nil || !isHeader(name, value) {
			return nil, fmt.Errorf("%s: entry %d is not name=value", at, i+1) // which may be a password
		}
		e.headers[name] = secret.New(value)
	}
	return e, nil
}

// isHeader reports whether net/http would send a header, without asking it: its errors repeat the
// name.
func isHeader(name, value string) bool {
	const free = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return name != "" && strings.Trim(name, free) == "" && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// Shutdown is of [sdk.SpanExporter].
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// ExportSpans is of [sdk.SpanExporter]. It does not repeat what failed: a lost span is no loss.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	body, err := proto.Marshal(otlp(spans))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("sending spans: the endpoint is no URL")
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	for name, value := range e.headers {
		r.Header.Set(name, value.Reveal())
	}
	answer, err := e.client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL, which may hold a password
		}
		return fmt.Errorf("sending %d spans: %w", len(spans), err)
	}
	defer answer.Body.Close()
	reply, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("sending %d spans: the collector answers %s", len(spans), answer.Status)
	}
	// A collector may refuse some spans of a batch, or all, with status 200.
	var outcome collectorpb.ExportTraceServiceResponse
	if err := proto.Unmarshal(reply, &outcome); err == nil && outcome.GetPartialSuccess().GetRejectedSpans() > 0 {
		partial := outcome.GetPartialSuccess()
		return fmt.Errorf("sending %d spans: the collector rejects %d of them: %.200q", len(spans), partial.GetRejectedSpans(), partial.GetErrorMessage())
	}
	return nil
}

// otlp returns spans of one provider, which have one resource and one scope, as OTLP's request.
func otlp(spans []sdk.ReadOnlySpan) *collectorpb.ExportTraceServiceRequest {
	scope := &tracepb.ScopeSpans{Scope: &commonpb.InstrumentationScope{Name: spans[0].InstrumentationScope().Name}}
	for _, s := range spans {
		scope.Spans = append(scope.Spans, message(s))
	}
	return &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource:   &resourcepb.Resource{Attributes: attributes(spans[0].Resource().Attributes())},
		ScopeSpans: []*tracepb.ScopeSpans{scope},
	}}}
}

func message(s sdk.ReadOnlySpan) *tracepb.Span {
	id, trace := s.SpanContext().SpanID(), s.SpanContext().TraceID()
	out := &tracepb.Span{
		TraceId: trace[:], SpanId: id[:], TraceState: s.SpanContext().TraceState().String(),
		Flags: uint32(s.SpanContext().TraceFlags()) | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK),
		Name:  utf8(s.Name()), Kind: tracepb.Span_SpanKind(s.SpanKind()), // the numbers are the same
		StartTimeUnixNano: uint64(s.StartTime().UnixNano()), EndTimeUnixNano: uint64(s.EndTime().UnixNano()),
		Attributes: attributes(s.Attributes()), Status: &tracepb.Status{Message: utf8(s.Status().Description)},
	}
	if parent := s.Parent().SpanID(); parent.IsValid() {
		out.ParentSpanId = parent[:]
	}
	if s.Parent().IsRemote() {
		out.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	switch s.Status().Code {
	case codes.Ok:
		out.Status.Code = tracepb.Status_STATUS_CODE_OK
	case codes.Error:
		out.Status.Code = tracepb.Status_STATUS_CODE_ERROR
	}
	return out
}

func attributes(all []attribute.KeyValue) []*commonpb.KeyValue {
	out := make([]*commonpb.KeyValue, len(all))
	for i, kv := range all {
		out[i] = &commonpb.KeyValue{Key: utf8(string(kv.Key)), Value: &commonpb.AnyValue{}}
		if kv.Value.Type() == attribute.INT64 {
			out[i].Value.Value = &commonpb.AnyValue_IntValue{IntValue: kv.Value.AsInt64()}
		} else {
			out[i].Value.Value = &commonpb.AnyValue_StringValue{StringValue: utf8(kv.Value.String())}
		}
	}
	return out
}

// utf8 replaces what is not UTF-8. Protobuf refuses a string with other bytes, and with it every
// span of the batch; the text of an error may quote bytes of Redis.
func utf8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
