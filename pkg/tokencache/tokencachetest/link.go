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

	mu     sync.Mutex
	refuse bool
	hole   bool
	nays   bool // a connection was refused
	deaf   bool
	mute   bool
	skip   int           // replies to let pass before the first is lost
	lose   int           // replies to lose
	mark   string        // the reply to the next command that contains it is lost
	delay  time.Duration // of every other command
	turn   int

	latency time.Duration
	conns   map[*conn]struct{}
}

func newLink(dial func() (net.Conn, error)) *Link {
	return &Link{dial: dial, conns: map[*conn]struct{}{}}
}

var errRefused = errors.New("tokencachetest: connection refused")

// Dial is for go-redis' Options.Dialer.
func (l *Link) Dial(context.Context, string, string) (net.Conn, error) {
	if l.refusesDial() {
		return nil, errRefused
	}
	// Without the lock: miniredis takes its own to dial, and holds it while it writes a reply that
	// is longer than the queue, whose reader takes the lock of the link.
	inner, err := l.dial()
	if err != nil {
		return nil, err
	}
	c := newConn(inner, l)
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	if l.refusesDial() { // it was cut meanwhile
		_ = c.Close()
		return nil, errRefused
	}
	return c, nil
}

// refusesDial reports whether new connections are refused, and notes that one was.
func (l *Link) refusesDial() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nays = l.nays || l.refuse
	return l.refuse
}

// Refuse closes every connection and refuses new ones, until [Link.Heal].
func (l *Link) Refuse() {
	l.mu.Lock()
	l.refuse = true
	l.mu.Unlock()
	l.Reset()
}

// Reset closes every connection once.
func (l *Link) Reset() {
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
	l.Reset()
}

// Mute loses every event, without any other sign of it; until [Link.Heal].
func (l *Link) Mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = true
}

// Heal ends Refuse, BlackHole, Deafen, Mute and Delay. What was swallowed stays lost.
func (l *Link) Heal() {
	l.mu.Lock()
	l.refuse, l.hole, l.deaf, l.mute, l.delay = false, false, false, false, 0
	l.mu.Unlock()
	l.Reset()
}

// LoseReply lets the next n replies, after skip that arrive, be lost after Redis has acted, by
// closing the connection.
func (l *Link) LoseReply(skip, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.skip, l.lose = skip, n
}

// LoseReplyTo loses the reply to the next command that contains mark, such as a script's hash,
// after Redis has acted, by closing the connection.
func (l *Link) LoseReplyTo(mark string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark = mark
}

// Delay lets every other script reach Redis d later, even if its sender has closed the connection
// by then, as what is in flight does. So commands on two connections overtake each other. Until
// [Link.Heal].
func (l *Link) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Losing returns how many replies are still to be lost.
func (l *Link) Losing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mark != "" {
		return l.lose + 1
	}
	return l.lose
}

// Healthy reports whether nothing is wrong with the link now.
func (l *Link) Healthy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.refuse && !l.hole && !l.deaf && !l.mute && l.delay == 0 && l.lose == 0 && l.mark == ""
}

// Deaf reports whether events are lost, and nothing else is wrong with the link now.
func (l *Link) Deaf() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return (l.deaf || l.mute) && !l.refuse && !l.hole && l.delay == 0 && l.lose == 0 && l.mark == ""
}

func (l *Link) refused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nays
}

// mutes reports whether an answer is an event, and events are lost.
func (l *Link) mutes(answer []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mute && bytes.HasPrefix(answer, []byte(">3\r\n$7\r\nmessage\r\n"))
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

// marks notes that the reply to command, on c, is the one to lose.
func (l *Link) marks(c *conn, command []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mark != "" && bytes.Contains(command, []byte(l.mark)) {
		l.mark, c.marked = "", true
	}
}

func (l *Link) losesReply(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.marked {
		return true
	}
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

// conn is a client's end of a connection. The server's answers go through a queue, as they do
// through a kernel's buffers: miniredis publishes while it holds its one mutex, and would otherwise
// wait there for a subscriber that is waiting for its next answer.
type conn struct {
	net.Conn // what the server sees
	answers  net.Conn
	link     *Link

	// with link.mu held
	marked  bool      // the next reply is lost
	flying  int       // commands that have not arrived
	arrives time.Time // the last of them
	closed  bool      // by the client
}

func newConn(inner net.Conn, l *Link) *conn {
	answers, far := net.Pipe()
	queue := make(chan []byte, 1<<8)
	go func() {
		defer close(queue)
		for {
			p := make([]byte, 1<<10)
			n, err := inner.Read(p)
			if err != nil {
				return
			}
			if !l.mutes(p[:n]) {
				queue <- p[:n]
			}
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
		return 0, errRefused
	}
	c.link.marks(c, p)
	if c.fly(p) {
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	return n, broken(err)
}

// fly reports whether p is on its way and will arrive by itself, in order.
func (c *conn) fly(p []byte) bool {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	// Only scripts are slow: go-redis shakes hands under a lock, and while another waits for that,
	// a bubble's time stops.
	slow := l.delay+l.latency > 0 && bytes.Contains(p[:min(len(p), 16)], []byte("eval"))
	if c.closed || !slow && c.flying == 0 {
		return false
	}
	l.turn++
	at := time.Now().Add(l.delay*time.Duration(l.turn%2) + l.latency*time.Duration(l.turn*7%5)/4)
	if !at.After(c.arrives) {
		at = c.arrives.Add(1)
	}
	c.arrives = at
	c.flying++
	p = bytes.Clone(p)
	time.AfterFunc(time.Until(at), func() {
		_, _ = c.Conn.Write(p)
		l.mu.Lock()
		c.flying--
		over := c.closed && c.flying == 0
		l.mu.Unlock()
		if over {
			_ = c.Conn.Close()
		}
	})
	return true
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.answers.Read(p)
	if n > 0 && c.link.losesReply(c) {
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
	c.link.mu.Lock()
	c.closed = true
	flying := c.flying
	c.link.mu.Unlock()
	if flying == 0 {
		_ = c.Conn.Close()
	}
	_ = c.answers.Close()
}

func (c *conn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	c.shut()
	return nil
}
