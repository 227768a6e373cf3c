package tokencache

import (
	"regexp"

	"github.com/wxtoken/sidecar/pkg/secret"
)

var (
	// repeatedArgs is what a Redis appends to its complaint about a command that it does not know:
	// the arguments, cut after 128 bytes. Those of AUTH are a user and a password, those of a
	// script may be a value.
	repeatedArgs = regexp.MustCompile(`(?i)(args beginning with)[^\n]*`)
	// quotedReply is the piece of a reply that go-redis quotes when it cannot parse it.
	quotedReply = regexp.MustCompile(`((?:redis|strconv)[^"\n]*)"(?:[^"\\\n]|\\.)*"?`)
)

// ScrubRedis returns a text that came from Redis or from go-redis without what such a text can
// repeat: the arguments of a command, a piece of a reply, and the given secrets in every form that
// [secret.Scrub] knows. Every error of this package is scrubbed; use it for what goes another way,
// such as go-redis' own log.
func ScrubRedis(text string, secrets ...secret.String) string {
	text = repeatedArgs.ReplaceAllString(text, "$1: [redacted]")
	text = quotedReply.ReplaceAllString(text, `$1"[redacted]"`)
	return secret.Scrub(text, secrets...)
}

// scrubbed is an error of go-redis with a text that can be shown.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string { return e.text }

// Unwrap is for the class of the error.
func (e *scrubbed) Unwrap() error { return e.err }

// scrub returns err with a text that repeats nothing of what was sent to Redis.
func (s *store) scrub(err error) error {
	text := err.Error()
	if clean := ScrubRedis(text, s.secrets...); clean != text {
		return &scrubbed{clean, err}
	}
	return err
}
