package api_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

var (
	shop  = tokencache.Key{App: "wx1", Kind: "access_token"}
	card  = tokencache.Key{App: "wx1", Kind: "wx_card_ticket"}
	alien = tokencache.Key{App: "wx9", Kind: "access_token"}
)

// What each event counts, and that it counts nothing else.
func TestObserve(t *testing.T) {
	redis := &tokencache.StoreError{Op: "begin", Err: errors.New("away")}
	wrong := &tokencache.FetchError{Class: tokencache.Permanent, Code: 40125}
	for _, c := range []struct {
		name  string
		event tokencache.Event
		want  map[string]float64 // by name and labels
	}{
		{"committed", tokencache.Event{Key: shop, Reason: tokencache.Due, Result: tokencache.Committed, Took: time.Second},
			map[string]float64{"refreshes_total app wx1 kind access_token reason due result committed": 1, "refresh_duration_seconds kind access_token result committed": 1}},
		{"of another kind", tokencache.Event{Key: card, Reason: tokencache.Missing, Result: tokencache.Unchanged},
			map[string]float64{"refreshes_total kind wx_card_ticket reason missing result unchanged": 1, "refresh_duration_seconds kind wx_card_ticket": 1}},
		{"failed", tokencache.Event{Key: shop, Reason: tokencache.Missing, Result: tokencache.Failed, Err: wrong},
			map[string]float64{"refreshes_total reason missing result failed": 1, "refresh_duration_seconds result failed": 1, "upstream_fetch_failures_total app wx1 class permanent": 1}},
		{"failed in a new way", tokencache.Event{Key: shop, Reason: tokencache.Missing, Result: tokencache.Failed, Err: &tokencache.FetchError{Class: "new"}},
			map[string]float64{"refreshes_total result failed": 1, "refresh_duration_seconds result failed": 1, "upstream_fetch_failures_total class other": 1}},
		{"lease lost", tokencache.Event{Key: shop, Reason: tokencache.Due, Result: tokencache.Refused, Err: errors.New("lost")},
			map[string]float64{"refreshes_total result refused": 1, "refresh_duration_seconds result refused": 1, "leases_lost_total app wx1": 1}},
		{"report", tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Committed},
			map[string]float64{"refreshes_total reason report result committed": 1, "refresh_duration_seconds result committed": 1, "reports_total outcome committed": 1}},
		{"report of an old value", tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Stale},
			map[string]float64{"reports_total app wx1 kind access_token outcome stale": 1}},
		{"report not believed", tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Accepted},
			map[string]float64{"reports_total outcome accepted": 1}},
		{"unclear report", tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Unknown, Err: errors.New("no answer")},
			map[string]float64{"reports_total outcome unknown": 1}},
		{"no Redis", tokencache.Event{Key: shop, Reason: tokencache.Due, Result: tokencache.Failed, Err: redis},
			map[string]float64{"redis_errors_total op begin": 1}},
		{"no Redis before the commit", tokencache.Event{Key: shop, Reason: tokencache.Due, Result: tokencache.Orphaned, Err: &tokencache.StoreError{Op: "commit"}},
			map[string]float64{"redis_errors_total op commit": 1, "refreshes_total result orphaned": 1, "refresh_duration_seconds result orphaned": 1}},
		{"no Redis to listen on", tokencache.Event{Result: tokencache.Failed, Err: &tokencache.StoreError{Op: "watch"}},
			map[string]float64{"redis_errors_total op watch": 1}},
		{"a new operation", tokencache.Event{Key: shop, Result: tokencache.Failed, Err: &tokencache.StoreError{Op: "new"}},
			map[string]float64{"redis_errors_total op other": 1}},
		{"somebody else", tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Throttled, ForeignRefresher: true},
			map[string]float64{"refreshes_total result throttled": 1, "refresh_duration_seconds result throttled": 1, "reports_total outcome throttled": 1, "foreign_refresher_suspected app wx1 kind access_token": 1}},
		{"an app that is not there", tokencache.Event{Key: alien, Reason: tokencache.Due, Result: tokencache.Committed, ForeignRefresher: true},
			map[string]float64{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			m := api.NewMetrics(reg)
			m.Track(shop, card)
			m.Observe(c.event)
			sum := 0.0
			for what, want := range c.want {
				sum += want
				words := strings.Fields(what)
				if got := testutil.ToFloat64(series(reg, "wxtoken_"+words[0], words[1:]...)); got != want {
					t.Errorf("%s: got %v, want %v", what, got, want)
				}
			}
			all := 0.0
			for _, name := range []string{"refreshes_total", "upstream_fetch_failures_total", "refresh_duration_seconds", "leases_lost_total",
				"reports_total", "redis_errors_total", "foreign_refresher_suspected", "reads_total", "http_problems_total", "config_reloads_total"} {
				all += testutil.ToFloat64(series(reg, "wxtoken_"+name))
			}
			if all != sum {
				t.Errorf("%v counted altogether, want %v", all, sum)
			}
		})
	}
}

func TestSuspicionEnds(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := api.NewMetrics(reg)
	m.Track(shop)
	for _, suspected := range []bool{true, false} {
		m.Observe(tokencache.Event{Key: shop, Reason: tokencache.Due, Result: tokencache.Committed, ForeignRefresher: suspected})
		want := map[bool]float64{true: 1}[suspected]
		if got := testutil.ToFloat64(series(reg, "wxtoken_foreign_refresher_suspected")); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// A credential has its series from the moment it is configured until it no longer is.
func TestSeriesFollowTheConfiguration(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := api.NewMetrics(reg)
	count := func(app string) (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, metric := range f.Metric {
				if has(metric.Label, []string{"app", app}) {
					n++
				}
			}
		}
		return n
	}
	m.Track(shop)
	if n := count("wx1"); n < 10 {
		t.Errorf("%d series of a new app, want them all at 0", n)
	}
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Stale})
	m.Track(shop) // again changes nothing
	if got := testutil.ToFloat64(series(reg, "wxtoken_reports_total")); got != 1 {
		t.Errorf("got %v reports, want 1", got)
	}
	m.Track(alien)
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.Due, Result: tokencache.Committed}) // late
	if n := count("wx1"); n != 0 {
		t.Errorf("%d series of an app that is gone", n)
	}
	if n := count("wx9"); n < 10 {
		t.Errorf("%d series of a new app", n)
	}
}

func TestReloaded(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := api.NewMetrics(reg)
	m.Reloaded(nil)
	m.Reloaded(errors.New("a mistake"))
	m.Reloaded(errors.New("a mistake"))
	for result, want := range map[string]float64{"ok": 1, "failed": 2} {
		if got := testutil.ToFloat64(series(reg, "wxtoken_config_reloads_total", "result", result)); got != want {
			t.Errorf("%s: got %v, want %v", result, got, want)
		}
	}
}

func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := api.NewCollector(func() []tokencache.Status {
			return []tokencache.Status{
				{Key: shop, Version: 12, Known: true, Fresh: true, ExpiresIn: time.Hour},
				{Key: card, InDoubt: true, Backoff: 90 * time.Second},
			}
		})
		const want = `
# HELP wxtoken_token_backoff_seconds How long upstream must not be asked.
# TYPE wxtoken_token_backoff_seconds gauge
wxtoken_token_backoff_seconds{app="wx1",kind="access_token"} 0
wxtoken_token_backoff_seconds{app="wx1",kind="wx_card_ticket"} 90
# HELP wxtoken_token_expiry_timestamp_seconds When the value in memory ends. Absent without one.
# TYPE wxtoken_token_expiry_timestamp_seconds gauge
wxtoken_token_expiry_timestamp_seconds{app="wx1",kind="access_token"} 9.466884e+08
# HELP wxtoken_token_fresh 1 if the next read gets a good value from memory.
# TYPE wxtoken_token_fresh gauge
wxtoken_token_fresh{app="wx1",kind="access_token"} 1
wxtoken_token_fresh{app="wx1",kind="wx_card_ticket"} 0
# HELP wxtoken_token_in_doubt 1 if upstream may have superseded the value without anybody knowing the new one.
# TYPE wxtoken_token_in_doubt gauge
wxtoken_token_in_doubt{app="wx1",kind="access_token"} 0
wxtoken_token_in_doubt{app="wx1",kind="wx_card_ticket"} 1
# HELP wxtoken_token_version Version of the value in memory; it only grows.
# TYPE wxtoken_token_version gauge
wxtoken_token_version{app="wx1",kind="access_token"} 12
wxtoken_token_version{app="wx1",kind="wx_card_ticket"} 0
`
		if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
}

func TestMetricsAreLintFree(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := api.NewMetrics(reg)
	m.Track(shop)
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.Report, Result: tokencache.Committed})
	reg.MustRegister(api.NewCollector(func() []tokencache.Status { return []tokencache.Status{{Key: shop, Known: true}} }))
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
