package observe

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Metrics count what the cache does and what is served. Safe for concurrent use; create it with
// [NewMetrics]. What is a look at the present has collectors of its own, [Metrics.Collector] and
// [NewRedisCollector]; testdata/metrics.txt lists every metric with its type and labels.
//
// The labels app and kind take only the values given to [Metrics.Track], and every other label one
// of a fixed set, so a caller cannot make a series. What is counted by app lies in an array of
// atomic counters for each credential, and becomes series when it is scraped: series by app up to
// the number of [Metrics.SetMaxApps] and as far as they fit into 2 MiB, else their sums.
//
// faults_test.go makes one fault after the other, and says which of the metrics shows it.
type Metrics struct {
	duration      *prometheus.HistogramVec
	fetchDuration *prometheus.HistogramVec
	leaseWait     *prometheus.HistogramVec

	redis         *prometheus.CounterVec
	subscriptions prometheus.Counter
	lag           *prometheus.HistogramVec
	steps         *prometheus.CounterVec

	problems    *prometheus.CounterVec
	panics      prometheus.Counter
	reloads     *prometheus.CounterVec
	reloadOK    prometheus.Gauge
	reloadStamp prometheus.Gauge

	credentials sync.Map                            // of tokencache.Key to *Credential; see tracked
	recent      atomic.Pointer[Credential]          // the one that Of found last
	together    func(tokencache.Key) tokencache.Key // see Together; nil: each for itself
	maxApps     atomic.Int64

	mu      sync.RWMutex // held to add and remove credentials, and to read them all at one moment
	tracked tracked
}

// NewMetrics registers the metrics with reg, and panics if they already are, as MustRegister does.
// The configuration counts as read successfully from now on.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wxtoken_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "wxtoken_" + name, Help: help, Buckets: buckets}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "wxtoken_" + name, Help: help})
	}
	// From a round trip to Redis, over a fetch in a fifth of a second, to two leases.
	seconds := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20}
	m := &Metrics{
		duration:      histogram("refresh_duration_seconds", "From the start of a refresh to its result; shared is the wait for another replica.", seconds, "kind", "result"),
		fetchDuration: histogram("upstream_fetch_duration_seconds", "From a fetch's request to its answer.", seconds, "kind", "result"),
		leaseWait:     histogram("lease_wait_seconds", "How long a refresh that met another replica's lease waited for it.", seconds, "kind"),

		redis: counter("redis_errors_total", "Failed operations on Redis.", "op", "class"),
		subscriptions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wxtoken_subscriptions_total", Help: "Subscriptions to the events of the others: the first one, and each reconnect.",
		}),
		lag: histogram("event_lag_seconds", "From the moment Redis published an event to that of the answer that was adopted for it, both by Redis' clock.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15}, "kind"),
		steps: counter("clock_steps_total", "Times that the wall clock was stepped by a second or more; forward also after a suspend.", "direction"),

		problems: counter("http_problems_total", "Answers without a value on the listener of values, by type of problem.", "type"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wxtoken_http_panics_total", Help: "Panics of handlers. Each is a bug.",
		}),
		reloads:     counter("config_reloads_total", "Times that the configuration was read again, by result.", "result"),
		reloadOK:    gauge("config_last_reload_successful", "1 if the configuration as it can be read now is in force, 0 if it is not valid and the old one stays."),
		reloadStamp: gauge("config_last_reload_success_timestamp_seconds", "When a valid configuration was last read."),
		tracked:     tracked{apps: map[string]*app{}, noApp: &app{owner: newOwner("", "")}, gone: map[string]*[slots]uint64{}},
	}
	m.SetMaxApps(DefaultApps)
	m.preset()
	m.ConfigValid()
	reg.MustRegister(m.duration, m.fetchDuration, m.leaseWait, m.redis, m.subscriptions, m.lag, m.steps,
		m.problems, m.panics, m.reloads, m.reloadOK, m.reloadStamp, countersOf{m}, buildInfo())
	return m
}

// preset makes the series that need no app, so that a rate over them begins at 0.
func (m *Metrics) preset() {
	for _, op := range redisOps {
		for _, class := range tokencache.StoreClasses {
			m.redis.WithLabelValues(op, string(class))
		}
	}
	for _, result := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	for _, direction := range []string{forward, backward} {
		m.steps.WithLabelValues(direction)
	}
}

// Values of labels.
const (
	reloadOK     = "ok"
	reloadFailed = "failed"
	forward      = "forward"
	backward     = "backward"
	fetchOK      = "ok"
	fetchFailed  = "failed"  // nothing was issued for sure
	fetchUnclear = "unclear" // upstream may have issued a value
	other        = "other"   // what is in no closed set
	noErrcode    = "none"
)

var redisOps = [...]string{"load", "lease", "caplease", "begin", "discard", "commit", "finish", "cut", "revoke", "watch", other}

// force is the reason of a fetch that asks for another value than the present one.
const force = string(tokencache.ReasonForce)

const (
	probeAccepted = "accepted"
	probeRejected = "rejected"
	probeUnknown  = "unknown"
)

// Retried says whether the proxy repeated a call.
type Retried string

// The values of Retried.
const (
	Once  Retried = "no"
	Twice Retried = "yes"
)

// Proxied counts a call of the proxy. k is the token that it was for, zero if no app was found;
// outcome is of a closed set.
func (m *Metrics) Proxied(k tokencache.Key, outcome string, retried Retried) {
	a := m.tracked.noApp
	if k != (tokencache.Key{}) {
		c := m.Of(k)
		if c == nil {
			return
		}
		a = c.app
	}
	a.counts[slotProxied+index(proxyOutcomes[:], outcome)*len(retries)+index(retries[:], retried)].Add(1)
}

// ForeignToken counts a call that took the caller's token, which is none of a configured app, to
// WeChat.
func (m *Metrics) ForeignToken(k tokencache.Key, retried Retried) {
	if c := m.Of(k); c != nil {
		c.app.counts[slotForeign+index(retries[:], retried)].Add(1)
	}
}

// Secret counts a call into which the sidecar put the AppSecret.
func (m *Metrics) Secret(k tokencache.Key) {
	if c := m.Of(k); c != nil {
		c.app.counts[slotSecrets].Add(1)
	}
}

// Reloaded counts that the configuration was read again; err says why the old one stays.
func (m *Metrics) Reloaded(err error) {
	if err != nil {
		m.reloads.WithLabelValues(reloadFailed).Inc()
		m.reloadOK.Set(0)
		return
	}
	m.reloads.WithLabelValues(reloadOK).Inc()
	m.ConfigValid()
}

// ConfigValid says that the configuration as it can be read now is in force, also when that is the
// one that stayed.
func (m *Metrics) ConfigValid() {
	m.reloadOK.Set(1)
	m.reloadStamp.Set(stamp(time.Now()))
}

// Read counts what a reader got. It is on the hot path: it takes one lookup, no lock, and allocates
// nothing.
func (m *Metrics) Read(ctx context.Context, k tokencache.Key, t tokencache.Token, err error) {
	m.Of(k).Read(ctx, t, err)
}

// Problem counts an answer without a value on the value listener. kind is of a closed set.
func (m *Metrics) Problem(kind string) { m.problems.WithLabelValues(kind).Inc() }

// Panicked counts a panic of a handler.
func (m *Metrics) Panicked() { m.panics.Inc() }

// oneOf returns v if it is in the closed set, else other.
func oneOf[S ~string](set []S, v S) string {
	if slices.Contains(set, v) {
		return string(v)
	}
	return other
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// buildInfo is a constant 1 with what was built as labels.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "wxtoken_build_info", Help: "1, with what runs here as labels.",
		ConstLabels: prometheus.Labels{"version": build.Version(), "revision": build.Revision(), "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
