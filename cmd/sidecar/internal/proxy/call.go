package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// call is one call on its way. It is the transport of a ReverseProxy that lives as long as it does:
// the ReverseProxy deals with headers and copying, the call with tokens.
type call struct {
	p      *Proxy
	in     *http.Request
	app    *apps.App
	path   string // WeChat's
	query  string // as the caller sent it, but for the AppSecret
	param  string // that carries the token; empty: the call takes none
	inject bool
	ctx    context.Context // of the whole exchange

	patience patience
	kept     []byte // the body, if it is kept
	reserved int64  // of the budget of kept bodies
	stream   *stream
	token    tokencache.Token // the one sent last
	result   Result
	out      writer // to the caller

	asked, got atomic.Bool // of the present attempt: for a connection, and got one
	reading    atomic.Bool // something of the caller's body is still to come
	answering  atomic.Bool // the caller gets an answer
}

// named reports whether the caller has named the app by the path.
func (c *call) named() bool { return strings.HasPrefix(c.in.URL.Path, prefix) }

// rewrite makes the head of the request that goes out, but for the host and the token.
func (c *call) rewrite(r *httputil.ProxyRequest) {
	out := r.Out
	// httputil has dropped what its own reading of the query cannot parse; WeChat reads it itself.
	out.URL = &url.URL{Path: c.path, RawQuery: c.query}
	out.Host, out.TransferEncoding, out.Trailer = "", nil, nil
	if c.stream != nil {
		c.stream.body = out.Body // which httputil shuts when this call is over
	}
	for _, name := range dropped {
		delete(out.Header, name)
	}
	for name := range out.Header {
		if strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Wxtoken-") {
			delete(out.Header, name)
		}
	}
	if c.inject {
		out.Header["Accept-Encoding"] = []string{"identity"}
	}
}

// dropped are the headers that do not go on, besides those that httputil takes away: they are meant
// for this listener, or would reveal it to WeChat. Expect is answered here: WeChat gets the body at
// once.
var dropped = [...]string{"Authorization", "Connection", "Cookie", "Expect", "Te", "Upgrade", "X-Real-Ip"}

// RoundTrip sends the request with a token, and once more if WeChat rejects it. Trailers are not
// passed on: WeChat has none, and one may repeat the query.
func (c *call) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := c.exchange(req)
	if err != nil {
		return nil, err
	}
	out := *res // net/http adds trailers to its own response when the body ends
	out.Trailer = nil
	return &out, nil
}

func (c *call) exchange(req *http.Request) (*http.Response, error) {
	if !c.inject {
		return c.send(req)
	}
	if foreign := c.foreignToken(); !foreign.Empty() {
		res, rejected, err := c.sendWith(req, tokencache.Token{Value: foreign})
		if !rejected || c.stream != nil {
			return res, err
		}
		c.p.rejected.add(foreign)
		token, err := c.p.cache.Get(c.ctx, c.app.Key)
		if err != nil {
			return res, nil
		}
		return c.repeat(req, res, token)
	}
	token, err := c.usable(c.p.cache.Get(c.ctx, c.app.Key))
	if err == nil && c.stream != nil {
		token, err = c.proven(token)
	}
	if err != nil {
		return nil, err
	}
	res, rejected, err := c.sendWith(req, token)
	if !rejected {
		return res, err
	}
	// The cache compares: if the token was replaced meanwhile, this costs nothing. If a probe finds
	// that WeChat accepts the token, WeChat's servers disagree for a moment, and the next one may
	// accept it, too.
	next, err := c.usable(c.p.cache.Report(c.ctx, c.app.Key, token.Value))
	if err == nil && next.Value.Equal(token.Value) && next.Stale {
		err = noToken(c.app.API(), next.Err)
	}
	switch {
	case err != nil:
		// WeChat's answer would make an SDK fetch a token, which is the same one, and call again at
		// once.
		_ = res.Body.Close()
		return nil, err
	case c.stream != nil:
		return res, nil // the caller's own retry finds the next one
	}
	return c.repeat(req, res, next)
}

// usable returns what the cache gave, unless that is nothing, or a token that WeChat rejects.
func (c *call) usable(token tokencache.Token, err error) (tokencache.Token, error) {
	if err == nil && token.Rejected && token.Stale {
		err = token.Err
	}
	if err != nil {
		return token, noToken(c.app.API(), err)
	}
	return token, nil
}

// proven returns a token that WeChat has just accepted, for a body that cannot be sent twice.
func (c *call) proven(token tokencache.Token) (tokencache.Token, error) {
	if !c.p.proofs.wanted(c.app.Key, token.Value) {
		return token, nil
	}
	err := c.p.probe(c.ctx, c.app.Key, token.Value)
	if !errors.Is(err, tokencache.ErrRejected) {
		return token, nil // or WeChat gives no clear answer, and the call may get one
	}
	next, err := c.usable(c.p.cache.Report(c.ctx, c.app.Key, token.Value))
	c.patience.renew()
	return next, err
}

// repeat throws the answer away, and sends the request again with a token.
func (c *call) repeat(req *http.Request, rejected *http.Response, token tokencache.Token) (*http.Response, error) {
	_ = rejected.Body.Close()
	c.result.Retried = true
	c.patience.renew()
	res, _, err := c.sendWith(req, token)
	return res, err
}

// shortestToken is less than any access token has: WeChat's and WeCom's have more than 100
// characters. What is shorter is a placeholder in an SDK's configuration.
const shortestToken = 32

// foreignToken returns the caller's token if it is to be sent as it came: it is no current or
// lately replaced one of an app that is configured here, so it may be another account's; and WeChat
// has not rejected it lately. Empty: there is none.
func (c *call) foreignToken() secret.String {
	sent, _ := param(c.in.URL.RawQuery, c.param)
	token := secret.New(sent)
	if len(sent) < shortestToken || c.p.rejected.has(token) {
		return secret.String{}
	}
	if _, ours := c.p.cache.Lookup(token); ours {
		return secret.String{}
	}
	c.result.Foreign = true
	return token
}

// sendWith sends the request with a token, and reports whether WeChat rejected it.
func (c *call) sendWith(req *http.Request, token tokencache.Token) (_ *http.Response, rejected bool, _ error) {
	c.token = token
	req = req.WithContext(req.Context())
	u := *req.URL
	u.RawQuery = withParam(u.RawQuery, c.param, token.Value)
	req.URL = &u
	res, err := c.send(req)
	if err != nil {
		return nil, false, err
	}
	c.result.Errcode = peek(res)
	rejected = wechat.Classify(c.app.API(), c.result.Errcode) == wechat.ClassBadToken
	if !rejected && res.StatusCode == http.StatusOK && !c.result.Foreign {
		c.p.proofs.saw(c.app.Key, token.Value)
	}
	return res, rejected, nil
}

// send makes one exchange with the first of the app's hosts to which there is a connection.
func (c *call) send(req *http.Request) (res *http.Response, err error) {
	for _, base := range c.p.hosts.order(c.app.Upstreams) {
		c.asked.Store(false)
		c.got.Store(false)
		res, err = c.p.transport.RoundTrip(c.attempt(req, base))
		if err == nil {
			break
		}
		if c.sent() || c.ctx.Err() != nil {
			return nil, err
		}
		c.p.hosts.failed(base)
	}
	return res, err
}

// attempt returns the request for one host. Its body is one that can be closed without harm to the
// next attempt.
func (c *call) attempt(req *http.Request, base *url.URL) *http.Request {
	// Without httputil's own trace, which passes 1xx answers on: their heads may repeat the query.
	out := req.WithContext(c.ctx)
	out.URL = &url.URL{Scheme: base.Scheme, Host: base.Host, Path: strings.TrimSuffix(base.Path, "/") + c.path, RawQuery: req.URL.RawQuery}
	switch {
	case c.stream != nil:
		out.Body, out.ContentLength = io.NopCloser(c.stream), c.in.ContentLength
	case len(c.kept) > 0:
		// With GetBody, net/http can also take another connection when a reused one turns out to be
		// dead before anything was written.
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.kept)), nil }
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(c.kept)), int64(len(c.kept))
	default:
		out.Body, out.ContentLength = http.NoBody, 0
	}
	return out
}

// trace returns a context in which the transport reports whether it got a connection. It asks for
// one before it writes: between the two nothing can have been written, after the second, anything.
func (c *call) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { c.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { c.got.Store(true) },
	})
}

// sent reports whether the last attempt may have reached WeChat. A transport that reports nothing
// leaves us in the dark, which counts as sent.
func (c *call) sent() bool { return c.got.Load() || !c.asked.Load() }

// stamp finishes the head of the answer.
func (c *call) stamp(res *http.Response) error {
	if returnsRefreshTokens[strings.ToLower(strings.TrimSuffix(c.path, "/"))] && c.p.apps().HasThirdParties() {
		if err := hideRefreshTokens(res); err != nil {
			return err
		}
	}
	h := res.Header
	for name := range h {
		if strings.HasPrefix(name, "X-Wxtoken-") {
			delete(h, name)
		}
	}
	h.Del("Alt-Svc") // of WeChat's host, not of this one
	h.Del("Trailer")
	if c.result.Secret {
		scrub(h, c.app.Secret)
	}
	if c.inject {
		scrub(h, c.token.Value)
		if c.token.Version > 0 {
			h["X-Wxtoken-Version"] = []string{strconv.FormatInt(c.token.Version, 10)}
		}
		if c.result.Foreign {
			h["X-Wxtoken-Foreign"] = []string{"1"}
		}
		if c.token.Stale {
			h["X-Wxtoken-Stale"] = []string{"1"}
		}
		if c.result.Retried {
			h["X-Wxtoken-Retried"] = []string{"1"}
		}
	}
	c.result.Status = res.StatusCode
	c.answering.Store(true)
	if _, all := res.Body.(inMemory); !all {
		c.out.stream = true
		c.patience.renew()
		res.Body = &answerBody{res.Body, c} // which also keeps httputil from making a tunnel of a 101
	}
	return nil
}

// scrub takes a token or a secret out of the headers: a redirect may repeat the query, in any
// spelling.
func scrub(h http.Header, token secret.String) {
	least := len(token.Reveal())
	for _, values := range h {
		for i, v := range values {
			if len(v) < least {
				continue
			}
			if values[i] = secret.Scrub(v, token); encodes(values[i], token) {
				values[i] = secret.Scrub(token.Reveal(), token) // nothing of it is worth the risk
			}
		}
	}
}

// encodes reports whether text holds the token once what is percent-encoded in it is decoded, as
// often as that takes.
func encodes(text string, token secret.String) bool {
	for strings.ContainsRune(text, '%') {
		plain := percentDecoded(text)
		if plain == text {
			return false
		}
		if text = plain; strings.Contains(text, token.Reveal()) {
			return true
		}
	}
	return false
}

// percentDecoded decodes every %XX of text, and leaves what only looks like one.
func percentDecoded(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if c, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// answerBody is the body of an answer, whose end the call wants to know.
type answerBody struct {
	io.ReadCloser
	c *call
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.c.patience.renew()
	}
	if err != nil && err != io.EOF {
		b.c.result.Err = safeError(err)
	}
	return n, err
}

// expire ends a call on which nothing moved for too long: also where it waits for its caller, which
// the context does not reach.
func (c *call) expire(w http.ResponseWriter, cancel context.CancelCauseFunc) {
	cancel(errStalled)
	past, caller := time.Unix(1, 0), http.NewResponseController(w)
	if c.answering.Load() {
		_ = caller.SetWriteDeadline(past) // if that is not possible, the server's own deadlines remain
	} else if c.reading.Load() {
		_ = caller.SetReadDeadline(past)
	}
}

// fail is the one place where an error becomes an answer.
func (c *call) fail(w http.ResponseWriter, r *http.Request, err error) {
	no, ok := errors.AsType[*refusal](err)
	stalled := errors.Is(context.Cause(c.ctx), errStalled)
	switch {
	case !stalled && (c.ctx.Err() != nil || c.stream.failed()):
		no = &refusal{outcome: Canceled, status: http.StatusBadRequest, errcode: -1, text: "the caller hung up"}
	case ok:
	case stalled:
		no = late(c.p.opts.Timeout, c.sent())
	default:
		no = unanswered(err, c.sent())
	}
	c.result.Outcome, c.result.Status, c.result.Errcode, c.result.Err = no.outcome, no.status, no.errcode, no.cause
	if no.outcome == Canceled {
		c.result.Status = 0
	}
	no.write(w, c.in.Method)
}
