package web

import (
	"iter"
	"net/http"
	"strconv"
	"strings"
)

// Format is what a caller wants to read.
type Format int

const (
	formatJSON Format = iota
	FormatText        // the bare value
)

// formatOf returns what an Accept header prefers. In doubt it is JSON: libraries send text/plain
// beside JSON, and */*, without meaning it.
func formatOf(accept []string) Format {
	if len(accept) == 0 || accept[0] == "*/*" {
		return formatJSON
	}
	var text, json quality
	for name, q := range mediaRanges(accept) {
		switch name {
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
	if text.q > json.q {
		return FormatText
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

// mediaRanges returns the media ranges of an Accept header, in lower case, each with its quality.
func mediaRanges(accept []string) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for _, line := range accept {
			for part := range strings.SplitSeq(line, ",") {
				name, q := mediaRange(part)
				if !yield(strings.ToLower(name), q) {
					return
				}
			}
		}
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

// WantsHTML reports whether an Accept header names HTML, and likes it better than JSON. That is
// what browsers send; curl and monitoring send anything but.
func WantsHTML(accept []string) bool {
	var html, json quality
	for name, q := range mediaRanges(accept) {
		switch name {
		case "text/html":
			html.set(q, 3)
		case "application/json":
			json.set(q, 3)
		case "application/*":
			json.set(q, 2)
		case "*/*":
			json.set(q, 1)
		}
	}
	return html.q > json.q
}

// AcceptsGzip reports whether a scraper takes gzip.
func AcceptsGzip(h http.Header) bool {
	for _, line := range h["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			if name, q := mediaRange(part); strings.EqualFold(name, "gzip") {
				return q > 0
			}
		}
	}
	return false
}
