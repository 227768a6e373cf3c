package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Problem is an answer without a value, as RFC 9457 has it. It is an error, so that an endpoint can
// return one. It repeats nothing that a caller sent, and holds no value.
type Problem struct {
	Kind       string // what follows problemType
	Status     int
	Title      string
	Detail     string
	Errcode    int           // WeChat's, 0 for none
	retryAfter time.Duration // rounded up to whole seconds; 0: waiting does not help
	Allow      string        // of a 405
}

const problemType = "urn:wxtoken:problem:"

// KindNotFound is the kind of a problem with a path that leads nowhere.
const KindNotFound = "not-found"

// KindLimited is the kind of a problem that the sidecar's own allowance of calls makes.
const KindLimited = "allowance-spent"

func (p *Problem) Error() string { return "api: " + p.Title + ": " + p.Detail }

// retrySeconds returns the whole seconds of Retry-After, 0 for none.
func (p *Problem) retrySeconds() int64 {
	return int64((p.retryAfter + time.Second - 1) / time.Second)
}

func (p *Problem) AppendBody(buf []byte, _ Format) ([]byte, []string) {
	body, err := json.Marshal(struct {
		Type       string `json:"type"`
		Title      string `json:"title"`
		Status     int    `json:"status"`
		Detail     string `json:"detail,omitempty"`
		Errcode    int    `json:"errcode,omitempty"`
		RetryAfter int64  `json:"retry_after,omitempty"`
	}{problemType + p.Kind, p.Title, p.Status, p.Detail, p.Errcode, p.retrySeconds()})
	if err != nil {
		return buf, typeProblem // cannot be: strings and numbers
	}
	return append(append(buf, body...), '\n'), typeProblem
}

// Header sets what a problem says besides its body.
func (p *Problem) Header(h http.Header) {
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.retrySeconds(), 10))
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="wxtoken"`)
	}
}

// BadRequest is the answer 400 to a request that a caller has to correct: detail says how.
func BadRequest(detail string) *Problem {
	return &Problem{Kind: "bad-request", Status: http.StatusBadRequest, Title: "The request is not understood", Detail: detail}
}

func notFound(hint string) *Problem {
	return &Problem{Kind: KindNotFound, Status: http.StatusNotFound, Title: "There is nothing at this path",
		Detail: hint}
}

// UnknownApp is the answer 404 to a call for an app that is not configured.
func UnknownApp() *Problem {
	return &Problem{Kind: "unknown-app", Status: http.StatusNotFound, Title: "No such app",
		Detail: "No app of this name is configured here. Add it to the configuration of the sidecar, or use the id or alias from there."}
}

// Unauthorized is the answer 401 to a call without the configured bearer token.
func Unauthorized() *Problem {
	return &Problem{Kind: "unauthorized", Status: http.StatusUnauthorized, Title: "A bearer token is demanded",
		Detail: "Send the configured bearer token: Authorization: Bearer ..."}
}

// Overloaded is the answer 429 while as many requests wait as may.
func Overloaded() *Problem {
	return &Problem{Kind: "overloaded", Status: http.StatusTooManyRequests, Title: "Too many requests at once",
		Detail: "Too many requests are waiting for an answer.", retryAfter: time.Second}
}

func internal() *Problem {
	return &Problem{Kind: "internal", Status: http.StatusInternalServerError, Title: "The sidecar failed",
		Detail: "This is a bug; the log of the sidecar says where."}
}

// ProblemOf is the one place where an error becomes an answer. It repeats
// nothing of an error that it does not know: the log has the text.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if errors.Is(err, tokencache.ErrUnknown) {
		return UnknownApp()
	}
	p := &Problem{Kind: "unavailable", Status: http.StatusServiceUnavailable, Title: "There is no usable value now",
		Detail: "The refresh brought no value.", retryAfter: time.Second}
	if u, ok := errors.AsType[*tokencache.UnavailableError](err); ok {
		p.retryAfter = max(p.retryAfter, u.RetryAfter)
	}
	if errors.Is(err, tokencache.ErrLimited) {
		p.Kind, p.Title, p.Detail = KindLimited, "The allowance of upstream calls is spent",
			"The sidecar limits its calls upstream, and has made as many as it may; the next one is allowed soon."
		return p
	}
	if f, ok := errors.AsType[*tokencache.FetchError](err); ok {
		p.Kind, p.Title, p.Detail, p.Errcode = "upstream", "Upstream gives no value", f.Message, f.Code
		switch f.Class {
		case tokencache.ClassPermanent:
			p.Kind, p.Status, p.Title = "upstream-refuses", http.StatusBadGateway, "Upstream refuses the app until a person acts"
		case tokencache.ClassEnded:
			p.Kind, p.Status, p.Title = "ended", http.StatusConflict, "The account gives this platform no token"
		}
		return p
	}
	if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
		p.Kind, p.Title = "redis", text.RedisTitle(s.Class())
		p.Detail = text.Redis(s) + " No usable value is in memory."
		return p
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		p.Kind, p.Title, p.Detail = "timeout", "No value came in time", "The refresh goes on; ask again."
	case errors.Is(err, tokencache.ErrClosed), errors.Is(err, context.Canceled):
		// Canceled is the refresh, which only the end of the cache cancels; or the caller, who does
		// not read this.
		p.Kind, p.Title, p.Detail = "stopping", "The sidecar is stopping", "No value is in memory, and none is fetched any more."
	}
	return p
}
