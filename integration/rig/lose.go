package rig

import (
	"bytes"
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

// loss is a rule that waits for commands.
type loss struct {
	script string
	left   int
	taken  int // begun
	how    How
	struck chan struct{} // of 1: told of each
}

// Lose lets the next n replies to a script be lost. script is load, begin, commit, conclude or cut, or
// obtain or release for those of the lease. The channel tells when one is (Unsent: would have been) done;
// it keeps only one message.
//
// go-redis repeats a command on a connection that broke, up to 3 times, and the scripts are made for that;
// more losses than that make an operation fail.
func (l *Link) Lose(t testing.TB, script string, n int, how How) <-chan struct{} {
	t.Helper()
	if !knownScript(t, script) {
		t.Fatalf("no script %q", script)
	}
	s := &loss{script: script, left: n, how: how, struck: make(chan struct{}, 1)}
	l.set(func() { l.losses = append(l.losses, s) })
	return s.struck
}

// Lost returns how many replies were to be lost and were.
func (l *Link) Lost() (n int) {
	l.set(func() {
		for _, s := range l.losses {
			n += s.taken
		}
	})
	return n
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
	for _, s := range l.losses {
		if s.left == 0 || scriptOf(c) != s.script {
			continue
		}
		s.left--
		if s.how == Unsent {
			s.strike()
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
		s.left++ // nothing was done; the script itself comes next
		return verdictPass
	}
	s.strike()
	if s.how == Broken {
		return verdictCut
	}
	return verdictSwallow
}

func (s *loss) strike() {
	s.taken++
	select {
	case s.struck <- struct{}{}:
	default:
	}
}
