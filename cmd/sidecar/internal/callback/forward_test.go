package callback_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/callback"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// received is a request as the app got it.
type received struct{ method, target, contentType, via, body string }

// app records what it gets and answers as WeChat's messages are answered.
type app struct {
	mu     sync.Mutex
	got    []received
	answer http.HandlerFunc
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.got = append(a.got, received{r.Method, r.Host + r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("Via"), string(body)})
	answer := a.answer
	a.mu.Unlock()
	answer(w, r)
}

// requests returns what it has got.
func (a *app) requests() []received {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// begin forgets what it has got, and answers otherwise from now on.
func (a *app) begin(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got, a.answer = nil, answer
}

const message = "<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName><CreateTime>1</CreateTime><MsgType>text</MsgType><Content>hello</Content></xml>"

// A message of an account's, and an event that means nothing here, go to the app as they came, and
// its answer goes back.
func TestWhatMeansNothingHereIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.Header().Set("Set-Cookie", "a=b")
			if r.Header.Get("Accept-Encoding") != "" {
				t.Error("the app is asked for what WeChat may not read")
			}
			w.WriteHeader(201)
			_, _ = io.WriteString(w, "<xml><Encrypt/></xml>")
		}}
		x := newRig(t, platform.OpenPlatform, a)
		var want []received
		pass := func(path, to, query, body string) {
			t.Helper()
			status, header, answer := x.send("POST", path+"?"+query, body)
			if status != 201 || answer != "<xml><Encrypt/></xml>" || header.Get("Content-Type") != "application/xml" || header.Get("Set-Cookie") != "" ||
				header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v %q", path, status, header, answer)
			}
			want = append(want, received{"POST", "app.example:8080/wechat" + to + "?" + query, "text/xml; charset=utf-8", "1.1 wxtoken", body})
		}
		query, body := sealed(x.envelope, "ToUserName>gh_1</ToUserName", message)
		pass("/callback/shops", "", query+"&openid=o%31", body)
		pass("/callback/"+id+"/"+shop, "/"+shop, query, body)
		query, body = x.event("notify_third_fasteregister", "")
		pass("/callback/shops", "", query, body)
		if got := a.requests(); !slices.Equal(got, want) {
			t.Fatalf("the app got %+v\nwant %+v", got, want)
		}
		// What means something here is not the app's, and nothing that is forged reaches it.
		query, body = x.event("component_verify_ticket", "<ComponentVerifyTicket>ticket@@@1</ComponentVerifyTicket>")
		x.want(200, "success", "/callback/shops?"+query, body)
		x.want(403, "", "/callback/shops?"+query+"x", body+"x")
		x.want(404, "", "/callback/shops/..?"+query, body)
		x.want(404, "", "/callback/shops/a/b?"+query, body)
		x.want(404, "", "/callback/shops/a%2fb?"+query, body)
		if got := a.requests(); len(got) != len(want) || x.vault.saved.Load() != 1 {
			t.Errorf("the app got %+v, and the vault %d writes", got, x.vault.saved.Load())
		}
	})
}

// On WeCom the corp is the receiver of what its users send.
func TestADataCallbackOfWeComIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{answer: func(http.ResponseWriter, *http.Request) {}}
		x := newRig(t, platform.Suite, a)
		corp, err := wechat.NewEnvelope(secret.New("token"), "wwcorp", secret.New(aesKey))
		if err != nil {
			t.Fatal(err)
		}
		query, body := sealed(corp, "ToUserName>wwcorp</ToUserName", message)
		x.want(200, "", "/callback/shops?"+query, body)
		x.want(403, "", "/callback/shops?"+query, strings.Replace(body, "CDATA[", "CDATA[A", 1))
		if got := a.requests(); len(got) != 1 || got[0].body != body {
			t.Errorf("%+v", got)
		}
	})
}

// An app that hangs, answers with too much, or leads elsewhere.
func TestAnAppThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{}
		x := newRig(t, platform.OpenPlatform, a)
		query, body := sealed(x.envelope, "ToUserName>gh_1</ToUserName", message)
		for name, c := range map[string]struct {
			answer http.HandlerFunc
			status int
			text   string
		}{
			"hangs":      {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 502, ""},
			"too much":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 65<<10)) }, 502, ""},
			"breaks off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, ""},
			"breaks off in the middle": {func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "10")
				_, _ = io.WriteString(w, "<xml>")
			}, 502, ""},
			"changes the protocol": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(101) }, 502, ""},
			"a long head":          {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 20<<10)) }, 502, ""},
			"leads away": {func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://169.254.169.254/", http.StatusTemporaryRedirect)
			}, 307, ""},
			"refuses":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = io.WriteString(w, "no") }, 500, "no"},
			"says not much": {func(http.ResponseWriter, *http.Request) {}, 200, ""},
		} {
			a.begin(c.answer)
			began := time.Now()
			x.want(c.status, c.text, "/callback/shops?"+query, body)
			if took := time.Since(began); len(a.requests()) != 1 || took > 4*time.Second {
				t.Errorf("%s: asked %d times, in %v", name, len(a.requests()), took)
			}
		}
		for _, line := range x.log.All() {
			if strings.Contains(line.Message+line.Entry.Message, "msg_signature") {
				t.Errorf("the log quotes a query: %v", line)
			}
		}
		x.hidden("msg_signature")
	})
}

// An app that hangs has so many messages at once, and the others wait for their turn.
func TestMessagesAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		x := newRig(t, platform.OpenPlatform, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if n := now.Add(1); n > most.Load() { // the bubble waits at the sleep below
				most.Store(n)
			}
			time.Sleep(time.Second)
			now.Add(-1)
		}))
		query, body := sealed(x.envelope, "ToUserName>gh_1</ToUserName", message)
		const messages = 100
		answered := make(chan int)
		for range messages {
			go func() {
				status, _, _ := x.send("POST", "/callback/shops?"+query, body)
				answered <- status
			}()
		}
		for range messages {
			if status := <-answered; status != 200 {
				t.Errorf("%d", status)
			}
		}
		if n := most.Load(); n > callback.MaxAtOnce || n < callback.MaxAtOnce/2 {
			t.Errorf("the app had %d at once, want up to %d", n, callback.MaxAtOnce)
		}
	})
}

// Without an address a message is refused. At the other door the app has it already: it is refused
// there also with one.
func TestAMessageIsRefusedWhereNoAddressIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{answer: func(http.ResponseWriter, *http.Request) {}}
		x := newRig(t, platform.OpenPlatform, nil)
		query, body := sealed(x.envelope, "ToUserName>gh_1</ToUserName", message)
		x.want(403, "", "/callback/shops?"+query, body)
		x = newRig(t, platform.OpenPlatform, a)
		query, body = sealed(x.envelope, "ToUserName>gh_1</ToUserName", message)
		w := httptest.NewRecorder()
		x.relayed.ServeHTTP(w, httptest.NewRequest("POST", "/?"+query, strings.NewReader(body)))
		if w.Code != 403 || w.Body.Len() != 0 || len(a.requests()) != 0 || x.results["relayed message"] != 1 {
			t.Errorf("%d %q, %+v, %v", w.Code, w.Body, a.requests(), x.results)
		}
	})
}

// What the app of the pod passes on is answered by the same rules. JSON tells it what the push says.
func TestWhatTheAppRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, platform.OpenPlatform, nil)
		ask := func(accept, query, body string) (int, string) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("POST", "/?"+query, strings.NewReader(body))
			r.Header.Set("Accept", accept)
			x.relayed.ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		query, body := x.event("anything", "<AuthorizerAppid>"+shop+"</AuthorizerAppid>")
		if status, text := ask("", query, body); status != 200 || text != "success" {
			t.Errorf("%d %q", status, text)
		}
		status, text := ask("application/json", query, body)
		for _, want := range []string{`"reply":"success"`, `"info_type":"anything"`, `"authorizer":"` + shop + `"`, `"event":"\u003cxml\u003e`} {
			if status != 200 || !strings.Contains(text, want) {
				t.Errorf("%d %s: no %s", status, text, want)
			}
		}
		if status, text := ask("application/json", query+"&x", body+"x"); status != 403 || text != "" {
			t.Errorf("forged: %d %q", status, text)
		}
		x.vault.hangs.Store(true)
		query, body = x.event("unauthorized", "<AuthorizerAppid>"+shop+"</AuthorizerAppid>")
		if status, text := ask("", query, body); status != 503 || text != "" {
			t.Errorf("while the vault hangs: %d %q", status, text)
		}
	})
}
