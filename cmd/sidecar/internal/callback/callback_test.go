package callback_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/callback"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/listener"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	id     = "wx134c8103faa5a59e"
	shop   = "wxba5fad812f8e6fb9"
	aesKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	canary = "CANARY-0123456789"
)

// slowVault is a vault that hangs while it is told to, and counts what it is asked.
type slowVault struct {
	vault.Store
	hangs        atomic.Bool
	asked, saved atomic.Int64
}

func (v *slowVault) Load(ctx context.Context, platform, id string) (vault.Row, error) {
	v.asked.Add(1)
	if v.hangs.Load() {
		<-ctx.Done()
		return vault.Row{}, ctx.Err()
	}
	return v.Store.Load(ctx, platform, id)
}

func (v *slowVault) Save(ctx context.Context, r vault.Row) (int64, error) {
	v.saved.Add(1)
	return v.Store.Save(ctx, r)
}

// rig is a platform and its callback, at both doors, in a bubble.
type rig struct {
	*testing.T
	envelope *wechat.Envelope
	vault    *slowVault
	upstream atomic.Int64 // calls of WeChat
	log      *observer.ObservedLogs
	results  map[string]int // by door and result; read it when nothing is under way
	dial     func() net.Conn
	relayed  http.Handler
}

// newRig makes a platform of a kind. The handler forward, if any, is the app's.
func newRig(t *testing.T, kind platform.Kind, forward http.Handler) *rig {
	x := &rig{T: t, results: map[string]int{}, vault: &slowVault{}}
	cluster := tokencachetest.New(t, 1, &tokencachetest.Upstream{})
	one := cluster.Replicas[0]
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", Dialer: one.Link.Dial, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = rdb.Close() })
	x.vault.Store = vault.NewRedis(rdb, "wxtoken")
	var err error
	if x.envelope, err = wechat.NewEnvelope(secret.New("token"), id, secret.New(aesKey)); err != nil {
		t.Fatal(err)
	}
	upstream := wechattest.TransportTo(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { x.upstream.Add(1) }))
	t.Cleanup(func() { _ = upstream.Close() })
	p, err := platform.New(platform.Options{
		ID: id, Kind: kind, Secret: secret.New("secret"), Envelope: x.envelope, Client: &wechat.Client{HTTP: &http.Client{Transport: upstream}},
		Vault: vault.New(x.vault, vaulttest.Keys(t, vaulttest.Key)), Cache: one.Cache, Redis: rdb, Namespace: "wxtoken",
	})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	x.log = logs
	counted := make(chan struct{}, 1)
	o := callback.Options{Platforms: []callback.Platform{{Platform: p, Alias: "shops"}}, Log: zap.New(core), Observe: func(_ string, d callback.Door, r callback.Result) {
		counted <- struct{}{}
		x.results[string(d)+" "+string(r)]++
		<-counted
	}}
	if forward != nil {
		o.Platforms[0].Forward = "http://app.example:8080/wechat"
	}
	h := callback.New(o)
	if forward != nil {
		app := wechattest.TransportTo(forward)
		callback.Dial(h, app.DialContext)
		t.Cleanup(func() { h.Close(); _ = app.Close() })
	}
	x.relayed = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Relayed(w, r, p) })
	pipes := wechattest.Listen()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- listener.Serve(ctx, pipes, h.Public(), listener.Options{Connections: listener.MaxCallbackConnections})
	}()
	t.Cleanup(func() { cancel(); <-served })
	x.dial = func() net.Conn {
		conn, err := pipes.DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	synctest.Wait()
	return x
}

// sealed returns the query and the body of a push, which an envelope seals for someone.
func sealed(e *wechat.Envelope, sender, text string) (query, body string) {
	timestamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), "nonce"
	part := func(name string) string {
		return regexp.MustCompile(`<` + name + `><!\[CDATA\[(.*?)\]\]>`).FindStringSubmatch(string(e.Seal([]byte(text), timestamp, nonce)))[1]
	}
	encrypted := part("Encrypt")
	v := url.Values{"timestamp": {timestamp}, "nonce": {nonce}, "msg_signature": {e.Signature(timestamp, nonce, encrypted)}}
	return v.Encode(), "<xml><" + sender + "><Encrypt><![CDATA[" + encrypted + "]]></Encrypt></xml>"
}

// event is the push of an event of the platform. extra is XML.
func (x *rig) event(infoType, extra string) (query, body string) {
	return sealed(x.envelope, "AppId>"+id+"</AppId", fmt.Sprintf("<xml><AppId>%s</AppId><CreateTime>%d</CreateTime><InfoType>%s</InfoType>%s</xml>", id, time.Now().Unix(), infoType, extra))
}

// send sends a request to the listener, and returns the answer.
func (x *rig) send(method, target, body string) (status int, header http.Header, answer string) {
	x.Helper()
	conn := x.dial()
	defer conn.Close()
	go func() {
		_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
	}()
	got, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		x.Fatalf("%s %s: %v", method, target, err)
	}
	text, err := io.ReadAll(got.Body)
	if err != nil {
		x.Fatal(err)
	}
	return got.StatusCode, got.Header, string(text)
}

// want sends a push and wants an answer.
func (x *rig) want(status int, answer, target, body string) {
	x.Helper()
	if got, _, text := x.send("POST", target, body); got != status || text != answer {
		x.Errorf("%.80s: %d %q, want %d %q", target, got, text, status, answer)
	}
}

// What WeChat pushes is stored before it is answered, at either door.
func TestAPushIsStoredBeforeItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		query, body := x.event("component_verify_ticket", "<ComponentVerifyTicket>ticket@@@1</ComponentVerifyTicket>")
		x.want(200, "success", "/callback/"+id+"?"+query, body)
		if x.vault.saved.Load() != 1 {
			t.Errorf("%d writes", x.vault.saved.Load())
		}
		time.Sleep(time.Second)
		query, body = x.event("component_verify_ticket", "<ComponentVerifyTicket>ticket@@@2</ComponentVerifyTicket>")
		x.want(200, "success", "/callback/shops?"+query, body)
		query, body = x.event("anything", "")
		x.want(200, "success", "/callback/shops?"+query, body) // it means nothing here
		if x.vault.saved.Load() != 2 || x.upstream.Load() != 0 {
			t.Errorf("%d writes, %d calls of WeChat", x.vault.saved.Load(), x.upstream.Load())
		}
		if x.results["public stored"] != 3 || len(x.results) != 1 || x.log.Len() != 0 {
			t.Errorf("%v, %v", x.results, x.log.All())
		}
	})
}

// A vault that hangs has the push answered within 800 ms, and it is stored when it comes again.
func TestAVaultThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		query, body := x.event("component_verify_ticket", "<ComponentVerifyTicket>"+canary+"</ComponentVerifyTicket>")
		x.vault.hangs.Store(true)
		for range 3 {
			began := time.Now()
			x.want(503, "", "/callback/"+id+"?"+query, body)
			if took := time.Since(began); took != 800*time.Millisecond {
				t.Errorf("answered after %v", took)
			}
		}
		if logged := x.log.FilterMessage("pushes were refused").All(); len(logged) != 1 || logged[0].ContextMap()["result"] != "unstored" {
			t.Errorf("logged: %v", logged)
		}
		x.vault.hangs.Store(false)
		x.want(200, "success", "/callback/"+id+"?"+query, body)
		if x.vault.saved.Load() != 1 {
			t.Errorf("%d writes", x.vault.saved.Load())
		}
		x.hidden(canary)
	})
}

// hidden wants a text in no log line.
func (x *rig) hidden(text string) {
	x.Helper()
	for _, line := range x.log.All() {
		if strings.Contains(fmt.Sprint(line.Message, line.ContextMap()), text) {
			x.Errorf("the log holds it: %v", line)
		}
	}
}

// What is not from WeChat, or not for this platform, costs no look at the vault and one log line a
// minute, and gets nothing.
func TestForgedPushesLeaveNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := false
		x := newRig(t, platform.OpenPlatform, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { app = true }))
		other, err := wechat.NewEnvelope(secret.New("token"), "wx0000000000000bad", secret.New(aesKey))
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := wechat.NewEnvelope(secret.New("guess"), id, secret.New(aesKey))
		if err != nil {
			t.Fatal(err)
		}
		ticket := "<xml><AppId>" + id + "</AppId><CreateTime>1</CreateTime><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>" + canary + "</ComponentVerifyTicket></xml>"
		query, body := x.event("unauthorized", "<AuthorizerAppid>"+shop+"</AuthorizerAppid>")
		of := func(e *wechat.Envelope, sender string) [2]string {
			q, b := sealed(e, sender, ticket)
			return [2]string{q, b}
		}
		for name, push := range map[string][2]string{
			"another token":       of(stranger, "AppId>"+id+"</AppId"),
			"another platform":    of(other, "AppId>"+id+"</AppId"),
			"another envelope":    of(x.envelope, "AppId>wx0000000000000bad</AppId"),
			"a message's":         of(x.envelope, "ToUserName>gh_1</ToUserName"),
			"no signature":        {"timestamp=1&nonce=1", body},
			"a short signature":   {"msg_signature=" + canary, body},
			"another body":        {query, strings.Replace(body, "CDATA[", "CDATA[A", 1)},
			"no body":             {query, ""},
			"the plain signature": {"signature=" + strings.Repeat("a", 40), body},
			"a broken query":      {"%zz&" + strings.Replace(query, "msg_signature", "msg_signature%zz", 1), body},
		} {
			if status, header, answer := x.send("POST", "/callback/shops?"+push[0], push[1]); status != 403 || answer != "" || header.Get("Content-Type") != "" {
				t.Errorf("%s: %d %v %q", name, status, header, answer)
			}
		}
		if status, _, answer := x.send("GET", "/callback/shops?echostr="+canary+"&"+query, ""); status != 403 || answer != "" {
			t.Errorf("echo: %d %q", status, answer)
		}
		if x.vault.asked.Load() != 0 || x.upstream.Load() != 0 || app {
			t.Errorf("%d looks at the vault, %d calls of WeChat, the app: %v", x.vault.asked.Load(), x.upstream.Load(), app)
		}
		if n := x.log.Len(); n != 1 {
			t.Errorf("%d log lines, want one a minute", n)
		}
		time.Sleep(time.Minute)
		x.want(403, "", "/callback/shops", "")
		if lines := x.log.All(); len(lines) != 2 || lines[1].ContextMap()["pushes"] != int64(11) {
			t.Errorf("a minute later: %v", lines)
		}
		x.hidden(canary)
	})
}

// Only two methods of one path are there. The rest gets a status and nothing else: no redirect, no
// text, nothing of other listeners.
func TestTheListenerServesNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		for target, status := range map[string]int{
			"GET /": 404, "GET /callback": 404, "GET /callback/": 404, "GET /callback/wx1": 404, "GET /callback/shops/": 404, "POST /callback/shops/" + shop: 404,
			"GET //callback/shops": 404, "GET /callback/../callback/shops": 404, "GET /callback//shops": 404, "GET /callback/shops%2f..": 404, "GET /callback/shops:" + shop: 404,
			"GET /v1/apps/shops/token": 404, "POST /v1/apps/shops/callback": 404, "GET /metrics": 404, "GET /status": 404, "GET /healthz": 404, "POST /quitquitquit": 404,
			"GET /proxy/shops/cgi-bin/getcallbackip": 404, "GET /cgi-bin/token": 404,
			"PUT /callback/shops": 405, "DELETE /callback/shops": 405, "HEAD /callback/shops": 405, "OPTIONS /callback/shops": 405, "PATCH /callback/" + id: 405,
			"GET /callback/shops": 403, "POST /callback/shops": 403,
		} {
			method, path, _ := strings.Cut(target, " ")
			if got, header, answer := x.send(method, path, ""); got != status || answer != "" || header.Get("Location") != "" {
				t.Errorf("%s: %d %q %v, want %d and nothing else", target, got, answer, header, status)
			}
		}
	})
}

// The bounds of a body: its length, and its time however steadily it comes.
func TestABodyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		query, _ := x.event("anything", "")
		x.want(413, "", "/callback/shops?"+query, strings.Repeat("x", wechat.MaxPush+1<<10))
		x.want(403, "", "/callback/shops?"+query, strings.Repeat("x", wechat.MaxPush))
		for name, target := range map[string]string{"signed": "/callback/shops?" + query, "not signed": "/callback/shops", "nowhere": "/"} {
			conn, done := x.dial(), make(chan struct{})
			go func() {
				defer close(done)
				defer conn.Close()
				_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", target)
				for ; err == nil; time.Sleep(500 * time.Millisecond) {
					_, err = io.WriteString(conn, "x")
				}
			}()
			began := time.Now()
			_, _ = io.Copy(io.Discard, conn)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%s: a body that drips held its connection for %v", name, took)
			}
			<-done
		}
		if x.results["public slow"] != 1 || x.results["public too_large"] != 1 || x.vault.asked.Load() != 0 {
			t.Errorf("%v", x.results)
		}
	})
}

// A hanging vault holds so many pushes, and no more of them are read.
func TestPushesAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		x.vault.hangs.Store(true)
		query, body := x.event("unauthorized", "<AuthorizerAppid>"+shop+"</AuthorizerAppid>")
		const pushes = 100
		answered := make(chan int)
		for range pushes {
			go func() {
				status, _, _ := x.send("POST", "/callback/shops?"+query, body)
				answered <- status
			}()
		}
		for range pushes {
			if status := <-answered; status != 503 {
				t.Errorf("%d", status)
			}
		}
		if at := x.vault.asked.Load(); at != callback.MaxAtOnce {
			t.Errorf("%d pushes were read, want %d", at, callback.MaxAtOnce)
		}
		if n := x.results["public busy"]; n != pushes-callback.MaxAtOnce {
			t.Errorf("%v", x.results)
		}
	})
}

// At the app's door a body has the same time: the app may be slow to pass it on, or not be the app.
func TestABodyIsBoundedAtTheAppsDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		pipes := wechattest.Listen()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- listener.Serve(ctx, pipes, x.relayed, listener.Options{}) }()
		conn, err := pipes.DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		query, _ := x.event("anything", "")
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer conn.Close()
			_, err := fmt.Fprintf(conn, "POST /?%s HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", query)
			for began := time.Now(); err == nil && time.Since(began) < time.Minute; time.Sleep(500 * time.Millisecond) {
				_, err = io.WriteString(conn, "x")
			}
		}()
		began := time.Now()
		_, _ = io.Copy(io.Discard, conn)
		if took := time.Since(began); took > 3*time.Second || x.results["relayed slow"] != 1 {
			t.Errorf("a body that drips held its connection for %v: %v", took, x.results)
		}
		<-done
		cancel()
		<-served
	})
}
