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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source/sourcetest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The apps of a rig. Two agents of one corp share its id.
var (
	shop   = app(config.App{ID: "wx1111111111111111", Alias: "shop", Secret: secret.New("s1")})
	other  = app(config.App{ID: "wx2222222222222222", Alias: "other", Secret: secret.New("s2")})
	agent1 = app(config.App{ID: "ww3333333333333333", Alias: "hr", Agent: "1000001", Secret: secret.New("s3"), Platform: config.PlatformWeCom})
	agent2 = app(config.App{ID: "ww3333333333333333", Agent: "1000002", Secret: secret.New("s4"), Platform: config.PlatformWeCom})
)

// app fills in what the apps of a rig share. Their upstreams speak http.
func app(a config.App) config.App {
	a.Endpoint, a.FetchesPerDay, a.ReportsPerDay = config.EndpointClassic, 1e6, 1e6
	if a.APIBase = "http://qyapi.weixin.qq.com"; a.Platform != config.PlatformWeCom {
		a.APIBase, a.APIFallbacks = "http://api.weixin.qq.com", []string{"http://api2.weixin.qq.com"}
	}
	return a
}

// rig is a proxy between a client and a WeChat that behaves. Both sides are HTTP servers on
// sockets, or on pipes in a bubble.
type rig struct {
	*sourcetest.Stack
	t     testing.TB
	proxy *proxy.Proxy
	http  *http.Client // calls the proxy
	front wire

	// Upstream, if set, answers instead of WeChat what is not about fetching a token.
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
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// options are optional.
type options struct {
	proxy.Options
	pipes bool // instead of sockets
	spec  func(*tokencache.Credential)
	names string // of the default app
	own   bool   // the proxy has its own transport
}

func newRig(t testing.TB, o options) *rig {
	r := &rig{t: t, results: make(chan proxy.Result, 100)}
	wired := func() wire {
		if o.pipes {
			return wechattest.Listen()
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return sockets{l}
	}
	account := func(a *wechattest.App) {
		if a.ID == shop.ID {
			a.Menu, a.UserTokens = `{"button":[]}`, []string{"user@token"}
		}
	}
	r.Stack = sourcetest.New(t, sourcetest.Options{Adjust: o.spec, Account: account, Default: o.names}, shop, other, agent1, agent2)
	back := wired()
	serve(t, back, http.HandlerFunc(r.serveUpstream))
	if o.Transport == nil && !o.own {
		o.Transport = &http.Transport{
			DisableCompression: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				r.mu.Lock()
				r.dialed = append(r.dialed, addr)
				r.mu.Unlock()
				if r.refuse != nil && r.refuse(addr) {
					return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("refused by the test")}
				}
				return back.DialContext(ctx, network, addr)
			},
		}
	}
	observe := o.Observe
	o.Observe = func(res proxy.Result) {
		select {
		case r.results <- res:
		default: // enough
		}
		if observe != nil {
			observe(res)
		}
	}
	if o.own {
		r.setBase(back.Addr().String())
	}
	r.proxy = proxy.New(r.Cache, r.Apps.Load, o.Options)
	r.front = wired()
	plain := r.proxy.Plain()
	serve(t, r.front, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/proxy/") {
			r.proxy.ServeHTTP(w, req)
			return
		}
		plain.ServeHTTP(w, req)
	}))
	client := &http.Transport{DialContext: r.front.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 64, ExpectContinueTimeout: 5 * time.Minute}
	r.http = &http.Client{Transport: client, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		r.proxy.Close()
	})
	return r
}

// setBase puts another upstream into force for all apps.
func (r *rig) setBase(host string) {
	all := []config.App{shop, other, agent1, agent2}
	for i := range all {
		all[i].APIBase = "http://" + host
	}
	r.Set(r.t, all...)
}

func (r *rig) serveUpstream(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, seen{req.Method, req.Host, req.RequestURI, req.ContentLength, req.Header.Clone()})
	handler := r.upstream
	r.mu.Unlock()
	if handler == nil {
		handler = r.WeChat
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

// sockets is a wire of TCP on loopback.
type sockets struct{ net.Listener }

func (s sockets) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", s.Addr().String())
}
