package observe

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// NewCollector returns the metrics that are a look at the present of each credential. status is
// [tokencache.Cache.Status]; it is asked at each scrape.
func NewCollector(status func() []tokencache.Status) prometheus.Collector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("wxtoken_"+name, help, append([]string{"app", "kind"}, more...), nil)
	}
	return &collector{
		status:    status,
		version:   desc("token_version", "Version of the value in memory; it only grows."),
		expiry:    desc("token_expiry_timestamp_seconds", "When the value in memory ends. Absent without one."),
		committed: desc("token_last_refresh_timestamp_seconds", "When the value in memory was committed, by whichever replica. Absent without one."),
		fresh:     desc("token_fresh", "1 if the next read gets a good value from memory."),
		doubt:     desc("token_in_doubt", "1 if upstream may have superseded the value by one that no replica has."),
		rejected:  desc("token_rejected", "1 if upstream was found to reject the value, and there is no other yet."),
		backoff:   desc("token_backoff_seconds", "How long upstream must not be asked."),
		why:       desc("token_backoff_info", "1 while upstream must not be asked, with the reason as labels.", "class", "errcode"),
		left:      desc("allowance_left", "Calls that the cluster's allowance lets follow each other at once now.", "allowance"),
		burst:     desc("allowance_burst", "The most that is ever left of an allowance.", "allowance"),
		foreign:   desc("foreign_refresher_suspected", "1 if values are rejected while young: probably another program refreshes this app."),
	}
}

type collector struct {
	status                                                                                 func() []tokencache.Status
	version, expiry, committed, fresh, doubt, rejected, backoff, why, left, burst, foreign *prometheus.Desc
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.version, c.expiry, c.committed, c.fresh, c.doubt, c.rejected, c.backoff, c.why, c.left, c.burst, c.foreign} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, s := range c.status() {
		gauge := func(d *prometheus.Desc, v float64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.Key.App, s.Key.Kind}, more...)...)
		}
		gauge(c.version, float64(s.Version))
		if s.Known {
			gauge(c.expiry, stamp(now.Add(s.ExpiresIn)))
		}
		if !s.CommittedAt.IsZero() {
			gauge(c.committed, stamp(s.CommittedAt))
		}
		gauge(c.fresh, number(s.Fresh))
		gauge(c.doubt, number(s.InDoubt))
		gauge(c.rejected, number(s.Rejected))
		gauge(c.backoff, s.Backoff.Seconds())
		if s.Backoff > 0 {
			gauge(c.why, 1, oneOf(backoffClasses[:], s.Class), errcodeLabel(s.Code))
		}
		for _, a := range []struct {
			name string
			tokencache.Allowance
		}{{"fetches", s.Fetches}, {"reports", s.Reports}, {"forced", s.Forced}} {
			if a.Burst > 0 { // what is never allowed is never spent
				gauge(c.left, float64(a.Left), a.name)
				gauge(c.burst, float64(a.Burst), a.name)
			}
		}
		gauge(c.foreign, number(s.ForeignRefresher))
	}
}

// backoffClasses are those of a failed fetch, and that of a spent allowance.
var backoffClasses = append(classes[:], tokencache.ClassLimited)

// NewRedisCollector returns the metrics that are a look at the ways to Redis. health is
// [tokencache.Cache.Health]; it is asked at each scrape.
func NewRedisCollector(health func() tokencache.Health) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("wxtoken_"+name, help, nil, nil) }
	return &redisCollector{
		health:     health,
		up:         desc("redis_up", "1 if the last look at Redis was answered; there is one at least every 15 s."),
		answered:   desc("redis_last_success_timestamp_seconds", "When a look at Redis was last answered. Absent if never."),
		subscribed: desc("subscription_up", "1 while this replica listens for the events of the others."),
	}
}

type redisCollector struct {
	health                   func() tokencache.Health
	up, answered, subscribed *prometheus.Desc
}

func (c *redisCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.answered, c.subscribed} {
		ch <- d
	}
}

func (c *redisCollector) Collect(ch chan<- prometheus.Metric) {
	h := c.health()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	gauge(c.up, number(h.RedisUp))
	if !h.RedisAnswered.IsZero() {
		gauge(c.answered, stamp(h.RedisAnswered))
	}
	gauge(c.subscribed, number(h.Subscribed))
}

// stamp is a moment in whole seconds: otherwise every scrape would see another one.
func stamp(t time.Time) float64 { return math.Round(float64(t.UnixMilli()) / 1000) }
