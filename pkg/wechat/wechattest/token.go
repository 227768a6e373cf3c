package wechattest

import (
	"crypto/rand"
	"encoding/base64"
	"time"
)

// Status is what a token is worth.
type Status string

// What a token is worth. Only the first two work.
const (
	Current    Status = "current"    // the newest, and alive
	Previous   Status = "previous"   // replaced, in its overlap
	Superseded Status = "superseded" // replaced, overlap over
	Expired    Status = "expired"    // past its own end
	Killed     Status = "killed"     // by [Server.KillTokens]
	Unknown    Status = "unknown"    // never issued to this app
)

// token is one access token. [Server.mu] guards it.
type token struct {
	value      string
	app        *account
	issued     time.Time
	expires    time.Time
	replaced   bool
	overlapEnd time.Time // valid if replaced
	killed     bool
	killedAt   time.Time // valid if killed
	ripe       bool      // by [Server.Ripen]
	flaps      int       // calls since the overlap
}

// space is a sequence of tokens that replace each other, the newest last.
type space struct{ tokens []*token }

func (sp *space) newest() *token {
	if len(sp.tokens) == 0 {
		return nil
	}
	return sp.tokens[len(sp.tokens)-1]
}

// status says what the token is worth at a moment.
func (t *token) status(now time.Time) Status {
	switch {
	case t.killed:
		return Killed
	case !now.Before(t.expires):
		return Expired
	case !t.replaced:
		return Current
	case now.Before(t.overlapEnd):
		return Previous
	}
	return Superseded
}

// issue makes a new token the newest of a space; the one it replaces lives on for an overlap.
// Caller holds s.mu.
func (s *Server) issue(a *account, sp *space, endpoint string, overlap time.Duration) *token {
	now := time.Now()
	t := &token{value: tokenValue(a.Kind), app: a, issued: now, expires: now.Add(s.knobs.ExpiresIn)}
	keeps := s.knobs.OverlapKeeps
	if overlap == Forever {
		overlap, keeps = s.knobs.ExpiresIn, -1
	}
	sp.replace(now, overlap, keeps)
	if s.knobs.Interfere {
		for _, other := range []*space{&a.classic, &a.stable} {
			if other != sp {
				other.replace(now, overlap, s.knobs.OverlapKeeps)
			}
		}
	}
	sp.tokens = append(sp.tokens, t)
	s.tokens[t.value] = t
	a.issued = append(a.issued, Issue{At: now, Value: t.value, Endpoint: endpoint})
	a.calls.Issued++
	return t
}

// replace begins the overlap of the newest token and ends those that exceed keeps.
func (sp *space) replace(now time.Time, overlap time.Duration, keeps int) {
	if t := sp.newest(); t != nil && !t.replaced {
		t.replaced, t.overlapEnd = true, now.Add(overlap)
	}
	for i, t := range sp.tokens {
		if age := len(sp.tokens) - i; keeps >= 0 && age > keeps && t.overlapEnd.After(now) {
			t.overlapEnd = now
		}
	}
}

// check returns the errcode with which a token is rejected, 0 if it is accepted.
// Caller holds s.mu.
func (s *Server) check(t *token, now time.Time) int {
	switch t.status(now) {
	case Current, Previous:
		return 0
	case Killed:
		return s.knobs.KilledCode
	case Expired:
		if t.replaced {
			return s.knobs.ReplacedExpiredCode
		}
		return 42001
	}
	if now.Before(t.overlapEnd.Add(s.knobs.FlapFor)) {
		t.flaps++
		if t.flaps%2 == 1 {
			return 0
		}
	}
	return 40001
}

// remaining is the expires_in of a token: whole seconds, never more than the truth.
func (t *token) remaining(now time.Time) int { return int(t.expires.Sub(now) / time.Second) }

// Status says what a token is worth now to the app, without counting as a call.
func (s *Server) Status(app, value string) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[value]
	if t == nil || t.app != s.account(app) {
		return Unknown
	}
	return t.status(time.Now())
}

// Valid reports whether a token is [Current] or [Previous], without counting as a call.
func (s *Server) Valid(app, value string) bool {
	st := s.Status(app, value)
	return st == Current || st == Previous
}

// Life returns from when to when a token works, as far as is decided by now: what happens later may
// bring its end nearer, but never before the moment of that. It returns false for a value that was
// never issued to the app. A test that got a token between two moments knows by it whether the
// token worked then, whenever it asks. FlapFor is left out.
func (s *Server) Life(app, value string) (from, to time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[value]
	if t == nil || t.app != s.account(app) {
		return time.Time{}, time.Time{}, false
	}
	to = t.expires
	if t.replaced && t.overlapEnd.Before(to) {
		to = t.overlapEnd
	}
	if t.killed && t.killedAt.Before(to) {
		to = t.killedAt
	}
	return t.issued, to, true
}

// tokenValue makes a value of the form and length that were seen in published samples.
func tokenValue(k Kind) string {
	if k == Corp {
		return randomText(214)
	}
	return "97_" + randomText(133)
}

// randomText returns n base64url characters.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}

// ticket is a jsapi, wx_card or agent_config ticket.
type ticket struct {
	value, previous string
	at, previousEnd time.Time
}

// TicketValid reports whether a ticket of the type "jsapi", "wx_card" or "agent_config" would be
// accepted in a signature now, without counting as a call.
func (s *Server) TicketValid(app, ticketType, value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.account(app).tickets[ticketType]
	now := time.Now()
	switch {
	case !ok || value == "":
		return false
	case value == t.value:
		return now.Before(s.ticketEnd(t))
	}
	return value == t.previous && now.Before(t.previousEnd)
}

// ticketEnd is when a ticket stops working. Caller holds s.mu.
func (s *Server) ticketEnd(t ticket) time.Time {
	return t.at.Add(s.knobs.TicketLife + s.knobs.Overlap)
}

// ticket returns the app's current ticket, a new one when it is time. Caller holds s.mu.
func (s *Server) ticket(a *account, ticketType, endpoint string) string {
	now := time.Now()
	t, ok := a.tickets[ticketType]
	if ok && now.Sub(t.at) < s.knobs.TicketLife {
		return t.value
	}
	t = ticket{value: randomText(86), previous: t.value, previousEnd: s.ticketEnd(t), at: now}
	a.tickets[ticketType] = t
	a.issued = append(a.issued, Issue{At: now, Value: t.value, Endpoint: endpoint})
	return t.value
}
