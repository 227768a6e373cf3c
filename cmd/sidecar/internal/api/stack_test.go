package api_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
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

// stack is the whole way from a caller of the listener to WeChat.
type stack struct {
	http.Handler
	sim      *wechattest.Server
	redis    *miniredis.Miniredis
	cache    *tokencache.Cache
	client   *wechat.Client // of the sources
	registry *prometheus.Registry
	logs     *observer.ObservedLogs
	adjust   func(*tokencache.Credential)
}

// newStack makes the stack of some apps. adjust, if not nil, changes their credentials.
func newStack(t testing.TB, o api.Options, adjust func(*tokencache.Credential), configured ...config.App) *stack {
	t.Helper()
	s := &stack{redis: miniredis.NewMiniRedis(), registry: prometheus.NewPedanticRegistry(), adjust: adjust}
	s.redis.ClockTTL(true)
	t.Cleanup(s.redis.Close)
	rdb := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true, MaxRetries: -1,
		Dialer: func(context.Context, string, string) (net.Conn, error) { return s.redis.Dial() },
	})
	var accounts []wechattest.App
	for _, a := range configured {
		account := wechattest.App{ID: a.ID, Agent: a.Agent, Secret: a.Secret.Reveal()}
		if a.Platform == config.PlatformWeCom {
			account.Kind = wechattest.Corp
		}
		accounts = append(accounts, account)
	}
	s.sim = wechattest.New(accounts...)
	transport := s.sim.Transport()
	s.client = &wechat.Client{HTTP: &http.Client{Transport: transport}}
	s.cache = tokencache.New(rdb, tokencache.Options{Reread: 5 * time.Minute})
	t.Cleanup(func() {
		s.cache.Close()
		_ = rdb.Close()
		_ = transport.Close()
	})
	if err := s.cache.Set(s.credentials(configured)...); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	faces := faces(configured)
	s.logs, o.Log, o.Metrics, o.Apps = logs, zap.New(core), observe.NewMetrics(s.registry), func() *apps.Set { return faces }
	o.Add = func(k tokencache.Key) bool { return s.add(configured, k) }
	s.Handler = api.New(s.cache, faces.Lookup, o)
	return s
}

// faces is what the program makes of a configuration for the handler.
func faces(configured []config.App) *apps.Set {
	cfg := &config.Config{AllowUpstreamHost: true}
	for _, a := range configured {
		a.APIBase = "https://api.weixin.qq.com"
		if a.Platform == config.PlatformWeCom {
			a.APIBase = "https://qyapi.weixin.qq.com"
		}
		cfg.Apps = append(cfg.Apps, a)
	}
	set, err := source.Apps(cfg)
	if err != nil {
		panic(err)
	}
	return set
}

// credentials are the sources' own, but they reach the simulator.
func (s *stack) credentials(apps []config.App) []tokencache.Credential {
	var all []tokencache.Credential
	for _, a := range apps {
		for _, c := range source.Credentials([]config.App{a}, s.cache) {
			all = append(all, s.credential(a, c))
		}
	}
	return all
}

func (s *stack) credential(a config.App, c tokencache.Credential) tokencache.Credential {
	c.Source = fetch{s, a, c}
	if c.Probe != nil {
		c.Probe = s.probe(a)
	}
	if s.adjust != nil {
		s.adjust(&c)
	}
	return c
}

// add is what the program does for a ticket that the configuration does not name.
func (s *stack) add(configured []config.App, k tokencache.Key) bool {
	c, ok := source.OnDemand(configured, k, s.cache)
	for _, a := range configured {
		if ok && a.CredentialID() == k.App {
			return s.cache.Add(s.credential(a, c)) == nil
		}
	}
	return false
}

func (s *stack) probe(a config.App) func(context.Context, secret.String) error {
	how := wechat.ProbeCallbackIP
	if a.Platform == config.PlatformWeCom {
		how = wechat.ProbeCorpCallbackIP
	}
	return func(ctx context.Context, token secret.String) error {
		err := s.client.Probe(ctx, token, how)
		if e, ok := errors.AsType[*wechat.Error](err); ok && e.Class() == wechat.ClassBadToken {
			return tokencache.ErrRejected
		}
		return err
	}
}

// fetch fetches one credential of an app.
type fetch struct {
	s   *stack
	app config.App
	of  tokencache.Credential
}

func (f fetch) Fetch(ctx context.Context, r tokencache.Request) (tokencache.Value, error) {
	cred, err := f.ask(ctx, r)
	if e, ok := errors.AsType[*wechat.Error](err); ok {
		class := map[wechat.Class]tokencache.Class{
			wechat.ClassConfig: tokencache.ClassPermanent, wechat.ClassQuota: tokencache.ClassQuota, wechat.ClassEgress: tokencache.ClassLocal,
		}[e.Class()]
		if class == "" {
			class = tokencache.ClassTransient
		}
		return tokencache.Value{}, &tokencache.FetchError{Class: class, Code: e.Code, Message: e.Message, Unclear: e.MayHaveIssued(), Err: e}
	}
	renew := 5*time.Minute - 3*time.Second
	if f.of.Overlap > 0 {
		renew = 30 * time.Minute
	}
	if f.of.Key.Kind != source.AccessToken {
		cred.ExpiresIn, renew = min(cred.ExpiresIn, time.Hour), 55*time.Minute
	}
	return tokencache.Value{Value: cred.Value, Life: cred.ExpiresIn, RenewLeft: renew}, err
}

func (f fetch) ask(ctx context.Context, r tokencache.Request) (wechat.Credential, error) {
	client, app := f.s.client, f.app
	if f.of.Key.Kind != source.AccessToken {
		token, err := f.s.cache.Get(ctx, source.Key(app))
		if err != nil {
			return wechat.Credential{}, err
		}
		for name := range source.Tickets(app) {
			if source.TicketKey(app, name) != f.of.Key {
				continue
			}
			if app.Platform == config.PlatformWeCom {
				return client.CorpTicket(ctx, token.Value, wechat.TicketType(name))
			}
			return client.Ticket(ctx, token.Value, wechat.TicketType(name))
		}
	}
	switch {
	case app.Platform == config.PlatformWeCom:
		return client.CorpToken(ctx, app.ID, app.Secret)
	case app.Endpoint == config.EndpointClassic:
		return client.Token(ctx, app.ID, app.Secret)
	case r.Force:
		return client.StableToken(ctx, app.ID, app.Secret, wechat.Forced)
	}
	return client.StableToken(ctx, app.ID, app.Secret, wechat.Normal)
}

// call sends a request as a program of the pod does. headers are names and values in turn.
func (s *stack) call(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	return webtest.Serve(s, method, target, body, headers...)
}

// token returns the current token of an app.
func (s *stack) token(t testing.TB, a config.App) string {
	t.Helper()
	token, err := s.cache.Get(context.Background(), source.Key(a))
	if err != nil {
		t.Fatal(err)
	}
	return token.Value.Reveal()
}

// ticket returns the current ticket of an app.
func (s *stack) ticket(t testing.TB, a config.App, name string) string {
	t.Helper()
	ticket, err := s.cache.Get(context.Background(), source.TicketKey(a, name))
	if err != nil {
		t.Fatal(err)
	}
	return ticket.Value.Reveal()
}

// fetches returns how often any token endpoint was called.
func (s *stack) fetches(apps ...config.App) (n int) {
	for _, a := range apps {
		n += s.sim.Calls(a.CredentialID()).Fetches()
	}
	return n
}
