package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
	// Alias returns an app's other name, "" for none. Default: none has one.
	Alias func(app string) string
	// Quit is called by POST /quitquitquit, perhaps more than once. Default: there is no such path.
	Quit func()
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
//	/status    JSON: what this replica knows of each credential
//	/quitquitquit  POST, from this pod only: stop now, if that is permitted
//
// No answer carries a value of a credential.
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
	if o.Alias == nil {
		o.Alias = func(string) string { return "" }
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	h := &ops{opts: o, since: time.Now()}
	mux := newMux(failOps, "The paths are /healthz, /startupz, /readyz, /metrics and /status.")
	mux.handle(http.MethodGet, "/healthz", h.health)
	mux.handle(http.MethodGet, "/startupz", h.startup)
	mux.handle(http.MethodGet, "/readyz", h.startup)
	mux.handle(http.MethodGet, "/metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}).ServeHTTP)
	mux.handle(http.MethodGet, "/status", h.status)
	if o.Quit != nil {
		mux.handle(http.MethodPost, "/quitquitquit", h.quit)
	}
	return recovering(mux, o.Log, func() {}, failOps)
}

// quit stops the program, for a main container that is done. The operations listener is open to the
// cluster, and this is for the pod alone.
func (h *ops) quit(w http.ResponseWriter, r *http.Request) {
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && !addr.Addr().IsLoopback() {
		write(w, r, http.StatusForbidden, text("only from this pod: call localhost\n"))
		return
	}
	write(w, r, http.StatusOK, text("stopping\n"))
	h.opts.Quit()
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

// status is the answer of /status.
type status struct {
	Started  bool        `json:"started"`
	Missing  string      `json:"missing,omitempty"` // for the start
	Uptime   int64       `json:"uptime"`            // all durations in whole seconds
	Version  string      `json:"version"`           // of this program
	Revision string      `json:"revision"`
	Apps     []appStatus `json:"apps"`
}

type appStatus struct {
	ID          string             `json:"id"`
	Alias       string             `json:"alias,omitempty"`
	Credentials []credentialStatus `json:"credentials"`
}

type credentialStatus struct {
	Kind             string `json:"kind"`
	State            string `json:"state"` // fresh; stale: not good for sure; missing
	Version          int64  `json:"version"`
	ExpiresIn        int64  `json:"expires_in"`
	RenewIn          int64  `json:"renew_in"`
	InDoubt          bool   `json:"in_doubt"`
	Rejected         bool   `json:"rejected"`
	ForeignRefresher bool   `json:"foreign_refresher"`
	Backoff          int64  `json:"backoff,omitempty"`
	Error            string `json:"error,omitempty"`
}

func (s status) appendBody(buf []byte, _ format) ([]byte, []string) {
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return buf, typeJSON // cannot be: strings and numbers
	}
	return append(append(buf, body...), '\n'), typeJSON
}

func (h *ops) status(w http.ResponseWriter, r *http.Request) {
	b := build()
	s := status{Uptime: seconds(time.Since(h.since)), Version: b.version, Revision: b.revision, Apps: []appStatus{}}
	s.Started, s.Missing = h.isStarted()
	all := slices.Clone(h.opts.Status())
	slices.SortFunc(all, func(a, b tokencache.Status) int {
		return cmp.Or(cmp.Compare(a.Key.App, b.Key.App), cmp.Compare(a.Key.Kind, b.Key.Kind))
	})
	for _, c := range all {
		if n := len(s.Apps); n == 0 || s.Apps[n-1].ID != c.Key.App {
			s.Apps = append(s.Apps, appStatus{ID: c.Key.App, Alias: h.opts.Alias(c.Key.App)})
		}
		app := &s.Apps[len(s.Apps)-1]
		app.Credentials = append(app.Credentials, credentialStatusOf(c))
	}
	write(w, r, http.StatusOK, s)
}

func credentialStatusOf(c tokencache.Status) credentialStatus {
	s := credentialStatus{
		Kind: c.Key.Kind, State: "missing", Version: c.Version, ExpiresIn: seconds(c.ExpiresIn),
		RenewIn: seconds(max(0, c.RenewIn)), InDoubt: c.InDoubt, Rejected: c.Rejected,
		ForeignRefresher: c.ForeignRefresher, Backoff: seconds(c.Backoff),
	}
	switch {
	case c.Fresh:
		s.State = "fresh"
	case c.Known:
		s.State = "stale"
	}
	if c.Err != nil {
		s.Error = c.Err.Error()
	}
	return s
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
