package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Options are optional; the zero value is ready for use.
type Options struct {
	// Transport makes the calls to WeChat. It must not follow redirects (a [http.RoundTripper] does
	// not) nor unpack bodies on its own. Default: one of this package, HTTP/1.1, with at most 64
	// idle connections to a host, proxy from the environment, 3 s each to connect and for the TLS
	// handshake.
	Transport http.RoundTripper
	// Timeout is how long a call may stand still. Until an answer begins, that is the time for all
	// of it, token included (and once more if it is repeated), except that what is read of a
	// streamed body starts it again; afterwards, everything that is read of the answer does.
	// Default 30 s.
	Timeout time.Duration
	// MaxReplay is the longest request body that is kept, to be sent again with a new token, in
	// bytes; so much memory a call may take. Default 1 MiB; negative: none is kept.
	MaxReplay int64
	// MaxKept bounds the bodies that are kept at one time by all calls together, in bytes. A call
	// that finds no room streams its body and is not repeated; a chunked one is refused, because
	// WeChat wants to know its length. Default 8 MiB; negative: none is kept.
	MaxKept int64
	// Observe is called at the end of each call, for logs and metrics. It must not block, and must
	// be safe for concurrent use. Default: none.
	Observe func(Result)
}

// Result is how one call ended. It holds no token, no path and nothing else that a caller sent.
type Result struct {
	// App is the app's access token, the zero Key if no app was found.
	App     tokencache.Key
	Outcome Outcome
	// Status is the HTTP status that the caller got; 0 if it was gone by then.
	Status int
	// Errcode is WeChat's, as far as the answer was looked at, or that of the proxy's own answer.
	Errcode int
	// Injected says that the call takes an access token, Retried that it was repeated after WeChat
	// had rejected the first one. Foreign says that the first one was the caller's own, of no app
	// that is configured here.
	Injected, Retried, Foreign bool
	// Secret says that the AppSecret took the place of the one that the caller sent.
	Secret bool
	Took   time.Duration
	// Err says why it did not end well, if there is more to say than Outcome. It is safe to log.
	Err error
}

// Proxy puts the access token into calls of WeChat's API. Safe for concurrent use. It is an
// [http.Handler] for the paths that begin with /proxy/; [Proxy.Plain] is one for WeChat's own
// paths.
type Proxy struct {
	cache     *tokencache.Cache
	apps      func() *apps.Set
	opts      Options
	transport http.RoundTripper
	hosts     hosts
	kept      budget
	rejected  rejectedTokens
	proofs    proofs
	probes    singleflight.Group
}

// New returns a proxy that takes its tokens from cache. configured is asked at each call, so that
// the set can be replaced while calls are under way; it must be safe for concurrent use and not
// return nil. New starts no goroutine.
func New(cache *tokencache.Cache, configured func() *apps.Set, o Options) *Proxy {
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.MaxReplay == 0 {
		o.MaxReplay = 1 << 20
	}
	if o.MaxKept == 0 {
		o.MaxKept = 8 << 20
	}
	if o.Observe == nil {
		o.Observe = func(Result) {}
	}
	return &Proxy{cache: cache, apps: configured, opts: o, transport: o.Transport, kept: budget{limit: max(0, o.MaxKept)}}
}

// Close closes the connections to WeChat that are not in use. The proxy can still be used.
func (p *Proxy) Close() {
	if t, ok := p.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// ServeHTTP serves /proxy/{app}/<WeChat path>.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.serve(w, r, p.named) }

// Plain returns a handler of WeChat's own paths.
func (p *Proxy) Plain() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, p.plain) })
}

// named finds the app of a path that names it.
func (p *Proxy) named(r *http.Request) (*apps.App, string, *refusal) {
	name, path, no := splitPath(r.URL)
	if no != nil {
		return nil, "", no
	}
	app := p.apps().Named(name)
	if app == nil {
		return nil, "", &refusal{outcome: NoApp, status: http.StatusNotFound, errcode: 40013,
			text: "no app of this name is configured: the base URL ends in /proxy/ and an id or alias of the configuration"}
	}
	if app.IsThirdParty() {
		return p.accountOf(app, path, r.URL.RawQuery), path, nil
	}
	if id, _ := param(r.URL.RawQuery, "appid"); id != "" && id != app.ID {
		return nil, "", &refusal{outcome: NoApp, status: http.StatusOK, errcode: 40013,
			text: "invalid appid: the path names another app than the query"}
	}
	return app, path, nil
}

// accountOf returns the account of a platform for which a call is that names the platform by its
// path: the one whose token it carries. An SDK calls for all accounts with the one base URL that it
// has. Else the call is the platform's own.
func (p *Proxy) accountOf(platform *apps.App, path, rawQuery string) *apps.App {
	if platformParam(path, rawQuery) != "" {
		return platform
	}
	token, _ := param(rawQuery, accessToken)
	if key, known := p.cache.Lookup(secret.New(token)); known {
		if account := p.apps().ByKey(key); account != nil && platform.HasAccount(account) {
			return account
		}
	}
	return platform
}

// plain finds the app of one of WeChat's own paths.
func (p *Proxy) plain(r *http.Request) (*apps.App, string, *refusal) {
	path, query, set := r.URL.EscapedPath(), r.URL.RawQuery, p.apps()
	if !isPlain(path) {
		return nil, "", refuse(http.StatusBadRequest, pathTricks)
	}
	if app := p.plainPlatform(r, set); app != nil {
		return app, path, nil
	}
	appid, _ := param(query, "appid")
	token, _ := param(query, accessToken)
	app := set.Of(apps.Call{ID: appid, Token: secret.New(token), Name: r.Header.Get("X-Wxtoken-App"), Host: r.Host}, p.cache)
	if app != nil {
		return app, path, nil
	}
	// A call that takes no token needs no app, only a way to WeChat.
	if app = set.At(r.Host); app != nil && !injects(app.API(), path, query) {
		return app, path, nil
	}
	no := &refusal{outcome: NoApp, status: http.StatusOK, errcode: 41002,
		text: "which app is this call for? Add its appid to the query, or the header X-Wxtoken-App with its id or alias, or call /proxy/{app}/..., or configure a default app"}
	if _, sent := param(query, accessToken); sent && injects(wechat.APICall, path, query) {
		// What an SDK understands that had this token from before: it asks for another one.
		no.errcode, no.text = set.UnknownToken(r.Host), "invalid credential, access_token is not one that this sidecar knows, and no default app is configured"
	}
	if appid != "" {
		no.errcode, no.text = 40013, "the appid of the query is not configured here"
	}
	return nil, "", no
}

// plainPlatform returns the platform, suite or provider whose own call it is, if it is one and the
// platform is configured.
func (p *Proxy) plainPlatform(r *http.Request, set *apps.Set) *apps.App {
	query := r.URL.RawQuery
	kind := platformParam(r.URL.EscapedPath(), query)
	if kind == "" {
		return nil
	}
	id, _ := param(query, "component_appid")
	token, ok := param(query, kind)
	if !ok {
		token, _ = param(query, accessToken)
	}
	return set.ThirdParty(kind, apps.Call{ID: id, Token: secret.New(token), Name: r.Header.Get("X-Wxtoken-App")}, p.cache)
}

// discard swallows what httputil would write to the standard log: it quotes errors that may quote
// what WeChat sent.
var discard = log.New(io.Discard, "", 0)

// errStalled is why a call is cancelled on which nothing moves.
var errStalled = errors.New("proxy: nothing moves")

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, route func(*http.Request) (*apps.App, string, *refusal)) {
	start := time.Now()
	c := &call{p: p, in: r, ctx: r.Context(), result: Result{Outcome: Cut}}
	// Also when httputil panics to hang up in the middle of an answer, which leaves it at Cut.
	defer func() {
		c.result.Took = time.Since(start)
		p.opts.Observe(c.result)
	}()
	no := checkTarget(r)
	if no == nil {
		c.app, c.path, no = route(r)
	}
	if no == nil {
		no = ownCall(c.app, c.path)
	}
	if no != nil {
		c.fail(w, r, no)
		return
	}
	c.param = tokenParam(c.app, c.path, r.URL.RawQuery)
	c.inject = c.param != ""
	c.result.App, c.result.Injected = c.app.Key, c.inject

	ctx, cancel := context.WithCancelCause(c.trace(r.Context()))
	defer cancel(nil)
	c.ctx, c.out.ResponseWriter = ctx, w
	c.patience.begin(p.opts.Timeout, func() { c.expire(w, cancel) })
	defer c.patience.end()

	defer c.releaseBody()
	if no := c.keepBody(); no != nil {
		c.fail(w, r, no)
		return
	}
	c.query = r.URL.RawQuery
	c.putSecret()
	rp := httputil.ReverseProxy{
		Rewrite: c.rewrite, Transport: c, ModifyResponse: c.stamp, ErrorHandler: c.fail,
		BufferPool: buffers{}, ErrorLog: discard,
	}
	rp.ServeHTTP(&c.out, r.WithContext(ctx))
	if c.result.Outcome == Cut && c.result.Err == nil {
		c.result.Outcome = Answered
	}
}

// writer passes an answer on as it comes, also if its length is known. httputil's FlushInterval
// would do so, too, but with a timer for each answer and a mutex that is held while it writes.
type writer struct {
	http.ResponseWriter
	stream bool // there is more to come than what is in memory
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err == nil && w.stream {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // as well as the server can
	}
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// buffers lends httputil what it copies answers with.
type buffers struct{}

var pool = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return pool.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(b []byte) { pool.Put((*[32 << 10]byte)(b)) }
