package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The apps of a rig. Two agents of one corp share its id.
var (
	shop   = wechattest.App{ID: "wx1111111111111111", Secret: "s1", Menu: `{"button":[]}`, UserTokens: []string{"user@token"}}
	other  = wechattest.App{ID: "wx2222222222222222", Secret: "s2"}
	agent1 = wechattest.App{ID: "ww3333333333333333", Agent: "1000001", Secret: "s3", Kind: wechattest.Corp}
	agent2 = wechattest.App{ID: "ww3333333333333333", Agent: "1000002", Secret: "s4", Kind: wechattest.Corp}
)

// rig is a proxy between a client and a WeChat that behaves, with a real cache on miniredis. Both
// sides are HTTP servers on sockets, or on pipes in a bubble.
type rig struct {
	t     testing.TB
	sim   *wechattest.Server
	cache *tokencache.Cache
	apps  atomic.Pointer[apps.Set]
	proxy *proxy.Proxy
	http  *http.Client // calls the proxy
	front wire

	// Upstream, if set, answers instead of sim what is not about fetching a token.
	upstream http.Handler
	// refuse, if set, makes connections to some addresses fail.
	refuse func(addr string) bool

	results chan proxy.Result // of the calls that no test has looked at yet

	mu     sync.Mutex
	seen   []seen
	dialed []string
}

// seen is one request as it reached WeChat.
type seen struct {
	method, host, uri string
	length            int64
	header            http.Header
}

// wire connects two ends in this process.
type wire interface {
	net.Listener
	dial(context.Context, string, string) (net.Conn, error)
}

type config struct {
	wire    func(testing.TB) wire
	options proxy.Options
	spec    func(*tokencache.Credential)
	names   string // of the default app
	own     bool   // the proxy has its own transport
}

func newRig(t testing.TB, cfg config) *rig {
	r := &rig{t: t, sim: wechattest.New(shop, other, agent1, agent2), results: make(chan proxy.Result, 100)}
	if cfg.wire == nil {
		cfg.wire = onSockets
	}
	fetches := r.sim.Transport()
	t.Cleanup(func() { _ = fetches.Close() })
	r.newCache(&http.Client{Transport: fetches}, cfg.spec)

	back := cfg.wire(t)
	serve(t, back, http.HandlerFunc(r.serveUpstream))
	if cfg.options.Transport == nil && !cfg.own {
		cfg.options.Transport = &http.Transport{
			DisableCompression: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				r.mu.Lock()
				r.dialed = append(r.dialed, addr)
				r.mu.Unlock()
				if r.refuse != nil && r.refuse(addr) {
					return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("refused by the test")}
				}
				return back.dial(ctx, network, addr)
			},
		}
	}
	observe := cfg.options.Observe
	cfg.options.Observe = func(res proxy.Result) {
		select {
		case r.results <- res:
		default: // enough
		}
		if observe != nil {
			observe(res)
		}
	}
	base := "http://api.weixin.qq.com"
	if cfg.own {
		base = "http://" + back.Addr().String()
	}
	r.setApps(base, cfg.names)
	r.proxy = proxy.New(r.cache, r.apps.Load, cfg.options)
	r.front = cfg.wire(t)
	plain := r.proxy.Plain()
	serve(t, r.front, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/proxy/") {
			r.proxy.ServeHTTP(w, req)
			return
		}
		plain.ServeHTTP(w, req)
	}))
	client := &http.Transport{DialContext: r.front.dial, DisableCompression: true, MaxIdleConnsPerHost: 64, ExpectContinueTimeout: 5 * time.Minute}
	r.http = &http.Client{Transport: client, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		r.proxy.Close()
	})
	return r
}

func (r *rig) newCache(client *http.Client, spec func(*tokencache.Credential)) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true,
		Dialer: func(context.Context, string, string) (net.Conn, error) { return m.Dial() }})
	r.cache = tokencache.New(rdb, tokencache.Options{})
	wc := &wechat.Client{HTTP: client}
	var creds []tokencache.Credential
	for _, app := range []wechattest.App{shop, other, agent1, agent2} {
		c := tokencache.Credential{
			Key: key(app), Overlap: 5 * time.Minute, Fingerprint: "f",
			Fetches: tokencache.Limit{PerDay: 1e6}, Reports: tokencache.Limit{PerDay: 1e6},
			Source: source(func(ctx context.Context) (wechat.Credential, error) {
				if app.Kind == wechattest.Corp {
					return wc.CorpToken(ctx, app.ID, secret.New(app.Secret))
				}
				return wc.Token(ctx, app.ID, secret.New(app.Secret))
			}),
			Probe: func(ctx context.Context, value secret.String) error {
				how := wechat.ProbeCallbackIP
				if app.Kind == wechattest.Corp {
					how = wechat.ProbeCorpCallbackIP
				}
				err := wc.Probe(ctx, value, how)
				if e, ok := errors.AsType[*wechat.Error](err); ok && e.Class() == wechat.ClassBadToken {
					return tokencache.ErrRejected
				}
				return err
			},
		}
		if spec != nil {
			spec(&c)
		}
		creds = append(creds, c)
	}
	if err := r.cache.Set(creds...); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		r.cache.Close()
		_ = rdb.Close()
		m.Close()
	})
}

// source is a tokencache.Source that asks the simulator.
type source func(context.Context) (wechat.Credential, error)

func (s source) Fetch(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
	c, err := s(ctx)
	if e, ok := errors.AsType[*wechat.Error](err); ok {
		f := &tokencache.FetchError{Class: tokencache.ClassTransient, Code: e.Code, Message: e.Message, Unclear: e.MayHaveIssued(), Err: e}
		if e.Class() == wechat.ClassConfig {
			f.Class = tokencache.ClassPermanent
		}
		return tokencache.Value{}, f
	}
	return tokencache.Value{Value: c.Value, Life: c.ExpiresIn, RenewLeft: c.ExpiresIn / 4}, err
}

func key(app wechattest.App) tokencache.Key {
	return tokencache.Key{App: app.Name(), Kind: "access_token"}
}

func (r *rig) setApps(base, standard string) {
	app := func(a wechattest.App, alias string) apps.App {
		p := apps.App{Key: key(a), ID: a.ID, Alias: alias, Agent: a.Agent, Secret: secret.New(a.Secret),
			Upstreams: []*url.URL{mustURL(r.t, base), mustURL(r.t, "http://api2.weixin.qq.com")}}
		if a.Kind == wechattest.Corp {
			p.Platform, p.Upstreams = apps.WeCom, p.Upstreams[:1]
			if base == "http://api.weixin.qq.com" {
				p.Upstreams[0] = mustURL(r.t, "http://qyapi.weixin.qq.com")
			}
		}
		return p
	}
	set := apps.New(standard, app(shop, "shop"), app(other, "other"), app(agent1, "hr"), app(agent2, ""))
	r.apps.Store(set)
}

func mustURL(t testing.TB, s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (r *rig) serveUpstream(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, seen{req.Method, req.Host, req.RequestURI, req.ContentLength, req.Header.Clone()})
	handler := r.upstream
	r.mu.Unlock()
	if handler == nil {
		handler = r.sim
	}
	handler.ServeHTTP(w, req)
}

// calls returns the requests that reached WeChat since the last time.
func (r *rig) calls() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.seen
	r.seen = nil
	return all
}

// last returns how the last call ended, which its caller may know a moment earlier.
func (r *rig) last() proxy.Result {
	r.t.Helper()
	var res proxy.Result
	select {
	case res = <-r.results:
	case <-time.After(5 * time.Minute):
		r.t.Error("no call ended")
	}
	for {
		select {
		case res = <-r.results:
		default:
			return res
		}
	}
}

// answer is what a client of the proxy got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %v %.300s", a.status, a.header, a.body) }

// call makes a call and reads the answer to its end.
func (r *rig) call(method, pathAndQuery, body string, header ...string) answer {
	r.t.Helper()
	a, err := r.try(context.Background(), method, pathAndQuery, strings.NewReader(body), header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, pathAndQuery, err)
	}
	return a
}

func (r *rig) try(ctx context.Context, method, pathAndQuery string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:7200"+pathAndQuery, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := r.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	var got bytes.Buffer
	_, err = got.ReadFrom(res.Body)
	return answer{res.StatusCode, res.Header, got.String()}, err
}

// token returns the app's current token.
func (r *rig) token(app wechattest.App) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for {
		token, err := r.cache.Get(ctx, key(app))
		if err == nil {
			return token.Value.Reveal()
		}
		if ctx.Err() != nil {
			r.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // a busy machine: what is asked of Redis has a second
	}
}

func serve(t testing.TB, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with http.ErrServerClosed
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
}

// onSockets is a wire of TCP on loopback.
func onSockets(t testing.TB) wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return sockets{l}
}

type sockets struct{ net.Listener }

func (s sockets) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", s.Addr().String())
}

// onPipes is a wire for bubbles.
func onPipes(testing.TB) wire { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
