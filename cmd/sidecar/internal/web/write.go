// Package web is what every HTTP listener of the sidecar shares: answers and problems, the mux,
// content negotiation, and recovery from panics. It is the one place where an error becomes a
// status and where bytes are written.
package web

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
)

// Answer is what an endpoint returns. It appends itself, because an encoder that reflects would
// cost more than the rest of a hit.
type Answer interface {
	// AppendBody appends the answer to buf, and returns its Content-Type. One that has no text form
	// ignores the format.
	AppendBody(buf []byte, f Format) ([]byte, []string)
}

// Header values that are the same in every answer. They are shared and must not be changed.
var (
	TypeJSON    = []string{"application/json"}
	TypeText    = []string{"text/plain; charset=utf-8"}
	typeProblem = []string{"application/problem+json"}
	noStore     = []string{"no-store"}
	noSniff     = []string{"nosniff"}
)

var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, 1024)) }}

// counted is the length up to which net/http counts a body by itself. It then writes the
// Content-Length without a header that it would have to copy, sort and check.
const counted = 2 << 10

// Write is the one place that writes answers.
func Write[A Answer](w http.ResponseWriter, r *http.Request, status int, a A) {
	buf := buffers.Get().(*[]byte)
	body, contentType := a.AppendBody((*buf)[:0], formatOf(r.Header["Accept"]))
	h := w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	if r.Method == http.MethodHead || len(body) > counted {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // an error means that the caller is gone
	}
	clear(body) // no value stays behind in the pool
	*buf = body[:0]
	buffers.Put(buf)
}

// AppendString appends s as a JSON string. Values are plain ASCII in practice; the rest is left to
// the standard library.
func AppendString(buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(buf, `""`...) // cannot be: a string
			}
			return append(buf, quoted...)
		}
	}
	buf = append(buf, '"')
	buf = append(buf, s...)
	return append(buf, '"')
}

// Fail answers with an error.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	p := ProblemOf(err)
	p.Header(w.Header())
	Write(w, r, p.Status, p)
}

// Text is an answer for people.
type Text string

func (t Text) AppendBody(buf []byte, _ Format) ([]byte, []string) { return append(buf, t...), TypeText }

// JSON is an answer that has one form. V is of types that can be encoded.
type JSON struct{ V any }

func (a JSON) AppendBody(buf []byte, _ Format) ([]byte, []string) {
	body, err := json.Marshal(a.V)
	if err != nil {
		return buf, TypeJSON // cannot be: texts and numbers
	}
	return append(append(buf, body...), '\n'), TypeJSON
}
