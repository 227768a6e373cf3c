package trace

import (
	"bytes"
	"context"
	"encoding/json"
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
	"go.opentelemetry.io/otel/trace"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// exporter sends spans as OTLP over HTTP in JSON (opentelemetry.io/docs/specs/otlp, "JSON Protobuf
// Encoding"). The SDK's own exporters are linked with gRPC and protobuf: 3.5 MB more of image and 5 MB
// more of memory, in every pod, for whoever does not trace as well.
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
	if at, protocol := pick("PROTOCOL"); protocol != "" && protocol != "http/json" {
		return nil, fmt.Errorf("%s: this program speaks http/json, which a collector takes at port 4318: set it to that, or OTEL_TRACES_EXPORTER=none", at)
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

// isHeader reports whether net/http would send a header, without asking it: its errors repeat the name.
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
	body, err := json.Marshal(otlp(spans))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("sending spans: the endpoint is no URL")
	}
	r.Header.Set("Content-Type", "application/json")
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
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("sending %d spans: the collector answers %s", len(spans), answer.Status)
	}
	return nil
}

// The messages of OTLP, as far as they are used. 64-bit numbers are strings, ids are in hex.
type (
	request struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource struct {
			Attributes []keyValue `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	scopeSpans struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []span `json:"spans"`
	}
	span struct {
		TraceID      string         `json:"traceId"`
		SpanID       string         `json:"spanId"`
		TraceState   string         `json:"traceState,omitempty"`
		ParentSpanID string         `json:"parentSpanId,omitempty"`
		Flags        uint32         `json:"flags"`
		Name         string         `json:"name"`
		Kind         trace.SpanKind `json:"kind"` // the numbers are the same
		Start        int64          `json:"startTimeUnixNano,string"`
		End          int64          `json:"endTimeUnixNano,string"`
		Attributes   []keyValue     `json:"attributes"`
		Status       status         `json:"status"`
	}
	status struct {
		Code    int    `json:"code,omitempty"` // 1 ok, 2 error
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String *string `json:"stringValue,omitempty"`
		Int    *int64  `json:"intValue,string,omitempty"`
	}
)

// otlp writes spans of one provider, which have one resource and one scope.
func otlp(spans []sdk.ReadOnlySpan) request {
	rs := resourceSpans{ScopeSpans: make([]scopeSpans, 1)}
	rs.Resource.Attributes = attributes(spans[0].Resource().Attributes())
	scope := &rs.ScopeSpans[0]
	scope.Scope.Name = spans[0].InstrumentationScope().Name
	for _, s := range spans {
		out := span{
			TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(), TraceState: s.SpanContext().TraceState().String(),
			Flags: uint32(s.SpanContext().TraceFlags()), Name: s.Name(), Kind: s.SpanKind(),
			Start: s.StartTime().UnixNano(), End: s.EndTime().UnixNano(), Attributes: attributes(s.Attributes()),
			Status: status{Message: s.Status().Description},
		}
		if s.Parent().SpanID().IsValid() {
			out.ParentSpanID = s.Parent().SpanID().String()
		}
		switch s.Status().Code {
		case codes.Ok:
			out.Status.Code = 1
		case codes.Error:
			out.Status.Code = 2
		}
		scope.Spans = append(scope.Spans, out)
	}
	return request{[]resourceSpans{rs}}
}

func attributes(all []attribute.KeyValue) []keyValue {
	out := make([]keyValue, len(all))
	for i, kv := range all {
		out[i].Key = string(kv.Key)
		if kv.Value.Type() == attribute.INT64 {
			n := kv.Value.AsInt64()
			out[i].Value.Int = &n
			continue
		}
		text := kv.Value.String()
		out[i].Value.String = &text
	}
	return out
}
