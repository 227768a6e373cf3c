package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// When no connection comes about, the next host is tried, whatever the method; the dead one is left
// alone for a while. When the call was sent, it is not sent elsewhere.
func TestFallbackHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, options{pipes: true})
		dead := true
		r.refuse = func(addr string) bool { return dead && addr == "api.weixin.qq.com:80" }
		dialed := func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			all := strings.Join(r.dialed, " ")
			r.dialed = nil
			r.proxy.Close() // so that the next call needs a connection again
			return all
		}
		const first, second = "api.weixin.qq.com:80", "api2.weixin.qq.com:80"
		if a := r.call("POST", send, `{"a":1}`); a.status != 200 || r.calls()[0].host != "api2.weixin.qq.com" || dialed() != first+" "+second {
			t.Errorf("%v", a)
		}
		if a := r.call("POST", send, strings.Repeat(" ", 2<<20)+"{}"); a.status != 200 || dialed() != second {
			t.Errorf("soon after: %v", a)
		}
		r.refuse = func(string) bool { return true }
		if a := r.call("GET", menu, ""); a.header.Get("X-Wxtoken-Error") != "unreachable" || dialed() != second+" "+first {
			t.Errorf("all dead: %v", a)
		}
		time.Sleep(31 * time.Second)
		r.refuse, dead = nil, false
		r.calls()
		if a := r.call("GET", menu, ""); a.status != 200 || dialed() != first {
			t.Errorf("later: %v", a)
		}
		r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/menu/get", Effect: wechattest.EffectReset})
		r.calls()
		if a := r.call("GET", menu, ""); a.status != 502 || len(r.calls()) != 1 {
			t.Errorf("after it was sent: %v", a)
		}
	})
}

// A caller who hangs up takes the call to WeChat along, before an answer and in the middle of it.
func TestHangingUpCancelsTheCall(t *testing.T) {
	r := newRig(t, options{})
	began, ended := make(chan bool, 1), make(chan bool, 1)
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "image/jpeg")
		if strings.HasSuffix(req.URL.Path, "/begun") {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		} else {
			began <- true
		}
		<-req.Context().Done()
		ended <- true
	})
	for path, want := range map[string]proxy.Outcome{"/cgi-bin/silent": proxy.Canceled, "/cgi-bin/begun": proxy.Cut} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-began
			cancel()
		}()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://x/proxy/shop"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := r.http.Do(req); err == nil {
			began <- true
			_, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", path, err)
			}
		}
		select {
		case <-ended:
		case <-time.After(5 * time.Minute):
			t.Fatalf("%s: the call to WeChat goes on", path)
		}
		if res := r.last(); res.Outcome != want {
			t.Errorf("%s: %+v", path, res)
		}
	}
}

// A caller who stops sending, one who stops reading, and a WeChat that stops answering in the
// middle are each given up, in virtual time.
func TestNothingStandsStillForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, options{pipes: true})
		r.Token(r.t, shop)
		stalls := func(name, request string, atLeast time.Duration, want proxy.Outcome) {
			t.Helper()
			conn, err := r.front.DialContext(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, _ = io.WriteString(conn, request)
			if want != proxy.Cut {
				_, _ = io.Copy(io.Discard, conn)
			}
			res := r.last()
			if took := time.Since(start); res.Outcome != want || took < atLeast || took > atLeast+time.Second {
				t.Errorf("%s: %+v after %v", name, res, took)
			}
			_ = conn.Close()
		}
		const head = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
		stalls("a kept body that stops", "POST "+send+head+"10\r\n\r\n{", 30*time.Second, proxy.Timeout)
		stalls("a streamed body that stops", "POST "+send+head+"10000000\r\n\r\n{", 30*time.Second, proxy.Timeout)
		stalls("an answer that is not read", "GET /proxy/shop/cgi-bin/media/get?media_id=size-10000000"+head+"0\r\n\r\n", 30*time.Second, proxy.Cut)
		r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			for range 5 { // slow, but it moves
				time.Sleep(20 * time.Second)
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
			<-req.Context().Done()
		})
		a, err := r.try(t.Context(), "GET", menu, http.NoBody)
		if err == nil || !strings.HasPrefix(a.body, "xxxxx") {
			t.Errorf("an answer that stops: %v, %v", a, err)
		}
		if res := r.last(); res.Outcome != proxy.Cut || res.Took != 130*time.Second {
			t.Errorf("an answer that stops: %+v", res)
		}
	})
}

// Connections to WeChat are used again, also after an answer that was looked at and thrown away.
func TestConnectionsAreReused(t *testing.T) {
	r := newRig(t, options{})
	for i := range 20 {
		if i%5 == 4 {
			r.WeChat.KillTokens(shop.CredentialID())
		}
		r.call("GET", menu, "")
	}
	if len(r.dialed) != 1 || len(r.calls()) != 24 {
		t.Errorf("dialed %v", r.dialed)
	}
}

// The transport that a proxy has of its own, on real sockets: with a server there, and without one.
func TestOwnTransport(t *testing.T) {
	r := newRig(t, options{own: true})
	for range 2 {
		if a := r.call("POST", send, "{}"); a.status != 200 {
			t.Error(a)
		}
	}
	// There is no listener.
	alone := shop
	alone.APIBase, alone.APIFallbacks = "http://127.0.0.1:1", nil
	r.Set(t, alone)
	r.last()
	a := r.call("POST", send, "{}")
	res := r.last()
	if _, ok := errors.AsType[*net.OpError](res.Err); !ok || res.Outcome != proxy.Unreachable || a.status != 200 {
		t.Errorf("%v, %+v", a, res)
	}
}
