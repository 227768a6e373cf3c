package config

import (
	"fmt"
	"strings"
)

// Errors is what [Load] returns: every mistake it found, never none. Find it with errors.AsType.
type Errors struct{ Mistakes []Mistake }

// Mistake is one thing to correct. Neither part holds a value that was configured.
type Mistake struct {
	// Path is the place as its author wrote it: apps[1].secret_file in the file, REDIS_URL in the
	// environment, --listen among the flags. A mistake of the whole file has the path of the file.
	Path string
	// Text says what is wrong and what to do.
	Text string
}

// String returns the mistake as one line.
func (m Mistake) String() string { return m.Path + ": " + m.Text }

// Error returns one mistake on one line, more of them on one line each below a heading.
func (e *Errors) Error() string {
	if len(e.Mistakes) == 1 {
		return "config: " + e.Mistakes[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "config: %d mistakes", len(e.Mistakes))
	for _, m := range e.Mistakes {
		b.WriteString("\n  " + m.String())
	}
	return b.String()
}

// notes collects what Load finds. The zero value is ready.
type notes struct {
	mistakes []Mistake
	warnings []string
}

func (n *notes) mistake(path, format string, args ...any) {
	n.mistakes = append(n.mistakes, Mistake{path, fmt.Sprintf(format, args...)})
}

func (n *notes) warn(path, format string, args ...any) {
	n.warnings = append(n.warnings, Mistake{path, fmt.Sprintf(format, args...)}.String())
}
