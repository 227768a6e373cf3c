package api

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// NewCollector returns the metrics that are a look at the present: the version, the expiry and the
// doubt of each credential. status is [tokencache.Cache.Status]; it is asked at each scrape.
func NewCollector(status func() []tokencache.Status) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("wxtoken_token_"+name, help, []string{"app", "kind"}, nil)
	}
	return &collector{
		status:  status,
		version: desc("version", "Version of the value in memory; it only grows."),
		expiry:  desc("expiry_timestamp_seconds", "When the value in memory ends. Absent without one."),
		fresh:   desc("fresh", "1 if the next read gets a good value from memory."),
		doubt:   desc("in_doubt", "1 if upstream may have superseded the value without anybody knowing the new one."),
		backoff: desc("backoff_seconds", "How long upstream must not be asked."),
	}
}

type collector struct {
	status                                 func() []tokencache.Status
	version, expiry, fresh, doubt, backoff *prometheus.Desc
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.version, c.expiry, c.fresh, c.doubt, c.backoff} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, s := range c.status() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Key.App, s.Key.Kind)
		}
		gauge(c.version, float64(s.Version))
		if s.Known {
			// Whole seconds: otherwise every scrape would see another moment.
			gauge(c.expiry, math.Round(float64(now.Add(s.ExpiresIn).UnixMilli())/1000))
		}
		gauge(c.fresh, number(s.Fresh))
		gauge(c.doubt, number(s.InDoubt))
		gauge(c.backoff, s.Backoff.Seconds())
	}
}
