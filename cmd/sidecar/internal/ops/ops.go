// Package ops is the operations listener: health, start-up, metrics, the status page, and quit. No
// answer of it carries the value of a credential.
package ops

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

// Options are optional; the zero value is ready for use.
type Options struct {
	// Started reports whether the start is over: the listener of values serves, and every
	// credential had a value once or is in a state that its owner knows about and can read on
	// /status. The text says what is missing, without a value. It is not asked again after the
	// first yes. Default: yes.
	Started func() (bool, string)
	// Quit is called by POST /quitquitquit, perhaps more than once. Default: there is no such path.
	Quit func()
	// Page is what /status shows. Its Started is that of these options.
	Page statuspage.Options
	// Gatherer is what /metrics shows. Default: an empty one.
	Gatherer prometheus.Gatherer
	// Log gets a line for each panic. Default: none.
	Log *zap.Logger
}

// New returns the handler of the operations listener:
//
//	/healthz   200 while the process serves
//	/startupz  200 once it has started, before that 503 and what is missing
//	/readyz    the same
//	/metrics   for Prometheus
//	/          leads to /status
//	/quitquitquit  POST, from this pod only and with the header X-Wxtoken-Quit: stop now, if that is
//	           permitted
//	/status    what this replica knows of each credential, of Redis and of the other replicas: a page for
//	           a browser, else JSON; ?format=html or json says which
//
// No answer carries a value of a credential. What a web page sends is refused.
//
// Neither health nor readiness depends on Redis or on WeChat after the start. A restart brings
// neither back, but costs what is in memory; and the readiness of a sidecar counts towards its
// pod's, so an outage of Redis would take every pod of the application out of service at once,
// while each of them could still answer from memory. An outage shows in /metrics and /status.
//
// Readiness stays while the process is stopping, too. Kubernetes takes a terminating pod out of its
// Services whatever its probes say, and stops a native sidecar (KEP-753) after the containers that
// it serves: they are still finishing their requests, and need their tokens for them.
func New(o Options) http.Handler {
	if o.Started == nil {
		o.Started = func() (bool, string) { return true, "" }
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	h := &ops{opts: o}
	o.Page.Started = h.isStarted
	mux := web.NewMux(web.Fail, "The paths are /healthz, /startupz, /readyz, /metrics and /status.")
	mux.Handle(http.MethodGet, "/{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/status", http.StatusFound)
	})
	mux.Handle(http.MethodGet, pathHealth, h.health)
	mux.Handle(http.MethodGet, "/startupz", h.startup)
	mux.Handle(http.MethodGet, "/readyz", h.startup)
	mux.Handle(http.MethodGet, "/metrics", newScrapes(o.Gatherer).ServeHTTP)
	mux.Handle(http.MethodGet, "/status", statuspage.New(o.Page).ServeHTTP)
	if o.Quit != nil {
		mux.Handle(http.MethodPost, "/quitquitquit", h.quit)
	}
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if no := h.guard(r); no != nil {
			web.Fail(w, r, no)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return web.Recovering(guarded, o.Log, func() {}, web.Fail)
}

type ops struct {
	opts    Options
	started atomic.Bool
}

func (h *ops) health(w http.ResponseWriter, r *http.Request) {
	web.Write(w, r, http.StatusOK, web.Text("ok\n"))
}

func (h *ops) startup(w http.ResponseWriter, r *http.Request) {
	if ok, missing := h.isStarted(); !ok {
		web.Write(w, r, http.StatusServiceUnavailable, web.Text("not started: "+missing+"\n"))
		return
	}
	web.Write(w, r, http.StatusOK, web.Text("ok\n"))
}

// isStarted reports whether the start is over, or what is missing. Once over, it stays over.
func (h *ops) isStarted() (bool, string) {
	if h.started.Load() {
		return true, ""
	}
	ok, missing := h.opts.Started()
	if ok {
		h.started.Store(true)
		return true, ""
	}
	return false, missing
}
