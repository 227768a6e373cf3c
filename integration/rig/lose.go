package rig

import (
	"bytes"
	"sync"
	"testing"
)

// How says in which way a command and its reply do not come together.
type How int

const (
	// Broken: Redis has acted, then the connection breaks.
	Broken How = iota
	// Silent: Redis has acted, and its reply never comes.
	Silent
	// Unsent: the command never reaches Redis, and nothing comes back.
	Unsent
)

// loss is a rule that waits for commands, on one link or on several.
type loss struct {
	script string
	how    How
	struck chan *Link // of 1: receives each

	mu   sync.Mutex
	left int
}

// LoseReply lets the next n replies to a script be lost, of all that pass the links. The script is
// load, begin, commit, finish or cut, or obtain or release for those of the lease. The channel
// reports on which link one is (Unsent: would have been) applied; it keeps only one message.
// [Link.Heal] takes a link out.
//
// go-redis repeats a command on a connection that broke, up to 3 times, and the scripts are made
// for that; more losses than that make an operation fail.
func LoseReply(t testing.TB, script string, n int, how How, links ...*Link) <-chan *Link {
	t.Helper()
	if !knownScript(t, script) {
		t.Fatalf("no script %q", script)
	}
	s := &loss{script: script, left: n, how: how, struck: make(chan *Link, 1)}
	for _, l := range links {
		l.set(func() { l.losses = append(l.losses, s) })
	}
	return s.struck
}

// Lost returns how many replies were lost on the link since it was healed.
func (l *Link) Lost() (n int) {
	l.set(func() { n = l.lost })
	return n
}

// take reports whether the rule is for a command of this name, which it then uses up.
func (s *loss) take(script string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 || s.script != script {
		return false
	}
	s.left--
	return true
}

// giveBack undoes take.
func (s *loss) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left++
}

// strike must be called with the link's mutex held.
func (s *loss) strike(l *Link) {
	l.lost++
	l.torn = l.torn || s.how != Broken
	select {
	case s.struck <- l:
	default:
	}
}

type verdict int

const (
	verdictPass verdict = iota
	verdictSwallow
	verdictCut
)

// judge says what becomes of a command.
func (l *Link) judge(w *wire, c command) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hole {
		return verdictSwallow
	}
	if l.deaf && c.is("SUBSCRIBE") {
		return verdictCut
	}
	script := scriptOf(c)
	for _, s := range l.losses {
		if script == "" || !s.take(script) {
			continue
		}
		if s.how == Unsent {
			s.strike(l)
			return verdictSwallow
		}
		w.mu.Lock()
		w.losing = s
		w.mu.Unlock()
		return verdictPass
	}
	return verdictPass
}

// reply says what becomes of an answer.
func (l *Link) reply(w *wire, answer []byte) verdict {
	w.mu.Lock()
	s := w.losing
	w.losing = nil
	w.mu.Unlock()
	if s == nil {
		return verdictPass
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.HasPrefix(answer, []byte("-NOSCRIPT")) {
		s.giveBack() // nothing was done; the script itself comes next
		return verdictPass
	}
	s.strike(l)
	if s.how == Broken {
		return verdictCut
	}
	return verdictSwallow
}
