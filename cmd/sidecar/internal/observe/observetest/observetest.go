// Package observetest reads metrics, for the tests of this program.
package observetest

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Series returns the sum of the series of a metric with these labels (names and values in turn), as
// a collector of its own. No such series counts as 0.
func Series(g prometheus.Gatherer, name string, labels ...string) prometheus.Collector {
	sum := 0.0
	families, err := g.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			if Has(m.Label, labels) {
				sum += m.Counter.GetValue() + m.Gauge.GetValue() + float64(m.Histogram.GetSampleCount())
			}
		}
	}
	c := prometheus.NewGauge(prometheus.GaugeOpts{Name: name})
	c.Set(sum)
	return c
}

// Has reports whether a metric's labels include those wanted.
func Has[L interface {
	GetName() string
	GetValue() string
}](labels []L, want []string) bool {
	for i := 0; i < len(want); i += 2 {
		if !slices.ContainsFunc(labels, func(l L) bool { return l.GetName() == want[i] && l.GetValue() == want[i+1] }) {
			return false
		}
	}
	return true
}
