package rig

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The one app that the rig's sidecars keep a token of.
const (
	AppID     = "wx00000000000000f1"
	AppSecret = "CANARY+secret/of=the-app"
	Namespace = "wxtoken"
	ValueKey  = Namespace + ":{" + AppID + "}:access_token"
)

// Upstream is the simulator on a real socket. Each sidecar calls it under a path of its own, so
// that a test knows who is asking. Safe for concurrent use.
type Upstream struct {
	*wechattest.Server
	URL string

	http *httptest.Server

	mu     sync.Mutex
	asking func(sidecar string, r *http.Request)
	hold   chan *Held
	asked  int // fetches under way
	atOnce int // the most of them
}

func startUpstream(t testing.TB) *Upstream {
	u := &Upstream{Server: wechattest.New(wechattest.App{ID: AppID, Secret: AppSecret})}
	server := httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	u.URL, u.http = server.URL, server
	return u
}

func (u *Upstream) serve(w http.ResponseWriter, r *http.Request) {
	sidecar, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	r.URL.Path = "/" + path
	u.mu.Lock()
	asking := u.asking
	var hold chan *Held
	if IsFetch(r) {
		hold, u.hold = u.hold, nil
		u.asked++
		u.atOnce = max(u.atOnce, u.asked)
		defer func() {
			u.mu.Lock()
			u.asked--
			u.mu.Unlock()
		}()
	}
	u.mu.Unlock()
	if asking != nil {
		asking(sidecar, r)
	}
	if hold == nil {
		u.Server.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	u.Server.ServeHTTP(answer, r)
	var issued wechatAnswer
	_ = json.Unmarshal(answer.Body.Bytes(), &issued)
	held := &Held{Sidecar: sidecar, Token: issued.AccessToken, at: time.Now(), gone: r.Context().Done(), released: make(chan struct{})}
	hold <- held
	select {
	case <-held.released:
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	case <-held.gone:
	}
}

// Held is a fetch that WeChat has acted on, and whose answer is held back until the sidecar gives
// up.
type Held struct {
	Sidecar string // who fetches
	Token   string // the answer

	at       time.Time
	gone     <-chan struct{}
	released chan struct{}
}

// HoldAnswer holds back the answer to the next fetch of a token. The channel receives once, when it
// is held.
func (u *Upstream) HoldAnswer() <-chan *Held {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hold = make(chan *Held, 1)
	return u.hold
}

// Release sends the answer.
func (h *Held) Release() { close(h.released) }

// Awaited reports whether the sidecar waits for the answer, and will for some seconds more of the 8
// that it has.
func (h *Held) Awaited() bool {
	select {
	case <-h.gone:
		return false
	default:
		return time.Since(h.at) < 5*time.Second
	}
}

// IsFetch reports whether r asks WeChat for an access token.
func IsFetch(r *http.Request) bool {
	for _, path := range []string{"/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/gettoken"} {
		if strings.HasSuffix(r.URL.Path, path) {
			return true
		}
	}
	return false
}

// OnCall has f called for every call before the simulator handles it, with the name of the sidecar.
// f may wait, until the context of r ends; nil ends that.
func (u *Upstream) OnCall(f func(sidecar string, r *http.Request)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asking = f
}

// FetchesAtOnce returns how many fetches of a token were under way at the same time, at most.
func (u *Upstream) FetchesAtOnce() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.atOnce
}

// Reset ends every connection, idle or not.
func (u *Upstream) Reset() { u.http.CloseClientConnections() }

// Refuse closes WeChat's listener and every connection, until [Upstream.Heal].
func (u *Upstream) Refuse() {
	_ = u.http.Listener.Close()
	u.Reset()
}

// Heal opens the listener that [Upstream.Refuse] closed, at the same address.
func (u *Upstream) Heal(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", u.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	u.http.Listener = listener // which the server closes at its end
	go func() { _ = u.http.Config.Serve(listener) }()
}

// Works reports whether WeChat would accept the token now.
func (u *Upstream) Works(token string) bool { return u.Valid(AppID, token) }

// Lenient lets a replaced token live through its overlap however many were issued meanwhile, as
// WeChat promises. (If it keeps only one replaced token, as some infer, a lost one ends the one
// before at the moment in which its replacement is issued, a few ms before any replica can commit
// that.)
func (u *Upstream) Lenient() { u.Tune(func(k *wechattest.Knobs) { k.OverlapKeeps = -1 }) }

// NextFetch returns a channel that receives the name of the sidecar whose fetch comes next, once.
func (u *Upstream) NextFetch() <-chan string { return u.nextCall(IsFetch) }

// NextCallOf is NextFetch for the calls of one path.
func (u *Upstream) NextCallOf(path string) <-chan string {
	return u.nextCall(func(r *http.Request) bool { return r.URL.Path == path })
}

func (u *Upstream) nextCall(is func(*http.Request) bool) <-chan string {
	ch := make(chan string, 1)
	u.OnCall(func(sidecar string, r *http.Request) {
		if is(r) {
			select {
			case ch <- sidecar:
			default:
			}
		}
	})
	return ch
}
