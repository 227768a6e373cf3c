package api

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

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
