package tokencache

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// replyOf makes of JSON what go-redis makes of a reply: strings, int64, nil and lists of them.
func replyOf(text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return text
	}
	var convert func(v any) any
	convert = func(v any) any {
		switch v := v.(type) {
		case json.Number:
			if n, err := v.Int64(); err == nil {
				return n
			}
			return struct{}{} // a type that no script answers with
		case []any:
			for i := range v {
				v[i] = convert(v[i])
			}
		}
		return v
	}
	return convert(v)
}

// A state as load.lua answers it: with a good value, one that is in doubt, and none, with a
// backoff.
var stateSeeds = named(
	`["97_value",7140000,1700000000500,60000,297000,0,0,-2,0,"",-1,0,"9710c2",1000,1700000001500,172800,0,0,1700000000500,"0123456789ab",0]`,
	`["97_value",240000,1700000000500,0,1800000,1,0,9500,0,"",60000,2,"9710c2",3600000,1700000001500,172800,432000,0,1700000000500,"0123456789ab",0]`,
	`["",0,1700000000500,60000,297000,0,1700000000500,-2,59000,"{\"class\":\"permanent\",\"code\":40125,\"message\":\"invalid appsecret rid: 64a7d1c7-1b47c4b1-5812e7e6\"}",-1,1,"9710c2",1000,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["",0,0,0,0,0,0,-2,0,"",-1,0,"",-1,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["",0,0,0,0,0,0,-2,300000,"{\"class\":\"quota\",\"code\":45009,\"message\":\"reach max api daily quota limit, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r rid: 617682e0-09059ac5-34a8e2ea\"}",-1,0,"",-1,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["97_value",7140000,1700000000500,60000,297000,0,0,-1,0,"",-1,0,"9710c2",1000,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["97_value",7140000,1700000000500,60000,297000,0,1700000000500,86400000,0,"",-1,0,"9710c2",1000,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["97_value",2591990000,4853600001500,60000,297000,0,0,-2,0,"",-1,0,"9710c2",1000,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["another",7140000,1700000000500,60000,297000,0,0,-2,0,"",-1,0,"9710c2",1000,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["x\n",7140000,1700000000500,60000,297000,0,0,-2,0,"",-1,0,"73cb38",1000,1700000001500,0,0,0,0,"0123456789ab",0]`,
	`["x",9223372036854775807,9223372036854775807,9223372036854775807,-9223372036854775808,2,-1,9223372036854775807,9223372036854,"{",0,-1,"2d7116",1,-1,-1,9223372036854775807,1,1,"0123456789ab",0]`,
	`["x",1,-1,1,1,0,0,0,1,"{\"class\":\"<b>\",\"code\":1e9,\"message\":\"\u202e\\n`+strings.Repeat("long ", 500)+`\"}",-1,0,"2d7116",-1,1,0,0,0,0]`,
	`[]`, `{}`, `null`, `-1`, `[1,2]`, `["v",1,1,1,1,1,1,1,1,null,1,1,1,1,1,1,1,1,1,"0123456789ab",0]`,
)

// stateFields are the names of the fields of a state, in the order of the seeds.
var stateFields = strings.Fields("value left version margin renew_left doubt rejected lock_left backoff note accepted_age young " +
	"digest issued_age now fetches_ahead reports_ahead forced_ahead confirmed past revoked")

// named puts the name of each field before its value, in those seeds that have all fields.
func named(seeds ...string) []string {
	for i, seed := range seeds {
		var values []json.RawMessage
		if json.Unmarshal([]byte(seed), &values) != nil || len(values) != len(stateFields) {
			continue
		}
		var list []string
		for n, value := range values {
			list = append(list, strconv.Quote(stateFields[n]), string(value))
		}
		seeds[i] = "[" + strings.Join(list, ",") + "]"
	}
	return seeds
}

// FuzzDecodeState: whatever Redis holds, a state is within bounds, and a replica that adopts it
// gets no value without a life, no life without an end, and no text that is not for one line.
// element and number replace one element of the reply.
func FuzzDecodeState(f *testing.F) {
	for _, seed := range stateSeeds {
		f.Add(seed, uint8(255), int64(0))
	}
	for i := range uint8(19) {
		for _, n := range []int64{math.MinInt64, -1, 9_223_372_036_855, 1 << 53, 20_000_000_000_000, math.MaxInt64} {
			f.Add(stateSeeds[int(i)%3], i, n)
		}
	}
	f.Fuzz(func(t *testing.T, text string, element uint8, number int64) {
		reply := replyOf(text)
		if list, ok := reply.([]any); ok && 2*int(element)+1 < len(list) {
			list[2*int(element)+1] = number
		}
		st, err := decodeState(reply)
		if err != nil {
			if st != (state{}) || !errors.Is(err, errReply) {
				t.Errorf("%+v beside %v", st, err)
			}
			return
		}
		checkState(t, st)
		asked := now()
		old := &snapshot{version: 7, asOf: asked, end: time.Hour, good: time.Hour, key: time.Hour}
		for _, v := range []*snapshot{{asOf: asked}, old} {
			v = v.merge(st, asked)
			later := instant{asked.mono + time.Minute, asked.wall + time.Minute}
			for _, n := range []instant{asked, later} {
				if in := v.expiresIn(n); in < 0 || in > 2*longest {
					t.Errorf("expires in %v", in)
				}
				if v.alive(n) && v.end <= 0 || v.backoffLeft(n) < 0 {
					t.Errorf("%+v", v)
				}
			}
			if v.version == 0 && !v.value.Empty() {
				t.Error("a value without a version")
			}
			if v == old && v.version < 7 {
				t.Errorf("version %d after 7", v.version)
			}
		}
		if a := (Limit{500}).allowance(st.spent.fetches, 0); a.Left < 0 || a.Left > a.Burst {
			t.Errorf("%+v", a)
		}
	})
}

// checkState fails on what a state must never be.
func checkState(t *testing.T, st state) {
	t.Helper()
	for name, d := range map[string]time.Duration{
		"left": st.left, "margin": st.margin, "renewLeft": st.renewLeft, "held": st.held, "backoff": st.backoff, "now": min(st.now, longest),
		"fetches": st.spent.fetches, "reports": st.spent.reports, "forced": st.spent.forced,
		"acceptAge": st.acceptAge + time.Millisecond, "issuedAge": st.issuedAge + time.Millisecond,
	} {
		if d < 0 || d > longest+time.Millisecond {
			t.Errorf("%s is %v", name, d)
		}
	}
	if st.version < 0 || st.young < 0 || !st.value.Empty() && (st.left <= 0 || st.version == 0) {
		t.Errorf("%+v", st)
	}
	const century = 100 * 365 * 24 * time.Hour
	if v := st.value; !v.Empty() && (!usable(v) || st.unsound || st.rejected == st.version || st.left+st.margin > longestLife+clockStep) {
		t.Errorf("no commit wrote this value: %+v", st)
	}
	if latest := max(0, ms(min(st.now, math.MaxInt64-century))) + ms(century); st.version > latest || st.rejected > latest || st.revoked > latest || st.young > latest || st.held > leaseTTL {
		t.Errorf("no script wrote this: %+v", st)
	}
	if m := st.note.Message; len(m) > maxNote || !forOneLine(m) {
		t.Errorf("the note %q is not for one line", m)
	}
	switch st.note.Class {
	case "", ClassTransient, ClassPermanent, ClassQuota, ClassLocal, ClassLimited:
	default:
		t.Errorf("class %q", st.note.Class)
	}
}

func forOneLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// FuzzDecodeVerdicts is for the answers of begin and finish. An answer that is none grants nothing.
func FuzzDecodeVerdicts(f *testing.F) {
	for _, seed := range stateSeeds {
		f.Add(`["go",0,` + seed + `]`)
		f.Add(`["limited",9223372036854775807,` + seed + `]`)
		f.Add(seed)
	}
	for _, seed := range []string{`["limited",-5,[]]`, `[1,0]`, `[0,0]`, `["1"]`, `[2]`, `[[1]]`, `[null]`, `[1.5]`, `["go","0",[]]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		reply := replyOf(text)
		if b, err := decodeBegun(reply); err == nil {
			checkState(t, b.state)
			if b.wait < 0 || b.wait > longest {
				t.Errorf("wait %v", b.wait)
			}
		} else if b != (begun{}) || !errors.Is(err, errReply) {
			t.Errorf("%+v beside %v", b, err)
		}
		list, ok := reply.([]any)
		if err := decodeFinished(reply); err == nil && (!ok || list[0] != int64(1)) || err != nil && !errors.Is(err, errReply) && !errors.Is(err, errRefused) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// FuzzDecodeEvent: what any client publishes names a credential that may exist, or is left alone;
// what a script publishes is read back as it was.
func FuzzDecodeEvent(f *testing.F) {
	for _, payload := range []string{
		`{"app":"wx1","kind":"access_token","version":1700000000500,"event":"committed","at":1700000000500}`,
		`{"app":"ww1:1000001","kind":"jsapi_ticket","version":0,"event":"doubt","at":0}`,
		`{"app":"wx1","kind":"access_token"}`, `{"app":"wx1","kind":"access_token","version":9e18,"at":-9223372036854775808}`,
		`{"app":"wx1","kind":"access_token","version":-1,"at":9223372036854775807,"later":{"x":[1]}}`, `{"app":"wx1}:x","kind":"access_token"}`,
		`{"app":"wx1","kind":"access_token"}{"app":"wx2"}`, `{"APP":"wx1","Kind":"k"}`, `{}`, `null`, ``, `[]`, "\xff", `{"app":1}`, strings.Repeat("[", 20000),
	} {
		f.Add(payload, "wx1", "access_token", int64(1_700_000_000_500))
	}
	f.Fuzz(func(t *testing.T, payload, app, kind string, n int64) {
		e, ok := decodeEvent(payload)
		if ok && e.key().validate() != nil {
			t.Errorf("%+v", e)
		}
		if e.Version < 0 || e.At < 0 || duration(e.At).Milliseconds() != e.At {
			t.Errorf("%+v", e)
		}
		if own := (Key{app, kind}); own.validate() == nil && n >= 0 && n <= longest.Milliseconds() {
			e, ok := decodeEvent(fmt.Sprintf(`{"app":"%s","kind":"%s","version":%d,"event":"%s","at":%d}`, app, kind, n, "committed", n))
			if want := (event{app, kind, n, n}); !ok || e != want {
				t.Errorf("got %+v, %t, want %+v", e, ok, want)
			}
		}
	})
}

// FuzzNote: what one replica writes of a failure, all read as it was, but for what is not for one
// line.
func FuzzNote(f *testing.F) {
	f.Add("permanent", 40125, "invalid appsecret rid: 64a7d1c7-1b47c4b1-5812e7e6")
	f.Add("local", 40164, "invalid ip 58.213.199.30 ipv6 ::ffff:58.213.199.30, not in whitelist rid: 64d1e675-2ca73ab3-2e56ca44")
	f.Add("limited", 0, "")
	f.Add("\xff", -1, "a\nb\x00<script>\u202e"+strings.Repeat("é", 1000))
	f.Fuzz(func(t *testing.T, class string, code int, message string) {
		body, err := json.Marshal(note{Class(class), code, message})
		if err != nil {
			t.Fatal(err)
		}
		reply := replyOf(stateSeeds[2]).([]any)
		reply[2*slices.Index(stateFields, "note")+1] = string(body)
		st, err := decodeState(reply)
		if err != nil {
			t.Fatal(err)
		}
		checkState(t, st)
		if st.note.Code != code || len(message) <= maxNote && forOneLine(message) && strings.TrimSpace(message) == message && st.note.Message != message {
			t.Errorf("%q became %+v", body, st.note)
		}
	})
}

// Which of the seeds have a value that counts.
func TestOnlyAValueThatACommitWroteCounts(t *testing.T) {
	for i, want := range []struct {
		value             string
		unsound, overlong bool
	}{{"97_value", false, false}, {"97_value", false, false}, {}, {}, {}, {"97_value", false, true}, {"", false, true}, {"", true, false}, {"", true, false}, {"", true, false}} {
		st, err := decodeState(replyOf(stateSeeds[i]))
		if err != nil || st.value.Reveal() != want.value || st.unsound != want.unsound || st.overlong != want.overlong {
			t.Errorf("seed %d: %+v, %v; want %+v", i, st, err, want)
		}
	}
}
