package wechat

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Bounds of an answer, in bytes.
const (
	// maxBody is for credentials. The largest known answer, a menu, has a few thousand bytes.
	maxBody = 64 << 10
	// maxDetails is for authorisations: a page of 500 authorizers with refresh tokens has some
	// 80 KB, and an installed suite lists the members of a corp that it may see.
	maxDetails = 512 << 10
)

// ownHTTP serves clients that bring none.
var ownHTTP = newHTTPClient()

// newHTTPClient returns a client whose requests reach WeChat at most once and within seconds.
func newHTTPClient() *http.Client {
	// HTTP/1 only: net/http also repeats requests on HTTP/2 (after a GOAWAY or a refused stream),
	// and how WeChat behaves there is not known.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Client{Transport: &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		Protocols:   &protocols,
		// Once a reused connection turns out to be dead, net/http silently sends a GET again. If
		// WeChat acted on the first one, the second kills the token that the first issued, or, in
		// the other order, we end up with the dead one of the two. A fresh connection is never
		// retried, and a fetch every two hours has no use for a kept one.
		DisableKeepAlives:      true,
		TLSHandshakeTimeout:    3 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}}
}

// request is one call to WeChat, before it becomes HTTP.
type request struct {
	api     API
	method  string
	path    string
	query   url.Values
	body    []byte          // JSON; nil for none
	secrets []secret.String // what is sent and must not come back in an error
	limit   int             // of the answer, in bytes; 0 is maxBody
}

// refuse is the error of a request that was not made.
func (r request) refuse(why string) *Error {
	return &Error{API: r.api, Endpoint: r.path, cause: &requestError{why}}
}

// unreadable is the error of a 200 that says nothing usable. The reason must not quote the answer.
func (r request) unreadable(why string) *Error {
	return &Error{API: r.api, Endpoint: r.path, Status: http.StatusOK, Sent: true, cause: errors.New(why)}
}

// requestError is the cause of an [Error] whose request cannot be made.
type requestError struct{ why string }

func (e *requestError) Error() string { return e.why }

// do makes one request and decodes the answer. Every error is an [*Error].
func (c *Client) do(ctx context.Context, r request) (answer, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	fail := &Error{API: r.api, Endpoint: r.path}
	if err := ctx.Err(); err != nil {
		fail.cause = safeCause(err, r.secrets)
		return answer{}, fail
	}
	// net/http asks for a connection before it writes and says when it has one. Between the two
	// nothing can have been written; after the second, anything. A transport that reports neither
	// leaves us in the dark, which counts as sent.
	var asked, got atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	req, err := c.httpRequest(traced, r)
	if err != nil {
		return answer{}, err
	}
	resp, err := c.httpClient().Do(req)
	if err != nil {
		fail.Sent = got.Load() || !asked.Load()
		fail.cause = safeCause(err, r.secrets)
		return answer{}, fail
	}
	defer resp.Body.Close()
	return read(resp, r)
}

// read turns a response into an answer, or into an [*Error] that says all there is to know.
func read(resp *http.Response, r request) (answer, error) {
	fail := &Error{API: r.api, Endpoint: r.path, Status: resp.StatusCode, Sent: true}
	limit := cmp.Or(r.limit, maxBody)
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case err != nil:
		fail.cause = safeCause(err, r.secrets)
		return answer{}, fail
	case len(body) > limit:
		fail.cause = fmt.Errorf("the answer is longer than %d KiB", limit>>10)
		return answer{}, fail
	}
	a, err := decode(body)
	switch {
	case a.code != 0:
		fail.Code, fail.Message = a.code, printable(a.msg, maxMessage, r.secrets)
		return answer{}, fail
	case resp.StatusCode != http.StatusOK:
		return answer{}, fail // the status says it all; the body is the error page of a proxy
	case err != nil:
		fail.cause = err
		return answer{}, fail
	}
	a.date, _ = http.ParseTime(resp.Header.Get("Date")) // the zero time if there is none
	return a, nil
}

// httpRequest builds the HTTP request. Its errors say nothing of the URL, which has the secret.
func (c *Client) httpRequest(ctx context.Context, r request) (*http.Request, error) {
	base := c.BaseURL
	switch {
	case base != "":
	case r.api.onWeCom():
		base = DefaultCorpBaseURL
	default:
		base = DefaultBaseURL
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, r.refuse("BaseURL is not an http or https URL")
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+r.path, ""
	u.RawQuery, u.Fragment = r.query.Encode(), ""
	// A bytes.Reader, so that net/http knows the length: WeChat answers a chunked request with
	// 412 and an empty body [U].
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, r.refuse("cannot build the request")
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// For clients that were given to us: leave no connection behind that a later fetch could reuse.
	req.Close = true
	return req, nil
}

// httpClient returns the client to use: it follows no redirects and has no cookies. A redirect
// would carry the secret to another host.
func (c *Client) httpClient() *http.Client {
	h := c.HTTP
	if h == nil {
		h = ownHTTP
	}
	return &http.Client{
		Transport: h.Transport,
		Timeout:   h.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// safeError replaces an error of net/http that must not be wrapped. kind is a sentinel or nil.
type safeError struct {
	text string
	kind error
}

func (e *safeError) Error() string { return e.text }
func (e *safeError) Unwrap() error { return e.kind }

// safeCause rebuilds a transport error from what is known to be harmless. [*url.Error] prints the
// URL; other errors of net/http quote what the server sent, which may be a token ("malformed HTTP
// response"). So only texts of known origin pass, and of those not the secrets.
func safeCause(err error, secrets []secret.String) error {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok {
			break
		}
		err = u.Err
	}
	safe := &safeError{text: "the HTTP exchange failed"}
	for _, kind := range []error{
		context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF, io.EOF, http.ErrSchemeMismatch,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE,
	} {
		if errors.Is(err, kind) {
			safe.text, safe.kind = kind.Error(), kind
			break
		}
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		safe.text, safe.kind = context.DeadlineExceeded.Error(), context.DeadlineExceeded
	}
	if text, ok := knownText(err); ok {
		safe.text = printable(text, maxMessage, secrets)
	}
	return safe
}

// knownText returns the text of errors that are made of addresses, names, certificates and system
// errors only.
func knownText(err error) (string, bool) {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Error(), true
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Error(), true
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Error(), true
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return e.Error(), true
	}
	return "", false
}
