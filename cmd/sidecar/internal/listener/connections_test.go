package listener_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/listener"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// serveInBubble runs Serve until the test is over. The function that it returns connects.
func serveInBubble(t *testing.T, connections int, h http.HandlerFunc, wrap ...func(net.Listener) net.Listener) (dial func() net.Conn) {
	pipes := wechattest.Listen()
	var l net.Listener = pipes
	for _, w := range wrap {
		l = w(l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- listener.Serve(ctx, l, h, listener.Options{Connections: connections}) }()
	synctest.Wait()
	t.Cleanup(func() { cancel(); <-done })
	return func() net.Conn {
		conn, err := pipes.DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
}

func TestABodyThatNeverComesEndsItsConnection(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"read":   func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"unread": func(w http.ResponseWriter, r *http.Request) {},
	} {
		for _, length := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
			t.Run(name+" "+length, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					conn := serveInBubble(t, 8, h)()
					defer conn.Close()
					begin := time.Now()
					fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", length)
					_, _ = io.Copy(io.Discard, conn)
					if took := time.Since(begin); took > listener.ProgressTime+time.Second {
						t.Errorf("the connection lived for %v, want %v", took, listener.ProgressTime)
					}
				})
			})
		}
	}
}

// A transfer may take longer than any one deadline as long as it makes progress; so may the wait
// for an answer.
func TestSlowTransfersAndLongWaitsAreNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces = 10
		dial := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if n != pieces || err != nil {
				t.Errorf("upload: %d bytes, %v", n, err)
			}
			_, _ = r.Body.Read(make([]byte, 1)) // past the end, as some decoders do
			select {
			case <-r.Context().Done():
				t.Error("the context ended while the peer was there")
			case <-time.After(3 * listener.ProgressTime):
			}
			for range pieces {
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(listener.ProgressTime * 2 / 3)
			}
		})
		conn := dial()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for range 2 { // the second one comes on the same connection
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", pieces)
			for range pieces {
				time.Sleep(listener.ProgressTime * 2 / 3)
				fmt.Fprint(conn, "x")
			}
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(answer.Body); len(body) != pieces || err != nil {
				t.Errorf("download: %q, %v", body, err)
			}
		}
	})
}

// A handler that gives its body less time has it end then, however steadily the body comes, and the
// next request of the connection has its own time.
func TestADeadlineOfAHandlerEndsItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 2 * time.Second
		read := make(chan time.Duration, 1)
		dial := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) {
			begin := time.Now()
			_ = http.NewResponseController(w).SetReadDeadline(begin.Add(most))
			_, _ = io.Copy(io.Discard, r.Body)
			read <- time.Since(begin)
		})
		conn := dial()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for range 2 {
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxx")
			if answer, err := http.ReadResponse(answers, nil); err != nil || answer.StatusCode != 200 {
				t.Fatalf("a body that comes at once: %v", err)
			}
			<-read
			time.Sleep(2 * most)
		}
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n")
		for range 60 {
			if _, err := fmt.Fprint(conn, "x"); err != nil {
				break
			}
			time.Sleep(most / 4)
		}
		if took := <-read; took != most {
			t.Errorf("the body was read for %v, want %v", took, most)
		}
	})
}

func TestAnAnswerThatIsNotReadEndsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan time.Duration, 1)
		dial := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) {
			begin := time.Now()
			_, err := w.Write(make([]byte, 1<<20))
			if err == nil {
				t.Error("an answer that is not read was written")
			}
			over <- time.Since(begin)
		})
		conn := dial()
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if took := <-over; took < listener.ProgressTime || took > listener.ProgressTime+5*time.Second {
			t.Errorf("it took %v, want %v to 5 s more", took, listener.ProgressTime)
		}
	})
}

// A handler ends a write that is stuck by a deadline that is over. On a connection that is kept,
// the next answer has a deadline of its own.
func TestADeadlineOfAHandlerDoesNotEndTheNextAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("whole"))
			if r.URL.Path == "/2" {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
			}
		})
		conn := dial()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for _, path := range []string{"/1", "/2", "/3"} {
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if body, err := io.ReadAll(answer.Body); string(body) != "whole" || err != nil {
				t.Errorf("%s: %q, %v", path, body, err)
			}
		}
	})
}

// deadlines counts how often a deadline is set on any of its connections.
type deadlines struct {
	net.Listener
	reading, writing atomic.Int32
}

func (d *deadlines) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	return &deadlineConn{c, d}, err
}

type deadlineConn struct {
	net.Conn
	all *deadlines
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.all.writing.Add(1)
	return c.Conn.SetWriteDeadline(t)
}

func (c *deadlineConn) SetReadDeadline(t time.Time) error {
	c.all.reading.Add(1)
	return c.Conn.SetReadDeadline(t)
}

// Deadlines cost a tenth of a short answer. Answers that follow each other share one for writing,
// and of those for reading only two are set: one that ends the Read beside the handler, and one while
// the connection is idle.
func TestShortAnswersSetFewDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *deadlines
		conn := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") },
			func(inner net.Listener) net.Listener { l = &deadlines{Listener: inner}; return l })()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		const calls = 60 // in as many seconds
		for range calls {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			time.Sleep(time.Second)
		}
		if n := l.writing.Load(); n < 2 || n > 15 {
			t.Errorf("%d answers in a minute set %d deadlines for writing, want one every 5 s", calls, n)
		}
		if n := l.reading.Load(); n > 2*calls+2 {
			t.Errorf("%d answers set %d deadlines for reading, want 2 each", calls, n)
		}
	})
}

// A deadline is set on the connection only if it ends a Read sooner: not one that is over before the
// Read begins, and not a later one while a Read waits, which still ends when it is asked to.
func TestOnlyADeadlineThatEndsAReadSoonerIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *deadlines
		conn := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			before := l.reading.Load()
			_ = conn.SetReadDeadline(time.Unix(0, 1)) // net/http has set Unix(1, 0)
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a Read after its deadline: %v", err)
			}
			if n := l.reading.Load() - before; n != 0 {
				t.Errorf("a Read that was over before it began set %d deadlines", n)
			}
			begin := time.Now()
			_ = conn.SetReadDeadline(begin.Add(time.Second))
			later := time.AfterFunc(time.Millisecond, func() {
				before := l.reading.Load()
				_ = conn.SetReadDeadline(begin.Add(3 * time.Second))
				if n := l.reading.Load() - before; n != 0 {
					t.Errorf("a later deadline was set %d times while a Read waited", n)
				}
			})
			defer later.Stop()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 3*time.Second {
				t.Errorf("a Read whose deadline was moved: %v after %v", err, time.Since(begin))
			}
		}, func(inner net.Listener) net.Listener { l = &deadlines{Listener: inner}; return l })()
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
}

// A connection that a handler takes over has the deadlines that the handler sets.
func TestATakenConnectionHasItsOwnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 3 * time.Second
		dial := serveInBubble(t, 8, func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			begin, piece := time.Now(), make([]byte, 1)
			_ = conn.SetDeadline(begin.Add(life))
			if _, err := conn.Read(piece); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != life {
				t.Errorf("the first Read: %v after %v, want a timeout after %v", err, time.Since(begin), life)
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Errorf("a Write has a deadline of its own: %v", err)
			}
			_ = conn.SetDeadline(time.Time{})
			if _, err := conn.Read(piece); err != nil || piece[0] != 'y' {
				t.Errorf("the second Read: %q, %v", piece, err)
			}
		})
		conn := dial()
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * listener.IdleTime)
		fmt.Fprint(conn, "y")
		_, _ = io.Copy(io.Discard, conn)
	})
}

// A connection on which no call follows is closed.
func TestAnIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := serveInBubble(t, 8, func(http.ResponseWriter, *http.Request) {})()
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for range 2 {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := http.ReadResponse(answers, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(listener.IdleTime - time.Second)
		}
		begin := time.Now()
		_, _ = io.Copy(io.Discard, conn)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it lived for %v more, want 1 s", took)
		}
	})
}

// Peers that hold all connections keep no probe out.
func TestOneConnectionTooManyClosesTheOneWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4
		dial := serveInBubble(t, most, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "ok")
		})
		var held []net.Conn
		for range most {
			conn := dial()
			defer conn.Close()
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
			synctest.Wait()
			time.Sleep(time.Second)
			held = append(held, conn)
		}
		fmt.Fprint(held[0], "x") // it moves
		synctest.Wait()
		time.Sleep(time.Second)
		for n := range 3 {
			probe := dial()
			fmt.Fprint(probe, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(probe), nil)
			if err != nil || answer.StatusCode != 200 {
				t.Fatalf("probe %d: %v", n, err)
			}
			_ = probe.Close()
			synctest.Wait()
		}
		for i, conn := range held {
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := conn.Read(make([]byte, 1))
			if open, want := !errors.Is(err, io.EOF), i != 1; open != want {
				t.Errorf("connection %d: open %t (%v), want %t", i, open, err, want)
			}
		}
	})
}
