package wechat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// issuedCanary is a value that a broken answer carries back.
const issuedCanary = "97_ISSUEDcanary"

// tcp serves every connection with a function and closes it.
func tcp(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// afterRequest reads the head of a request, then writes an answer as it is.
func afterRequest(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, answer)
	}
}

// TestNoTransportErrorLeaks makes every call over every way in which HTTP breaks, and looks for
// what was sent, and what half came back, in everything that an error can show.
func TestNoTransportErrorLeaks(t *testing.T) {
	refused := tcp(t, func(net.Conn) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0) // it does not like our distrust
	tls.StartTLS()
	t.Cleanup(tls.Close)
	echo := func(status int) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Location", "http://elsewhere.invalid/"+r.URL.String())
			w.WriteHeader(status)
			fmt.Fprintf(w, "<html>Cannot %s %s %s</html>", r.Method, r.URL, body)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	dead, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	live := t.Context()
	reset := func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	for _, tt := range []struct {
		name string
		ctx  context.Context
		base string
		sent bool
		is   error // nil: do not care
	}{
		{"refused", live, "http://" + closed, false, syscall.ECONNREFUSED},
		{"no such host", live, "http://canary.invalid", false, nil},
		{"already out of time", dead, "http://" + refused, false, context.DeadlineExceeded},
		{"closed without an answer", live, "http://" + refused, true, nil},
		{"reset", live, "http://" + tcp(t, reset), true, nil},
		{"half an answer", live, "http://" + tcp(t, afterRequest("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"+`{"access_token":"`+issuedCanary)), true, io.ErrUnexpectedEOF},
		{"no HTTP at all", live, "http://" + tcp(t, afterRequest(`{"access_token":"`+issuedCanary+`"}`+"\r\n\r\n")), true, nil},
		{"bad header", live, "http://" + tcp(t, afterRequest("HTTP/1.1 200 OK\r\n"+issuedCanary+" x\r\n\r\n")), true, nil},
		{"bad redirect", live, "http://" + tcp(t, afterRequest("HTTP/1.1 302 Found\r\nLocation: http://["+issuedCanary+"\r\n\r\n")), true, nil},
		{"unknown certificate", live, tls.URL, false, nil},
		{"TLS to plain HTTP", live, "https://" + tcp(t, afterRequest("HTTP/1.1 400 Bad Request\r\n\r\n")), false, http.ErrSchemeMismatch},
		{"bad URL", live, "http://127.0.0.1:port", false, nil},
		{"redirect with the query", live, echo(302), true, nil},
		{"page with the query", live, echo(200), true, nil},
		{"error page with the query", live, echo(500), true, nil},
	} {
		for name, call := range leakCalls {
			err := call(tt.ctx, &wechat.Client{BaseURL: tt.base, HTTP: noProxy()})
			e, ok := errors.AsType[*wechat.Error](err)
			if !ok {
				t.Errorf("%s, %s: %v is not an *Error", tt.name, name, err)
				continue
			}
			if e.Sent != tt.sent {
				t.Errorf("%s, %s: Sent = %v, want %v: %v", tt.name, name, e.Sent, tt.sent, err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%s, %s: %v is not %v", tt.name, name, err, tt.is)
			}
			if !tt.sent && e.MayHaveIssued() {
				t.Errorf("%s, %s: may have issued, although never sent", tt.name, name)
			}
			assertSilent(t, tt.name+", "+name, err)
		}
	}
}

// TestTimeoutAfterSendingIsUnclear: the answer does not come in time.
func TestTimeoutAfterSendingIsUnclear(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	var err error
	var e *wechat.Error
	ok := true
	for timeout := 20 * time.Millisecond; ok && (e == nil || !e.Sent) && timeout < 5*time.Minute; timeout *= 2 { // until there is time to send
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err = (&wechat.Client{BaseURL: srv.URL, HTTP: noProxy()}).Token(ctx, "wx1", appSecret)
		cancel()
		e, ok = errors.AsType[*wechat.Error](err)
	}
	if !ok || !e.Sent || !e.MayHaveIssued() || !errors.Is(err, context.DeadlineExceeded) || e.Class() != wechat.ClassRetry {
		t.Errorf("%v: want one that may have issued, by DeadlineExceeded", err)
	}
	assertSilent(t, "timeout", err)
}

// noProxy is a client that asks neither a proxy nor a name server of the machine.
func noProxy() *http.Client {
	dialer := &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no network in this test")
	}}}
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
}

// leakCalls has a call of each kind of request: secrets in the query and in the body, several of
// them, and a token.
var leakCalls = map[string]func(context.Context, *wechat.Client) error{
	"token": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.Token(ctx, "wx1", appSecret)
		return err
	},
	"stable": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.StableToken(ctx, "wx1", appSecret, wechat.Normal)
		return err
	},
	"corp": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.CorpToken(ctx, "ww1", appSecret)
		return err
	},
	"ticket": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.Ticket(ctx, token, wechat.TicketJSAPI)
		return err
	},
	"probe": func(ctx context.Context, c *wechat.Client) error { return c.Probe(ctx, token, wechat.ProbeCallbackIP) },
	"component": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.ComponentToken(ctx, "wxp", appSecret, oneCode)
		return err
	},
	"authorizer": func(ctx context.Context, c *wechat.Client) error {
		_, _, err := c.AuthorizerToken(ctx, token, "wxp", "wxa", oneCode)
		return err
	},
	"query auth": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.QueryAuth(ctx, token, "wxp", oneCode)
		return err
	},
	"permanent code": func(ctx context.Context, c *wechat.Client) error {
		_, err := c.PermanentCode(ctx, token, oneCode)
		return err
	},
}

// assertSilent looks for the canaries in every text an error can become, causes included.
func assertSilent(t *testing.T, name string, err error) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		asJSON, _ := json.Marshal(e)
		text := fmt.Sprintf("%v %+v %#v %q %s", e, e, e, e, asJSON)
		if form := secrettest.Find(text, secretCanary, tokenCanary, codeCanary, issuedCanary, "secret=", "access_token=", "grant_type"); form != "" {
			t.Errorf("%s: %s shows %s", name, text, form)
		}
		if _, ok := e.(*url.Error); ok {
			t.Errorf("%s: the chain has a *url.Error", name)
		}
	}
}
