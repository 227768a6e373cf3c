package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// keepBody reads the body if it can be kept, so that it can be sent again, and with its length:
// WeChat answers a chunked request with 412. A longer one will be streamed, if its length is known.
func (c *call) keepBody() *refusal {
	r, limit := c.in, max(0, c.p.opts.MaxReplay)
	c.reading.Store(true)
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		c.reading.Store(false)
		return nil
	}
	if r.ContentLength > limit || r.ContentLength > 0 && !c.reserve(r.ContentLength) {
		c.stream = &stream{c: c}
		return nil
	}
	// The declared length is not allocated beforehand: only bytes that the caller sends take memory.
	kept, err := c.readBody(limit)
	switch {
	case errors.Is(err, errNoRoom):
		return &refusal{outcome: Overloaded, status: http.StatusOK, errcode: -1, retryAfter: time.Second,
			text: "too many bodies are kept at once, and a chunked one cannot be streamed, because WeChat wants to know the length beforehand: send Content-Length, or try again"}
	case err != nil && errors.Is(context.Cause(c.ctx), errStalled):
		return &refusal{outcome: Timeout, status: http.StatusRequestTimeout, errcode: -1, text: "the request body did not come in time"}
	case err != nil:
		return &refusal{outcome: Canceled, status: http.StatusBadRequest, errcode: -1, text: "the request body broke off"}
	case int64(len(kept)) > limit:
		return refuse(http.StatusLengthRequired, "a chunked body of this length cannot be forwarded, because WeChat wants to know the length beforehand: send Content-Length")
	}
	c.kept = kept
	c.reading.Store(false)
	return nil
}

// errNoRoom says that the budget of kept bodies is spent.
var errNoRoom = errors.New("proxy: no room for a body")

// readBody reads the body up to one byte more than limit, and reserves what it reads.
func (c *call) readBody(limit int64) ([]byte, error) {
	var kept []byte
	from := io.LimitReader(c.in.Body, limit+1)
	for {
		if len(kept) == cap(kept) {
			// The buffer at most doubles; when the rest is known to be less, it grows by the rest.
			grow := max(4<<10, len(kept))
			if rest := c.in.ContentLength + 1 - int64(len(kept)); rest > 0 {
				grow = int(min(int64(grow), rest))
			}
			kept = slices.Grow(kept, grow)
		}
		n, err := from.Read(kept[len(kept):cap(kept)])
		kept = kept[:len(kept)+n]
		if more := int64(len(kept)) - c.reserved; more > 0 && !c.reserve(more) {
			return nil, errNoRoom
		}
		if err == io.EOF {
			return kept, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// reserve takes n bytes of the budget for this call, if there are so many.
func (c *call) reserve(n int64) bool {
	if !c.p.kept.take(n) {
		return false
	}
	c.reserved += n
	return true
}

// releaseBody gives back what the call reserved.
func (c *call) releaseBody() { c.p.kept.give(c.reserved) }

// budget is a number of bytes that all calls share. Safe for concurrent use.
type budget struct {
	limit int64
	spent atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.spent.Add(n) > b.limit {
		b.spent.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.spent.Add(-n) }

// stream is a body that is passed on as it comes. It cannot be read twice.
type stream struct {
	c      *call
	body   io.Reader
	broken atomic.Bool
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if n > 0 {
		s.c.patience.renew()
	}
	switch {
	case err == io.EOF:
		s.c.reading.Store(false)
	case err != nil:
		s.broken.Store(true)
	}
	return n, err
}

// failed reports whether the caller broke off in the middle. A nil stream has not.
func (s *stream) failed() bool { return s != nil && s.broken.Load() }
