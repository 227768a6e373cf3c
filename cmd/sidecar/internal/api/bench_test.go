package api_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/listener"
)

// BenchmarkHTTPHit compares a hit with a server that does nothing but write the same answer, in the
// same run: the handlers alone, and over a connection with the same timeouts, from a client that
// costs next to nothing.
func BenchmarkHTTPHit(b *testing.B) {
	s := newStack(b, api.Options{}, nil, plain)
	body := s.call("GET", tokenPath, "").Body.Bytes()
	bare := http.NewServeMux()
	bare.HandleFunc("GET /v1/apps/{app}/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(body)
	})

	b.Run("handler", func(b *testing.B) { compare(b, inMemory(s), inMemory(bare)) })
	b.Run("connection", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		compare(b,
			connected(b, body, func(l net.Listener) {
				_ = listener.Serve(ctx, l, s, listener.Options{Connections: listener.MaxValueConnections, Track: new(listener.Callers).Track})
			}),
			connected(b, body, func(l net.Listener) {
				s := &http.Server{Handler: bare, ReadHeaderTimeout: 5 * time.Second,
					WriteTimeout: listener.ProgressTime, IdleTimeout: listener.IdleTime}
				context.AfterFunc(ctx, func() { _ = s.Close() })
				_ = s.Serve(l)
			}))
	})
}

// compare times one and another by turns, so that what disturbs the machine disturbs both, and
// reports medians.
func compare(b *testing.B, one, another func()) {
	b.ReportAllocs()
	const turn = 64
	var ours, theirs []time.Duration
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
		theirs = append(theirs, time.Since(middle)/turn)
		ours = append(ours, middle.Sub(start)/turn)
		b.StartTimer()
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	hit, baseline := float64(ours[len(ours)/2]), float64(theirs[len(theirs)/2])
	b.ReportMetric(hit, "ns/hit")
	b.ReportMetric(baseline, "ns/bare")
	b.ReportMetric(hit/baseline, "ratio")
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

// connected returns a call on one connection to a server. Its answer ends as body does.
func connected(b *testing.B, body []byte, serve func(net.Listener)) func() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	request, answer := []byte("GET "+tokenPath+" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), make([]byte, 4096)
	return func() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		n, err := io.ReadAtLeast(conn, answer, len(body))
		for err == nil && !bytes.HasSuffix(answer[:n], body[len(body)-10:]) {
			var more int
			more, err = conn.Read(answer[n:])
			n += more
		}
		if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
			b.Fatalf("%v: %q", err, answer[:n])
		}
	}
}
