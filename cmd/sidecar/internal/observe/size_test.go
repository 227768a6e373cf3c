package observe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// fleet is a process with many apps.
type fleet struct {
	m    *Metrics
	reg  *prometheus.Registry
	keys []tokencache.Key
}

// newFleet returns a fleet of apps with names of a length and with the first of the kinds.
func newFleet(apps, length, kinds int) *fleet {
	f := &fleet{reg: prometheus.NewPedanticRegistry()}
	f.m = NewMetrics(f.reg)
	for i := range apps {
		for _, kind := range []string{"access_token", "wx_card_ticket", "agent_config_ticket"}[:kinds] {
			f.keys = append(f.keys, tokencache.Key{App: fmt.Sprintf("wx%0*d", length-2, i), Kind: kind})
		}
	}
	f.m.Track(f.keys...)
	f.reg.MustRegister(f.m.Collector(f.status))
	return f
}

// status is in the state that has the most series.
func (f *fleet) status() []tokencache.Status {
	var all []tokencache.Status
	full := tokencache.Allowance{Left: 100, Burst: 500}
	for _, k := range f.keys {
		all = append(all, tokencache.Status{
			Key: k, Version: 1795000000123, Known: true, ExpiresIn: time.Hour, CommittedAt: time.Now(), Backoff: 1234567 * time.Microsecond,
			Class: tokencache.ClassTransient, Code: 40164, Fetches: full, Reports: full, Forced: full,
		})
	}
	return all
}

// count lets every counter be at least n.
func (f *fleet) count(n uint64) {
	for _, k := range f.keys {
		c := f.m.Of(k)
		for slot := range slots {
			if slot < wideSlots {
				c.wide[slot].Store(n)
			} else {
				c.narrow[slot-wideSlots].Store(uint32(n))
			}
		}
		for slot := range appSlots {
			c.app.counts[slot].Store(n)
		}
	}
}

// healthy lets each credential count what it does in a day without trouble.
func (f *fleet) healthy() {
	for _, k := range f.keys {
		f.m.Observe(tokencache.Event{Key: k, Reason: tokencache.ReasonDue, Result: tokencache.ResultFetched})
		f.m.Observe(tokencache.Event{Key: k, Reason: tokencache.ReasonDue, Result: tokencache.ResultCommitted})
		f.m.Read(context.Background(), k, tokencache.Token{}, nil)
	}
}

func (f *fleet) scrape(t testing.TB) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(f.reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatal(w.Body.String())
	}
	return w.Body.String()
}

// has reports whether there is a series of a metric with such an app.
func has(text, metric, app string) bool {
	return regexp.MustCompile(`(?m)^wxtoken_` + metric + `\{(.*,)?app="` + app + `"`).MatchString(text)
}

func TestMetricsFitInto2MiB(t *testing.T) {
	const one = "wx0000.*"
	for _, c := range []struct {
		name                string
		apps, length, kinds int
		max                 int // apps with their own series; 0 for the default
		prepare             func(*fleet)
		most                int
		main, detail        string // whose series there are
	}{
		{"one app", 1, 18, 1, 0, (*fleet).healthy, 24 << 10, one, one},
		{"200 apps", 200, 18, 1, 0, (*fleet).healthy, maxBytes, one, one},
		{"200 apps with 3 credentials", 200, 18, 3, 0, (*fleet).healthy, maxBytes, one, one},
		{"200 apps, and all has happened", 200, 18, 3, 0, func(f *fleet) { f.count(12345678) }, maxBytes, one, AllApps},
		{"200 agents with long names", 200, 129, 3, 0, func(f *fleet) { f.count(12345678) }, maxBytes, AllApps, AllApps},
		{"201 apps", 201, 18, 3, 0, func(f *fleet) { f.count(12345678) }, 100 << 10, AllApps, AllApps},
		{"5000 apps by choice", 5000, 18, 1, 10000, (*fleet).healthy, maxBytes, AllApps, AllApps},
		{"5000 apps", 5000, 18, 1, 0, (*fleet).healthy, 100 << 10, AllApps, AllApps},
		{"10000 apps", 10000, 18, 3, 0, func(f *fleet) { f.count(12345678) }, 200 << 10, AllApps, AllApps},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(c.apps, c.length, c.kinds)
			if c.max > 0 {
				f.m.SetMaxApps(c.max)
			}
			c.prepare(f)
			start := time.Now()
			text := f.scrape(t)
			t.Logf("%d bytes, %d lines, in %s", len(text), strings.Count(text, "\n"), time.Since(start))
			if len(text) > c.most-reserved && c.most == maxBytes || len(text) > c.most {
				t.Errorf("/metrics has %d bytes, want at most %d", len(text), c.most)
			}
			for metric, want := range map[string]string{"reads_total": c.main, "token_fresh": c.main, "refreshes_total": c.detail} {
				for _, app := range []string{one, AllApps} {
					if got := has(text, metric, app); got != (app == want) {
						t.Errorf("%s of %s: %v", metric, app, got)
					}
				}
			}
		})
	}
}

// No number of apps, no length of their names and no count makes /metrics longer, nor the form
// shorter than it must be.
func TestMetricsAreNeverLonger(t *testing.T) {
	longest := map[form]int{}
	for _, n := range []uint64{0, 1, 12345678} {
		for _, length := range []int{18, 40, 60, 129} {
			for _, apps := range []int{30, 50, 60, 90, 120, 160, 200} {
				f := newFleet(apps, length, 3)
				f.count(n)
				size := len(f.scrape(t))
				if size > maxBytes {
					t.Errorf("%d bytes of %d apps with %d characters and counts of %d", size, apps, length, n)
				}
				f.m.mu.RLock()
				form := f.m.form()
				f.m.mu.RUnlock()
				longest[form] = max(longest[form], size)
			}
		}
	}
	for form := perApp; form < summed; form++ {
		if longest[form] < maxBytes*3/4 {
			t.Errorf("form %d has been given up at %d bytes", form, longest[form])
		}
	}
}

// What form expects of the gauges of a credential is no less than what they take, and not much
// more.
func TestTheSizeOfGaugesIsKnown(t *testing.T) {
	const apps = 100
	f := newFleet(apps, 18, 1)
	text := ""
	for line := range strings.Lines(f.scrape(t)) {
		if strings.Contains(line, `app="wx`) && !strings.Contains(line, "_total{") {
			text += line
		}
	}
	if lines := strings.Count(text, "\n"); lines != gaugeLines*apps {
		t.Errorf("%d lines of %d apps", lines, apps)
	}
	got, want := len(text)/apps, gaugeBytes+gaugeLines*(18+len("access_token"))
	if got > want || got < want*9/10 {
		t.Errorf("%d bytes of one credential, want %d", got, want)
	}
}

// The sum of a counter never decreases, whichever credentials go, and has what they have counted.
func TestASumSurvivesItsApps(t *testing.T) {
	f := newFleet(3, 18, 1)
	f.m.SetMaxApps(2)
	f.count(5)
	want := []string{
		`wxtoken_reads_total{app="all",kind="access_token",outcome="stale"} 15`,
		`wxtoken_leases_lost_total{app="all",kind="access_token"} 15`,
		`wxtoken_proxy_calls_total{app="all",outcome="cut",retried="yes"} 15`,
	}
	check := func(when string) {
		t.Helper()
		text := f.scrape(t)
		for _, line := range want {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("%s: no %s", when, line)
			}
		}
	}
	check("all are here")
	f.m.SetMaxApps(0)
	f.m.Forget(f.keys[0])
	check("one is forgotten")
	f.m.Track(f.keys[1])
	check("one remains")
	f.m.Track()
	check("none remains")
	f.m.Add(f.keys...)
	f.m.SetMaxApps(2)
	check("others come")
}

// A credential that the cache takes while it runs is counted until the cache drops it.
func TestACredentialIsCountedUntilItIsDropped(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	a, b := tokencache.Key{App: "wx1", Kind: "access_token"}, tokencache.Key{App: "wx1", Kind: "jsapi_ticket"}
	m.Track(a)
	m.Add(b)
	if m.Of(b) == nil {
		t.Error("it has no counters of its own")
	}
	before := m.Of(b)
	m.Observe(tokencache.Event{Key: b, Result: tokencache.ResultDropped})
	if m.Of(b) != nil || m.Of(a) == nil {
		t.Error("it is counted, or the other one is not")
	}
	m.Add(b)
	if again := m.Of(b); again == nil || again == before {
		t.Error("it came back, and has no counters of its own")
	}
}

// A read takes no memory, and a credential little.
func TestReadAllocatesNothing(t *testing.T) {
	f := newFleet(100, 18, 1)
	ctx, k := context.Background(), f.keys[7]
	if n := testing.AllocsPerRun(100, func() { f.m.Read(ctx, k, tokencache.Token{}, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	stranger := tokencache.Key{App: "wx", Kind: "access_token"}
	if n := testing.AllocsPerRun(100, func() { f.m.Read(ctx, stranger, tokencache.Token{}, errors.ErrUnsupported) }); n != 0 {
		t.Errorf("%v allocations for an unknown credential", n)
	}
	if n := unsafe.Sizeof(Credential{}); n > 576 {
		t.Errorf("a credential has %d bytes", n)
	}
}

// Results and outcomes without a slot would be counted as other.
func TestEveryResultHasASlot(t *testing.T) {
	f := newFleet(1, 18, 1)
	k := f.keys[0]
	for _, reason := range []tokencache.Reason{tokencache.ReasonMissing, tokencache.ReasonDue, tokencache.ReasonReport} {
		for _, result := range []tokencache.Result{
			tokencache.ResultCommitted, tokencache.ResultUnchanged, tokencache.ResultDoubtResolved, tokencache.ResultFailed, tokencache.ResultDirect,
			tokencache.ResultOrphaned, tokencache.ResultRefused, tokencache.ResultShared, tokencache.ResultBackoff, tokencache.ResultThrottled,
			tokencache.ResultNoRedis, tokencache.ResultNotCurrent, tokencache.ResultAccepted, tokencache.ResultUnknown,
		} {
			f.m.Observe(tokencache.Event{Key: k, Reason: reason, Result: result})
		}
	}
	for line := range strings.Lines(f.scrape(t)) {
		if strings.HasPrefix(line, "wxtoken_re") && strings.Contains(line, `"other"`) && !strings.HasPrefix(line, "wxtoken_redis") {
			t.Error(line)
		}
	}
}

func BenchmarkMetricsPerCredential(b *testing.B) {
	const n = 10000
	keys := make([]tokencache.Key, n)
	for i := range keys {
		keys[i] = tokencache.Key{App: fmt.Sprintf("wx%016d", i), Kind: "access_token"}
	}
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	for b.Loop() {
		m := NewMetrics(prometheus.NewRegistry())
		before := heap()
		m.Track(keys...)
		b.ReportMetric(float64(heap()-before)/n, "B/credential")
		runtime.KeepAlive(m)
	}
}

func BenchmarkRead(b *testing.B) {
	f := newFleet(10000, 18, 1)
	ctx, k := context.Background(), f.keys[5000]
	b.ReportAllocs()
	for b.Loop() {
		f.m.Read(ctx, k, tokencache.Token{}, nil)
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, apps := range []int{200, 10000} {
		b.Run(fmt.Sprint(apps), func(b *testing.B) {
			f := newFleet(apps, 18, 1)
			f.healthy()
			for b.Loop() {
				_, _ = f.reg.Gather()
			}
		})
	}
}

// The proxy's outcomes have a slot each.
func TestEveryOutcomeOfTheProxyHasASlot(t *testing.T) {
	source, err := os.ReadFile("../proxy/answer.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`\bOutcome = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	if want = append(want, other); !slices.Equal(proxyOutcomes[:], want) {
		t.Errorf("there are %q, want %q", proxyOutcomes, want)
	}
}

// Credentials come and go while they are read and scraped. No sum decreases, and at the end none of
// the counts made while a credential was there is lost.
func TestSumsDoNotDecreaseWhileCredentialsChange(t *testing.T) {
	f := newFleet(20, 18, 1)
	f.m.SetMaxApps(0)
	const rounds = 300
	sum := regexp.MustCompile(`(?m)^wxtoken_leases_lost_total\{app="all",kind="access_token"\} (\S+)$`)
	lost := func() (n float64) {
		if m := sum.FindStringSubmatch(f.scrape(t)); m != nil {
			n, _ = strconv.ParseFloat(m[1], 64)
		}
		return n
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range rounds {
			for _, k := range f.keys {
				f.m.Observe(tokencache.Event{Key: k, Result: tokencache.ResultLeaseLost})
				f.m.Forget(k)
				f.m.Add(k)
				f.m.Of(k).Read(context.Background(), tokencache.Token{}, nil)
			}
		}
	})
	last := 0.0
	for range 100 {
		now := lost()
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = now
	}
	wg.Wait()
	if got := lost(); got != rounds*20 {
		t.Errorf("%v, want %v", got, rounds*20)
	}
}
