package tokencache

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// state is what Redis knows of a credential, with all times relative to the moment of the answer.
type state struct {
	value     secret.String // empty: Redis has no value
	unsound   bool          // a value is there that no commit can have written; it is not in value
	left      time.Duration // until the key leaves Redis
	version   int64
	margin    time.Duration
	renewLeft time.Duration
	doubt     bool
	rejected  int64         // the version that upstream was found to reject
	revoked   int64         // up to this version no value may be handed out
	held      time.Duration // left of a replica's lease
	overlong  bool          // the lock key lives longer than any lease, or for ever
	backoff   time.Duration
	note      note
	acceptAge time.Duration // since the start of the last probe that succeeded; < 0: none
	young     int64         // young values rejected in a row
	bad       string        // fingerprint of the value that upstream was found to reject, if nothing replaced it

	issuedAge time.Duration // since the commit of the version; < 0: none
	confirmed int64         // when upstream last gave or repeated the value, in ms by Redis' clock: only to distinguish such times
	scope     string        // the fingerprint of the secret that backoff is about
	past      string        // the marks of the last values, in turn
	now       time.Duration // Redis' clock, to compare with nothing but Redis' clock
	spent     spent
}

// note is a failed fetch as the others remember it.
type note struct {
	Class   Class  `json:"class,omitempty"`
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

func (n note) err() error {
	if n.Class == ClassLimited {
		return ErrLimited
	}
	return &FetchError{Class: n.Class, Code: n.Code, Message: n.Message}
}

func decodeBegun(reply any) (begun, error) {
	parts, ok := reply.([]any)
	if !ok || len(parts) != 3 {
		return begun{}, errReply
	}
	verdict, ok1 := parts[0].(string)
	wait, ok2 := parts[1].(int64)
	st, err := decodeState(parts[2])
	if !ok1 || !ok2 || err != nil {
		return begun{}, errReply
	}
	return begun{decision(verdict), min(bounded(wait), longest), st}, nil
}

func decodeFinished(reply any) error {
	parts, ok := reply.([]any)
	switch {
	case !ok || len(parts) < 1:
		return errReply
	case parts[0] == int64(0):
		return errRefused
	case parts[0] != int64(1):
		return errReply
	}
	return nil
}

var errReply = errors.New("unexpected reply: is another version of wxtoken using this namespace?")

// namedFields returns a reply that has a name and its value in turn.
func namedFields(reply any) (map[string]any, bool) {
	list, ok := reply.([]any)
	if !ok || len(list)%2 != 0 {
		return nil, false
	}
	fields := make(map[string]any, len(list)/2)
	for i := 0; i < len(list); i += 2 {
		name, ok := list[i].(string)
		if !ok {
			return nil, false
		}
		fields[name] = list[i+1]
	}
	return fields, true
}

func decodeState(reply any) (state, error) {
	fields, ok := namedFields(reply)
	if !ok {
		return state{}, errReply
	}
	var bad bool
	num := func(name string) int64 {
		n, ok := fields[name].(int64)
		bad = bad || !ok
		return n
	}
	text := func(name string) string {
		s, ok := fields[name].(string)
		bad = bad || !ok
		return s
	}
	// Other programs may write anything to Redis. A number that overflows would be a life without
	// an end.
	lasts := func(name string) time.Duration { return min(bounded(num(name)), longest) }
	count := func(name string) int64 { return plausible(num(name), num("now")) }
	ago := func(name string) time.Duration {
		return duration(max(-1, min(num(name), longest.Milliseconds())))
	}
	st := state{
		value: secret.New(text("value")), left: lasts("left"),
		version: count("version"), margin: lasts("margin"), renewLeft: lasts("renew_left"),
		doubt: num("doubt") != 0, rejected: count("rejected"), revoked: count("revoked"),
		held: min(lasts("lock_left"), leaseTTL), overlong: num("lock_left") == -1 || lasts("lock_left") > leaseTTL,
		backoff: lasts("backoff"), note: decodeNote(text("note")), acceptAge: ago("accepted_age"),
		young: count("young"), issuedAge: ago("issued_age"), now: bounded(num("now")),
		spent:     spent{fetches: lasts("fetches_ahead"), reports: lasts("reports_ahead"), forced: lasts("forced_ahead")},
		confirmed: max(0, num("confirmed")),
	}
	digest := text("digest")
	st.past = text("past")
	if bad {
		return state{}, errReply
	}
	if st.overlong {
		st.held = leaseTTL
	}
	if st.version > 0 && st.rejected == st.version {
		st.bad, st.value = digest, secret.String{} // it was deleted; another program put something there
		return st, nil
	}
	if st.left <= 0 || st.version == 0 {
		st.value = secret.String{} // a key without a life, or without its meta, cannot be trusted
	}
	if st.left > 0 && st.version > 0 && (!usable(st.value) || st.value.Fingerprint() != digest || st.left+st.margin > longestLife+clockStep) {
		st.value, st.unsound = secret.String{}, true
	}
	return st, nil
}

// plausible returns a version or a count as a script can have written it, else 0; nowMS is Redis'
// clock. It is the rule of number in lua/prelude.lua.
func plausible(n, nowMS int64) int64 {
	const century = 100 * 365 * 24 * int64(time.Hour/time.Millisecond)
	if n < 0 || n > max(0, min(nowMS, math.MaxInt64-century))+century {
		return 0
	}
	return n
}

// maxNote bounds the message of a note, in bytes.
const maxNote = 512

// decodeNote reads a note. One that cannot be read costs its explanation, not the backoff.
func decodeNote(body string) note {
	var n note
	if body == "" {
		return n
	}
	if err := json.Unmarshal([]byte(body), &n); err != nil {
		return note{Class: ClassTransient, Message: "unreadable note"}
	}
	switch n.Class {
	case "", ClassTransient, ClassPermanent, ClassQuota, ClassLocal, ClassEnded, ClassLimited:
	default:
		n.Class = ClassTransient // of a later version
	}
	n.Message = short(n.Message, maxNote)
	return n
}

// event is what the channel carries: that something changed, never what it is.
type event struct {
	App     string `json:"app"`
	Kind    string `json:"kind"`
	Version int64  `json:"version"`
	At      int64  `json:"at"` // when, in ms by Redis' clock; 0 from a replica that does not say
}

func (e event) key() Key { return Key{App: e.App, Kind: e.Kind} }

// maxEvent is longer than any event of this program, in bytes.
const maxEvent = 512

func decodeEvent(payload string) (event, bool) {
	var e event
	if len(payload) > maxEvent {
		return e, false
	}
	if err := json.NewDecoder(strings.NewReader(payload)).Decode(&e); err != nil {
		return event{}, false
	}
	e.Version, e.At = max(0, e.Version), max(0, min(e.At, math.MaxInt64/int64(time.Millisecond)))
	if e.At > 0 {
		e.Version = plausible(e.Version, e.At)
	}
	return e, e.key().validate() == nil
}

func ms(d time.Duration) int64 { return d.Milliseconds() }

func duration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// bounded is a duration of ms, between 0 and what time.Duration holds.
func bounded(ms int64) time.Duration {
	return duration(min(max(0, ms), math.MaxInt64/int64(time.Millisecond)))
}

// longest is more than anything here lasts, and little enough to add some of them up: 73 years.
const longest = time.Duration(math.MaxInt64 / 4)

// maxWord bounds a text of the journal, in bytes. The scripts write names and single words only.
const maxWord = 128

// short makes a foreign text fit for one line: valid UTF-8 that can be printed, at most limit
// bytes.
func short(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "")))
}
