package ops

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

// maxScrapes bounds the renderings of the metrics that are in memory at once. A slow scraper keeps
// the one that it reads there; once there are so many, all others share the newest.
const maxScrapes = 4

// scrapes answers /metrics. One rendering is made at a time, and all who ask before it begins share
// it.
type scrapes struct {
	render http.Handler

	turn   chan struct{} // holds one element while one goroutine uses what follows
	latest *scrape
	kept   int // renderings with readers, and the latest
}

func newScrapes(g prometheus.Gatherer) *scrapes {
	return &scrapes{turn: make(chan struct{}, 1), render: promhttp.HandlerFor(g, promhttp.HandlerOpts{DisableCompression: true})}
}

// scrape is one rendering. The turn of scrapes guards its readers.
type scrape struct {
	began   time.Time
	status  int
	header  http.Header
	body    bytes.Buffer
	readers int

	zipOnce sync.Once
	zipped  bytes.Buffer
}

func (s *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	one := s.take(time.Now())
	defer s.leave(one)
	body := one.body.Bytes()
	header := w.Header()
	for name, values := range one.header {
		header[name] = values
	}
	header.Set("Vary", "Accept-Encoding")
	if web.AcceptsGzip(r.Header) {
		one.zipOnce.Do(one.zip)
		body = one.zipped.Bytes()
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(one.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a scraper that went away
	}
}

// take returns a rendering to read, not older than asked. A request that comes while one is made
// waits for the next.
func (s *scrapes) take(asked time.Time) *scrape {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	last := s.latest
	if last == nil || !last.began.After(asked) && (s.kept < maxScrapes || last.readers == 0) {
		next := &scrape{began: time.Now(), status: http.StatusOK, header: http.Header{}}
		// In one format, which every scraper takes: the request says nothing of others.
		s.render.ServeHTTP(next, &http.Request{Method: http.MethodGet, Header: http.Header{}})
		if last == nil || last.readers > 0 {
			s.kept++
		}
		s.latest = next
	}
	s.latest.readers++
	return s.latest
}

func (s *scrapes) leave(one *scrape) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if one.readers--; one.readers == 0 && one != s.latest {
		s.kept--
	}
}

func (o *scrape) Header() http.Header         { return o.header }
func (o *scrape) WriteHeader(status int)      { o.status = status }
func (o *scrape) Write(p []byte) (int, error) { return o.body.Write(p) }

func (o *scrape) zip() {
	z := gzip.NewWriter(&o.zipped)
	_, _ = z.Write(o.body.Bytes()) // to memory
	_ = z.Close()
}
