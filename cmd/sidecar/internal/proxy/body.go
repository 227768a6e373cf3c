package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
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
	if r.ContentLength > limit {
		c.stream = &stream{c: c}
		return nil
	}
	// The declared length is not allocated beforehand: who declares much must also send it.
	var kept bytes.Buffer
	_, err := kept.ReadFrom(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil && errors.Is(context.Cause(c.ctx), errStalled):
		return &refusal{outcome: Timeout, status: http.StatusRequestTimeout, errcode: -1, text: "the request body did not come in time"}
	case err != nil:
		return &refusal{outcome: Canceled, status: http.StatusBadRequest, errcode: -1, text: "the request body broke off"}
	case int64(kept.Len()) > limit:
		return refuse(http.StatusLengthRequired, "a chunked body of this length cannot be forwarded, because WeChat wants to know the length beforehand: send Content-Length")
	}
	c.kept = kept.Bytes()
	c.reading.Store(false)
	return nil
}

// stream is a body that is passed on as it comes. Nothing of it can be had twice.
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
