package tokencachetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Link is the network between one replica and Redis, with faults. Safe for concurrent use.
type Link struct {
	dial func() (net.Conn, error)

	mu    sync.Mutex
	cut   bool
	hole  bool
	nays  bool // a connection was refused
	deaf  bool
	skip  int // replies to let pass before the first is lost
	lose  int // replies to lose
	conns map[*conn]struct{}
}

func newLink(dial func() (net.Conn, error)) *Link {
	return &Link{dial: dial, conns: map[*conn]struct{}{}}
}

var errCut = errors.New("tokencachetest: connection refused")

// Dial is for go-redis' Options.Dialer.
func (l *Link) Dial(context.Context, string, string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		l.nays = true
		return nil, errCut
	}
	inner, err := l.dial()
	if err != nil {
		return nil, err
	}
	c := newConn(inner, l)
	l.conns[c] = struct{}{}
	return c, nil
}

// Cut closes every connection and refuses new ones, until [Link.Heal].
func (l *Link) Cut() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.Drop()
}

// Drop closes every connection once.
func (l *Link) Drop() {
	l.mu.Lock()
	conns := l.conns
	l.conns = map[*conn]struct{}{}
	l.mu.Unlock()
	for c := range conns {
		c.shut()
	}
}

// BlackHole swallows everything in both directions, until [Link.Heal].
func (l *Link) BlackHole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hole = true
}

// Deafen breaks every subscription, and those to come, as soon as they are made; until [Link.Heal].
func (l *Link) Deafen() {
	l.mu.Lock()
	l.deaf = true
	l.mu.Unlock()
	l.Drop()
}

// Heal ends Cut, BlackHole and Deafen. What was swallowed stays lost.
func (l *Link) Heal() {
	l.mu.Lock()
	l.cut, l.hole, l.deaf = false, false, false
	l.mu.Unlock()
	l.Drop()
}

// LoseReplies lets the next n replies, after skip that arrive, be lost after Redis has acted, by
// closing the connection.
func (l *Link) LoseReplies(skip, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.skip, l.lose = skip, n
}

// Losing returns how many replies are still to be lost.
func (l *Link) Losing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lose
}

func (l *Link) refused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nays
}

func (l *Link) swallows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hole
}

func (l *Link) refuses(command []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deaf && bytes.Contains(bytes.ToLower(command), []byte("subscribe"))
}

func (l *Link) losesReply() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose == 0 {
		return false
	}
	if l.skip > 0 {
		l.skip--
		return false
	}
	l.lose--
	return true
}

// conn is a client's end of a connection. The server's answers go through a queue, as they do through
// a kernel's buffers: miniredis publishes while it holds its one mutex, and would otherwise wait
// there for a subscriber that is waiting for its next answer.
type conn struct {
	net.Conn // what the server sees
	answers  net.Conn
	link     *Link
}

func newConn(inner net.Conn, l *Link) *conn {
	answers, far := net.Pipe()
	queue := make(chan []byte, 1<<12)
	go func() {
		defer close(queue)
		for {
			p := make([]byte, 1<<12)
			n, err := inner.Read(p)
			if err != nil {
				return
			}
			queue <- p[:n]
		}
	}()
	go func() {
		defer far.Close()
		for p := range queue {
			_, _ = far.Write(p) // after the client has closed its end, into nothing
		}
	}()
	return &conn{Conn: inner, answers: answers, link: l}
}

func (c *conn) Write(p []byte) (int, error) {
	if c.link.swallows() {
		return len(p), nil
	}
	if c.link.refuses(p) {
		c.shut()
		return 0, errCut
	}
	n, err := c.Conn.Write(p)
	return n, broken(err)
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.answers.Read(p)
	if n > 0 && c.link.losesReply() {
		c.shut()
		return 0, io.ErrUnexpectedEOF
	}
	return n, broken(err)
}

// SetDeadline and its kin fail on a closed pipe, but not on a broken TCP connection.

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error  { _ = c.answers.SetReadDeadline(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { _ = c.Conn.SetWriteDeadline(t); return nil }

// broken is what a broken TCP connection says where a pipe says ErrClosedPipe, which go-redis does
// not take for a reason to try again.
func broken(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return io.EOF
	}
	return err
}

func (c *conn) shut() {
	_ = c.Conn.Close()
	_ = c.answers.Close()
}

func (c *conn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	c.shut()
	return nil
}
