package observe

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// PlatformMetrics are those of third-party platforms and suites. A program without one has none of
// them. No series is for one account. Safe for concurrent use.
type PlatformMetrics struct {
	callbacks, pushes, exchanges, recoveries, withdrawals, vaultErrors *prometheus.CounterVec
	vaultTime                                                          *prometheus.HistogramVec
}

// NewPlatformMetrics registers the metrics with reg. status returns what is known of each platform,
// and is asked at each scrape.
func NewPlatformMetrics(reg prometheus.Registerer, platforms []string, status func() []platform.Status) *PlatformMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wxtoken_" + name, Help: help}, labels)
	}
	m := &PlatformMetrics{
		callbacks: counter("platform_callbacks_total", "Requests to the callback, by where they came in and how they were answered.", "platform", "door", "result"),
		pushes: counter("platform_pushes_total", "Requests to the callback, by what the push is about and how it ended: ok, failed (not stored, so that WeChat comes again), or refused: signature (forged, or another Token), key (another EncodingAESKey), receiver (of another platform), malformed.",
			"platform", "info_type", "result"),
		exchanges:   counter("platform_exchanges_total", "Codes that were exchanged, or not, by how they came. A failed one is tried again; what a lost one brought cannot be had again.", "platform", "via", "result"),
		recoveries:  counter("platform_recoveries_total", "Accounts that were compared with WeChat's list.", "platform", "result"),
		withdrawals: counter("platform_withdrawals_total", "Withdrawals of accounts; late is one that something newer had overtaken, test one by an account of WeChat's release test.", "platform", "result"),
		vaultErrors: counter("vault_errors_total", "Operations on the vault that failed; not those that found that another replica was faster.", "op"),
		vaultTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wxtoken_vault_duration_seconds", Help: "How long the vault took to answer, for whatever it answered.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"op"}),
	}
	m.preset(platforms)
	reg.MustRegister(m.callbacks, m.pushes, m.exchanges, m.recoveries, m.withdrawals, m.vaultErrors, m.vaultTime, platformGauges{status})
	return m
}

// Results of a push that was refused.
const (
	refusedSignature = "signature"
	refusedKey       = "key"
	refusedReceiver  = "receiver"
	refusedMalformed = "malformed"
)

// unopened is the info_type of a push that was not opened.
const unopened = other

// preset makes the series that an alert looks at, so that the first of a kind is an increase.
func (m *PlatformMetrics) preset(platforms []string) {
	for _, p := range platforms {
		for _, result := range []string{refusedSignature, refusedKey, refusedReceiver, refusedMalformed} {
			m.pushes.WithLabelValues(p, unopened, result)
		}
		for _, via := range []string{"push", "redirect"} {
			for _, result := range []string{"done", "skipped", "recovered", "failed", "lost"} {
				m.exchanges.WithLabelValues(p, via, result)
			}
		}
		for _, result := range []string{"withdrawn", "late", "test"} {
			m.withdrawals.WithLabelValues(p, result)
		}
	}
	for _, op := range []string{opLoad, opSave, opList, opCodes} {
		m.vaultErrors.WithLabelValues(op)
	}
}

// Observe counts an event. It is for [platform.Options].
func (m *PlatformMetrics) Observe(e platform.Event) {
	switch e.What {
	case platform.EventPush:
		m.pushes.WithLabelValues(e.Platform, e.Label, pushResult(e.Err)).Inc()
	case platform.EventExchange:
		result := e.Label
		if e.Err != nil {
			result = "failed"
		}
		m.exchanges.WithLabelValues(e.Platform, e.Via, result).Inc()
	case platform.EventRecovery:
		m.recoveries.WithLabelValues(e.Platform, e.Label).Inc()
	case platform.EventWithdrawn:
		m.withdrawals.WithLabelValues(e.Platform, e.Label).Inc()
	}
}

func pushResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, wechat.ErrSignature):
		return refusedSignature
	case errors.Is(err, wechat.ErrDecrypt):
		return refusedKey
	case errors.Is(err, wechat.ErrReceiver):
		return refusedReceiver
	case platform.IsForged(err):
		return refusedMalformed
	}
	return "failed"
}

// Callback counts a request to the callback. door and result are of closed sets.
func (m *PlatformMetrics) Callback(platform, door, result string) {
	m.callbacks.WithLabelValues(platform, door, result).Inc()
}

// platformGauges collects what is known of the platforms, when it is asked.
type platformGauges struct{ status func() []platform.Status }

var (
	ticketAgeDesc = prometheus.NewDesc("wxtoken_platform_ticket_age_seconds",
		"Since the newest ticket of the platform was stored; while there is none, since this replica began to look. WeChat pushes one every 10 minutes.", []string{"platform", "kind"}, nil)
	authorizersDesc = prometheus.NewDesc("wxtoken_platform_authorizers",
		"Accounts that the vault has, by what became of their authorisation. Each replica counts them every 5 minutes or so.", []string{"platform", "state"}, nil)
	codesDesc = prometheus.NewDesc("wxtoken_platform_codes_waiting", "Codes that wait for their exchange.", []string{"platform"}, nil)
)

// Describe implements [prometheus.Collector].
func (platformGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ticketAgeDesc, authorizersDesc, codesDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (g platformGauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range g.status() {
		if s.TicketLife > 0 {
			gauge(ticketAgeDesc, s.Ticket.Seconds(), s.ID, string(s.Kind))
		}
		for _, state := range []vault.State{vault.StateActive, vault.StateRefused, vault.StateWithdrawn} {
			if s.Authorizers != nil {
				gauge(authorizersDesc, float64(s.Authorizers[state]), s.ID, string(state))
			}
		}
		gauge(codesDesc, float64(s.Codes), s.ID)
	}
}

// since counts an operation on the vault that began then.
func (m *PlatformMetrics) since(op string, begun time.Time, err error) {
	m.vaultTime.WithLabelValues(op).Observe(time.Since(begun).Seconds())
	if isVaultFault(err) {
		m.vaultErrors.WithLabelValues(op).Inc()
	}
}
