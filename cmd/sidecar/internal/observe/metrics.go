package observe

import (
	"context"
	"maps"
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
// [NewMetrics]. What is a look at the present has collectors of its own, [NewCollector] and
// [NewRedisCollector]; testdata/metrics.txt lists every metric with its type and labels.
//
// The labels app and kind take only the values given to [Metrics.Track], and every other label one
// of a fixed set, so a caller cannot make a series.
//
// faults_test.go makes one fault after the other, and says which of the metrics shows it.
type Metrics struct {
	refreshes     *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	fetches       *prometheus.CounterVec
	failures      *prometheus.CounterVec
	errcodes      *prometheus.CounterVec
	fetchDuration *prometheus.HistogramVec
	probes        *prometheus.CounterVec
	leaseWait     *prometheus.HistogramVec
	lost          *prometheus.CounterVec
	reports       *prometheus.CounterVec
	reads         *prometheus.CounterVec

	redis         *prometheus.CounterVec
	emptied       *prometheus.CounterVec
	subscriptions prometheus.Counter
	lag           *prometheus.HistogramVec
	missed        *prometheus.CounterVec
	capped        *prometheus.CounterVec
	steps         *prometheus.CounterVec

	problems    *prometheus.CounterVec
	panics      prometheus.Counter
	proxied     *prometheus.CounterVec
	foreign     *prometheus.CounterVec
	reloads     *prometheus.CounterVec
	reloadOK    prometheus.Gauge
	reloadStamp prometheus.Gauge

	// hot holds the counters of a read, resolved ahead.
	hot atomic.Pointer[map[tokencache.Key]*reads]

	mu    sync.RWMutex // held to add to the series of known, against Track deleting them
	known map[tokencache.Key]bool
}

// reads are the outcomes of reading one credential.
type reads struct{ memory, redis, upstream, stale, failed, canceled prometheus.Counter }

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
		refreshes:     counter("refreshes_total", "Refreshes that this replica ran, by what asked for them and how they ended.", "app", "kind", "reason", "result"),
		duration:      histogram("refresh_duration_seconds", "From the start of a refresh to its result; shared is the wait for another replica.", seconds, "kind", "result"),
		fetches:       counter("upstream_fetches_total", "Values asked of upstream by this replica; after an unclear one upstream may have issued a value that is lost.", "app", "kind", "reason", "result"),
		failures:      counter("upstream_fetch_failures_total", "Fetches that brought no value, by what that means for the next one.", "app", "kind", "class"),
		errcodes:      counter("upstream_errcodes_total", "Fetches that brought no value, by upstream's errcode; none if it gave none.", "app", "kind", "errcode"),
		fetchDuration: histogram("upstream_fetch_duration_seconds", "From a fetch's request to its answer.", seconds, "kind", "result"),
		probes:        counter("upstream_probes_total", "Questions to upstream whether it accepts a value.", "app", "kind", "result"),
		leaseWait:     histogram("lease_wait_seconds", "How long a refresh that met another replica's lease waited for it.", seconds, "kind"),
		lost:          counter("leases_lost_total", "Leases that were over before the refresh was.", "app", "kind"),
		reports:       counter("reports_total", "Reports of rejected values; those that share a refresh count once.", "app", "kind", "outcome"),
		reads:         counter("reads_total", "Reads by what they were answered from (stale: with a value that may no longer work); canceled callers did not wait for an answer.", "app", "kind", "outcome"),

		redis:   counter("redis_errors_total", "Failed operations on Redis.", "op", "class"),
		emptied: counter("redis_data_losses_total", "Times that Redis knew less than this replica: it was emptied, or a failover lost writes.", "app", "kind"),
		subscriptions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wxtoken_subscriptions_total", Help: "Subscriptions to the events of the others: the first one, and each reconnect.",
		}),
		lag: histogram("event_lag_seconds", "From the moment Redis published an event to that of the answer that was adopted for it, both by Redis' clock.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15}, "kind"),
		missed: counter("events_missed_total", "Versions that a re-read found and no event announced.", "app", "kind"),
		capped: counter("locks_capped_total", "Lock keys in Redis that no replica can have written, without an expiry or with one longer than a lease; each was left 10 s.", "app", "kind"),
		steps:  counter("clock_steps_total", "Times that the wall clock was stepped by a second or more; forward also after a suspend.", "direction"),

		problems: counter("http_problems_total", "Answers without a value on the listener of values, by type of problem.", "type"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wxtoken_http_panics_total", Help: "Panics of handlers. Each is a bug.",
		}),
		foreign: counter("proxy_foreign_tokens_total", "Calls that came with an access token of no configured app and took it to WeChat; retried says whether WeChat rejected it and the sidecar's took its place.",
			"app", "retried"),
		proxied:     counter("proxy_calls_total", "Calls that the proxy took, by how they ended and whether they were repeated.", "app", "outcome", "retried"),
		reloads:     counter("config_reloads_total", "Times that the configuration was read again, by result.", "result"),
		reloadOK:    gauge("config_last_reload_successful", "1 if the configuration as it can be read now is in force, 0 if it is not valid and the old one stays."),
		reloadStamp: gauge("config_last_reload_success_timestamp_seconds", "When a valid configuration was last read."),
		known:       map[tokencache.Key]bool{},
	}
	m.hot.Store(&map[tokencache.Key]*reads{})
	m.preset()
	m.ConfigValid()
	reg.MustRegister(m.refreshes, m.duration, m.fetches, m.failures, m.errcodes, m.fetchDuration, m.probes, m.leaseWait,
		m.lost, m.reports, m.reads, m.redis, m.emptied, m.subscriptions, m.lag, m.missed, m.capped, m.steps,
		m.problems, m.panics, m.proxied, m.foreign, m.reloads, m.reloadOK, m.reloadStamp, buildInfo())
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

var (
	redisOps = [...]string{"load", "lease", "caplease", "begin", "discard", "commit", "finish", "cut", "watch", other}
	classes  = [...]tokencache.Class{tokencache.ClassTransient, tokencache.ClassPermanent, tokencache.ClassQuota, tokencache.ClassLocal, other}
	reasons  = [...]string{string(tokencache.ReasonMissing), string(tokencache.ReasonDue), string(tokencache.ReasonReport), force}
	// Those that an operator acts on. All others are "other".
	errcodes = [...]string{"-1", "40001", "40002", "40013", "40125", "40164", "40243", "42001", "45009", "45011", "48001", "48004",
		"50002", "60020", "61004", "89503", noErrcode, other}
	probeResults = [...]string{probeAccepted, probeRejected, probeUnknown}
)

// force is the reason of a fetch that asks for another value than the present one.
const force = string(tokencache.ReasonForce)

const (
	probeAccepted = "accepted"
	probeRejected = "rejected"
	probeUnknown  = "unknown"
)

// Add begins to count a credential that comes while the program runs, until the next Track.
func (m *Metrics) Add(k tokencache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known[k] {
		m.known[k] = true
		hot := maps.Clone(*m.hot.Load())
		hot[k] = m.begin(k)
		m.hot.Store(&hot)
	}
}

// counts reports whether k is counted.
func (m *Metrics) counts(k tokencache.Key) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.known[k]
}

// Track sets the credentials that there are: their counters start at 0, and those of credentials
// that are gone disappear. Events and reads of others are not counted. Call it before each
// [tokencache.Cache.Set].
func (m *Metrics) Track(keys ...tokencache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	hot, known, apps := map[tokencache.Key]*reads{}, map[tokencache.Key]bool{}, map[string]bool{}
	for _, k := range keys {
		known[k], apps[k.App] = true, true
		hot[k] = m.begin(k)
	}
	for k := range m.known {
		if !known[k] {
			m.forget(k)
		}
		if !apps[k.App] {
			m.proxied.DeletePartialMatch(prometheus.Labels{"app": k.App})
			m.foreign.DeletePartialMatch(prometheus.Labels{"app": k.App})
		}
	}
	m.known = known
	m.hot.Store(&hot)
}

// begin makes the series of k, so that the first of a kind counts as an increase.
func (m *Metrics) begin(k tokencache.Key) *reads {
	for _, vec := range []*prometheus.CounterVec{m.lost, m.missed, m.capped, m.emptied} {
		vec.WithLabelValues(k.App, k.Kind)
	}
	for _, class := range classes {
		m.failures.WithLabelValues(k.App, k.Kind, string(class))
	}
	for _, code := range errcodes {
		m.errcodes.WithLabelValues(k.App, k.Kind, code)
	}
	for _, result := range probeResults {
		m.probes.WithLabelValues(k.App, k.Kind, result)
	}
	for _, reason := range reasons {
		for _, result := range []string{fetchOK, fetchFailed, fetchUnclear} {
			m.fetches.WithLabelValues(k.App, k.Kind, reason, result)
		}
		for _, result := range []tokencache.Result{tokencache.ResultCommitted, tokencache.ResultFailed} {
			if reason != force {
				m.refreshes.WithLabelValues(k.App, k.Kind, reason, string(result))
			}
		}
	}
	for _, result := range []tokencache.Result{tokencache.ResultCommitted, tokencache.ResultNotCurrent, tokencache.ResultAccepted, tokencache.ResultThrottled, tokencache.ResultFailed} {
		m.reports.WithLabelValues(k.App, k.Kind, string(result))
	}
	read := func(outcome string) prometheus.Counter { return m.reads.WithLabelValues(k.App, k.Kind, outcome) }
	return &reads{
		memory: read(string(tokencache.FromMemory)), redis: read(string(tokencache.FromRedis)), upstream: read(string(tokencache.FromUpstream)),
		stale: read("stale"), failed: read("error"), canceled: read("canceled"),
	}
}

func (m *Metrics) forget(k tokencache.Key) {
	gone := prometheus.Labels{"app": k.App, "kind": k.Kind}
	for _, vec := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.refreshes, m.fetches, m.failures, m.errcodes, m.probes, m.lost, m.reports, m.reads, m.emptied, m.missed, m.capped,
	} {
		vec.DeletePartialMatch(gone)
	}
}

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
	m.mu.RLock()
	defer m.mu.RUnlock()
	if k != (tokencache.Key{}) && !m.known[k] {
		return
	}
	m.proxied.WithLabelValues(k.App, outcome, string(retried)).Inc()
}

// ForeignToken counts a call that took the caller's token, which is none of a configured app, to
// WeChat.
func (m *Metrics) ForeignToken(k tokencache.Key, retried Retried) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.known[k] {
		m.foreign.WithLabelValues(k.App, string(retried)).Inc()
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

// Read counts what a reader got. It is on the hot path.
func (m *Metrics) Read(ctx context.Context, k tokencache.Key, t tokencache.Token, err error) {
	r := (*m.hot.Load())[k]
	switch {
	case r == nil:
	case err == nil && t.Stale:
		r.stale.Inc()
	case err == nil && t.From == tokencache.FromUpstream:
		r.upstream.Inc()
	case err == nil && t.From == tokencache.FromRedis:
		r.redis.Inc()
	case err == nil:
		r.memory.Inc()
	case ctx.Err() == context.Canceled: // by the caller: the end of the budget is another error
		r.canceled.Inc()
	default:
		r.failed.Inc()
	}
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
