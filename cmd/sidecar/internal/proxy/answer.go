package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Outcome says how a call ended. It can label a metric.
type Outcome string

// The outcomes. All but the first two are what X-Wxtoken-Error says.
const (
	Answered    Outcome = "answered"    // WeChat's answer was passed on, whatever it says
	Cut         Outcome = "cut"         // it broke off on the way, by WeChat or by the caller
	Refused     Outcome = "refused"     // no client of WeChat sends this
	NoApp       Outcome = "no_app"      // it is for no app that is configured
	NoToken     Outcome = "no_token"    // there is no token now; nothing was sent
	Unreachable Outcome = "unreachable" // no connection came about; nothing was sent
	Broken      Outcome = "broken"      // sent, then the connection broke or spoke no HTTP
	Overloaded  Outcome = "overloaded"  // there is no room for its body; nothing was sent
	Timeout     Outcome = "timeout"     // nothing moved for as long as Options.Timeout
	Canceled    Outcome = "canceled"    // the caller hung up before an answer began
)

// refusal is an answer of the proxy itself, with its words for people. It repeats nothing of the
// request.
type refusal struct {
	outcome    Outcome
	status     int
	errcode    int
	text       string
	retryAfter time.Duration
	cause      error // for the observer; without secrets
}

func (r *refusal) Error() string { return "proxy: " + r.text }
func (r *refusal) Unwrap() error { return r.cause }

func refuse(status int, text string) *refusal {
	return &refusal{outcome: Refused, status: status, errcode: -1, text: text}
}

// write sends the refusal in WeChat's shape.
func (r *refusal) write(w http.ResponseWriter, method string) {
	body, err := json.Marshal(struct {
		Errcode int    `json:"errcode"`
		Errmsg  string `json:"errmsg"`
	}{r.errcode, "wxtoken: " + r.text})
	if err != nil {
		body = []byte(`{"errcode":-1,"errmsg":"wxtoken"}`) // cannot be: a number and a text
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Wxtoken-Error", string(r.outcome))
	if r.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((r.retryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(r.status)
	if method != http.MethodHead {
		_, _ = w.Write(body) // an error means that the caller is gone
	}
}

// notAuthorized returns the errcode with which WeChat refuses a platform that an account has not
// authorised.
func notAuthorized(api wechat.API) int {
	if api == wechat.APICorpCall {
		return 40084
	}
	return 61003
}

// noToken is the answer when the cache has none.
func noToken(api wechat.API, err error) *refusal {
	r := &refusal{
		outcome: NoToken, status: http.StatusOK, errcode: -1, retryAfter: time.Second, cause: err,
		text: "there is no usable access_token now",
	}
	if u, ok := errors.AsType[*tokencache.UnavailableError](err); ok {
		r.retryAfter = max(r.retryAfter, u.RetryAfter)
	}
	switch f, ok := errors.AsType[*tokencache.FetchError](err); {
	case ok:
		r.text += ": " + f.Message
		if f.Code != 0 {
			r.errcode = f.Code
		} else if f.Class == tokencache.ClassEnded {
			r.errcode = notAuthorized(api)
		}
		if wechat.Classify(api, r.errcode) == wechat.ClassBadToken {
			// 40001 on a token fetch is a wrong secret. On a call it would tell an SDK to refresh.
			r.errcode = 40125
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		r.text += ": it did not come in time"
	case errors.Is(err, apps.ErrNotAuthorized):
		r.errcode = notAuthorized(api)
		r.text += ": " + apps.ErrNotAuthorized.Error()
	case errors.Is(err, tokencache.ErrUnknown):
		r.text += ": the app is not configured any more"
	case errors.Is(err, tokencache.ErrClosed):
		r.text += ": the sidecar is stopping"
	}
	if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
		r.text += ": " + text.RedisTitle(s.Class())
	}
	return r
}

// unanswered is the answer when the exchange with WeChat failed.
func unanswered(err error, sent bool) *refusal {
	cause := safeError(err)
	if !sent {
		return &refusal{
			outcome: Unreachable, status: http.StatusOK, errcode: -1, cause: cause,
			text: "WeChat cannot be reached, nothing was sent: " + cause.Error(), retryAfter: time.Second,
		}
	}
	return &refusal{
		outcome: Broken, status: http.StatusBadGateway, errcode: -1, cause: cause,
		text: "no answer, and WeChat may have acted on the call: " + cause.Error(),
	}
}

// late is the answer when nothing moved for too long.
func late(limit time.Duration, sent bool) *refusal {
	r := &refusal{
		outcome: Timeout, status: http.StatusGatewayTimeout, errcode: -1, cause: context.DeadlineExceeded,
		text: fmt.Sprintf("no answer within %v, and WeChat may have acted on the call", limit),
	}
	if !sent {
		r.status, r.text, r.retryAfter = http.StatusOK, fmt.Sprintf("WeChat cannot be reached within %v, nothing was sent", limit), time.Second
	}
	return r
}

// safeError rebuilds an error of an HTTP exchange from what is known to hold no token: net/http
// quotes the URL or what the server sent in some of its errors.
func safeError(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e // addresses and system errors
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return context.DeadlineExceeded
	}
	for _, known := range []error{
		context.Canceled, io.ErrUnexpectedEOF, io.EOF, http.ErrSchemeMismatch, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errors.New("the HTTP exchange failed")
}
