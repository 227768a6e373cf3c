package wechattest

import (
	"context"
	"net"
	"sync"
)

// A Listener is a [net.Listener] in memory. It hands the far ends of its pipes to a server. In a
// testing/synctest bubble, make it inside. It is safe for concurrent use.
type Listener struct {
	addr   net.Addr // of the callers, and its own
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Listen returns a listener whose callers come from 127.0.0.1.
func Listen() *Listener {
	return &Listener{
		addr:  &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1024},
		conns: make(chan net.Conn), closed: make(chan struct{}),
	}
}

// DialContext returns a connection to the server, whatever the address says. It waits until the
// server accepts it.
func (l *Listener) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
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
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]. Connections that were accepted stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *Listener) Addr() net.Addr { return l.addr }

// conn is the server's end of a pipe, with the caller's address.
type conn struct {
	net.Conn
	remote net.Addr
}

func (c conn) RemoteAddr() net.Addr { return c.remote }
