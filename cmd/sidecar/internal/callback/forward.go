package callback

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"
)

const (
	// forwardTime is how long the app may take for what is passed on to it: WeChat waits 5 s.
	forwardTime = 4 * time.Second
	// maxForwarded is the longest answer of the app that is passed back.
	maxForwarded = 64 << 10
)

// newForwarder returns the client of the apps' addresses. It takes no proxy of the environment,
// which is the way to WeChat, and follows no redirect, which could lead anywhere.
func newForwarder() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			MaxConnsPerHost: maxAtOnce, MaxIdleConnsPerHost: maxAtOnce / 4, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// passOn sends a push to the platform's own address as it came, and answers as that does.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, p *Platform, account string, body []byte) (Result, error) {
	ctx, cancel := context.WithTimeout(r.Context(), forwardTime)
	defer cancel()
	status, contentType, answer, err := h.ask(ctx, r, p, account, body)
	if err != nil {
		return refuse(w, http.StatusBadGateway, ResultUnanswered, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header()["Content-Type"] = contentType
	w.WriteHeader(status)
	_, _ = w.Write(answer) // an error means that WeChat is gone
	return ResultForwarded, nil
}

// ask returns the answer of the platform's own address. The error holds nothing of the query.
func (h *Handler) ask(ctx context.Context, r *http.Request, p *Platform, account string, body []byte) (status int, contentType []string, answer []byte, err error) {
	to := p.Forward
	if account != "" {
		to += "/" + account
	}
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, errUnanswered
	}
	request.Header.Set("Content-Type", r.Header.Get("Content-Type"))
	request.Header.Set("Via", "1.1 wxtoken") // the value listener takes no request that has this
	response, err := h.forward.Do(request)
	if err != nil {
		return 0, nil, nil, errUnanswered
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxForwarded+1))
	if err != nil || len(answer) > maxForwarded || response.StatusCode < http.StatusOK {
		return 0, nil, nil, errUnanswered
	}
	return response.StatusCode, response.Header["Content-Type"], answer, nil
}
