package wechattest

import (
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// Effect is what a [Fault] does to a call.
type Effect string

// The effects. WeChat sees the call, and counts it, in all of them; whether it acts on it is the
// fault's After. EffectText, EffectTruncate and EffectCut alter the true answer, so it always does.
const (
	EffectNone     Effect = ""         // only the delay
	EffectErrcode  Effect = "errcode"  // 200 with Code and Message
	EffectStatus   Effect = "status"   // an HTML page with an HTTP status
	EffectHTML     Effect = "html"     // a 200 with an HTML page that quotes the request's URL
	EffectEmpty    Effect = "empty"    // a 200 with an empty body
	EffectRedirect Effect = "redirect" // a 302 to another host, query included
	EffectHang     Effect = "hang"     // no answer until the caller gives up
	EffectReset    Effect = "reset"    // the connection breaks without an answer
	EffectText     Effect = "text"     // the true answer as text/plain
	EffectTruncate Effect = "truncate" // half of the true answer, as a complete HTTP message
	EffectCut      Effect = "cut"      // half of the true answer, then the connection breaks
)

// A Fault is an accident that awaits calls. The zero value does nothing to every call, for ever.
type Fault struct {
	// Path and App select the calls; empty selects all. App is a name as of [App.Name].
	Path string `json:"path,omitempty"`
	App  string `json:"app,omitempty"`
	// Skip lets so many selected calls pass first. Then Count calls are struck; 0 is all.
	Skip  int `json:"skip,omitempty"`
	Count int `json:"count,omitempty"`

	Effect Effect `json:"effect,omitempty"`
	// After lets WeChat act on the call first, so that only the answer suffers: with EffectReset a
	// token is issued whose answer is lost; with a Delay, answers overtake each other.
	After bool `json:"after,omitempty"`
	// Delay holds the call before the effect, or if After, the answer.
	Delay time.Duration `json:"delay,omitempty"`
	// Code and Message belong to EffectErrcode. Empty is the usual errmsg; one that is given is
	// sent as it is, with neither rid nor hint.
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Status belongs to EffectStatus. 0 is 502.
	Status int `json:"status,omitempty"`
}

// AddFault lets a fault wait for its calls. Of several that match, the one added first strikes.
func (s *Server) AddFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults takes all faults away. Calls already struck stay so.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFault returns the fault that strikes a call, or nil. Caller holds s.mu.
func (s *Server) takeFault(c *call) *Fault {
	for i, f := range s.faults {
		if f.Path != "" && f.Path != c.r.URL.Path || f.App != "" && f.App != c.app.Name() {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		struck := *f
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
		}
		return &struck
	}
	return nil
}

// strike serves a call under a fault. It panics with [http.ErrAbortHandler] where the connection
// has to break.
func (s *Server) strike(f *Fault, c *call, w http.ResponseWriter) {
	after := f.After
	switch f.Effect {
	case EffectText, EffectTruncate, EffectCut:
		after = true
	}
	var rep reply
	if after {
		rep = s.act(c)
	}
	if !sleep(c.r.Context(), f.Delay) {
		return
	}
	if f.Effect == EffectNone && !after {
		rep = s.act(c)
	}
	f.distort(c, rep, w)
}

// distort writes what the fault leaves of the answer.
func (f *Fault) distort(c *call, rep reply, w http.ResponseWriter) {
	switch f.Effect {
	case EffectErrcode:
		rep = c.fail(f.Code)
		if f.Message != "" {
			rep = c.errcode(f.Code, f.Message, "")
		}
	case EffectStatus:
		rep = html("<html><body><h1>Bad Gateway</h1></body></html>")
		if rep.status = f.Status; rep.status == 0 {
			rep.status = http.StatusBadGateway
		}
	case EffectHTML:
		rep = html("<html><body>Cannot open " + c.r.URL.String() + "</body></html>")
	case EffectEmpty:
		rep = reply{status: http.StatusOK}
	case EffectRedirect:
		rep = html("")
		rep.status = http.StatusFound
		rep.header.Set("Location", "http://elsewhere.invalid"+c.r.URL.RequestURI())
	case EffectHang:
		<-c.r.Context().Done()
		return
	case EffectReset:
		reset(w)
	case EffectText:
		rep.header.Set("Content-Type", "text/plain")
	case EffectTruncate:
		rep.body, rep.media = rep.body[:len(rep.body)/2], rep.media/2
	case EffectCut:
		rep.cut(w)
	}
	rep.write(w)
}

func html(body string) reply {
	return reply{
		status: http.StatusOK, body: []byte(body),
		header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
	}
}

// cut sends half of the body under the length of the whole, then ends the connection.
func (rep reply) cut(w http.ResponseWriter) {
	rep.writeHeader(w)
	_, _ = io.CopyN(w, rep.reader(), rep.length()/2)
	_ = http.NewResponseController(w).Flush() // if it cannot, the client sees no answer at all
	panic(http.ErrAbortHandler)
}

// reset breaks the connection: with a TCP reset where there is TCP.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}
