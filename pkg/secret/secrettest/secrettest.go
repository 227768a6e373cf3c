// Package secrettest finds secrets in what a program under test printed, answered or stored,
// whatever was done to them on the way. It shares no code with what keeps them out.
//
// It is a test kit: its API is not under semantic versioning and may change in any release.
package secrettest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// leastForm is how long an encoded form must be, in bytes: shorter ones occur by chance. So a value
// should have 8 bytes or more; a shorter one is found verbatim, and in hex.
const leastForm = 6

// Forms returns how a value can show up inside a text: verbatim, escaped for a URL, JSON, Go or
// HTML, in hex, and in base64 of either alphabet, also of a longer text that has the value in it.
// An empty value has none.
func Forms(value string) []string {
	if value == "" {
		return nil
	}
	forms := []string{value}
	asJSON, _ := json.Marshal(value) // a string: cannot fail
	inHex := hex.EncodeToString([]byte(value))
	others := []string{
		url.QueryEscape(value), lowerEscapes(url.QueryEscape(value)), url.PathEscape(value), lowerEscapes(url.PathEscape(value)),
		url.QueryEscape(url.QueryEscape(value)),
		strings.Trim(string(asJSON), `"`), strings.ReplaceAll(strings.Trim(string(asJSON), `"`), "/", `\/`),
		strings.Trim(strconv.Quote(value), `"`), strings.Trim(strconv.QuoteToASCII(value), `"`),
		html.EscapeString(value), strings.ReplaceAll(html.EscapeString(value), "+", "&#43;"),
		inHex, strings.ToUpper(inHex),
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for offset := range 3 {
			others = append(others, inBase64(encoding, value, offset))
		}
	}
	for _, form := range others {
		if len(form) >= leastForm && !slices.Contains(forms, form) {
			forms = append(forms, form)
		}
	}
	return forms
}

// inBase64 returns the characters that depend on value alone when a text is encoded that has offset
// bytes, or offset and a multiple of 3, before it. A value that is the whole text is found by them,
// too, with and without padding.
func inBase64(encoding *base64.Encoding, value string, offset int) string {
	text := encoding.EncodeToString(append(make([]byte, offset), value...))
	first := (offset*8 + 5) / 6
	last := (offset + len(value)) * 8 / 6
	return text[min(first, last):last]
}

// lowerEscapes writes the hex digits of percent-encoding small.
func lowerEscapes(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			b.WriteString(strings.ToLower(text[i : i+3]))
			i += 2
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// Find returns the first form of one of the values that text has in it, empty if it has none.
func Find(text string, values ...string) string {
	for _, value := range values {
		for _, form := range Forms(value) {
			if strings.Contains(text, form) {
				return form
			}
		}
	}
	return ""
}
