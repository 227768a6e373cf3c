package observe_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// exposed is what a collector shows, without its comments.
func exposed(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	return exposition(t, reg)
}

// exposition is what a registry shows, without its comments.
func exposition(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(w.Body.String(), "")
}

// everything is a registry as the program has it, after each thing that makes a series has
// happened.
func everything(t *testing.T) *prometheus.Registry {
	reg := prometheus.NewPedanticRegistry()
	m := observe.NewMetrics(reg)
	reg.MustRegister(
		m.Collector(func() []tokencache.Status {
			return []tokencache.Status{{Key: shop, Known: true, CommittedAt: time.Now(), Backoff: time.Second, Class: tokencache.ClassQuota, Fetches: tokencache.Allowance{Left: 1, Burst: 2}}}
		}),
		observe.NewRedisCollector(func() tokencache.Health {
			return tokencache.Health{RedisAnswered: time.Now(), RereadBound: time.Second}
		}),
	)
	platforms := observe.NewPlatformMetrics(reg, []string{"wxp"}, func() []platform.Status {
		return []platform.Status{{ID: "wxp", TicketLife: time.Hour, Authorizers: map[vault.State]int{}}}
	})
	platforms.Observe(platform.Event{Platform: "wxp", What: platform.EventRecovery, Label: "added"})
	_, _ = platforms.Vault(hasty{}).Load(t.Context(), "", "") // it takes what it takes
	m.Track(shop)
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultCommitted})
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultFetched})
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultLeaseWaited})
	m.Observe(tokencache.Event{Key: shop, Result: tokencache.ResultAdopted})
	m.Proxied(shop, "answered", observe.Once)
	m.ForeignToken(shop, observe.Once)
	m.Secret(shop)
	face := api.New(tokencache.New(nil, tokencache.Options{}), func(string) (tokencache.Key, bool) { return shop, false }, api.Options{Metrics: m})
	face.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://127.0.0.1/nothing", nil))
	return reg
}

// Dashboards and alerts are written from this list: a change of it is a change of what users rely
// on.
func TestTheMetricsAreThoseOfTheList(t *testing.T) {
	families, err := everything(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		line := fmt.Sprintf("%s %s", f.GetName(), strings.ToLower(f.GetType().String()))
		for _, l := range f.Metric[0].Label {
			line += " " + l.GetName()
		}
		lines = append(lines, line)
	}
	got := strings.Join(lines, "\n") + "\n"
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the metrics are\n%s\ntestdata/metrics.txt has\n%s", got, want)
	}
	if !slices.IsSorted(lines) {
		t.Error("not sorted")
	}
}

func TestMetricsAreLintFree(t *testing.T) {
	problems, err := testutil.GatherAndLint(everything(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
