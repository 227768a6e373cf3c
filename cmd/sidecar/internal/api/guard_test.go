package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web/webtest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// listen serves h on a network and returns a function that sends raw bytes and reads the answer.
func listen(t *testing.T, h http.Handler, network, address string) (addr string, send func(raw string) (int, string)) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String(), func(raw string) (int, string) {
		t.Helper()
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
		if _, err := io.WriteString(c, raw); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%.60q: %v", raw, err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return r.StatusCode, fmt.Sprint(string(body), r.Header)
	}
}

// Every trick by which another program than those of this pod could get at a value, on a real
// connection. None gets one byte of it.
func TestOthersAreRefused(t *testing.T) {
	s := newStack(t, api.Options{}, nil, plain)
	value := s.Token(t, plain)
	addr, send := listen(t, s, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(addr)

	get := func(target, host string, more ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(more, "\r\n") +
			strings.Repeat("\r\n", min(1, len(more))) + "Connection: close\r\n\r\n"
	}
	const ok = "127.0.0.1"
	for name, raw := range map[string]string{
		"address":              get(tokenPath, addr),
		"any port":             get(tokenPath, "127.0.0.1:1"),
		"another loopback":     get(tokenPath, "127.8.8.8"),
		"localhost":            get(tokenPath, "LocalHost:"+port),
		"IPv6":                 get(tokenPath, "[::1]:"+port),
		"IPv6 without a port":  get(tokenPath, "[::1]"),
		"IPv4 in IPv6":         get(tokenPath, "[::ffff:127.0.0.1]"),
		"typed address":        get(tokenPath, ok, "Sec-Fetch-Site: none"),
		"an upgrade to HTTP/2": get(tokenPath, ok, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
	} {
		if status, answer := send(raw); status != 200 || !strings.Contains(answer, value) {
			t.Errorf("%s: got %d %s", name, status, answer)
		}
	}
	for name, raw := range map[string]string{
		"foreign Host":           get(tokenPath, "evil.example"),
		"rebound Host":           get(tokenPath, "127.0.0.1.evil.example"),
		"Host of another IP":     get(tokenPath, "10.1.2.3:"+port),
		"unspecified Host":       get(tokenPath, "0.0.0.0:"+port),
		"Host as a number":       get(tokenPath, "2130706433"),
		"short Host":             get(tokenPath, "127.1"),
		"localhost of others":    get(tokenPath, "localhost.evil.example"),
		"empty Host":             get(tokenPath, ""),
		"no Host":                "GET " + tokenPath + " HTTP/1.0\r\n\r\n",
		"two Hosts":              get(tokenPath, ok, "Host: evil.example"),
		"X-Forwarded-For":        get(tokenPath, ok, "X-Forwarded-For: 127.0.0.1"),
		"empty X-Forwarded-For":  get(tokenPath, ok, "x-forwarded-for:"),
		"Forwarded":              get(tokenPath, ok, "Forwarded: for=127.0.0.1"),
		"X-Forwarded-Host":       get(tokenPath, ok, "X-Forwarded-Host: localhost"),
		"Via":                    get(tokenPath, ok, "Via: 1.1 proxy"),
		"X-Forwarded-Proto":      get(tokenPath, ok, "X-Forwarded-Proto: https"),
		"X-Forwarded":            get(tokenPath, ok, "X-Forwarded: for=1.2.3.4"),
		"True-Client-IP":         get(tokenPath, ok, "True-Client-IP: 1.2.3.4"),
		"CF-Connecting-IP":       get(tokenPath, ok, "cf-connecting-ip: 1.2.3.4"),
		"X-Client-IP":            get(tokenPath, ok, "X-Client-IP: 1.2.3.4"),
		"X-Cluster-Client-IP":    get(tokenPath, ok, "X-Cluster-Client-IP: 1.2.3.4"),
		"X-Original-URL":         get(tokenPath, ok, "X-Original-URL: /"),
		"X-Real-IP":              get(tokenPath, ok, "X-Real-IP: 127.0.0.1"),
		"Origin":                 get(tokenPath, ok, "Origin: https://evil.example"),
		"null Origin":            get(tokenPath, ok, "Origin: null"),
		"own Origin":             get(tokenPath, ok, "Origin: http://127.0.0.1"),
		"cross-site":             get(tokenPath, ok, "Sec-Fetch-Site: cross-site"),
		"same-site":              get(tokenPath, ok, "Sec-Fetch-Site: same-site"),
		"two fetch sites":        get(tokenPath, ok, "Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"),
		"preflight":              "OPTIONS " + tokenPath + " HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\nAccess-Control-Request-Method: GET\r\n\r\n",
		"form of a page":         "POST " + tokenPath + "/report HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\nContent-Length: 22\r\n\r\n{\"access_token\":\"old\"}",
		"absolute target":        get("http://127.0.0.1"+tokenPath, ok),
		"absolute foreign":       get("http://evil.example"+tokenPath, ok),
		"other scheme":           get("file://127.0.0.1"+tokenPath, ok),
		"CONNECT":                "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n",
		"CONNECT to a path":      "CONNECT " + tokenPath + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"asterisk":               get("*", ok),
		"no slash":               get("v1/apps/shop/token", ok),
		"prior knowledge HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"TRACE":                  "TRACE " + tokenPath + " HTTP/1.1\r\nHost: localhost\r\nX-Secret: x\r\n\r\n",
	} {
		status, answer := send(raw)
		if status < 400 || status >= 500 && status != http.StatusHTTPVersionNotSupported {
			t.Errorf("%s: got %d %s", name, status, answer)
		}
		if strings.Contains(answer, value) || strings.Contains(answer, "evil") {
			t.Errorf("%s: the refusal says too much: %s", name, answer)
		}
	}
}

// What http.CrossOriginProtection refuses, the guard refuses: it is the stricter of the two.
func TestGuardIsStricterThanCrossOriginProtection(t *testing.T) {
	s := newStack(t, api.Options{}, nil, plain)
	protection := http.NewCrossOriginProtection()
	for _, method := range []string{"GET", "POST"} {
		for _, site := range []string{"", "none", "same-origin", "same-site", "cross-site", "new"} {
			for _, origin := range []string{"", "null", "http://localhost", "https://localhost", "http://evil.example"} {
				r := httptest.NewRequest(method, tokenPath, nil)
				r.Host = "localhost"
				if site != "" {
					r.Header.Set("Sec-Fetch-Site", site)
				}
				if origin != "" {
					r.Header.Set("Origin", origin)
				}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				if err := protection.Check(r); err != nil && w.Code != http.StatusForbidden {
					t.Errorf("%s, site %q, origin %q: got %d, but %v", method, site, origin, w.Code, err)
				}
				if origin != "" && w.Code != http.StatusForbidden {
					t.Errorf("%s, site %q, origin %q: got %d", method, site, origin, w.Code)
				}
			}
		}
	}
}

// Clients of a unix socket send whatever host they made up, but no real name.
func TestHostOnUnixSocket(t *testing.T) {
	s := newStack(t, api.Options{}, nil, plain)
	_, send := listen(t, s, "unix", filepath.Join(t.TempDir(), "s"))
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "unix": 200, "wxtoken:80": 200, "127.0.0.1": 200,
		"shop.example.com": 403, "10.1.2.3": 403, "shop.example.com:80": 403,
	} {
		if got, _ := send("GET " + tokenPath + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); got != want {
			t.Errorf("Host %q: got %d, want %d", host, got, want)
		}
	}
}

// A listener that other hosts may reach is called by its own address.
func TestHostOfTheListenersOwnAddress(t *testing.T) {
	s := newStack(t, api.Options{}, nil, plain)
	for host, want := range map[string]int{
		"10.1.2.3": 200, "10.1.2.3:7200": 200, "[::ffff:10.1.2.3]:7200": 200, "10.1.2.4:7200": 403, "node.example.com": 403,
	} {
		r := httptest.NewRequest("GET", tokenPath, nil)
		r.Host = host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 7200}))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: got %d, want %d", host, w.Code, want)
		}
	}
}

// A body that does not come ends with the budget, and the connection goes on after one that did.
func TestSlowBodyEndsWithTheBudget(t *testing.T) {
	const budget = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, api.Options{Timeout: budget}, nil, plain)
		value := s.Token(t, plain)
		l := wechattest.Listen()
		server := &http.Server{Handler: s}
		go func() { _ = server.Serve(l) }()
		defer server.Close()

		slow, err := l.DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		start := time.Now()
		go func() {
			_, _ = io.WriteString(slow, "POST "+tokenPath+"/report HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
		}()
		r, err := http.ReadResponse(bufio.NewReader(slow), nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); r.StatusCode != 400 || took != budget {
			t.Errorf("got %d after %v", r.StatusCode, took)
		}

		client := &http.Client{Transport: &http.Transport{DialContext: l.DialContext, MaxConnsPerHost: 1}}
		defer client.CloseIdleConnections()
		var last string
		for range 3 {
			r, err := client.Post("http://localhost"+tokenPath+"/report", "application/json", strings.NewReader(`{"access_token":"old"}`))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if r.StatusCode != 200 {
				t.Errorf("got %d %s", r.StatusCode, body)
			}
			last = string(body)
			time.Sleep(2 * budget) // idle
		}
		if !strings.Contains(last, value) {
			t.Errorf("got %s", last)
		}
	})
}

// A path that two readers could read differently is refused for what it is, before any code looks
// for an app in it.
func TestPathTricksAreBadRequests(t *testing.T) {
	s := newStack(t, api.Options{}, nil, plain)
	for _, path := range []string{
		"/v1/apps/a%2Fb/token", "/v1/apps/a%2fb/token", "/v1/apps/a%5Cb/token", "/v1/apps/a\\b/token", "/v1/apps/a%00/token",
		"/v1/apps/a%0a/token", "/v1/apps/a%7f/token", "/v1/apps/../token", "/v1/apps/./token", "/v1/apps/%2e/token",
		"/v1/apps//token", "//v1/apps/shop/token", "/v1/apps/shop/token//", "/..", "/.", "/v1/..",
		"/v1/apps/x/../shop/token", "/v1/apps/x/%2e%2E/shop/token", "/v1/apps/shop/token/x/..", "/v1/apps/x%2f..%2fshop/token", "/v1/apps/shop%0d%0aX:1/token",
	} {
		webtest.WantProblem(t, s.call("GET", path, ""), 400, "bad-request")
	}
	for _, path := range []string{"/...", "/v1/..a", "/v1/apps/a..b/token", "/v1/apps/a%3Ab/token", "/v1/apps/\u00e9/token", "/v1/apps/x%252f..%252fshop/token"} {
		if w := s.call("GET", path, ""); w.Code != 404 {
			t.Errorf("%s: got %d, want 404", path, w.Code)
		}
	}
}
