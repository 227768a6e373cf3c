package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source/sourcetest"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// The apps of a stack: one of each kind, each kind also with a demanded secret, and a corp with two
// agents. lone is the only agent of its corp.
var (
	plain   = config.App{ID: "wx0000000000000001", Alias: "shop", Secret: secret.New("CANARY-s1"), Endpoint: config.EndpointStable, Tickets: []string{"jsapi", "wx_card"}}
	classic = config.App{ID: "wx0000000000000002", Secret: secret.New("CANARY-s2"), Endpoint: config.EndpointClassic}
	strict  = config.App{ID: "wx0000000000000003", Secret: secret.New("CANARY-s3"), RequireSecret: true, Endpoint: config.EndpointStable, Tickets: []string{"jsapi"}}
	lone    = config.App{ID: "ww0000000000000004", Agent: "1000001", Alias: "lone", Secret: secret.New("CANARY-s4"), Platform: config.PlatformWeCom, Tickets: []string{"jsapi", "agent_config"}}
	agent1  = config.App{ID: "ww0000000000000005", Agent: "1000001", Secret: secret.New("CANARY-s5"), Platform: config.PlatformWeCom, Tickets: []string{"agent_config"}}
	agent2  = config.App{ID: "ww0000000000000005", Agent: "1000002", Secret: secret.New("CANARY-s6"), Platform: config.PlatformWeCom}
	guarded = config.App{ID: "ww0000000000000007", Agent: "1000001", Secret: secret.New("CANARY-s7"), Platform: config.PlatformWeCom, RequireSecret: true, Tickets: []string{"jsapi"}}

	everyApp = []config.App{plain, classic, strict, lone, agent1, agent2, guarded}
)

// stack is the inside of a sidecar with the handler of its value listener, and all that it tells
// others.
type stack struct {
	*sourcetest.Stack
	http.Handler
	registry *prometheus.Registry
	metrics  *observe.Metrics
	logs     *observer.ObservedLogs
}

// newStack makes the stack of some apps. adjust, if not nil, changes their credentials.
func newStack(t testing.TB, o api.Options, adjust func(*tokencache.Credential), configured ...config.App) *stack {
	t.Helper()
	s := &stack{Stack: sourcetest.New(t, sourcetest.Options{Adjust: adjust}, configured...), registry: prometheus.NewPedanticRegistry()}
	s.metrics = observe.NewMetrics(s.registry)
	for _, a := range configured {
		s.metrics.Track(source.Key(a))
	}
	core, logs := observer.New(zap.DebugLevel)
	s.logs, o.Log, o.Metrics, o.Apps = logs, zap.New(core), s.metrics, s.Apps.Load
	s.Handler = api.New(s.Cache, func(name string) (tokencache.Key, bool) { return s.Apps.Load().Lookup(name) }, o)
	return s
}

// call sends a request as a program of the pod does. headers are names and values in turn.
func (s *stack) call(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	return webtest.Serve(s, method, target, body, headers...)
}
