package k8s

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// target are the labels that Prometheus adds to what it scrapes by the PodMonitor.
var target = map[string]string{"namespace": "shop", "pod": "web-1", "container": "wxtoken", "job": "shop/wxtoken", "instance": "10.0.0.1:7201"}

// sample is one line of /metrics.
type sample struct {
	labels labels.Labels
	value  float64
}

// form is one of the two in which a sidecar exports what it knows of apps.
type form struct {
	name    string
	env     string
	once    sync.Once
	samples []sample
}

var (
	perApp = &form{name: "per app"}
	summed = &form{name: "summed", env: "WXTOKEN_METRICS_APPS=0"}
	forms  = []*form{perApp, summed}
)

// platforms are what a sidecar with a third-party platform exports besides, in either form.
var platforms struct {
	once    sync.Once
	samples []sample
}

// scrapePlatforms returns what a sidecar exports of its platform and of the reads of the accounts.
// What differs with a suite is the value of one label, which the configuration has.
func scrapePlatforms(t *testing.T) []sample {
	t.Helper()
	platforms.once.Do(func() {
		dev, err := start(t, nil, "--dev")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the account has no token", func() bool {
			status, _ := do(t, "GET", "http://"+dev.values+"/v1/apps/platform:wx00000000000000f0/token", "")
			return status == 200
		})
		_, text := do(t, "GET", "http://"+dev.ops+"/metrics", "")
		for _, s := range parseMetrics(t, text) {
			name := s.labels.Get("__name__")
			accounts := name == "wxtoken_reads_total" && strings.HasSuffix(s.labels.Get("app"), ":*")
			if !accounts && !strings.HasPrefix(name, "wxtoken_platform_") && !strings.HasPrefix(name, "wxtoken_vault_") {
				continue
			}
			platforms.samples = append(platforms.samples, s)
			if s.labels.Get("kind") == "open_platform" {
				platforms.samples = append(platforms.samples, sample{labels.NewBuilder(s.labels).Set("kind", "wecom_suite").Set("platform", "ww1").Labels(), s.value})
			}
		}
	})
	return platforms.samples
}

// scrape returns what a sidecar exports after some of everything has been asked of it, with the
// target's labels.
func (f *form) scrape(t *testing.T) []sample {
	t.Helper()
	f.once.Do(func() { f.samples = append(f.scrapeNow(t), scrapePlatforms(t)...) })
	if f.samples == nil {
		t.Fatal("there is nothing to compare with: another test has failed")
	}
	return f.samples
}

// scrape returns what a sidecar exports in one form or the other.
func scrape(t *testing.T) []sample {
	t.Helper()
	return slices.Concat(perApp.scrape(t), summed.scrape(t))
}

func (f *form) scrapeNow(t *testing.T) []sample {
	t.Helper()
	dev, err := start(t, []string{f.env, "WXTOKEN_DEV_PLATFORM=false"}, "--dev")
	if err != nil {
		t.Fatal(err)
	}
	var app, redis, wechat string
	eventually(t, "it does not say where everything is", func() bool {
		for what, at := range map[*string]string{&app: `/v1/apps/(\w+)/token`, &redis: `redis-cli -u (\S+)`, &wechat: `(http://\S+)/sim/`} {
			if m := regexp.MustCompile(at).FindStringSubmatch(dev.out.String()); m != nil {
				*what = m[1]
			}
		}
		return app != "" && redis != "" && wechat != ""
	})
	// Another replica, so that there are events.
	other, err := start(t, []string{"WECHAT_APPID=" + app, "WECHAT_SECRET=development-only", "REDIS_URL=" + redis, "WECHAT_API_BASE=" + wechat})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{dev, other} {
		eventually(t, "not started", func() bool {
			status, _ := do(t, "GET", "http://"+p.ops+"/startupz", "")
			return status == 200
		})
	}
	_, token := do(t, "GET", "http://"+other.values+"/v1/apps/"+app+"/token", "", "Accept", "text/plain")
	do(t, "GET", "http://"+dev.values+"/v1/apps/"+app+"/token", "")
	do(t, "GET", "http://"+dev.values+"/v1/apps/"+app+"/tickets/none", "") // there is no such ticket: a problem
	do(t, "GET", "http://"+dev.values+"/proxy/"+app+"/cgi-bin/getcallbackip", "")
	do(t, "POST", wechat+"/sim/apps/"+app+"/kill", "")
	report, err := json.Marshal(map[string]any{"access_token": strings.TrimSpace(token), "errcode": 40001})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := do(t, "POST", "http://"+other.values+"/v1/apps/"+app+"/token/report", string(report), "Content-Type", "application/json"); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	var text string
	eventually(t, "no event of the new token arrived", func() bool {
		_, text = do(t, "GET", "http://"+dev.ops+"/metrics", "")
		return strings.Contains(text, "\nwxtoken_event_lag_seconds_bucket") && regexp.MustCompile(`\nwxtoken_token_fresh{.*} 1\n`).MatchString(text)
	})
	return append(parseMetrics(t, text), sample{addTarget(labels.FromStrings("__name__", "up")), 1})
}

func addTarget(l labels.Labels) labels.Labels {
	b := labels.NewBuilder(l)
	for name, value := range target {
		b.Set(name, value)
	}
	return b.Labels()
}

func parseMetrics(t *testing.T, text string) []sample {
	t.Helper()
	var all []sample
	p := textparse.NewPromParser([]byte(text), labels.NewSymbolTable(), false)
	for {
		entry, err := p.Next()
		if err != nil {
			break // the end
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, _, v := p.Series()
		all = append(all, sample{addTarget(l), v})
	}
	if len(all) < 50 {
		t.Fatalf("only %d samples in:\n%s", len(all), text)
	}
	return all
}

// selectors returns each selector of a PromQL expression.
func selectors(t *testing.T, expr string) []*parser.VectorSelector {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%v\n%s", err, expr)
	}
	var all []*parser.VectorSelector
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			all = append(all, s)
		}
		return nil
	})
	return all
}

// finds checks that each selector of expr finds something that the program exports: a metric, and
// for each value that it wants of a label a series that has it.
func finds(t *testing.T, samples []sample, expr string) {
	t.Helper()
	all := selectors(t, expr)
	if len(all) == 0 {
		t.Errorf("asks for nothing: %s", expr)
	}
	for _, s := range all {
		// a|b is two wishes.
		wishes := [][]*labels.Matcher{nil}
		for _, m := range s.LabelMatchers {
			values := []string{m.Value}
			if m.Type == labels.MatchRegexp && regexp.MustCompile(`^[a-z_|]+$`).MatchString(m.Value) {
				values = strings.Split(m.Value, "|")
			}
			var more [][]*labels.Matcher
			for _, v := range values {
				one := m
				if len(values) > 1 {
					one = labels.MustNewMatcher(labels.MatchEqual, m.Name, v)
				}
				for _, w := range wishes {
					more = append(more, append(slices.Clone(w), one))
				}
			}
			wishes = more
		}
		for _, wish := range wishes {
			if !slices.ContainsFunc(samples, func(s sample) bool { return matches(s.labels, wish) }) {
				t.Errorf("the program exports nothing that %v finds, in\n%s", wish, expr)
			}
		}
	}
}

func matches(l labels.Labels, all []*labels.Matcher) bool {
	return !slices.ContainsFunc(all, func(m *labels.Matcher) bool {
		return !l.Has(m.Name) || !m.Matches(l.Get(m.Name))
	})
}

// groups says which labels an aggregation keeps; each must be there.
var groups = regexp.MustCompile(`by \(([a-z_, ]*)\)`)

func groupsExist(t *testing.T, samples []sample, expr string) {
	t.Helper()
	for _, by := range groups.FindAllStringSubmatch(expr, -1) {
		for _, name := range strings.Split(by[1], ", ") {
			if !slices.ContainsFunc(selectors(t, expr), func(s *parser.VectorSelector) bool {
				return slices.ContainsFunc(samples, func(one sample) bool { return one.labels.Get("__name__") == s.Name && one.labels.Has(name) })
			}) {
				t.Errorf("no metric here has the label %s: %s", name, expr)
			}
		}
	}
}

const monitored = "examples/web"

func alerts(t *testing.T) []monitoringv1.Rule {
	t.Helper()
	var all []monitoringv1.Rule
	for _, g := range one[*monitoringv1.PrometheusRule](t, monitored).Spec.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 12 {
		t.Fatalf("only %d alerts", len(all))
	}
	return all
}

func TestPrometheusTakesTheRules(t *testing.T) {
	t.Parallel()
	spec, err := yaml.Marshal(one[*monitoringv1.PrometheusRule](t, monitored).Spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, errs := rulefmt.Parse(spec, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler)); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestAlertsAskForWhatTheProgramExports(t *testing.T) {
	t.Parallel()
	samples := scrape(t)
	for _, a := range alerts(t) {
		t.Run(a.Alert, func(t *testing.T) {
			finds(t, samples, a.Expr.String())
			groupsExist(t, samples, a.Expr.String())
		})
	}
}

func TestAlertsLeadToTheirSectionOfTheRunbook(t *testing.T) {
	t.Parallel()
	section := regexp.MustCompile(`(?m)^### (Wxtoken\w+)$`)
	runbook := section.FindAllString(read(t, "README.md"), -1)
	// An alert's name is not translated: the Chinese page has it at the same anchor.
	if twin := section.FindAllString(read(t, "README.zh-CN.md"), -1); !slices.Equal(twin, runbook) {
		t.Errorf("sections of README.zh-CN.md: %q, want %q", twin, runbook)
	}
	known := map[string]bool{}
	for _, a := range alerts(t) {
		known[a.Alert] = true
		want := "https://github.com/wxtoken/sidecar/blob/main/deploy/k8s/README.md#" + strings.ToLower(a.Alert)
		if got := a.Annotations["runbook_url"]; got != want {
			t.Errorf("%s: runbook_url %s, want %s", a.Alert, got, want)
		}
		if !slices.Contains(runbook, "### "+a.Alert) {
			t.Errorf("%s has no section in README.md", a.Alert)
		}
		for _, text := range []string{"summary", "description"} {
			if a.Annotations[text] == "" {
				t.Errorf("%s has no %s", a.Alert, text)
			}
		}
		if !slices.Contains([]string{"critical", "warning"}, a.Labels["severity"]) {
			t.Errorf("%s has severity %q", a.Alert, a.Labels["severity"])
		}
	}
	for i, heading := range runbook {
		if name := strings.TrimPrefix(heading, "### "); !known[name] || slices.Contains(runbook[:i], heading) {
			t.Errorf("README.md has a section for %s, which is no alert, or there twice", name)
		}
	}
}

// board is the part of the dashboard that is tested.
type board struct {
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func dashboard(t *testing.T) (b board) {
	t.Helper()
	var text string
	for _, o := range render(t, monitored) {
		if c, ok := o.(*corev1.ConfigMap); ok && c.Labels["grafana_dashboard"] == "1" {
			text = c.Data["wxtoken.json"]
		}
	}
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheDashboardAsksForWhatTheProgramExports(t *testing.T) {
	t.Parallel()
	samples := scrape(t)
	board := dashboard(t)
	variables := strings.NewReplacer("$namespace", ".*", "$app", ".*", "$__rate_interval", "2m")
	ids := map[int]bool{}
	for i, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for _, q := range board.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies over %s", p.Title, q.Title)
			}
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: an unknown variable in %s", p.Title, expr)
			}
			finds(t, samples, expr)
			groupsExist(t, samples, expr)
		}
	}
	for _, v := range board.Templating.List {
		if v.Type != "query" {
			continue
		}
		query := fmt.Sprint(v.Query)
		m := regexp.MustCompile(`label_values\((\w+), (\w+)\)`).FindStringSubmatch(query)
		if m == nil || !slices.ContainsFunc(samples, func(s sample) bool { return s.labels.Get("__name__") == m[1] && s.labels.Has(m[2]) }) {
			t.Errorf("the variable %s finds nothing: %s", v.Name, query)
		}
	}
}

func TestThePodMonitorFindsThePods(t *testing.T) {
	t.Parallel()
	monitor := one[*monitoringv1.PodMonitor](t, monitored)
	pod := pods(t, monitored)["Deployment web"]
	for name, value := range monitor.Spec.Selector.MatchLabels {
		if pod.Labels[name] != value {
			t.Errorf("the pod has no label %s=%s", name, value)
		}
	}
	c, _ := sidecar(pod.Spec)
	for _, e := range monitor.Spec.PodMetricsEndpoints {
		if e.Port == nil || *e.Port != c.Ports[0].Name {
			t.Errorf("the pod has no port %v", e.Port)
		}
	}
}
