package proxy

import (
	"net/url"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
)

const accessToken = "access_token"

// param returns the first parameter of that name, decoded, and reports whether there is one.
func param(rawQuery, name string) (string, bool) {
	for part := range strings.SplitSeq(rawQuery, "&") {
		key, value, _ := strings.Cut(part, "=")
		if !isKey(key, name) {
			continue
		}
		if text, err := url.QueryUnescape(value); err == nil {
			value = text
		}
		return value, true
	}
	return "", false
}

// isKey reports whether key, as a query encodes it, decodes to name.
func isKey(key, name string) bool {
	if key == name {
		return true
	}
	if !strings.ContainsRune(key, '%') {
		return false
	}
	text, err := url.QueryUnescape(key)
	return err == nil && text == name
}

// withToken returns the query with the token in front and without any other. The rest stays byte
// for byte, because a signature or a picky parser may depend on it. In front, because there a stray
// # or ; in the rest cannot swallow it.
func withToken(rawQuery string, token secret.String) string {
	var b strings.Builder
	value := url.QueryEscape(token.Reveal())
	b.Grow(len(accessToken) + 1 + len(value) + 1 + len(rawQuery))
	b.WriteString(accessToken)
	b.WriteByte('=')
	b.WriteString(value)
	if rawQuery == "" {
		return b.String()
	}
	for part := range strings.SplitSeq(rawQuery, "&") {
		if key, _, _ := strings.Cut(part, "="); isKey(key, accessToken) {
			continue
		}
		b.WriteByte('&')
		b.WriteString(part)
	}
	return b.String()
}
