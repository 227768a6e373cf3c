package api

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Metrics count what the cache does and what is served. Safe for concurrent use; create it with
// [NewMetrics].
//
// The labels app and kind take only the values given to [Metrics.Track], and every other label one
// of a fixed set, so a caller cannot make a series.
type Metrics struct {
	refreshes *prometheus.CounterVec
	failures  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	lost      *prometheus.CounterVec
	reports   *prometheus.CounterVec
	foreign   *prometheus.GaugeVec
	reads     *prometheus.CounterVec
	redis     *prometheus.CounterVec
	problems  *prometheus.CounterVec
	panics    prometheus.Counter
	reloads   *prometheus.CounterVec
	proxied   *prometheus.CounterVec

	// hot holds the counters of a read, resolved ahead.
	hot atomic.Pointer[map[tokencache.Key]*reads]

	mu    sync.RWMutex // held to add to the series of known, against Track deleting them
	known map[tokencache.Key]bool
}

// reads are the outcomes of reading one credential.
type reads struct{ fresh, stale, failed, canceled prometheus.Counter }

// NewMetrics registers the metrics with reg, and panics if they already are, as MustRegister does.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wxtoken_" + name, Help: help}, labels)
	}
	m := &Metrics{
		refreshes: counter("refreshes_total", "Refreshes that this replica ran, by what asked for them and how they ended.", "app", "kind", "reason", "result"),
		failures:  counter("upstream_fetch_failures_total", "Fetches that brought no value, by what that means for the next one.", "app", "kind", "class"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wxtoken_refresh_duration_seconds",
			Help: "From the start of a refresh to its result; shared is the wait for another replica.",
			// From a round trip to Redis, over a fetch in a fifth of a second, to two leases.
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"kind", "result"}),
		lost:    counter("leases_lost_total", "Fetched values whose commit was refused, because the lease was lost.", "app", "kind"),
		reports: counter("reports_total", "Reports of rejected values; those that share a refresh count once.", "app", "kind", "outcome"),
		foreign: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wxtoken_foreign_refresher_suspected",
			Help: "1 if values are rejected while young: somebody else refreshes this app.",
		}, []string{"app", "kind"}),
		reads:    counter("reads_total", "Reads by outcome; canceled callers did not wait for an answer.", "app", "kind", "outcome"),
		redis:    counter("redis_errors_total", "Failed operations on Redis.", "op"),
		problems: counter("http_problems_total", "Answers without a value on the listener of values, by type of problem.", "type"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wxtoken_http_panics_total", Help: "Panics of handlers. Each is a bug.",
		}),
		proxied: counter("proxy_calls_total", "Calls that the proxy took, by how they ended and whether they were repeated with a new token.", "app", "outcome", "retried"),
		reloads: counter("config_reloads_total", "Times that the configuration was read again, by result.", "result"),
		known:   map[tokencache.Key]bool{},
	}
	m.hot.Store(&map[tokencache.Key]*reads{})
	for _, op := range redisOps {
		m.redis.WithLabelValues(op)
	}
	for _, result := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	reg.MustRegister(m.refreshes, m.failures, m.duration, m.lost, m.reports, m.foreign, m.reads,
		m.redis, m.problems, m.panics, m.reloads, m.proxied, buildInfo())
	return m
}

// buildInfo is a constant 1 with what was built as labels.
func buildInfo() prometheus.Collector {
	b := build()
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "wxtoken_build_info", Help: "1, with what runs here as labels.",
		ConstLabels: prometheus.Labels{"version": b.version, "revision": b.revision, "goversion": b.goVersion},
	})
	g.Set(1)
	return g
}

// built is what runs here.
type built struct{ version, revision, goVersion string }

func build() built {
	b := built{version: "unknown", revision: "unknown", goVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.revision = s.Value
		}
	}
	return b
}

// Values of labels.
const (
	reloadOK     = "ok"
	reloadFailed = "failed"
	other        = "other" // what is in no closed set
)

var (
	redisOps = [...]string{"load", "lease", "begin", "commit", "conclude", "cut", "watch", other}
	classes  = [...]tokencache.Class{tokencache.Transient, tokencache.Permanent, tokencache.Quota, tokencache.Local, other}
)

// Track sets the credentials that there are: their counters start at 0, and those of credentials
// that are gone disappear. Events and reads of others are not counted. Call it before each
// [tokencache.Cache.Set].
func (m *Metrics) Track(keys ...tokencache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	hot, known := map[tokencache.Key]*reads{}, map[tokencache.Key]bool{}
	for _, k := range keys {
		read := func(outcome string) prometheus.Counter {
			return m.reads.WithLabelValues(k.App, k.Kind, outcome)
		}
		hot[k] = &reads{read("fresh"), read("stale"), read("error"), read("canceled")}
		known[k] = true
		m.lost.WithLabelValues(k.App, k.Kind)
		m.foreign.WithLabelValues(k.App, k.Kind)
		for _, class := range classes {
			m.failures.WithLabelValues(k.App, k.Kind, string(class))
		}
		for _, reason := range []tokencache.Reason{tokencache.Missing, tokencache.Due, tokencache.Report} {
			for _, result := range []tokencache.Result{tokencache.Committed, tokencache.Failed} {
				m.refreshes.WithLabelValues(k.App, k.Kind, string(reason), string(result))
			}
		}
	}
	for k := range m.known {
		if !known[k] {
			m.forget(k)
		}
	}
	m.known = known
	m.hot.Store(&hot)
}

func (m *Metrics) forget(k tokencache.Key) {
	gone := prometheus.Labels{"app": k.App, "kind": k.Kind}
	for _, vec := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.refreshes, m.failures, m.lost, m.reports, m.foreign, m.reads, m.proxied,
	} {
		vec.DeletePartialMatch(gone)
	}
}

// Observe counts an event. It is for [tokencache.Options].
func (m *Metrics) Observe(e tokencache.Event) {
	storeErr, isStore := errors.AsType[*tokencache.StoreError](e.Err)
	if isStore {
		m.redis.WithLabelValues(opLabel(storeErr.Op)).Inc()
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.known[e.Key] {
		return
	}
	m.foreign.WithLabelValues(e.Key.App, e.Key.Kind).Set(number(e.ForeignRefresher))
	if e.Reason == "" || isStore && e.Result != tokencache.Orphaned {
		return // trouble with Redis on the way; the end of the refresh is another event, if it has one
	}
	if e.Reason == tokencache.Report {
		m.reports.WithLabelValues(e.Key.App, e.Key.Kind, string(e.Result)).Inc()
	}
	switch e.Result {
	case tokencache.Stale, tokencache.Accepted, tokencache.Unknown:
		return // of a report that needed no refresh
	case tokencache.Refused:
		m.lost.WithLabelValues(e.Key.App, e.Key.Kind).Inc()
	case tokencache.Failed:
		if f, ok := errors.AsType[*tokencache.FetchError](e.Err); ok {
			m.failures.WithLabelValues(e.Key.App, e.Key.Kind, classLabel(f.Class)).Inc()
		}
	}
	m.refreshes.WithLabelValues(e.Key.App, e.Key.Kind, string(e.Reason), string(e.Result)).Inc()
	m.duration.WithLabelValues(e.Key.Kind, string(e.Result)).Observe(e.Took.Seconds())
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

// Reloaded counts that the configuration was read again; err says why the old one stays.
func (m *Metrics) Reloaded(err error) {
	result := reloadOK
	if err != nil {
		result = reloadFailed
	}
	m.reloads.WithLabelValues(result).Inc()
}

// read counts what a reader got. It is on the hot path.
func (m *Metrics) read(ctx context.Context, k tokencache.Key, t tokencache.Token, err error) {
	r := (*m.hot.Load())[k]
	switch {
	case r == nil:
	case err == nil && !t.Stale:
		r.fresh.Inc()
	case err == nil:
		r.stale.Inc()
	case ctx.Err() == context.Canceled: // by the caller: our own budget ends otherwise
		r.canceled.Inc()
	default:
		r.failed.Inc()
	}
}

func opLabel(op string) string {
	for _, known := range redisOps {
		if op == known {
			return op
		}
	}
	return other
}

func classLabel(c tokencache.Class) string {
	for _, known := range classes {
		if c == known {
			return string(c)
		}
	}
	return other
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
