// Package callback takes what WeChat pushes to third-party platforms, at two doors with one handler:
// the app relays the pushes to the value listener ([Handler.Relayed]), or WeChat reaches a listener
// of its own ([Handler.Public]).
//
// The rules at both: a push has at most 64 KiB, which come within 2 s, and is answered within
// 800 ms from then on. "success" means that the content of the push is stored. A push that
// WeChat has not signed for this platform gets 403, one that could not be stored 503, both without a
// body. A GET gets the text that it was sent, decrypted. Nothing calls WeChat here, and no answer
// holds a value.
//
// A push that means nothing to the sidecar is passed on as it came from the listener of its own, if
// the platform has an address for that. It is passed on after its signature was checked, so the
// address is out of reach for what is forged. At the other door the app has the push already.
package callback

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	// bodyTime is how long the body of a push may take.
	bodyTime = 2 * time.Second
	// answerTime is how long the answer may take after that: WeCom waits 1 s for some.
	answerTime = 800 * time.Millisecond
	// maxAtOnce is how many pushes may be read and stored at once: each takes some 250 KiB for that.
	maxAtOnce = 64
	// roomTime is how long a push waits for one of them to end. It leaves time for the vault.
	roomTime = answerTime / 2
	// signatureLength is that of every msg_signature.
	signatureLength = 40
)

// Door says where a push came in.
type Door string

// The doors.
const (
	DoorRelayed Door = "relayed" // the app has passed it on
	DoorPublic  Door = "public"  // the listener of its own
)

// Result is what became of a request.
type Result string

// The results.
const (
	ResultStored     Result = "stored"     // or it needs not be
	ResultEchoed     Result = "echoed"     // the check of the address
	ResultForged     Result = "forged"     // 403
	ResultUnstored   Result = "unstored"   // 503: the vault does not answer
	ResultBusy       Result = "busy"       // 503: too many at once
	ResultTooLarge   Result = "too_large"  // 413
	ResultSlow       Result = "slow"       // 408
	ResultMessage    Result = "message"    // 403: a message, and no address to pass it on to
	ResultForwarded  Result = "forwarded"  // the app's own answer
	ResultUnanswered Result = "unanswered" // 502: the app has not answered
)

// Platform is one whose pushes are taken.
type Platform struct {
	*platform.Platform
	// Alias is another name in paths. Empty: none.
	Alias string
	// Forward is where the listener of its own passes on what means nothing to the sidecar: an
	// absolute URL without a query. Empty: nowhere.
	Forward string
}

// Options are what a [Handler] needs; all but Platforms are optional.
type Options struct {
	Platforms []Platform
	// Observe is called for each request. It must not block. Default: none.
	Observe func(platform string, d Door, r Result)
	// Panicked is called for each panic of the listener of its own. Default: none.
	Panicked func()
	// Log gets what a person should know, each at most once a minute. Default: none.
	Log *zap.Logger
}

// Handler takes pushes. Safe for concurrent use. Create it with [New].
type Handler struct {
	o          Options
	byName     map[string]*Platform
	working    chan struct{} // has an element for each push at work
	forward    *http.Client
	complaints observe.Complaints
}

// New returns a handler. It starts no goroutine.
func New(o Options) *Handler {
	if o.Observe == nil {
		o.Observe = func(string, Door, Result) {}
	}
	if o.Panicked == nil {
		o.Panicked = func() {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	h := &Handler{o: o, byName: map[string]*Platform{}, working: make(chan struct{}, maxAtOnce), forward: newForwarder()}
	for i := range o.Platforms {
		p := &o.Platforms[i]
		h.byName[p.ID()] = p
		if p.Alias != "" {
			h.byName[p.Alias] = p
		}
	}
	return h
}

// Close frees what the handler holds.
func (h *Handler) Close() { h.forward.CloseIdleConnections() }

// Relayed takes a request that the app of this pod has passed on. A caller that takes JSON gets what
// the push said.
func (h *Handler) Relayed(w http.ResponseWriter, r *http.Request, p *platform.Platform) {
	boundBody(w, r)
	// Without Forward: the app has the push already.
	h.take(w, r, &Platform{Platform: p}, DoorRelayed, "")
}

// boundBody bounds the time of a body, also of one that is not read: net/http reads what is left.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.Body != http.NoBody {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	}
}

// Public returns the handler of the listener of its own: GET and POST of /callback/{platform}. If the
// platform passes on messages, an account may follow: WeChat wants that in the path of their address
// [U: the form of the console]. No answer of its own but the echo and "success" has a body.
func (h *Handler) Public() http.Handler {
	return web.Recovering(http.HandlerFunc(h.public), h.o.Log, h.o.Panicked, func(w http.ResponseWriter, _ *http.Request, err error) {
		w.WriteHeader(web.ProblemOf(err).Status)
	})
}

// public finds the platform of a path. It has no mux, which would answer a path that is not clean by
// a redirect.
func (h *Handler) public(w http.ResponseWriter, r *http.Request) {
	boundBody(w, r)
	path, ok := strings.CutPrefix(r.URL.Path, "/callback/")
	name, account, hasAccount := strings.Cut(path, "/")
	p := h.byName[name]
	if !ok || p == nil || hasAccount && (p.Forward == "" || !apps.IsAccount(account) || strings.Trim(account, ".") == "") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	h.take(w, r, p, DoorPublic, account)
}

// take is the one way of both doors.
func (h *Handler) take(w http.ResponseWriter, r *http.Request, p *Platform, d Door, account string) {
	var result Result
	var err error
	if r.Method == http.MethodPost {
		result, err = h.push(w, r, p, d, account)
	} else {
		result, err = h.echo(w, r, p)
	}
	h.o.Observe(p.ID(), d, result)
	if err == nil {
		return
	}
	if n := h.complaints.Due(p.ID()+" "+string(result), time.Now()); n > 0 {
		h.o.Log.Warn("pushes were refused", zap.String("platform", p.ID()), zap.String("door", string(d)),
			zap.String("result", string(result)), zap.Int("pushes", n), zap.Error(err))
	}
}

// echo answers the check of the address.
func (h *Handler) echo(w http.ResponseWriter, r *http.Request, p *Platform) (Result, error) {
	text, err := p.Echo(r.URL.Query())
	if err != nil {
		return refuse(w, http.StatusForbidden, ResultForged, err)
	}
	web.Write(w, r, http.StatusOK, web.Text(text))
	return ResultEchoed, nil
}

// refuse answers without a body.
func refuse(w http.ResponseWriter, status int, result Result, err error) (Result, error) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return result, err
}

// Why a push is refused, besides the errors of its platform.
var (
	errBusy       = errors.New("callback: too many pushes at once")
	errTooLarge   = errors.New("callback: the body is too large")
	errSlow       = errors.New("callback: the body did not come in time")
	errUnanswered = errors.New("callback: the address of forward did not answer, not in time, or with too much")
)

// push takes a push.
func (h *Handler) push(w http.ResponseWriter, r *http.Request, p *Platform, d Door, account string) (Result, error) {
	query := r.URL.Query()
	if len(query.Get("msg_signature")) != signatureLength {
		r.Body = http.NoBody // it is refused, whatever the body is
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wechat.MaxPush))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return refuse(w, http.StatusRequestEntityTooLarge, ResultTooLarge, errTooLarge)
		}
		return refuse(w, http.StatusRequestTimeout, ResultSlow, errSlow)
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	got, err := h.receive(ctx, p, query, body)
	switch {
	case errors.Is(err, errBusy):
		return refuse(w, http.StatusServiceUnavailable, ResultBusy, err)
	case p.Forward != "" && (errors.Is(err, platform.ErrMessage) || err == nil && got.Event != nil):
		return h.passOn(w, r, p, account, body)
	case errors.Is(err, platform.ErrMessage):
		return refuse(w, http.StatusForbidden, ResultMessage, err)
	case platform.IsForged(err):
		return refuse(w, http.StatusForbidden, ResultForged, err)
	case err != nil:
		return refuse(w, http.StatusServiceUnavailable, ResultUnstored, err)
	case d == DoorRelayed && strings.Contains(r.Header.Get("Accept"), "application/json"):
		web.Write(w, r, http.StatusOK, web.JSON{V: map[string]any{
			"reply": success, "info_type": got.InfoType, "authorizer": got.Authorizer, "order": got.Order, "event": string(got.Event),
		}})
	default:
		web.Write(w, r, http.StatusOK, web.Text(success))
	}
	return ResultStored, nil
}

// success is the answer that WeChat takes for one, to the byte.
const success = "success"

// receive has the platform store what a push says, if there is room.
func (h *Handler) receive(ctx context.Context, p *Platform, query url.Values, body []byte) (platform.Received, error) {
	full := time.NewTimer(roomTime)
	defer full.Stop()
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	case <-full.C:
		return platform.Received{}, errBusy
	}
	return p.Receive(ctx, query, body)
}
