package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// respond makes WeChat answer with these headers and this body.
func (r *rig) respond(status int, body string, header ...string) {
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// Whatever WeChat says goes back as it is: status, headers and body.
func TestAnswersPassUnchanged(t *testing.T) {
	long := `{"list":"` + strings.Repeat("x", 100_000) + `","errcode":40001}`
	for _, tt := range []struct {
		status int
		body   string
		header []string
	}{
		{200, `{"errcode":0,"errmsg":"ok"}`, []string{"Content-Type", "application/json; encoding=utf-8"}},
		{200, `{"errcode":45009,"errmsg":"x"}`, []string{"Content-Type", "text/plain"}},
		{200, `{"menu":{"button":[{"errcode":40001}]}}`, []string{"Content-Type", "application/json"}},
		{200, ` {"errcode":41001} `, []string{"Content-Type", "Application/JSON;charset=UTF-8", "Set-Cookie", "a=b", "Set-Cookie", "c=d"}},
		{200, long, []string{"Content-Type", "application/json"}},
		{200, long, []string{"Content-Type", "text/plain", "Content-Length", fmt.Sprint(len(long))}},
		{200, `{"errcode":40001`, []string{"Content-Type", "application/json"}},
		{200, `[{"errcode":40001}]`, []string{"Content-Type", "application/json"}},
		{200, "errcode 40001", []string{"Content-Type", "text/plain"}},
		{206, `{"errcode":40001}`, []string{"Content-Type", "application/json", "Content-Range", "bytes 0-15/99"}},
		{200, "", []string{"Content-Type", "application/json", "Content-Length", "0"}},
		{200, "\xff\xd8\xff", []string{"Content-Type", "image/jpeg", "Content-Disposition", `attachment; filename="a.jpg"`}},
		{502, "<html>", []string{"Content-Type", "text/html", "Retry-After", "3"}},
		{412, "", []string{"Content-Length", "0"}},
		{404, "", []string{"Content-Length", "0", "Error-Code", "1"}},
		{302, "", []string{"Location", "http://elsewhere.example/?a=1", "Content-Length", "0"}},
		{200, gzipped(`{"errcode":40001}`), []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}},
	} {
		r := newRig(t, options{})
		r.respond(tt.status, tt.body, tt.header...)
		a := r.call("GET", menu, "")
		if a.status != tt.status || a.body != tt.body {
			t.Errorf("%d %.40q came back as %v", tt.status, tt.body, a)
		}
		want := http.Header{}
		for i := 0; i < len(tt.header); i += 2 {
			want.Add(tt.header[i], tt.header[i+1])
		}
		for name, values := range want {
			if got := a.header[name]; fmt.Sprint(got) != fmt.Sprint(values) {
				t.Errorf("%d %.40q: %s is %q, want %q", tt.status, tt.body, name, got, values)
			}
		}
		if n := len(r.calls()); n != 1 {
			t.Errorf("%d %.40q: %d calls", tt.status, tt.body, n)
		}
		if n := r.WeChat.Calls(shop.CredentialID()).Probes; n != 0 {
			t.Errorf("%d %.40q: taken for a bad token", tt.status, tt.body)
		}
	}
}

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

// A rejection is seen in all the forms in which WeChat was seen to say it.
func TestRejectionsAreSeenInEveryForm(t *testing.T) {
	const code = `{"errcode":40001,"errmsg":"invalid credential"}`
	for _, tt := range []struct{ body, contentType, length string }{
		{code, "application/json; encoding=utf-8", "known"},
		{code, "application/json", "unknown"},
		{code, "text/plain", "known"},
		{code, "", "known"},
		{"\xef\xbb\xbf \r\n" + code, "text/html", "unknown"},
		{`{"errmsg":"` + strings.Repeat("x", 60_000) + `","errcode":"40001"}`, "application/problem+json", "unknown"},
	} {
		r := newRig(t, options{})
		rejected := r.Token(r.t, shop)
		r.WeChat.KillTokens(shop.CredentialID())
		r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.Contains(req.RequestURI, url.QueryEscape(rejected)) {
				r.WeChat.ServeHTTP(w, req)
				return
			}
			w.Header()["Content-Type"] = []string{tt.contentType}
			if tt.contentType == "" {
				w.Header()["Content-Type"] = nil
			}
			if tt.length == "known" {
				w.Header().Set("Content-Length", fmt.Sprint(len(tt.body)))
			}
			_, _ = io.WriteString(w, tt.body[:20])
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, tt.body[20:])
		})
		if a := r.call("GET", menu, ""); a.header.Get("X-Wxtoken-Retried") != "1" || !strings.Contains(a.body, `"menu"`) {
			t.Errorf("%.30q as %q: %v", tt.body, tt.contentType, a)
		}
	}
}

// An answer of a kind that is not looked at comes through while it is still being written.
func TestAnswersStream(t *testing.T) {
	for _, contentType := range []string{"text/event-stream", "image/jpeg", "text/plain", "image/png of a known length"} {
		r := newRig(t, options{})
		more := make(chan bool)
		r.upstream = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			if strings.HasSuffix(contentType, "length") {
				w.Header().Set("Content-Length", "11")
			}
			_, _ = io.WriteString(w, "first")
			_ = http.NewResponseController(w).Flush()
			<-more
			_, _ = io.WriteString(w, "second")
		})
		res, err := r.http.Get("http://x" + menu)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "first" {
			t.Errorf("%s: %q, %v", contentType, buf, err)
		}
		close(more)
		if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "second" {
			t.Errorf("%s: %q, %v", contentType, rest, err)
		}
		_ = res.Body.Close()
	}
}

// WeChat repeats the token in a header: the caller does not see it. Headers of WeChat that look
// like the sidecar's do not come through.
func TestNoTokenInAnyHeader(t *testing.T) {
	r := newRig(t, options{})
	token := r.Token(r.t, shop)
	r.respond(302, "", "Location", "http://elsewhere.invalid/?access_token="+url.QueryEscape(token)+"&a=1", "X-Debug", "token="+token,
		"X-Wxtoken-Retried", "1", "X-Wxtoken-Stale", "1", "Alt-Svc", `h3=":443"`)
	a := r.call("GET", menu, "")
	if strings.Contains(fmt.Sprint(a.header), token) {
		t.Errorf("the token is in %v", a.header)
	}
	if got := a.header.Get("Location"); got != "http://elsewhere.invalid/?access_token=[redacted]&a=1" {
		t.Errorf("Location: %s", got)
	}
	for _, name := range []string{"X-Wxtoken-Retried", "X-Wxtoken-Stale", "Alt-Svc"} {
		if a.header.Get(name) != "" {
			t.Errorf("%s: %q", name, a.header.Get(name))
		}
	}
}

// However a call ends, the answer has WeChat's shape, the status says whether calling again is
// safe, and nothing that is said holds the token.
func TestEveryFailureHasItsAnswer(t *testing.T) {
	kill := func(r *rig) { r.Token(r.t, shop); r.WeChat.KillTokens(shop.CredentialID()) }
	upstream := func(effect wechattest.Effect) func(*rig) {
		return func(r *rig) {
			r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/message/custom/send", Effect: effect})
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(*rig)
		status  int
		code    string
		outcome proxy.Outcome
	}{
		{"frozen secret", func(r *rig) { r.WeChat.Deny(shop.CredentialID(), 40243) }, 200, "40243", proxy.NoToken},
		{"wrong secret", func(r *rig) {
			r.WeChat.Tune(func(k *wechattest.Knobs) { k.WrongSecretCode = 40001 })
			r.WeChat.SetSecret(shop.CredentialID(), "changed")
		}, 200, "40125", proxy.NoToken},
		{"no connection", func(r *rig) { r.refuse = func(string) bool { return true } }, 200, "-1", proxy.Unreachable},
		{"reset", upstream(wechattest.EffectReset), 502, "-1", proxy.Broken},
		{"no answer", upstream(wechattest.EffectHang), 504, "-1", proxy.Timeout},
		{"no HTTP", func(r *rig) { r.upstream = http.HandlerFunc(notHTTP) }, 502, "-1", proxy.Broken},
		{"an upgrade", func(r *rig) { r.upstream = upgraded("Connection: Upgrade\r\nUpgrade: websocket\r\n") }, 502, "-1", proxy.Broken},
		{"an upgrade to nothing", func(r *rig) { r.upstream = upgraded("") }, 502, "-1", proxy.Broken},
		{"reset after a bad token", func(r *rig) {
			kill(r)
			r.WeChat.AddFault(wechattest.Fault{Path: "/cgi-bin/message/custom/send", Skip: 1, Effect: wechattest.EffectReset})
		}, 502, "-1", proxy.Broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, options{pipes: true, Options: proxy.Options{Timeout: 300 * time.Millisecond}})
				tt.prepare(r)
				a := r.call("POST", send, "{}")
				if a.status != tt.status || !strings.HasPrefix(a.body, `{"errcode":`+tt.code+`,"errmsg":"wxtoken: `) {
					t.Errorf("%v", a)
				}
				if a.header.Get("X-Wxtoken-Error") != string(tt.outcome) || a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("headers %v", a.header)
				}
				if again := a.header.Get("Retry-After"); (again != "") != (tt.status == 200) {
					t.Errorf("Retry-After %q", again)
				}
				res := r.last()
				if res.Outcome != tt.outcome || res.Status != tt.status {
					t.Errorf("%+v", res)
				}
				for _, issue := range r.WeChat.Issued(shop.CredentialID()) {
					if strings.Contains(fmt.Sprintf("%v %+v %v", a, res, res.Err), issue.Value) {
						t.Errorf("the token is in %v or in %+v", a, res)
					}
				}
			})
		})
	}
}

// notHTTP quotes the request, token included, so that net/http quotes it in its error.
func notHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_, _ = fmt.Fprintf(conn, "%s\r\n\r\n", r.RequestURI)
		_ = conn.Close()
	}
}

// upgraded switches protocols without having been asked to.
func upgraded(header string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+header+"\r\n")
			_ = conn.Close()
		}
	}
}
