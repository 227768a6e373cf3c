package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// problem is an answer without a value, as RFC 9457 has it. It is an error, so that an endpoint can
// return one. It repeats nothing that a caller sent, and holds no value.
type problem struct {
	kind       string // what follows problemType
	status     int
	title      string
	detail     string
	errcode    int           // WeChat's, 0 for none
	retryAfter time.Duration // rounded up to whole seconds; 0: waiting does not help
	allow      string        // of a 405
}

const problemType = "urn:wxtoken:problem:"

// kindNotFound is the kind of a problem with a path that leads nowhere.
const kindNotFound = "not-found"

// kindLimited is the kind of a problem that the sidecar's own allowance of calls makes.
const kindLimited = "allowance-spent"

func (p *problem) Error() string { return "api: " + p.title + ": " + p.detail }

// retrySeconds returns the whole seconds of Retry-After, 0 for none.
func (p *problem) retrySeconds() int64 {
	return int64((p.retryAfter + time.Second - 1) / time.Second)
}

func (p *problem) appendBody(buf []byte, _ format) ([]byte, []string) {
	body, err := json.Marshal(struct {
		Type       string `json:"type"`
		Title      string `json:"title"`
		Status     int    `json:"status"`
		Detail     string `json:"detail,omitempty"`
		Errcode    int    `json:"errcode,omitempty"`
		RetryAfter int64  `json:"retry_after,omitempty"`
	}{problemType + p.kind, p.title, p.status, p.detail, p.errcode, p.retrySeconds()})
	if err != nil {
		return buf, typeProblem // cannot be: strings and numbers
	}
	return append(append(buf, body...), '\n'), typeProblem
}

// header sets what a problem says besides its body.
func (p *problem) header(h http.Header) {
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.retrySeconds(), 10))
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="wxtoken"`)
	}
}

func badRequest(detail string) *problem {
	return &problem{kind: "bad-request", status: http.StatusBadRequest, title: "The request is not understood", detail: detail}
}

func notFound(hint string) *problem {
	return &problem{kind: kindNotFound, status: http.StatusNotFound, title: "There is nothing at this path",
		detail: hint}
}

func unknownApp() *problem {
	return &problem{kind: "unknown-app", status: http.StatusNotFound, title: "No such app",
		detail: "No app of this name is configured here. Add it to the configuration of the sidecar, or ask for it by its id or alias as it stands there."}
}

func unauthorized() *problem {
	return &problem{kind: "unauthorized", status: http.StatusUnauthorized, title: "A bearer token is demanded",
		detail: "Send the configured bearer token: Authorization: Bearer ..."}
}

func overloaded() *problem {
	return &problem{kind: "overloaded", status: http.StatusTooManyRequests, title: "Too many requests at once",
		detail: "Too many requests are waiting for an answer.", retryAfter: time.Second}
}

func internal() *problem {
	return &problem{kind: "internal", status: http.StatusInternalServerError, title: "The sidecar failed",
		detail: "This is a bug; the log of the sidecar says where."}
}

// problemOf is the one place where an error becomes an answer. What it says of an error that it does
// not know is nothing: the log has the text.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if errors.Is(err, tokencache.ErrUnknown) {
		return unknownApp()
	}
	p := &problem{kind: "unavailable", status: http.StatusServiceUnavailable, title: "There is no usable value now",
		detail: "The refresh brought no value.", retryAfter: time.Second}
	if u, ok := errors.AsType[*tokencache.UnavailableError](err); ok {
		p.retryAfter = max(p.retryAfter, u.RetryAfter)
	}
	if errors.Is(err, tokencache.ErrLimited) {
		p.kind, p.title, p.detail = kindLimited, "The allowance of upstream calls is spent",
			"The sidecar limits its calls upstream, and has made as many as it may; the next one is allowed soon."
		return p
	}
	if f, ok := errors.AsType[*tokencache.FetchError](err); ok {
		p.kind, p.title, p.detail, p.errcode = "upstream", "Upstream gives no value", f.Message, f.Code
		if f.Class == tokencache.ClassPermanent {
			p.kind, p.status, p.title = "upstream-refuses", http.StatusBadGateway, "Upstream refuses the app until somebody acts"
		}
		return p
	}
	if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
		p.kind, p.title = "redis", s.Class().Title()
		p.detail = redisWords(s) + " No usable value is in memory."
		return p
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		p.kind, p.title, p.detail = "timeout", "No value came in time", "The refresh goes on; ask again."
	case errors.Is(err, tokencache.ErrClosed), errors.Is(err, context.Canceled):
		// Canceled is the refresh, which only the end of the cache cancels; or the caller, who does not
		// read this.
		p.kind, p.title, p.detail = "stopping", "The sidecar is stopping", "No value is in memory, and none is fetched any more."
	}
	return p
}
