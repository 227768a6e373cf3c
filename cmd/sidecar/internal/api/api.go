package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Lookup finds the access token of an app by the app's id or alias. It must be safe for concurrent
// use, and may answer differently after the configuration was read again.
type Lookup func(name string) (tokencache.Key, bool)

// Options are optional; the zero value is ready for use.
type Options struct {
	// Timeout is the budget of each call. Default 10 s.
	Timeout time.Duration
	// MaxInFlight is how many calls may wait for a refresh at once, how many for the rest of their
	// body, and how many for WeChat on their way through Proxy and Plain. The next one that has to
	// wait is refused with 429. What is answered from memory is never refused. Default 1024 each.
	MaxInFlight int
	// Apps returns the configured apps, for what needs to know more of one than the key of its
	// token: the drop-in paths and the tickets. It is asked at each call, so that the set can
	// change, and must be safe for concurrent use. Default: those paths are not there.
	Apps func() *apps.Set
	// Platform returns a third-party platform by its id, nil if there is none. Default: there are
	// none.
	Platform func(id string) *platform.Platform
	// Callback takes the pushes that the app relays. Default: that path is not there.
	Callback func(http.ResponseWriter, *http.Request, *platform.Platform)
	// Proxy takes the calls of /proxy/{app}/..., and Plain those of paths that no face has:
	// WeChat's own, from an SDK with another base URL. Default: those paths are not there.
	Proxy, Plain http.Handler
	// Bearer returns the bearer token that every caller must send; empty: none is demanded. It is
	// asked at each call, so that it can change. Default: none is demanded.
	Bearer func() secret.String
	// Metrics counts what is served. Default: a registry of its own.
	Metrics *observe.Metrics
	// Log gets a line when callers get no value. Default: none.
	Log *zap.Logger
}

// New returns the handler of the listener that serves values. It starts no goroutine. A request
// that it has served names in its Pattern the path that was registered for it, or nothing: never
// text of the caller.
func New(cache *tokencache.Cache, lookup Lookup, o Options) http.Handler {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 1024
	}
	if o.Bearer == nil {
		o.Bearer = func() secret.String { return secret.String{} }
	}
	if o.Metrics == nil {
		o.Metrics = observe.NewMetrics(prometheus.NewRegistry())
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	h := &handler{cache: cache, lookup: lookup, opts: o}
	h.mux = web.NewMux(h.fail, "The paths begin with /v1/apps/{app}/; {app} is a configured id or alias.")
	h.mux.Handle(http.MethodGet, "/{$}", func(w http.ResponseWriter, r *http.Request) {
		web.Write(w, r, http.StatusOK, web.Text(about))
	})
	h.v1(h.mux)
	if o.Apps != nil {
		h.v1Tickets(h.mux)
		h.dropIn(h.mux)
	}
	if o.Apps != nil && o.Platform != nil {
		h.v1Platforms(h.mux)
	}
	if o.Proxy != nil && o.Plain != nil {
		h.forward(h.mux)
	}
	return web.Recovering(h, o.Log, o.Metrics.Panicked, h.fail)
}

// about is the answer of / to a person who opens the value listener in a browser.
const about = "wxtoken hands out WeChat tokens to this pod's programs: GET /v1/apps/{app}/token, POST /v1/apps/{app}/token/report, " +
	"GET /v1/apps/{app}/tickets/{ticket}, POST /v1/apps/{app}/jssdk; /proxy/{app}/... and WeChat's own paths, with the token put in. " +
	"The status page is on the operations listener.\n"

// handler is what the faces of one listener share.
type handler struct {
	cache  *tokencache.Cache
	lookup Lookup
	opts   Options
	mux    *web.Mux

	readToken ofApp

	// Calls that wait, by what for. One kind must not use up the room of another.
	refreshing, sending, forwarded waiting

	complaints observe.Complaints
}

// waiting counts the calls that wait for one kind of thing.
type waiting struct{ n atomic.Int64 }

// wait runs f if there is room for one more call that waits, else it returns a problem.
func (h *handler) wait(in *waiting, f func() error) error {
	defer in.n.Add(-1)
	if in.n.Add(1) > int64(h.opts.MaxInFlight) {
		if n := h.complaints.Due("overloaded", time.Now()); n > 0 {
			h.opts.Log.Warn("too many requests at once", zap.Int("max", h.opts.MaxInFlight), zap.Int("refused", n))
		}
		return web.Overloaded()
	}
	return f()
}

// read returns a value with more life than least, if upstream has one.
func (h *handler) read(ctx context.Context, k tokencache.Key, least time.Duration) (t tokencache.Token, err error) {
	t, ok := h.cache.Fresh(k, least)
	if !ok {
		ctx, cancel := h.budget(ctx)
		defer cancel()
		err = h.wait(&h.refreshing, func() (err error) {
			t, err = h.cache.GetAtLeast(ctx, k, least)
			return err
		})
	}
	h.opts.Metrics.Read(ctx, k, t, err)
	return t, err
}

// replace passes on that upstream rejected a value, and returns the one to use instead.
func (h *handler) replace(ctx context.Context, k tokencache.Key, rejected secret.String) (t tokencache.Token, err error) {
	ctx, cancel := h.budget(ctx)
	defer cancel()
	err = h.wait(&h.refreshing, func() (err error) {
		t, err = h.cache.Report(ctx, k, rejected)
		return err
	})
	return t, err
}

// budget bounds a call from when it first waits: for its body, for a refresh. What is answered from
// memory needs no timer.
func (h *handler) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, begun := ctx.Deadline(); begun {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, h.opts.Timeout)
}

// bodyBudget is the budget of a call that may have to wait for the body of r.
func (h *handler) bodyBudget(r *http.Request) (context.Context, context.CancelFunc) {
	if r.ContentLength == 0 {
		return r.Context(), func() {}
	}
	return h.budget(r.Context())
}

// understand runs decode, which may wait for the body of r.
func understand[In any](h *handler, ctx context.Context, w http.ResponseWriter, r *http.Request,
	decode func(context.Context, http.ResponseWriter, *http.Request) (In, error)) (in In, err error) {
	if r.ContentLength == 0 {
		return decode(ctx, w, r)
	}
	err = h.wait(&h.sending, func() (err error) {
		in, err = decode(ctx, w, r)
		return err
	})
	return in, err
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := h.guard(r); p != nil {
		h.fail(w, r, p)
		return
	}
	// Nearly all calls read a token. The mux would take as long to find out as all the rest takes.
	if app, reads := readsToken(r); reads {
		r.Pattern = pathV1Token
		h.readToken(w, r, app)
		return
	}
	h.mux.ServeHTTP(w, asWeChatReads(r))
}

// apps returns the apps as they are configured now.
func (h *handler) apps() *apps.Set {
	if h.opts.Apps != nil {
		if apps := h.opts.Apps(); apps != nil {
			return apps
		}
	}
	return &apps.Set{}
}

// fail answers with an error.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, apps.ErrNotAuthorized) {
		err = notAuthorized()
	}
	p := web.ProblemOf(err)
	h.opts.Metrics.Problem(p.Kind)
	if p.Status < http.StatusInternalServerError {
		h.opts.Log.Debug("request refused", zap.String("why", p.Kind), zap.Int("status", p.Status))
	}
	p.Header(w.Header())
	if e, status, ok := inWeChatsShape(p, r.URL.Path); ok {
		web.Write(w, r, status, e)
		return
	}
	web.Write(w, r, p.Status, p)
}

// ofApp serves a call for the app of this id or alias.
type ofApp func(w http.ResponseWriter, r *http.Request, app string)

// byPath serves it for the app that the path names.
func (f ofApp) byPath(w http.ResponseWriter, r *http.Request) { f(w, r, r.PathValue("app")) }

// endpoint makes one endpoint of an app. It owns what all have in common: authorize, find the app,
// decode, call within the budget, map errors, answer.
func endpoint[In any, Out web.Answer](
	h *handler,
	decode func(context.Context, http.ResponseWriter, *http.Request) (In, error),
	call func(context.Context, tokencache.Key, In) (Out, error),
) ofApp {
	return func(w http.ResponseWriter, r *http.Request, app string) {
		if !h.authorized(r) {
			h.fail(w, r, web.Unauthorized())
			return
		}
		k, ok := h.lookup(app)
		if !ok {
			h.fail(w, r, web.UnknownApp())
			return
		}
		ctx, cancel := h.bodyBudget(r)
		defer cancel()
		in, err := understand(h, ctx, w, r, decode)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out, err := call(ctx, k, in)
		if err != nil {
			h.noValue(r, k, err)
			h.fail(w, r, err)
			return
		}
		web.Write(w, r, http.StatusOK, out)
	}
}

// none is the input of an endpoint that has none.
type none struct{}

func noInput(context.Context, http.ResponseWriter, *http.Request) (none, error) { return none{}, nil }

// authorized reports whether the caller sent the bearer token, if one is demanded.
func (h *handler) authorized(r *http.Request) bool {
	want := h.opts.Bearer()
	if want.Empty() {
		return true
	}
	scheme, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && want.Equal(secret.New(strings.TrimSpace(sent)))
}

// noValue logs that a caller got nothing, unless it did not wait for it.
func (h *handler) noValue(r *http.Request, k tokencache.Key, err error) {
	if r.Context().Err() != nil || errors.Is(err, apps.ErrNotAuthorized) || web.ProblemOf(err).Status < http.StatusInternalServerError {
		return
	}
	if u, ok := errors.AsType[*tokencache.UnavailableError](err); ok {
		k = u.Key // of a ticket, where k is the app's token
	}
	if n := h.complaints.Due(k.String(), time.Now()); n > 0 {
		h.opts.Log.Error("callers got no value",
			zap.String("app", k.App), zap.String("kind", k.Kind), zap.Int("callers", n), zap.Error(err))
	}
}
