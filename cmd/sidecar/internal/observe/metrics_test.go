package observe_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe/observetest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

var (
	shop  = tokencache.Key{App: "wx1", Kind: "access_token"}
	card  = tokencache.Key{App: "wx1", Kind: "wx_card_ticket"}
	alien = tokencache.Key{App: "wx9", Kind: "access_token"}
)

// What each event counts, and that it counts nothing else.
func TestObserve(t *testing.T) {
	redis := &tokencache.StoreError{Op: "begin", Err: context.DeadlineExceeded}
	wrong := &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40125}
	for _, c := range []struct {
		name  string
		event tokencache.Event
		want  map[string]float64 // by name and labels
	}{
		{"committed", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultCommitted, Took: time.Second},
			map[string]float64{"refreshes_total app wx1 kind access_token reason due result committed": 1, "refresh_duration_seconds kind access_token result committed": 1}},
		{"of another kind", tokencache.Event{Key: card, Reason: tokencache.ReasonMissing, Result: tokencache.ResultUnchanged},
			map[string]float64{"refreshes_total kind wx_card_ticket reason missing result unchanged": 1, "refresh_duration_seconds kind wx_card_ticket": 1}},
		{"failed", tokencache.Event{Key: shop, Reason: tokencache.ReasonMissing, Result: tokencache.ResultFailed, Err: wrong},
			map[string]float64{"refreshes_total reason missing result failed": 1, "refresh_duration_seconds result failed": 1}},
		{"failed for want of a token, itself for want of Redis", tokencache.Event{Key: shop, Reason: tokencache.ReasonMissing, Result: tokencache.ResultFailed, Err: &tokencache.FetchError{Err: redis}},
			map[string]float64{"refreshes_total reason missing result failed": 1, "refresh_duration_seconds result failed": 1}},
		{"fetched", tokencache.Event{Key: shop, Reason: "force", Result: tokencache.ResultFetched, Took: time.Second},
			map[string]float64{"upstream_fetches_total app wx1 kind access_token reason force result ok": 1, "upstream_fetch_duration_seconds kind access_token result ok": 1}},
		{"fetched in vain", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultFetched, Err: wrong},
			map[string]float64{"upstream_fetches_total reason due result failed": 1, "upstream_fetch_duration_seconds result failed": 1,
				"upstream_fetch_failures_total app wx1 class permanent": 1, "upstream_errcodes_total app wx1 errcode 40125": 1}},
		{"fetched, and the answer lost", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultFetched, Err: &tokencache.FetchError{Class: tokencache.ClassTransient, Unclear: true}},
			map[string]float64{"upstream_fetches_total reason due result unclear": 1, "upstream_fetch_duration_seconds result unclear": 1,
				"upstream_fetch_failures_total class transient": 1, "upstream_errcodes_total errcode none": 1}},
		{"fetched in vain in a new way", tokencache.Event{Key: shop, Reason: "new", Result: tokencache.ResultFetched, Err: &tokencache.FetchError{Class: "new", Code: 12345}},
			map[string]float64{"upstream_fetches_total reason other result failed": 1, "upstream_fetch_duration_seconds result failed": 1,
				"upstream_fetch_failures_total class other": 1, "upstream_errcodes_total errcode other": 1}},
		{"probed", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultProbed, Err: tokencache.ErrRejected},
			map[string]float64{"upstream_probes_total app wx1 kind access_token result rejected": 1}},
		{"probed in vain", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultProbed, Err: errors.New("no answer")},
			map[string]float64{"upstream_probes_total result unknown": 1}},
		{"waited", tokencache.Event{Key: shop, Reason: tokencache.ReasonMissing, Result: tokencache.ResultLeaseWaited, Took: time.Second},
			map[string]float64{"lease_wait_seconds kind access_token": 1}},
		{"lease lost before the fetch", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultLeaseLost},
			map[string]float64{"leases_lost_total app wx1": 1}},
		{"adopted", tokencache.Event{Key: shop, Result: tokencache.ResultAdopted, Took: time.Millisecond},
			map[string]float64{"event_lag_seconds kind access_token": 1}},
		{"missed", tokencache.Event{Key: shop, Result: tokencache.ResultEventMissed}, map[string]float64{"events_missed_total app wx1": 1}},
		{"lock without an end", tokencache.Event{Key: shop, Result: tokencache.ResultLeaseCapped}, map[string]float64{"locks_capped_total app wx1": 1}},
		{"emptied", tokencache.Event{Key: shop, Result: tokencache.ResultDataLost}, map[string]float64{"redis_data_losses_total app wx1": 1}},
		{"subscribed", tokencache.Event{Result: tokencache.ResultSubscribed}, map[string]float64{"subscriptions_total": 1}},
		{"read again", tokencache.Event{Result: tokencache.ResultReread}, nil},
		{"suspended", tokencache.Event{Result: tokencache.ResultClockStepped, Took: time.Hour}, map[string]float64{"clock_steps_total direction forward": 1}},
		{"clock stepped back", tokencache.Event{Result: tokencache.ResultClockStepped, Took: -time.Hour}, map[string]float64{"clock_steps_total direction backward": 1}},
		{"lease lost", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultRefused, Err: errors.New("lost")},
			map[string]float64{"refreshes_total result refused": 1, "refresh_duration_seconds result refused": 1, "leases_lost_total app wx1": 1}},
		{"report", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultCommitted},
			map[string]float64{"refreshes_total reason report result committed": 1, "refresh_duration_seconds result committed": 1, "reports_total outcome committed": 1}},
		{"report of an old value", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultNotCurrent},
			map[string]float64{"reports_total app wx1 kind access_token outcome not_current": 1}},
		{"report not believed", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultAccepted},
			map[string]float64{"reports_total outcome accepted": 1}},
		{"unclear report", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultUnknown, Err: errors.New("no answer")},
			map[string]float64{"reports_total outcome unknown": 1}},
		{"no Redis", tokencache.Event{Key: shop, Result: tokencache.ResultFailed, Err: redis},
			map[string]float64{"redis_errors_total op begin class timeout": 1}},
		{"no refresh without Redis", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultNoRedis},
			map[string]float64{"refreshes_total reason due result no_redis": 1}},
		{"no Redis before the commit", tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultOrphaned, Err: &tokencache.StoreError{Op: "commit"}},
			map[string]float64{"refreshes_total result orphaned": 1, "refresh_duration_seconds result orphaned": 1}},
		{"no Redis to listen on", tokencache.Event{Result: tokencache.ResultFailed, Err: &tokencache.StoreError{Op: "watch", Err: io.EOF}},
			map[string]float64{"redis_errors_total op watch class closed": 1}},
		{"a new operation", tokencache.Event{Key: shop, Result: tokencache.ResultFailed, Err: &tokencache.StoreError{Op: "new", Err: errors.New("new")}},
			map[string]float64{"redis_errors_total op other class other": 1}},
		{"allowance spent", tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultThrottled},
			map[string]float64{"refreshes_total result throttled": 1, "refresh_duration_seconds result throttled": 1, "reports_total outcome throttled": 1}},
		{"an app that is not there", tokencache.Event{Key: alien, Reason: tokencache.ReasonDue, Result: tokencache.ResultCommitted},
			map[string]float64{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			m := observe.NewMetrics(reg)
			m.Track(shop, card)
			m.Observe(c.event)
			sum := 0.0
			for what, want := range c.want {
				sum += want
				words := strings.Fields(what)
				if got := testutil.ToFloat64(observetest.Series(reg, "wxtoken_"+words[0], words[1:]...)); got != want {
					t.Errorf("%s: got %v, want %v", what, got, want)
				}
			}
			all := 0.0
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if name := f.GetName(); name != "wxtoken_build_info" && !strings.HasPrefix(name, "wxtoken_config_last_reload") {
					all += testutil.ToFloat64(observetest.Series(reg, name))
				}
			}
			if all != sum {
				t.Errorf("%v counted altogether, want %v", all, sum)
			}
		})
	}
}

// A credential has its series from the moment it is configured until it no longer is.
func TestSeriesFollowTheConfiguration(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := observe.NewMetrics(reg)
	count := func(app string) (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, metric := range f.Metric {
				if observetest.Has(metric.Label, []string{"app", app}) {
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
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonReport, Result: tokencache.ResultNotCurrent})
	m.Track(shop) // again changes nothing
	if got := testutil.ToFloat64(observetest.Series(reg, "wxtoken_reports_total")); got != 1 {
		t.Errorf("got %v reports, want 1", got)
	}
	m.Track(shop, card)
	m.Proxied(shop, "answered", observe.Once)
	m.ForeignToken(shop, observe.Once)
	m.Track(shop) // takes nothing from the app's other credential
	if got := testutil.ToFloat64(observetest.Series(reg, "wxtoken_proxy_calls_total")); got != 1 {
		t.Errorf("got %v proxied calls, want 1", got)
	}
	m.Track(alien)
	m.Observe(tokencache.Event{Key: shop, Reason: tokencache.ReasonDue, Result: tokencache.ResultCommitted}) // late
	if n := count("wx1"); n != 0 {
		t.Errorf("%d series of an app that is gone", n)
	}
	if n := count("wx9"); n < 10 {
		t.Errorf("%d series of a new app", n)
	}
}

// A bad configuration shows until the one in force can be read again, and the stamp is of the last
// good one.
func TestReloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		m := observe.NewMetrics(reg)
		good := time.Now().Unix()
		want := func(successful, stamp float64) {
			t.Helper()
			if got := testutil.ToFloat64(observetest.Series(reg, "wxtoken_config_last_reload_successful")); got != successful {
				t.Errorf("successful: got %v, want %v", got, successful)
			}
			if got := testutil.ToFloat64(observetest.Series(reg, "wxtoken_config_last_reload_success_timestamp_seconds")); got != stamp {
				t.Errorf("stamp: got %v, want %v", got, stamp)
			}
		}
		want(1, float64(good))
		time.Sleep(time.Minute)
		m.Reloaded(errors.New("a mistake"))
		m.Reloaded(errors.New("another"))
		want(0, float64(good))
		m.ConfigValid()
		want(1, float64(good+60))
		m.Reloaded(errors.New("a mistake"))
		time.Sleep(time.Minute)
		m.Reloaded(nil)
		want(1, float64(good+120))
		for result, want := range map[string]float64{"ok": 1, "failed": 3} {
			if got := testutil.ToFloat64(observetest.Series(reg, "wxtoken_config_reloads_total", "result", result)); got != want {
				t.Errorf("%s: got %v, want %v", result, got, want)
			}
		}
	})
}
