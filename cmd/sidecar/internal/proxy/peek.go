package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

// maxPeek bounds the answers that are looked at, in bytes. WeChat's errors have a few hundred.
const maxPeek = 64 << 10

// peek returns the errcode of an answer that is a small JSON object, else 0. It leaves the body
// unread for the caller; of an answer that is no JSON object, or too long, it reads no more
// than it takes to see that. An answer that was read to its end holds no connection any more.
func peek(res *http.Response) int {
	if !isPeekable(res) {
		return 0
	}
	body, buf := res.Body, make([]byte, 0, max(512, res.ContentLength))
	var err error
	for err == nil && len(buf) <= maxPeek && mayBeObject(buf) && int64(len(buf)) != res.ContentLength {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		var n int
		n, err = body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
	if err != io.EOF && int64(len(buf)) != res.ContentLength {
		// Too long, no object, or broken off: what was read, and then what follows, or what broke
		// it.
		rest := io.Reader(body)
		if err != nil {
			rest = broken{err}
		}
		res.Body = readCloser{io.MultiReader(bytes.NewReader(buf), rest), body}
		return 0
	}
	_ = body.Close() // read to its end: the connection can be used again
	res.Body, res.ContentLength = inMemory{bytes.NewReader(buf)}, int64(len(buf))
	if !bytes.Contains(buf, []byte("errcode")) || len(buf) > maxPeek {
		return 0
	}
	code, _ := wechat.Errcode(buf)
	return code
}

// isPeekable reports whether an answer may be an error of WeChat, as far as its head shows. Its
// media type shows nothing: WeChat says application/json with all sorts of parameters, some that do
// not parse, text/plain, octet-stream, or nothing. The first bytes decide. One that is compressed
// although it was asked for as it is begins with no brace.
func isPeekable(res *http.Response) bool {
	return res.ContentLength <= maxPeek && res.ContentLength != 0 && res.StatusCode != http.StatusPartialContent &&
		(res.Request == nil || res.Request.Method != http.MethodHead)
}

// mayBeObject reports whether a JSON object may begin with b.
func mayBeObject(b []byte) bool {
	const mark = "\xef\xbb\xbf" // WeChat was seen to send a byte order mark
	if len(b) < len(mark) && strings.HasPrefix(mark, string(b)) {
		return true
	}
	b = bytes.TrimLeft(bytes.TrimPrefix(b, []byte(mark)), " \t\r\n")
	return len(b) == 0 || b[0] == '{'
}

// inMemory is a body that was read to its end.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

type readCloser struct {
	io.Reader
	io.Closer
}

// broken is a reader that has met an error.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// rejectedTokens are callers' tokens that WeChat has rejected lately: a placeholder in an SDK's
// configuration, or one that was replaced before this sidecar started. They are not sent a second
// time. The zero value is ready for use. Safe for concurrent use.
type rejectedTokens struct {
	mu   sync.Mutex
	list [64]rejectedToken
	next int
}

type rejectedToken struct {
	token secret.String
	at    time.Time
}

// rejectedFor is how long a token that WeChat rejected is not tried again: WeChat's servers may
// disagree for a while.
const rejectedFor = 10 * time.Minute

func (r *rejectedTokens) add(token secret.String) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list[r.next%len(r.list)] = rejectedToken{token, time.Now()}
	r.next++
}

func (r *rejectedTokens) has(token secret.String) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.list {
		if !one.token.Empty() && one.token.Equal(token) {
			return time.Since(one.at) < rejectedFor
		}
	}
	return false
}
