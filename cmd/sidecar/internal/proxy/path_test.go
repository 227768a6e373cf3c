package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// raw sends bytes to the proxy as they are, and returns the status of the answer; 0 if the server
// hung up without one.
func (r *rig) raw(t testing.TB, request string) int {
	t.Helper()
	conn, err := r.front.DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	go func() { _, _ = io.WriteString(conn, request) }() // the server may answer before it has read all
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// tricks are request targets that no client of WeChat sends.
var tricks = []string{
	"/proxy/shop/../cgi-bin/menu/get", "/proxy/shop/cgi-bin/../menu/get", "/proxy/shop/cgi-bin/menu/..", "/proxy/shop/.", "/proxy/shop/...",
	"/proxy/shop/./cgi-bin/menu/get", "/proxy/shop//cgi-bin/menu/get", "/proxy/shop/cgi-bin//menu/get", "//cgi-bin/menu/get", "/cgi-bin/menu//",
	"/proxy/shop/%2e%2e/cgi-bin", "/proxy/shop/%2E./cgi-bin", "/proxy/shop/..%2fcgi-bin", "/proxy/shop%2fcgi-bin/menu/get", "/proxy/%73hop/cgi-bin/menu/get",
	"/proxy/shop/cgi-bin%2Fmenu/get", "/proxy/shop/cgi-bin%5cmenu", "/proxy/shop/cgi-bin\\menu", "/proxy/shop/\\evil.example/", "/proxy/shop/cgi-bin/%00", "/cgi-bin/menu/get%00",
	"/proxy/shop/cgi-bin/menu/get%0d%0aHost:%20evil", "/proxy/shop/cgi-bin/..;/menu", "/proxy/shop/cgi-bin/menu;x=1/get", "/proxy/shop/%252e%252e/x", "/cgi-bin/%252fx",
	"/proxy/shop/@evil.example/", "/proxy/shop/http://evil.example/", "/proxy/http://evil.example/", "/proxy/evil.example/", "/proxy//cgi-bin/menu/get", "/proxy/", "/proxy/shop", "/proxy/shop/",
	"/proxy/../shop/x", "/proxy/%2e%2e/x", "/proxy/./x", "/", "/proxy/shop/cgi-bin/menu/get#x", "/cgi-bin/menu/get/é", "/cgi-bin/%E4%BD%A0", "/proxy/shop/cgi-bin/menu%20get",
	"http://evil.example/cgi-bin/menu/get", "http://api.weixin.qq.com/cgi-bin/menu/get", "https://evil.example/proxy/shop/cgi-bin/menu/get", "http://u:p@127.0.0.1:7200/proxy/shop/x",
	"http:/proxy/shop/cgi-bin/menu/get", "http:evil.example", "*", "evil.example:443", "?x=1", "/cgi-bin/menu/get\x01", "/cgi-bin/menu/get?a=\x02", "/cgi-bin/menu/get?a=\x7f", "///evil.example/x",
	"http://[::1]:7200/proxy/shop/x", "/proxy/shop/cgi-bin/menu/get?a=1 b", "file:///etc/passwd", "javascript:alert(1)",
}

func TestTricksWithThePathAreRefused(t *testing.T) {
	r := newRig(t, options{names: "shop"})
	for _, method := range []string{"GET", "POST"} {
		for _, target := range tricks {
			status := r.raw(t, method+" "+target+" HTTP/1.1\r\nHost: api.weixin.qq.com\r\nContent-Length: 0\r\n\r\n")
			if status < 400 || status > 499 {
				t.Errorf("%s %q: status %d, want 4xx", method, target, status)
			}
		}
	}
	if calls := r.calls(); len(calls) != 0 {
		t.Errorf("WeChat saw %+v", calls)
	}
}

// What net/http refuses on the wire, another handler in front might let through.
func TestQueryWithControlCharactersIsRefused(t *testing.T) {
	r := newRig(t, options{})
	for _, query := range []string{"a=1 HTTP/1.1", "a=\r\nX: y", "a=\x00", "a=\x7f"} {
		req := httptest.NewRequest("GET", menu, nil)
		req.URL.RawQuery = query
		w := httptest.NewRecorder()
		r.proxy.ServeHTTP(w, req)
		if w.Code != 400 || len(r.calls()) != 0 {
			t.Errorf("%q: status %d", query, w.Code)
		}
	}
}

// What is wrong beside the path: methods, upgrades, and requests that two readers may understand
// differently.
func TestOddRequestsAreRefused(t *testing.T) {
	r := newRig(t, options{names: "shop"})
	const target = " /proxy/shop/cgi-bin/menu/get HTTP/1.1\r\nHost: x\r\n"
	for _, request := range []string{
		"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
		"CONNECT" + target + "\r\n",
		"TRACE" + target + "\r\n",
		"GET" + target + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET" + target + "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
		"POST" + target + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"POST" + target + "Transfer-Encoding: xchunked\r\n\r\nhello",
		"POST" + target + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"GET" + target + "Host: y\r\n\r\n",
		"GET" + target + "X-A : b\r\n\r\n",
		"GET" + target + "X-A: b\r\n c\x00\r\n\r\n",
	} {
		// 501 is net/http's answer to a transfer encoding that it does not know.
		if status := r.raw(t, request); (status < 400 || status > 499) && status != 501 {
			t.Errorf("%q: status %d", request, status)
		}
	}
	if calls := r.calls(); len(calls) != 0 {
		t.Errorf("WeChat saw %+v", calls)
	}
	// Java's client offers an upgrade with each request and does not mean it.
	if status := r.raw(t, "GET"+target+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"); status != 200 {
		t.Errorf("h2c: status %d", status)
	}
	for name := range r.calls()[0].header {
		if slices.Contains([]string{"Connection", "Upgrade", "Http2-Settings"}, name) {
			t.Errorf("%s went on", name)
		}
	}
}

// A request with both a length and chunks is the classic of smuggling. net/http goes by the chunks,
// and takes what follows for another request; what matters is that WeChat sees it the same way.
func TestLengthAndChunksDoNotSmuggle(t *testing.T) {
	r := newRig(t, options{})
	const body = "2\r\n{}\r\n0\r\n\r\nGET /proxy/shop/../smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	r.raw(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s", send, len(body), body))
	for _, c := range r.calls() {
		if strings.Contains(c.uri, "smuggled") || c.length != 2 {
			t.Errorf("WeChat saw %+v", c)
		}
	}
}

// Whatever the request target and the headers: no other host is ever dialed, nothing but a plain
// path of the app's upstream arrives, and only what arrived is answered with 2xx.
func FuzzProxyPath(f *testing.F) {
	for _, target := range tricks {
		f.Add("GET", target, "")
	}
	f.Add("GET", "/proxy/shop/cgi-bin/menu/get?access_token=x", "X-Wxtoken-App: shop")
	f.Add("POST", "/cgi-bin/message/custom/send?appid=wx1111111111111111", "Host: api.weixin.qq.com")
	f.Add("GET", "/proxy/ww3333333333333333%3A1000001/cgi-bin/getcallbackip", "Connection: X-A")
	f.Add("GET", "/proxy/shop/cgi-bin/media/get?media_id=size-100&type=image", "Range: bytes=0-1")
	f.Add("GET", "/sns/userinfo?access_token=OAUTH&openid=o", "Upgrade: h2c")
	r := newRig(f, options{names: "shop"})
	f.Fuzz(func(t *testing.T, method, target, header string) {
		if strings.ContainsAny(method+target+header, "\r\n") || len(header) > 1000 {
			t.Skip() // another request altogether
		}
		r.mu.Lock()
		r.seen, r.dialed = nil, nil
		r.mu.Unlock()
		status := r.raw(t, method+" "+target+" HTTP/1.1\r\nHost: 127.0.0.1:7200\r\n"+header+"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		r.mu.Lock()
		dialed := r.dialed
		r.mu.Unlock()
		for _, addr := range dialed {
			if addr != "api.weixin.qq.com:80" && addr != "qyapi.weixin.qq.com:80" {
				t.Fatalf("%q: dialed %q", target, addr)
			}
		}
		calls := r.calls()
		for _, c := range calls {
			path, _, _ := strings.Cut(c.uri, "?")
			if strings.Trim(path, "/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~") != "" ||
				path[0] != '/' || strings.Contains(path, "//") || strings.Contains(path+"/", "/../") || strings.Contains(path+"/", "/./") {
				t.Fatalf("%q arrived as %q", target, c.uri)
			}
			if c.host != "api.weixin.qq.com" && c.host != "qyapi.weixin.qq.com" {
				t.Fatalf("%q arrived with the host %q", target, c.host)
			}
		}
		if status/100 == 2 && len(calls) == 0 && status != 200 || status == 200 && len(calls) == 0 && slices.Contains(tricks, target) {
			t.Fatalf("%q: status %d without WeChat", target, status)
		}
	})
}
