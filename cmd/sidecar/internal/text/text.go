// Package text puts durations, counts and failures of Redis into words for people.
package text

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Span says a duration in at most two units: "1 h 42 min".
func Span(s int64) string {
	d := time.Duration(s) * time.Second
	switch {
	case s < 0:
		return "0 s"
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 600 && s%60 != 0:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case d < 48*time.Hour && s/60%60 != 0:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", s/3600)
	}
	return fmt.Sprintf("%d days", s/86400)
}

// Ago says how long ago something was: one unit is enough.
func Ago(s int64) string {
	switch {
	case s < 1:
		return "just now"
	case s < 60:
		return fmt.Sprintf("%d s ago", s)
	case s < 3600:
		return fmt.Sprintf("%d min ago", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h ago", s/3600)
	}
	return fmt.Sprintf("%d days ago", s/86400)
}

// Took says how long something took; "" if that is not known.
func Took(ms int64) string {
	switch {
	case ms <= 0:
		return ""
	case ms < 1000:
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}

// Count returns n things, in the singular or the plural.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// OneLine keeps a text of another program from being more than one line, and from being anything
// else to a terminal: white space becomes single spaces, and what cannot be printed is left out.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " "))
}
