package api

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// OpsOptions are optional; the zero value is ready for use.
type OpsOptions struct {
	// Started reports whether the start is over: the listener of values serves, and every credential
	// had a value once or is in a state that its owner knows about and can read on /status. The text
	// says what is missing, without a value. It is not asked again after the first yes. Default: yes.
	Started func() (bool, string)
	// Status is what /status shows: [tokencache.Cache.Status]. Default: no credentials.
	Status func() []tokencache.Status
	// Quit is called by POST /quitquitquit, perhaps more than once. Default: there is no such path.
	Quit func()
	// Apps returns the configured apps, for their aliases and whose API they belong to. Default: none.
	Apps func() *Apps
	// Cluster asks Redis what the replicas did lately: [tokencache.Cache.Journal]. Default: nobody is
	// asked, and /status says nothing of Redis.
	Cluster func(ctx context.Context, perApp int) (tokencache.Journal, error)
	// Configuration is what /status says of it. Default: nothing.
	Configuration func() Configuration
	// Stopping reports whether the process was asked to stop. Default: never.
	Stopping func() bool
	// Gatherer is what /metrics shows. Default: an empty one.
	Gatherer prometheus.Gatherer
	// Log is told of panics. Default: nobody.
	Log *zap.Logger
}

// NewOps returns the handler of the operations listener:
//
//	/healthz   200 while the process serves
//	/startupz  200 once it has started, before that 503 and what is missing
//	/readyz    the same
//	/metrics   for Prometheus
//	/          leads to /status
//	/quitquitquit  POST, from this pod only and with the header X-Wxtoken-Quit: stop now, if that is
//	           permitted
//	/status    what this replica knows of each credential, of Redis and of the other replicas: a page for
//	           a browser, JSON for everybody else; ?format=html or json says which
//
// No answer carries a value of a credential. What a web page sends is refused.
//
// Neither health nor readiness depends on Redis or on WeChat after the start. A restart brings
// neither back, but costs what is in memory; and the readiness of a sidecar counts towards its
// pod's, so an outage of Redis would take every pod of the application out of service at once, while
// each of them could still answer from memory. An outage shows in /metrics and /status.
//
// Readiness stays while the process is stopping, too. Kubernetes takes a terminating pod out of its
// Services whatever its probes say, and stops a native sidecar (KEP-753) after the containers that it
// serves: they are still finishing their requests, and need their tokens for them.
func NewOps(o OpsOptions) http.Handler {
	if o.Started == nil {
		o.Started = func() (bool, string) { return true, "" }
	}
	if o.Status == nil {
		o.Status = func() []tokencache.Status { return nil }
	}
	if o.Apps == nil {
		o.Apps = func() *Apps { return nil }
	}
	if o.Configuration == nil {
		o.Configuration = func() Configuration { return Configuration{} }
	}
	if o.Stopping == nil {
		o.Stopping = func() bool { return false }
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	h := &ops{opts: o, since: time.Now()}
	mux := newMux(failOps, "The paths are /healthz, /startupz, /readyz, /metrics and /status.")
	mux.handle(http.MethodGet, "/{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/status", http.StatusFound)
	})
	mux.handle(http.MethodGet, pathHealth, h.health)
	mux.handle(http.MethodGet, "/startupz", h.startup)
	mux.handle(http.MethodGet, "/readyz", h.startup)
	mux.handle(http.MethodGet, "/metrics", newScrapes(o.Gatherer).ServeHTTP)
	mux.handle(http.MethodGet, "/status", h.status)
	if o.Quit != nil {
		mux.handle(http.MethodPost, "/quitquitquit", h.quit)
	}
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if no := h.guard(r); no != nil {
			failOps(w, r, no)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return recovering(guarded, o.Log, func() {}, failOps)
}

func failOps(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	p.header(w.Header())
	write(w, r, p.status, p)
}

type ops struct {
	opts    OpsOptions
	since   time.Time
	started atomic.Bool
	looks   looks // at Redis, shared by all who ask for /status
}

func (h *ops) health(w http.ResponseWriter, r *http.Request) {
	write(w, r, http.StatusOK, text("ok\n"))
}

func (h *ops) startup(w http.ResponseWriter, r *http.Request) {
	if ok, missing := h.isStarted(); !ok {
		write(w, r, http.StatusServiceUnavailable, text("not started: "+missing+"\n"))
		return
	}
	write(w, r, http.StatusOK, text("ok\n"))
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

// text is an answer for people.
type text string

func (t text) appendBody(buf []byte, _ format) ([]byte, []string) { return append(buf, t...), typeText }
