package secret

import "regexp"

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
// [Scrub] knows. It is for go-redis' own log, say.
func ScrubRedis(text string, secrets ...String) string {
	text = repeatedArgs.ReplaceAllString(text, "$1: "+redacted)
	text = quotedReply.ReplaceAllString(text, `$1"`+redacted+`"`)
	return Scrub(text, secrets...)
}

// ScrubRedisError returns an error with a text as of [ScrubRedis], and err inside for [errors.Is]
// and [errors.As]. What they find must not be printed. An err whose text is clean is returned
// as it is.
func ScrubRedisError(err error, secrets ...String) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if clean := ScrubRedis(text, secrets...); clean != text {
		return &scrubbed{clean, err}
	}
	return err
}

// scrubbed is an error with a text that can be shown.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string { return e.text }

func (e *scrubbed) Unwrap() error { return e.err }
