package listener

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// headTime is how long the head of a request may take.
	headTime = 5 * time.Second
	// ProgressTime is how long the body of a request, or an answer, may make no progress; an answer
	// 5 s more at most. A transfer that makes progress takes as long as it takes.
	ProgressTime = 30 * time.Second
	// IdleTime is how long a connection is kept between two requests.
	IdleTime = 2 * time.Minute

	// The connections of each listener. The memory of all of them, 20 KiB each and 40 KiB with TLS,
	// fits the container's 64 MiB.
	MaxValueConnections = 1536 // 1024 waiting calls of the proxy leave room for reads
	MaxTLSConnections   = 256  // one of HTTP/2 takes many calls
	MaxOpsConnections   = 64
	// The open internet is behind this one, and each may have sent 64 KiB.
	MaxCallbackConnections = 256
)

// boundedListener accepts at most max connections. When one more comes, it closes the one on which
// nothing has moved for the longest: an idle one, or that of a peer which holds it on purpose. A
// probe of the kubelet gets through even if other pods hold as many connections as they can.
type boundedListener struct {
	net.Listener
	max int

	began time.Time // the connections count from here: that costs less than the time of day

	mu   sync.Mutex
	open map[*boundedConn]struct{}
}

func newBoundedListener(l net.Listener, most int) *boundedListener {
	return &boundedListener{Listener: l, max: most, began: time.Now(), open: map[*boundedConn]struct{}{}}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &boundedConn{Conn: conn, listener: l}
	c.progress()
	l.mu.Lock()
	var oldest *boundedConn
	if len(l.open) >= l.max {
		for o := range l.open {
			if oldest == nil || o.moved.Load() < oldest.moved.Load() {
				oldest = o
			}
		}
		delete(l.open, oldest)
	}
	l.open[c] = struct{}{}
	l.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close()
	}
	return c, nil
}

// boundedConn is a connection of a [boundedListener]. An answer that the peer does not read ends
// it.
type boundedConn struct {
	net.Conn
	listener *boundedListener
	moved    atomic.Int64 // when bytes last went either way, in ns since the listener began
	until    atomic.Int64 // the deadline for writing, by the same clock; 0: none yet

	reading  sync.Mutex // guards what follows
	readers  int
	deadline time.Time // for reading, as it was set last
	applied  time.Time // the one that Conn has: this, or an earlier one
}

func (c *boundedConn) now() int64 { return int64(time.Since(c.listener.began)) }

func (c *boundedConn) progress() { c.moved.Store(c.now()) }

// deadlineStep is how much too far ahead the deadline for writing may be, so that it need not be
// set for each answer.
const deadlineStep = 5 * time.Second

// boundWrite gives what is written next at least [ProgressTime].
func (c *boundedConn) boundWrite() error {
	if c.until.Load()-c.now() >= int64(ProgressTime) {
		return nil
	}
	return c.SetWriteDeadline(time.Now().Add(ProgressTime + deadlineStep))
}

// SetWriteDeadline remembers the deadline. A handler sets an earlier one to end a write that is
// stuck, and the next answer must not take that for its own. net/http takes the deadline off after
// each answer: here it stays, because boundWrite moves it when it must.
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	c.until.Store(int64(t.Sub(c.listener.began)))
	return c.Conn.SetWriteDeadline(t)
}

// SetReadDeadline remembers the deadline. net/http sets six for a call, and most are later than the
// one before. Only an earlier one is set on the connection, and only while something reads. A Read
// that was ended too early looks again.
func (c *boundedConn) SetReadDeadline(t time.Time) error {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.deadline = t
	if c.readers == 0 || !sooner(t, c.applied) {
		return nil
	}
	return c.applyReadDeadline()
}

// sooner reports whether one deadline ends before another; zero is never.
func sooner(one, another time.Time) bool {
	return !one.IsZero() && (another.IsZero() || one.Before(another))
}

func (c *boundedConn) applyReadDeadline() error {
	c.applied = c.deadline
	return c.Conn.SetReadDeadline(c.deadline)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *boundedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *boundedConn) Read(p []byte) (int, error) {
	for {
		if err := c.beginRead(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if n > 0 {
			c.progress()
		}
		if tooEarly := c.endRead(err); !tooEarly {
			return n, err
		}
	}
}

func (c *boundedConn) beginRead() error {
	c.reading.Lock()
	defer c.reading.Unlock()
	if sooner(c.deadline, c.listener.began) {
		return os.ErrDeadlineExceeded // net/http wants to end this Read, which has not begun
	}
	if sooner(c.deadline, c.applied) {
		if err := c.applyReadDeadline(); err != nil {
			return err
		}
	}
	c.readers++
	return nil
}

// endRead reports whether err came before the deadline that is set now.
func (c *boundedConn) endRead(err error) bool {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.readers--
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	over := !c.deadline.IsZero() && time.Until(c.deadline) <= 0
	return !over && c.applyReadDeadline() == nil
}

// writePiece is what must get through within progressTime.
const writePiece = 32 << 10

func (c *boundedConn) Write(p []byte) (int, error) {
	for written := 0; ; {
		if err := c.boundWrite(); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:min(len(p), written+writePiece)])
		written += n
		if err != nil {
			return written, err
		}
		c.progress()
		if written == len(p) {
			return written, nil
		}
	}
}

func (c *boundedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// boundBodies gives the body of each request a deadline that moves with it. http.Server.ReadTimeout
// would end uploads that make progress, and the context of calls that wait. A handler that sets an
// earlier deadline has it kept.
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &boundedBody{ReadCloser: r.Body, conn: http.NewResponseController(w)}
		b.extend() // net/http reads on what the handler leaves
		defer b.leave()
		// Not r itself: net/http looks at its body after the handler.
		own := *r
		own.Body = b
		next.ServeHTTP(boundedWriter{w, b}, &own)
	})
}

type boundedBody struct {
	io.ReadCloser
	conn *http.ResponseController

	mu   sync.Mutex
	over bool      // the handler has returned, or the body is read: the deadline is net/http's
	end  time.Time // the handler's own deadline; zero: none
}

// boundedWriter learns the deadline that a handler sets for its body, which no Read of the body
// must move.
type boundedWriter struct {
	http.ResponseWriter
	body *boundedBody
}

// SetReadDeadline is for [http.ResponseController].
func (w boundedWriter) SetReadDeadline(t time.Time) error {
	w.body.mu.Lock()
	defer w.body.mu.Unlock()
	w.body.end = t
	return w.body.conn.SetReadDeadline(t)
}

// Unwrap is for [http.ResponseController].
func (w boundedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (b *boundedBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// net/http has taken the deadline off, and reads the connection to see whether the peer
		// goes away, for as long as the handler takes. One more Read of the body must not put a
		// deadline on that.
		b.leave()
	}
	return n, err
}

func (b *boundedBody) extend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	until := time.Now().Add(ProgressTime)
	if !b.end.IsZero() && b.end.Before(until) {
		until = b.end
	}
	_ = b.conn.SetReadDeadline(until)
}

// leave gives the deadline back. A proxied call may still read the body for a moment after its
// handler.
func (b *boundedBody) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}
