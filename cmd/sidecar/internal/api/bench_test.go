package api_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// BenchmarkHTTPHit compares a hit with a handler that does nothing but write the same answer, in
// the same run. The metric is the ratio of the two: over a real connection it is what a caller
// notices.
func BenchmarkHTTPHit(b *testing.B) {
	face := newFace(b, &tokencachetest.Upstream{Latency: time.Millisecond}, api.Options{})
	body := face.call("GET", tokenPath, "").Body.Bytes()
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body)
	})

	b.Run("handler", func(b *testing.B) { compare(b, inMemory(face), inMemory(bare)) })
	b.Run("connection", func(b *testing.B) { compare(b, connected(b, face), connected(b, bare)) })
}

// compare times one and another by turns, so that what disturbs the machine disturbs both.
func compare(b *testing.B, one, another func()) {
	b.ReportAllocs()
	const turn = 64
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		for range turn {
			one()
		}
		middle := time.Now()
		b.StopTimer()
		for range turn {
			another()
		}
		theirs += time.Since(middle)
		ours += middle.Sub(start)
		b.StartTimer()
	}
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N*turn), "ns/hit")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N*turn), "ns/bare")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

func inMemory(h http.Handler) func() {
	w := &sink{header: http.Header{}}
	r := httptest.NewRequest("GET", tokenPath, nil)
	r.Host = "127.0.0.1:7200"
	return func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

func connected(b *testing.B, h http.Handler) func() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	url := "http://" + l.Addr().String() + tokenPath
	return func() {
		r, err := http.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK {
			b.Fatal(r.Status)
		}
	}
}
