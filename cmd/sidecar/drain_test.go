package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/listener"
)

// program is a command in this process.
type program struct {
	t              *testing.T
	stop           context.CancelFunc // as SIGTERM
	exit           chan int
	values, ops    string // where a sidecar of start listens
	stdout, stderr syncBuffer
}

// begin runs a command. At the end of the test it is stopped, and has to exit with 0.
func begin(t *testing.T, getenv func(string) string, args ...string) *program {
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{t: t, stop: cancel, exit: make(chan int, 1)}
	go func() { p.exit <- command(ctx, args, getenv, &p.stdout, &p.stderr) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		p.wantExit()
	})
	return p
}

// start runs a sidecar on an embedded Redis and a simulated WeChat.
func start(t *testing.T, env map[string]string) *program {
	t.Helper()
	p := begin(t, func(name string) string { return env[name] }, "--dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-format", "json")
	waitFor(t, "it starts", func() bool {
		for line := range strings.Lines(p.stderr.String()) {
			var started struct{ Msg, Listen, OpsListen string }
			if json.Unmarshal([]byte(strings.ReplaceAll(line, "ops_listen", "OpsListen")), &started) == nil && started.Msg == "started" {
				p.values, p.ops = "http://"+started.Listen, "http://"+started.OpsListen
			}
		}
		return p.values != "" || !p.running()
	})
	return p
}

// wantExit waits for the end.
func (p *program) wantExit() {
	p.t.Helper()
	select {
	case code := <-p.exit:
		p.exit <- code
		if code != 0 {
			p.t.Errorf("exit status %d, want 0\n%s", code, &p.stderr)
		}
	case <-time.After(patience):
		p.t.Error("it does not stop")
	}
}

func (p *program) running() bool {
	select {
	case code := <-p.exit:
		p.exit <- code
		return false
	default:
		return true
	}
}

func (p *program) call(client *http.Client, method, url string) (int, http.Header) {
	p.t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		p.t.Errorf("%s %s: %v", method, url, err)
		return 0, nil
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Header
}

const tokenPath = "/v1/apps/wx00000000000000de/token"

// Kubernetes asks the containers of a pod to stop at the same moment: the app still has requests to
// finish, and needs its token for them.
func TestAStoppingSidecarServesUntilItsAppIsGone(t *testing.T) {
	p := start(t, map[string]string{"WXTOKEN_DRAIN": "1h", "WXTOKEN_DRAIN_QUIET": "1ms"})
	app := &http.Client{Transport: &http.Transport{}}
	defer app.CloseIdleConnections()
	waitFor(t, "the app has a token", func() bool { code, _ := p.call(app, "GET", p.values+tokenPath); return code == 200 })
	p.stop()
	waitFor(t, "it says that it stops", func() bool { return strings.Contains(p.stderr.String(), `"stopping"`) })
	late := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 20 {
		for _, client := range []*http.Client{app, late} {
			if code, _ := p.call(client, "GET", p.values+tokenPath); code != 200 {
				t.Fatalf("while it stops: got %d", code)
			}
		}
		if code, _ := p.call(late, "GET", p.ops+"/readyz"); code != 200 {
			t.Fatalf("readiness while it stops: got %d", code)
		}
	}
	if !p.running() {
		t.Fatal("it left before its app")
	}
	app.CloseIdleConnections() // as the end of its process does
	p.wantExit()
}

func TestAStoppingSidecarDoesNotWaitForEver(t *testing.T) {
	p := start(t, map[string]string{"WXTOKEN_DRAIN": "10ms", "WXTOKEN_DRAIN_QUIET": "1h"})
	app := &http.Client{Transport: &http.Transport{}}
	defer app.CloseIdleConnections()
	p.call(app, "GET", p.values+tokenPath)
	p.stop()
	p.wantExit()
}

func TestAJobEndsItsSidecarByQuitquitquit(t *testing.T) {
	p := start(t, map[string]string{"WXTOKEN_DRAIN": "1h", "WXTOKEN_DRAIN_QUIET": "1h", "WXTOKEN_QUIT": "true"})
	for n := range 2 {
		r, err := http.NewRequest("POST", p.ops+"/quitquitquit", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Wxtoken-Quit", "1")
		answer, err := http.DefaultClient.Do(r)
		switch {
		case err == nil && answer.StatusCode != 200, n == 0 && err != nil:
			t.Errorf("POST: got %v, %v", answer, err)
		case err == nil: // a second one finds the door still open, or shut; it breaks nothing
			_ = answer.Body.Close()
		}
	}
	p.wantExit()
}

func TestQuitquitquitIsOffUnlessPermitted(t *testing.T) {
	p := start(t, nil)
	if code, _ := p.call(http.DefaultClient, "POST", p.ops+"/quitquitquit"); code != 404 {
		t.Errorf("got %d, want 404", code)
	}
	if !p.running() {
		t.Error("it stopped")
	}
}

// The listeners answer before there is any token: the app gets a status to wait on, not a refused
// connection; and the start-up probe holds the app back.
func TestServingStartsBeforeThereIsAToken(t *testing.T) {
	t.Parallel() // it takes as long as a fetch may
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	p := start(t, map[string]string{"WECHAT_APPID": "wx00000000000000de", "WECHAT_SECRET": "s", "WECHAT_API_BASE": slow.URL})
	if code, _ := p.call(http.DefaultClient, "GET", p.ops+"/startupz"); code != 503 {
		t.Errorf("startupz: got %d, want 503", code)
	}
	if code, _ := p.call(http.DefaultClient, "GET", p.ops+"/healthz"); code != 200 {
		t.Errorf("healthz: got %d, want 200: a restart brings no token", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", p.values+tokenPath, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
		t.Errorf("the token: got %s with Retry-After %q, want 503 and when to come back", answer.Status, answer.Header.Get("Retry-After"))
	}
}

// Other pods open many times what the operations
// listener keeps.
func TestAFloodOfConnectionsKeepsNoProbeOut(t *testing.T) {
	p := start(t, nil)
	begin := time.Now()
	var held []net.Conn
	var closed atomic.Int32
	defer func() {
		for _, conn := range held {
			_ = conn.Close()
		}
	}()
	for range 5 * listener.MaxOpsConnections {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.ops, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		go func() {
			_, _ = io.Copy(io.Discard, conn)
			closed.Add(1)
		}()
		// A failed write is that of a connection which was closed for the others.
		_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") // and then it idles
	}
	probe := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range []string{p.ops + "/healthz", p.ops + "/metrics", p.values + tokenPath} {
		if code, _ := p.call(probe, "GET", url); code != 200 {
			t.Errorf("%s: got %d", url, code)
		}
	}
	waitFor(t, "the connections beyond the bound are closed", func() bool {
		return closed.Load() >= 4*listener.MaxOpsConnections || time.Since(begin) > listener.IdleTime/2 // not those that idled for too long
	})
	if n := closed.Load(); n < 4*listener.MaxOpsConnections {
		t.Errorf("%d connections are closed, want %d", n, 4*listener.MaxOpsConnections)
	}
}

// patience is how long a test waits for what must happen, however busy the machine is.
const patience = 5 * time.Minute

func waitFor(t *testing.T, awaited string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", awaited)
		}
	}
}
