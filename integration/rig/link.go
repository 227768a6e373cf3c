package rig

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Link is the network between one sidecar and Redis, with accidents. A sidecar dials its Addr. Safe
// for concurrent use; every accident lasts until [Link.Heal].
type Link struct {
	Addr string

	target   string
	listener net.Listener
	done     chan struct{} // closed with the test

	mu     sync.Mutex
	conns  map[*wire]struct{}
	refuse bool
	hole   bool
	deaf   bool
	delay  time.Duration
	losses []*loss
	lost   int  // replies, by them
	torn   bool // a connection is missing something that it waits for
	cutter *time.Ticker
}

// NewLink returns a link to the Redis at an address.
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Addr: listener.Addr().String(), target: target, listener: listener, conns: map[*wire]struct{}{}, done: make(chan struct{})}
	go l.accept()
	t.Cleanup(func() {
		close(l.done)
		_ = listener.Close()
		l.Heal()
		l.Reset()
	})
	return l
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.carry(near.(*net.TCPConn))
	}
}

// carry joins a connection of the sidecar with one of its own to Redis.
func (l *Link) carry(near *net.TCPConn) {
	w := &wire{link: l, near: near}
	l.mu.Lock()
	refuse, hole := l.refuse, l.hole
	l.conns[w] = struct{}{}
	l.mu.Unlock()
	if refuse {
		w.cut()
		return
	}
	if hole { // accepted by a kernel, and never answered
		_, _ = io.Copy(io.Discard, near)
		w.cut()
		return
	}
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		w.cut()
		return
	}
	w.attach(far)
	go w.answers()
	w.commands()
}

// Refuse resets every connection, and new ones as soon as they are made.
func (l *Link) Refuse() {
	l.set(func() { l.refuse = true })
	l.Reset()
}

// BlackHole swallows everything in both directions.
func (l *Link) BlackHole() { l.set(func() { l.hole = true }) }

// Delay holds everything that Redis says for d.
func (l *Link) Delay(d time.Duration) { l.set(func() { l.delay = d }) }

// Deafen breaks every subscription as soon as it is made, and lets commands pass.
func (l *Link) Deafen() {
	l.set(func() { l.deaf = true })
	l.Reset()
}

// ResetEvery resets all connections every d.
func (l *Link) ResetEvery(d time.Duration) {
	ticker := time.NewTicker(d)
	l.set(func() { l.cutter = ticker })
	go func() {
		for {
			select {
			case <-ticker.C:
				l.mu.Lock()
				mine := l.cutter == ticker
				l.mu.Unlock()
				if !mine {
					return
				}
				l.Reset()
			case <-l.done:
				return
			}
		}
	}()
}

// Reset resets all connections once.
func (l *Link) Reset() {
	l.mu.Lock()
	conns := l.conns
	l.conns = map[*wire]struct{}{}
	l.mu.Unlock()
	for w := range conns {
		w.cut()
	}
}

// Heal ends every accident. What was swallowed stays lost, and its connections are reset.
func (l *Link) Heal() {
	var broken bool
	l.set(func() {
		broken = l.hole || l.torn
		if l.cutter != nil {
			l.cutter.Stop() // its goroutine ends with the test
		}
		l.refuse, l.hole, l.deaf, l.delay, l.cutter = false, false, false, 0, nil
		l.losses, l.lost, l.torn = nil, 0, false
	})
	if broken {
		l.Reset()
	}
}

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// wire is one connection of a sidecar, and its counterpart to Redis.
type wire struct {
	link *Link
	near *net.TCPConn

	mu     sync.Mutex
	far    net.Conn
	gone   bool
	losing *loss // the reply that comes next is to be lost
}

func (w *wire) attach(far net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.far = far; w.gone {
		_ = far.Close()
	}
}

// cut resets the connection.
func (w *wire) cut() {
	w.mu.Lock()
	if !w.gone {
		w.gone = true
		_ = w.near.SetLinger(0)
		_ = w.near.Close()
		if w.far != nil {
			_ = w.far.Close()
		}
	}
	w.mu.Unlock() // the link's mutex is taken before a wire's, never after
	w.link.set(func() { delete(w.link.conns, w) })
}

// commands carries what the sidecar asks.
func (w *wire) commands() {
	defer w.cut()
	r := newCommandReader(w.near)
	for {
		c, err := r.next()
		if err != nil {
			return
		}
		switch verdict := w.link.judge(w, c); verdict {
		case verdictCut:
			return
		case verdictSwallow:
			continue
		}
		if _, err := w.far.Write(c.raw); err != nil {
			return
		}
	}
}

// answers carries what Redis says.
func (w *wire) answers() {
	defer w.cut()
	buf := make([]byte, 64<<10)
	for {
		n, err := w.far.Read(buf)
		if err != nil {
			return
		}
		w.link.mu.Lock()
		hole, delay := w.link.hole, w.link.delay
		w.link.mu.Unlock()
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-w.link.done:
				return
			}
		}
		if hole {
			continue
		}
		switch w.link.reply(w, buf[:n]) {
		case verdictCut:
			return
		case verdictSwallow:
			continue
		}
		if _, err := w.near.Write(buf[:n]); err != nil {
			return
		}
	}
}
