package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
)

// PlatformMetrics are those of third-party platforms and suites. A program without one has none of
// them. No series is for one account. Safe for concurrent use.
type PlatformMetrics struct {
	pushes, exchanges, recoveries, withdrawals *prometheus.CounterVec
}

// NewPlatformMetrics registers the metrics with reg. age returns how old the newest ticket of a
// platform is, and whether that is known.
func NewPlatformMetrics(reg prometheus.Registerer, platforms []string, age func(platform string) (time.Duration, bool)) *PlatformMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wxtoken_" + name, Help: help}, labels)
	}
	m := &PlatformMetrics{
		pushes:      counter("platform_pushes_total", "Pushes of WeChat that were genuine, by what they are about.", "platform", "info_type", "result"),
		exchanges:   counter("platform_exchanges_total", "Codes that were exchanged, or not.", "platform", "result"),
		recoveries:  counter("platform_recoveries_total", "Accounts that were compared with WeChat's list.", "platform", "result"),
		withdrawals: counter("platform_withdrawals_total", "Withdrawals of accounts; late is one that something newer had overtaken.", "platform", "result"),
	}
	reg.MustRegister(m.pushes, m.exchanges, m.recoveries, m.withdrawals, ticketAge{platforms, age})
	return m
}

// Observe counts an event. It is for [platform.Options].
func (m *PlatformMetrics) Observe(e platform.Event) {
	switch e.What {
	case platform.EventPush:
		result := "ok"
		if e.Err != nil {
			result = "failed"
		}
		m.pushes.WithLabelValues(e.Platform, e.Label, result).Inc()
	case platform.EventExchange:
		m.exchanges.WithLabelValues(e.Platform, e.Label).Inc()
	case platform.EventRecovery:
		m.recoveries.WithLabelValues(e.Platform, e.Label).Inc()
	case platform.EventWithdrawn:
		m.withdrawals.WithLabelValues(e.Platform, e.Label).Inc()
	}
}

// ticketAge collects how old the tickets are, when it is asked.
type ticketAge struct {
	platforms []string
	age       func(string) (time.Duration, bool)
}

var ticketAgeDesc = prometheus.NewDesc("wxtoken_platform_ticket_age_seconds", "Since the newest ticket of the platform was stored. WeChat pushes one every 10 minutes.", []string{"platform"}, nil)

// Describe implements [prometheus.Collector].
func (ticketAge) Describe(ch chan<- *prometheus.Desc) { ch <- ticketAgeDesc }

// Collect implements [prometheus.Collector].
func (t ticketAge) Collect(ch chan<- prometheus.Metric) {
	for _, p := range t.platforms {
		if age, known := t.age(p); known {
			ch <- prometheus.MustNewConstMetric(ticketAgeDesc, prometheus.GaugeValue, age.Seconds(), p)
		}
	}
}
