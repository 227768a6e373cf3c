package ops_test

import (
	"compress/gzip"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/ops"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
)

// slowReader is a scraper that does not read on.
type slowReader struct {
	*httptest.ResponseRecorder
	release chan struct{}
	held    *byte // where what it was given begins
}

func (s *slowReader) Write(p []byte) (int, error) {
	s.held = &p[0]
	<-s.release
	return s.ResponseRecorder.Write(p)
}

func gauge(t *testing.T) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "canary"})
	g.Set(42)
	r.MustRegister(g)
	return r
}

func TestScrapersShareOneRendering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, all atomic.Int32
		registry := gauge(t)
		h := ops.New(ops.Options{Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			all.Add(1)
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(time.Second)
			return registry.Gather()
		})})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if w := webtest.Serve(h, "GET", "/metrics", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "canary 42") {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
			})
		}
		wg.Wait()
		if most.Load() != 1 || all.Load() > 2 {
			t.Errorf("%d renderings, %d at once; want at most 2, one at a time", all.Load(), most.Load())
		}
	})
}

// Each rendering that is being read stays in memory: scrapers that do not read on get no one more
// each.
func TestSlowScrapersHoldFewRenderings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := ops.New(ops.Options{Gatherer: gauge(t)})
		release := make(chan struct{})
		var wg sync.WaitGroup
		var all []*slowReader
		for range 50 {
			s := &slowReader{ResponseRecorder: httptest.NewRecorder(), release: release}
			all = append(all, s)
			wg.Go(func() { h.ServeHTTP(s, httptest.NewRequest("GET", "http://localhost/metrics", nil)) })
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		held := map[*byte]bool{}
		for _, s := range all {
			held[s.held] = true
		}
		if len(held) != 4 {
			t.Errorf("50 slow scrapers hold %d renderings, want 4", len(held))
		}
		close(release)
		wg.Wait()
		for _, s := range all {
			if s.Code != 200 || !strings.Contains(s.Body.String(), "canary 42") {
				t.Fatalf("got %d %s", s.Code, s.Body)
			}
		}
	})
}

func TestMetricsAreCompressedForWhoTakesThat(t *testing.T) {
	h := ops.New(ops.Options{Gatherer: gauge(t)})
	for accept, zipped := range map[string]bool{"": false, "gzip": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "br": false} {
		w := webtest.Serve(h, "GET", "/metrics", "", "Accept-Encoding", accept)
		var body io.Reader = w.Body
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != zipped {
			t.Errorf("%q: gzip %t", accept, got)
		} else if got {
			z, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		if text, err := io.ReadAll(body); err != nil || !strings.Contains(string(text), "canary 42") {
			t.Errorf("%q: %s, %v", accept, text, err)
		}
	}
}
