package wechattest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
)

// A Transport is an [http.RoundTripper] that takes every request, whatever its host and scheme, to
// one handler over an in-memory connection with a real HTTP server behind it: bodies are chunked,
// answers break off and connections reset as on a network. Connections are not reused. In a
// testing/synctest bubble, make it inside. It is safe for concurrent use and has to be closed.
type Transport struct {
	http     *http.Transport
	listener *Listener
	server   *http.Server
	served   chan struct{} // closed when the server's accept loop has ended
}

// Transport returns a transport whose calls come from 203.0.113.7.
func (s *Server) Transport() *Transport { return s.TransportFrom("203.0.113.7") }

// TransportFrom returns a transport whose calls come from the given IP address, as the whitelist
// sees it.
func (s *Server) TransportFrom(ip string) *Transport { return transportTo(s, ip) }

// TransportTo returns a transport to another handler, such as the one that takes the pushes of a
// [Platform]. Its calls come from 203.0.113.8.
func TransportTo(h http.Handler) *Transport { return transportTo(h, "203.0.113.8") }

func transportTo(h http.Handler, ip string) *Transport {
	l := Listen()
	l.addr = &net.TCPAddr{IP: net.ParseIP(ip), Port: 1024}
	t := &Transport{
		// DialTLSContext is trusted to have done the handshake, so https works without one.
		http:     &http.Transport{DialContext: l.DialContext, DialTLSContext: l.DialContext, DisableKeepAlives: true},
		listener: l,
		// Aborted connections are what faults are for; net/http need not report them.
		server: &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)},
		served: make(chan struct{}),
	}
	go func() {
		defer close(t.served)
		_ = t.server.Serve(l) // ends with http.ErrServerClosed
	}()
	return t
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) { return t.http.RoundTrip(r) }

// DialContext connects to the server whatever the address says. It is for a transport of one's own,
// as its DialContext and DialTLSContext.
func (t *Transport) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return t.listener.DialContext(ctx, network, addr)
}

// Close breaks all connections, ends the server and waits until it accepts no more. Requests under
// way and later ones fail.
func (t *Transport) Close() error {
	err := t.server.Close()
	<-t.served
	return err
}
