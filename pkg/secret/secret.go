// Package secret keeps AppSecrets and credentials out of logs, errors, panics and dumps.
//
// A [String] prints as [redacted] whatever the verb, the encoder or the nesting, and has one way
// out: [String.Reveal]. So a leak is a grep for that name.
//
// The package imports nothing of this module; every other package may import it.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

const redacted = "[redacted]"

// String holds a text that must not be printed. The zero value is the empty text. It is immutable
// and safe for concurrent use. Compare with [String.Equal]; == compares identity, not content.
//
// The text sits behind a pointer because package fmt cannot call methods on unexported fields of
// other types: it prints an address there, where it would print a plain string in clear.
type String struct{ p *string }

// New wraps s.
func New(s string) String {
	if s == "" {
		return String{}
	}
	return String{&s}
}

// Reveal returns the text. It is the only way out.
func (s String) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// Empty reports whether the text is empty.
func (s String) Empty() bool { return s.p == nil }

// Equal reports whether both hold the same text, in time that does not depend on where they differ.
func (s String) Equal(o String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Fingerprint returns the first 6 hex digits of the text's SHA-256: enough to tell two values apart
// in a log, not enough to find one. The empty text has the fingerprint "none".
func (s String) Fingerprint() string {
	if s.Empty() {
		return "none"
	}
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:3])
}

// Format implements [fmt.Formatter] for every verb.
func (String) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String implements [fmt.Stringer].
func (String) String() string { return redacted }

// MarshalText keeps the text out of JSON, YAML and every other encoder that honours it.
func (String) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Scrub returns text with every occurrence of the secrets in it, raw, quoted, URL-encoded, in
// base64 or in hex, replaced by [redacted]. It is for texts from elsewhere, which may echo what was
// sent, also cut off: the beginning of a secret counts if it has 12 bytes or more.
func Scrub(text string, secrets ...String) string {
	for _, s := range secrets {
		if s.Empty() {
			continue
		}
		all := forms(s.Reveal())
		for _, form := range all {
			text = strings.ReplaceAll(text, form, redacted)
		}
		for _, form := range all {
			text = scrubBeginning(text, form)
		}
	}
	return text
}

// leastBeginning is how much of a secret must be there to be taken for it, in bytes: less may be a
// word.
const leastBeginning = 12

// scrubBeginning replaces each beginning of form, as far as it goes.
func scrubBeginning(text, form string) string {
	if len(form) <= leastBeginning {
		return text
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, form[:leastBeginning])
		out.WriteString(before)
		if !found {
			return out.String()
		}
		n := 0
		for rest := form[leastBeginning:]; n < len(rest) && n < len(after) && rest[n] == after[n]; n++ {
		}
		out.WriteString(redacted)
		text = after[n:]
	}
}

// forms lists how a text shows up in logs and errors: raw, quoted as Go does, URL-encoded, in
// base64 with and without padding, in hex.
func forms(s string) []string {
	quoted := strconv.Quote(s)
	inHex := hex.EncodeToString([]byte(s))
	return []string{
		s,
		quoted[1 : len(quoted)-1],
		url.QueryEscape(s),
		url.PathEscape(s),
		base64.StdEncoding.EncodeToString([]byte(s)),
		base64.URLEncoding.EncodeToString([]byte(s)),
		base64.RawStdEncoding.EncodeToString([]byte(s)),
		base64.RawURLEncoding.EncodeToString([]byte(s)),
		inHex,
		strings.ToUpper(inHex),
	}
}
