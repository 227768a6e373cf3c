package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// format is what a caller wants to read.
type format int

const (
	formatJSON format = iota
	formatText        // the bare value
)

// answer is what an endpoint returns. It appends itself, because an encoder that reflects would
// cost more than the rest of a hit.
type answer interface {
	// appendBody appends the answer to buf, and returns its Content-Type. One that has no text form
	// ignores the format.
	appendBody(buf []byte, f format) ([]byte, []string)
}

// Header values that are the same in every answer. They are shared: nobody may change them.
var (
	typeJSON    = []string{"application/json"}
	typeText    = []string{"text/plain; charset=utf-8"}
	typeProblem = []string{"application/problem+json"}
	noStore     = []string{"no-store"}
	noSniff     = []string{"nosniff"}
)

var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, 1024)) }}

// write is the one place that writes answers.
func write[A answer](w http.ResponseWriter, r *http.Request, status int, a A) {
	buf := buffers.Get().(*[]byte)
	body, contentType := a.appendBody((*buf)[:0], formatOf(r.Header["Accept"]))
	h := w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the caller is gone: nobody to tell
	}
	clear(body) // no value stays behind in the pool
	*buf = body[:0]
	buffers.Put(buf)
}

// formatOf returns what an Accept header prefers. In doubt it is JSON: libraries send text/plain
// beside JSON, and */*, without meaning it.
func formatOf(accept []string) format {
	if len(accept) == 0 || accept[0] == "*/*" {
		return formatJSON
	}
	var text, json quality
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			name, q := mediaRange(part)
			switch strings.ToLower(name) {
			case "text/plain":
				text.set(q, 3)
			case "text/*":
				text.set(q, 2)
			case "application/json":
				json.set(q, 3)
			case "application/*":
				json.set(q, 2)
			case "*/*":
				text.set(q, 1)
				json.set(q, 1)
			}
		}
	}
	if text.q > json.q {
		return formatText
	}
	return formatJSON
}

// quality is how much a media type is wanted: what the most specific range says.
type quality struct {
	q        float64
	specific int
}

func (a *quality) set(q float64, specific int) {
	if specific > a.specific {
		*a = quality{q, specific}
	}
}

func mediaRange(part string) (name string, q float64) {
	name, params, _ := strings.Cut(part, ";")
	q = 1
	for param := range strings.SplitSeq(params, ";") {
		key, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(key), "q") {
			if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				q = n
			}
		}
	}
	return strings.TrimSpace(name), q
}

// appendString appends s as a JSON string. Values are plain ASCII in practice; the rest is left to
// the standard library.
func appendString(buf []byte, s string) []byte {
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
