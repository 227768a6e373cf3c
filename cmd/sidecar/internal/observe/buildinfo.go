package observe

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
)

// buildInfo is a constant 1 with what was built as labels.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "wxtoken_build_info", Help: "1, with what runs here as labels.",
		ConstLabels: prometheus.Labels{"version": build.Version(), "revision": build.Revision(), "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
