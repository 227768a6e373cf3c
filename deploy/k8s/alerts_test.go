package k8s

import (
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/util/teststorage"
)

const (
	every   = 30 * time.Second // of the PodMonitor
	trouble = time.Hour        // when it begins
	end     = 3 * time.Hour
)

// gone is the value of a series that is not there.
var gone = math.NaN()

// a history says how a metric differs from what the program exported when all was well.
type history struct {
	metric string
	labels map[string]string // that the series has
	value  func(at time.Duration, was float64) float64
}

// since changes a gauge when the trouble begins.
func since(v float64) func(time.Duration, float64) float64 {
	return func(at time.Duration, was float64) float64 {
		if at < trouble {
			return was
		}
		return v
	}
}

// during is since for a while.
func during(v float64, length time.Duration) func(time.Duration, float64) float64 {
	return func(at time.Duration, was float64) float64 {
		if at < trouble || at >= trouble+length {
			return was
		}
		return v
	}
}

// counts adds to a counter once in each period from the beginning of the trouble on.
func counts(period time.Duration) func(time.Duration, float64) float64 {
	return func(at time.Duration, was float64) float64 {
		return was + float64(max(0, (at-trouble)/period))
	}
}

// once adds 1 to a counter.
func once(at time.Duration, was float64) float64 {
	if at < trouble {
		return was
	}
	return was + 1
}

// accounts is the label of all accounts of the platform.
var accounts = map[string]string{"app": "wx00000000000000cc:*"}

// steady is a metric that goes on as it was, whatever another history says.
func steady(_ time.Duration, was float64) float64 { return was }

// renewed is an expiry that moves on 4 minutes before the end, as on stable_token, until stuck.
func renewed(stuck time.Duration) func(time.Duration, float64) float64 {
	return func(at time.Duration, _ float64) float64 {
		const life, ahead = 7200 * time.Second, 4 * time.Minute
		issued := -time.Hour
		for issued+life-ahead <= min(at, stuck) {
			issued += life - ahead
		}
		return (issued + life).Seconds()
	}
}

// firing returns the alerts that fire when two replicas export what the program did in a form,
// changed by the histories.
func firing(t *testing.T, f *form, histories ...history) []string {
	t.Helper()
	storage := teststorage.New(t)
	defer storage.Close()
	histories = append([]history{{metric: "wxtoken_token_expiry_timestamp_seconds", value: renewed(end)}}, histories...)
	asked := map[string]bool{} // the others would only cost time
	for _, a := range alerts(t) {
		for _, s := range selectors(t, a.Expr.String()) {
			asked[s.Name] = true
		}
	}
	appender := storage.Appender(t.Context())
	for _, pod := range []string{"web-1", "web-2"} {
		for _, s := range f.scrape(t) {
			if !asked[s.labels.Get("__name__")] {
				continue
			}
			series := labels.NewBuilder(s.labels).Set("pod", pod).Labels()
			for at := time.Duration(0); at <= end; at += every {
				v := s.value
				for _, h := range histories {
					if h.metric == s.labels.Get("__name__") && has(series, h.labels) {
						v = h.value(at, s.value)
					}
				}
				if math.IsNaN(v) {
					continue
				}
				if _, err := appender.Append(0, series, at.Milliseconds(), v); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := appender.Commit(); err != nil {
		t.Fatal(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e7, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})})
	var names []string
	for _, a := range alerts(t) {
		query, err := engine.NewRangeQuery(t.Context(), storage, nil, a.Expr.String(), time.Unix(0, 0).Add(trouble/2), time.Unix(0, 0).Add(end), every)
		if err != nil {
			t.Fatal(err)
		}
		result := query.Exec(t.Context())
		matrix, err := result.Matrix()
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(matrix, func(s promql.Series) bool { return lasts(s, holds(t, a)) }) {
			names = append(names, a.Alert)
		}
		query.Close()
	}
	return names
}

func has(l labels.Labels, want map[string]string) bool {
	for name, value := range want {
		if l.Get(name) != value {
			return false
		}
	}
	return true
}

// holds returns how long an alert's expression must be true.
func holds(t *testing.T, a monitoringv1.Rule) time.Duration {
	t.Helper()
	if a.For == nil {
		return 0
	}
	d, err := model.ParseDuration(string(*a.For))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(d)
}

// lasts reports whether a series is there without a gap for at least d.
func lasts(s promql.Series, d time.Duration) bool {
	var start, last int64
	for i, p := range s.Floats {
		if i == 0 || p.T-last > every.Milliseconds() {
			start = p.T
		}
		last = p.T
		if last-start >= d.Milliseconds() {
			return true
		}
	}
	return false
}

func TestNoAlertFiresWhileAllIsWell(t *testing.T) {
	t.Parallel()
	memory := map[string]string{"outcome": "memory"}
	for name, h := range map[string][]history{
		"quiet":                    nil,
		"busy":                     {{"wxtoken_reads_total", memory, counts(time.Second)}},
		"a pod starts":             {{"wxtoken_token_fresh", nil, during(0, time.Minute)}},
		"a refresh a little late":  {{"wxtoken_upstream_fetch_failures_total", map[string]string{"class": "transient"}, once}},
		"one lease lost":           {{"wxtoken_leases_lost_total", map[string]string{"pod": "web-1"}, once}},
		"Redis fails over":         {{"wxtoken_redis_up", nil, during(0, time.Minute)}, {"wxtoken_subscription_up", nil, during(0, time.Minute)}, {"wxtoken_redis_data_losses_total", nil, once}},
		"a pod moves":              {{"up", map[string]string{"pod": "web-1"}, during(0, 2*time.Minute)}},
		"a single stale read":      {{"wxtoken_reads_total", map[string]string{"outcome": "stale"}, once}},
		"a new configuration":      {{"wxtoken_config_reloads_total", map[string]string{"result": "ok"}, counts(time.Minute)}},
		"others report old values": {{"wxtoken_reports_total", map[string]string{"outcome": "not_current"}, counts(time.Second)}},
		"customers come and go": {
			{"wxtoken_platform_exchanges_total", map[string]string{"result": "done"}, counts(10 * time.Minute)},
			{"wxtoken_platform_withdrawals_total", map[string]string{"result": "withdrawn"}, counts(30 * time.Minute)},
			{"wxtoken_platform_withdrawals_total", map[string]string{"result": "test"}, counts(time.Second)},
			{"wxtoken_platform_exchanges_total", map[string]string{"result": "failed", "via": "push"}, once},
		},
		"one of 1000 accounts is refused": {
			{"wxtoken_platform_authorizers", map[string]string{"state": "active"}, func(time.Duration, float64) float64 { return 1000 }},
			{"wxtoken_platform_authorizers", map[string]string{"state": "refused"}, since(1)},
			{"wxtoken_reads_total", map[string]string{"outcome": "memory", "app": accounts["app"]}, counts(time.Second)},
			{"wxtoken_reads_total", map[string]string{"outcome": "error", "app": accounts["app"]}, counts(time.Minute)},
		},
	} {
		for _, f := range forms {
			t.Run(name+", "+f.name, func(t *testing.T) {
				if got := firing(t, f, h...); len(got) != 0 {
					t.Errorf("%v", got)
				}
			})
		}
	}
}

// Among thousands of apps, a few failures are normal. The same counts of one app are not.
func TestAFewFailuresAmongManyAppsFireNoAlert(t *testing.T) {
	t.Parallel()
	fetches := history{"wxtoken_upstream_fetches_total", map[string]string{"reason": "due", "result": "ok"}, counts(time.Second)}
	events := history{"wxtoken_event_lag_seconds_count", nil, counts(time.Second)}
	for name, c := range map[string]struct {
		histories []history
		perApp    []string
	}{
		"fetches fail": {[]history{fetches, {"wxtoken_upstream_fetch_failures_total", map[string]string{"class": "transient"}, counts(time.Minute)}}, []string{"WxtokenFetchFailing"}},
		"leases lost":  {[]history{fetches, {"wxtoken_leases_lost_total", nil, counts(10 * time.Minute)}}, []string{"WxtokenLeasesLost"}},
		"Redis fails over": {[]history{{"wxtoken_redis_data_losses_total", nil, func(at time.Duration, was float64) float64 {
			return was + 1000*once(at, 0)
		}}}, []string{"WxtokenRedisLosesData"}},
		"events missed": {[]history{events, {"wxtoken_events_missed_total", nil, counts(30 * time.Minute)}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := firing(t, perApp, c.histories...); !slices.Equal(got, c.perApp) {
				t.Errorf("%v fire with series per app, want %v", got, c.perApp)
			}
			if got := firing(t, summed, c.histories...); len(got) != 0 {
				t.Errorf("%v fire with sums", got)
			}
		})
	}
}

// The text of an alert about an app reads well with app="all", which is no name of an app.
func TestAlertsReadWellOfAllApps(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, text, app string) string {
		data := template.AlertTemplateData(map[string]string{"namespace": "shop", "app": app, "kind": "access_token", "allowance": "fetches"},
			nil, "", promql.Sample{F: 3})
		e := template.NewTemplateExpander(t.Context(), "{{$labels := .Labels}}{{$value := .Value}}"+text, "alert", data, 0, nil, &url.URL{}, nil)
		s, err := e.Expand()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	seen := 0
	for _, a := range alerts(t) {
		for _, text := range a.Annotations {
			if !strings.Contains(text, "$labels.app") {
				continue
			}
			seen++
			if got := read(t, text, "wx1"); !strings.Contains(got, "wx1") || strings.Contains(got, "one app") {
				t.Errorf("of one app: %s", got)
			}
			if got := read(t, text, "all"); !strings.Contains(got, "at least one app") || regexp.MustCompile(`\ball\b`).MatchString(got) {
				t.Errorf("of all apps: %s", got)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d texts name an app", seen)
	}
}

func TestEachAlertFiresForItsTrouble(t *testing.T) {
	t.Parallel()
	class := func(c string) map[string]string { return map[string]string{"class": c} }
	failures := func(c string, period time.Duration) []history {
		return []history{{"wxtoken_upstream_fetch_failures_total", class(c), counts(period)}}
	}
	troubles := map[string][]history{
		"WxtokenTokenExpiring":        {{"wxtoken_token_expiry_timestamp_seconds", nil, renewed(trouble)}},
		"WxtokenNoGoodToken":          {{"wxtoken_token_fresh", nil, since(0)}},
		"WxtokenReadsFailing":         {{"wxtoken_reads_total", map[string]string{"outcome": "error"}, counts(time.Minute)}, {"wxtoken_reads_total", accounts, steady}},
		"WxtokenStaleReads":           {{"wxtoken_reads_total", map[string]string{"outcome": "stale"}, counts(time.Minute)}, {"wxtoken_reads_total", accounts, steady}},
		"WxtokenFetchRefused":         failures("permanent", 10*time.Minute),
		"WxtokenQuotaSpent":           failures("quota", 10*time.Minute),
		"WxtokenAddressRefused":       failures("local", 10*time.Minute),
		"WxtokenFetchFailing":         failures("transient", time.Minute),
		"WxtokenForeignRefresher":     {{"wxtoken_foreign_refresher_suspected", nil, since(1)}},
		"WxtokenRedisUnreachable":     {{"wxtoken_redis_up", map[string]string{"pod": "web-1"}, since(0)}},
		"WxtokenRedisRefuses":         {{"wxtoken_redis_errors_total", map[string]string{"op": "commit", "class": "noperm"}, counts(time.Minute)}},
		"WxtokenRedisLosesData":       {{"wxtoken_redis_data_losses_total", nil, counts(30 * time.Minute)}},
		"WxtokenSubscriptionDown":     {{"wxtoken_subscription_up", map[string]string{"pod": "web-1"}, since(0)}},
		"WxtokenEventsLate":           {{"wxtoken_events_missed_total", nil, counts(30 * time.Minute)}},
		"WxtokenAllowanceNearlySpent": {{"wxtoken_allowance_left", map[string]string{"allowance": "fetches"}, since(1)}},
		"WxtokenLeasesLost":           {{"wxtoken_leases_lost_total", nil, counts(10 * time.Minute)}},
		"WxtokenConfigReloadFailed":   {{"wxtoken_config_last_reload_successful", map[string]string{"pod": "web-1"}, since(0)}},
		"WxtokenPanic":                {{"wxtoken_http_panics_total", nil, once}},
		"WxtokenSidecarDown":          {{"up", map[string]string{"pod": "web-1"}, since(0)}},
		"WxtokenAbsent":               {{"up", nil, since(gone)}},
		"WxtokenPushesRefused":        {{"wxtoken_platform_pushes_total", map[string]string{"result": "key"}, counts(time.Minute)}},
		"WxtokenAuthorizationLost":    {{"wxtoken_platform_exchanges_total", map[string]string{"result": "lost", "via": "push", "pod": "web-1"}, once}},
		"WxtokenExchangesFailing":     {{"wxtoken_platform_exchanges_total", map[string]string{"result": "failed", "via": "redirect"}, counts(time.Minute)}},
		"WxtokenVaultFailing":         {{"wxtoken_vault_errors_total", map[string]string{"op": "save"}, counts(time.Minute)}},
		"WxtokenAccountsRefused":      {{"wxtoken_platform_authorizers", map[string]string{"state": "refused"}, since(1)}},
		"WxtokenAccountsFailing": {
			{"wxtoken_reads_total", map[string]string{"outcome": "error", "app": accounts["app"]}, counts(time.Minute)},
			{"wxtoken_reads_total", map[string]string{"outcome": "memory", "app": accounts["app"]}, counts(10 * time.Second)},
		},
		"WxtokenManyWithdrawals": {{"wxtoken_platform_withdrawals_total", map[string]string{"result": "withdrawn"}, counts(5 * time.Minute)}},
	}
	// A ticket's age has two limits.
	old := func(kind string, after time.Duration) []history {
		return []history{{"wxtoken_platform_ticket_age_seconds", map[string]string{"kind": kind}, func(at time.Duration, was float64) float64 {
			return max(was, min(at-trouble, after).Seconds())
		}}}
	}
	for _, h := range [][]history{old("open_platform", 29*time.Minute), old("wecom_suite", 14*time.Minute)} {
		if got := firing(t, perApp, h...); len(got) != 0 {
			t.Errorf("%v fire while a ticket is not old", got)
		}
	}
	if got := firing(t, perApp, old("wecom_suite", 16*time.Minute)...); !slices.Equal(got, []string{"WxtokenTicketOld"}) {
		t.Errorf("%v fire for a suite", got)
	}
	troubles["WxtokenTicketOld"] = old("open_platform", 31*time.Minute)
	for _, a := range alerts(t) {
		t.Run(a.Alert, func(t *testing.T) {
			h, ok := troubles[a.Alert]
			if !ok {
				t.Fatal("nothing here says when it should fire")
			}
			forms := forms
			if strings.HasPrefix(h[0].metric, "wxtoken_platform_") || strings.HasPrefix(h[0].metric, "wxtoken_vault_") {
				forms = forms[:1] // they are the same in both
			}
			for _, f := range forms {
				if got := firing(t, f, h...); !slices.Equal(got, []string{a.Alert}) {
					t.Errorf("%v fire, %s", got, f.name)
				}
			}
		})
	}
}

// The dashboard counts the credentials without a good value in both forms.
func TestTheDashboardCountsBadCredentials(t *testing.T) {
	t.Parallel()
	const panel = "Without a good value"
	var expr string
	for _, p := range dashboard(t).Panels {
		if p.Title == panel {
			expr = strings.NewReplacer("$namespace", ".*", "$app", ".*").Replace(p.Targets[0].Expr)
		}
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{})})
	for _, f := range forms {
		storage := teststorage.New(t)
		appender := storage.Appender(t.Context())
		kinds := map[string]bool{}
		for _, s := range f.scrape(t) {
			v := s.value
			switch name := s.labels.Get("__name__"); {
			case name == "wxtoken_token_fresh":
				v, kinds[s.labels.Get("kind")] = 0, true
			case name != "wxtoken_credentials":
				continue
			case s.labels.Get("state") == "missing":
				v = 1
			}
			if _, err := appender.Append(0, s.labels, 0, v); err != nil {
				t.Fatal(err)
			}
		}
		if err := appender.Commit(); err != nil {
			t.Fatal(err)
		}
		query, err := engine.NewInstantQuery(t.Context(), storage, nil, expr, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		got, err := query.Exec(t.Context()).Vector()
		if err != nil || len(got) != 1 || got[0].F != float64(len(kinds)) {
			t.Errorf("%s: %v, %v, want %d", f.name, got, err, len(kinds))
		}
		query.Close()
		_ = storage.Close()
	}
}
