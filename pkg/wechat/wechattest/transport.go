package wechattest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
)

// A Transport is an [http.RoundTripper] that takes every request, whatever its host and scheme, to
// one handler over an in-memory connection with a real HTTP server behind it: bodies are chunked,
// answers break off and connections reset as on a network. Connections are not reused. In a
// testing/synctest bubble, make it inside. It is safe for concurrent use and has to be closed.
type Transport struct {
	http     *http.Transport
	listener *listener
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
	l := &listener{
		addr:  &net.TCPAddr{IP: net.ParseIP(ip), Port: 1024},
		conns: make(chan net.Conn), closed: make(chan struct{}),
	}
	t := &Transport{
		// DialTLSContext is trusted to have done the handshake, so https works without one.
		http:     &http.Transport{DialContext: l.dial, DialTLSContext: l.dial, DisableKeepAlives: true},
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
	return t.listener.dial(ctx, network, addr)
}

// Close breaks all connections, ends the server and waits until it accepts no more. Requests under
// way and later ones fail.
func (t *Transport) Close() error {
	err := t.server.Close()
	<-t.served
	return err
}

// listener hands the far ends of its pipes to a server.
type listener struct {
	addr   net.Addr // of the callers
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- conn{far, l.addr}:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return l.addr }

// conn is the server's end of a pipe, with the caller's address.
type conn struct {
	net.Conn
	remote net.Addr
}

func (c conn) RemoteAddr() net.Addr { return c.remote }
