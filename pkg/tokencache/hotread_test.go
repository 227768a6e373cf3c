package tokencache

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// HotRead is a [redis.Hook] that answers the script load in Go, from the state of a miniredis: its
// interpreter of Lua takes milliseconds for a look, and a thousand replicas look millions of times
// an hour. Every other command goes to miniredis. While one that may change a credential is under
// way, so do the looks at it. TestTheHotReadAnswersAsTheScript holds it against the script.
type HotRead struct {
	redis *miniredis.Miniredis
	load  string // the hash of the script

	mu   sync.Mutex
	kept map[string]*kept // by the key of the value
}

// kept is what Redis has of one credential, as long as no command changes it.
type kept struct {
	changing int // commands under way
	known    bool

	value, meta, lock, backoff time.Time // when the key expires; zero: there is none, [forever]: it has no expiry
	text                       string    // the value
	fields, waits              map[string]string
}

var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// NewHotRead returns the hook for all replicas on m.
func NewHotRead(m *miniredis.Miniredis) *HotRead {
	return &HotRead{redis: m, load: newStore(nil, "", "").scripts.load.Hash(), kept: map[string]*kept{}}
}

// DialHook implements [redis.Hook].
func (h *HotRead) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (h *HotRead) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.answer(cmd) {
			return nil
		}
		defer h.change(cmd)()
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements [redis.Hook]. The cache sends nothing but looks in pipelines.
func (h *HotRead) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if !h.answer(cmd) {
				return next(ctx, cmds)
			}
		}
		return nil
	}
}

// Look reports whether cmd is the script load, and whether for the slow re-read.
func (h *HotRead) Look(cmd redis.Cmder) (look, brief bool) {
	args := cmd.Args()
	if len(args) < 4 || args[0] != "evalsha" || args[1] != h.load {
		return false, false
	}
	return true, argOf(args, "brief") == flag(true)
}

// argOf returns an argument of a script by its name, nil if it has none.
func argOf(args []any, name string) any {
	for i := 3 + args[2].(int); i < len(args); i += 2 {
		if args[i] == name {
			return args[i+1]
		}
	}
	return nil
}

// of returns what is kept of the credential that a command is about, nil if it is about none. It
// must be called with mu held.
func (h *HotRead) of(cmd redis.Cmder) *kept {
	args := cmd.Args()
	at := 1
	if name := cmd.Name(); name == "evalsha" || name == "eval" {
		at = 3
	}
	if len(args) <= at {
		return nil
	}
	key, _ := args[at].(string)
	if key = strings.TrimSuffix(key, ":lock"); !strings.Contains(key, "{") {
		return nil
	}
	if h.kept[key] == nil {
		h.kept[key] = &kept{}
	}
	return h.kept[key]
}

// change notes that a command may change what is kept, until the returned function is called.
func (h *HotRead) change(cmd redis.Cmder) (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of(cmd)
	if look, _ := h.Look(cmd); look || k == nil {
		return func() {}
	}
	k.changing++
	k.known = false
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		k.changing--
	}
}

// answer answers a look, and reports whether it did.
func (h *HotRead) answer(cmd redis.Cmder) bool {
	look, brief := h.Look(cmd)
	if !look {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	k, args := h.of(cmd), cmd.Args()
	if k.changing > 0 {
		return false
	}
	if !k.known {
		k.read(h.redis, args[3].(string))
	}
	cmd.(*redis.Cmd).SetVal(k.state(time.Now(), argOf(args, "scope").(string), brief))
	return true
}

// read reads everything. No command changes it meanwhile.
func (k *kept) read(m *miniredis.Miniredis, key string) {
	expiry := func(key string) time.Time {
		left := m.TTL(key)
		switch {
		case !m.Exists(key):
			return time.Time{}
		case left == 0:
			return forever
		}
		return time.Now().Add(left)
	}
	fields := func(key string) map[string]string {
		all := map[string]string{}
		names, _ := m.HKeys(key)
		for _, name := range names {
			all[name] = m.HGet(key, name)
		}
		return all
	}
	k.value, k.meta, k.lock, k.backoff = expiry(key), expiry(key+":meta"), expiry(key+":lock"), expiry(key+":backoff")
	k.text, _ = m.Get(key)
	k.fields, k.waits = fields(key+":meta"), fields(key+":backoff")
	k.known = true
}

// view is what a look sees at one moment; its methods are the functions of lua/prelude.lua.
type view struct {
	now  int64
	meta map[string]string
}

func (v view) number(text string) int64 {
	if len(text) > 16 {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0
	}
	return plausible(int64(n), v.now)
}

func (v view) num(field string) int64 { return v.number(v.meta[field]) }

func (v view) span(field string) int64 {
	if n := v.num(field); n <= 30*24*3600*1000 {
		return n
	}
	return 0
}

func (v view) age(field string) int64 {
	if at := v.num(field); at != 0 {
		return max(-1, v.now-at)
	}
	return -1
}

func (v view) ahead(field string) int64 { return max(0, v.num(field)-v.now) }

func (v view) quiet(value string, left int64) bool {
	return value != "" && left > 0 && left <= 30*24*3600*1000 && v.num("doubt") == 0 && v.num("version") > 0 &&
		v.num("rejected") != v.num("version") && left+v.span("margin")-v.span("renew_left") > 75000
}

func (v view) waiting(waits map[string]string, scope string) (left int64, note string) {
	for _, s := range []string{"*", scope} {
		l := v.number(waits[s+":until"]) - v.now
		if l > left && l <= min(v.number(waits[s+":wait"]), 24*3600*1000)+1000 {
			left, note = l, waits[s+":note"]
		}
	}
	return left, note
}

// state is the answer of the script at a moment.
func (k *kept) state(at time.Time, scope string, brief bool) []any {
	left := func(expiry time.Time) int64 {
		switch {
		case !expiry.After(at):
			return -2
		case expiry.Equal(forever):
			return -1
		}
		return expiry.Sub(at).Milliseconds()
	}
	v, value, waits := view{now: at.UnixMilli()}, "", map[string]string(nil)
	if left(k.meta) != -2 {
		v.meta = k.fields
	}
	if left(k.value) != -2 {
		value = k.text[:min(len(k.text), 4097)]
	}
	if left(k.backoff) != -2 {
		waits = k.waits
	}
	keyLeft, lockLeft, wait, note := v.num("expires_at")-v.span("margin")-v.now, int64(-2), int64(0), ""
	if !brief || !v.quiet(value, keyLeft) {
		keyLeft, lockLeft = left(k.value), left(k.lock)
		wait, note = v.waiting(waits, scope)
	}
	text := func(s string, most int) string { return s[:min(len(s), most)] }
	return []any{
		"value", value,
		"left", max(0, keyLeft),
		"version", v.num("version"), "margin", v.span("margin"), "renew_left", v.span("renew_left"),
		"doubt", v.num("doubt"), "rejected", v.num("rejected"), "revoked", v.num("revoked"),
		"lock_left", lockLeft,
		"backoff", wait, "note", text(note, 16384),
		"accepted_age", v.age("accepted_at"), "young", v.num("young"),
		"digest", text(v.meta["digest"], 16384),
		"issued_age", v.age("issued_at"), "now", v.now,
		"fetches_ahead", v.ahead("fetch_tat"), "reports_ahead", v.ahead("report_tat"), "forced_ahead", v.ahead("force_tat"),
		"confirmed", v.num("confirmed_at"), "past", text(v.meta["past"], 60),
	}
}

// The fake of the hot read and the script answer alike, whatever is in Redis, at once and for as
// long as nothing there changes but the time.
func TestTheHotReadAnswersAsTheScript(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := miniredis.NewMiniRedis()
		m.ClockTTL(true)
		t.Cleanup(m.Close)
		rdb := redis.NewClient(&redis.Options{
			Addr: "127.0.0.1:6379", PoolSize: 1,
			Dialer:                   func(context.Context, string, string) (net.Conn, error) { return m.Dial() },
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		defer rdb.Close()
		s, h := newStore(rdb, "test", "me"), NewHotRead(m)
		if err := s.scripts.load.Load(t.Context(), rdb).Err(); err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 2))
		briefer := 0
		for range 400 {
			spec := &Credential{Key: Key{"a", "access_token"}, Fingerprint: []string{"", "f1", "f2"}[r.IntN(3)]}
			randomState(m, r, s.keys(spec.Key))
			h.change(redis.NewCmd(t.Context(), "set", s.valueKey(spec.Key)))()
			for range 3 {
				var whole any
				for _, brief := range []bool{false, true} {
					real := s.scripts.load.EvalSha(t.Context(), rdb, s.keys(spec.Key), s.arguments(spec, []argument{{"brief", flag(brief)}})...)
					fake := redis.NewCmd(t.Context(), real.Args()...)
					if real.Err() != nil || !h.answer(fake) {
						t.Fatal(real.Err())
					}
					if diff := cmp.Diff(real.Val(), fake.Val()); diff != "" {
						t.Fatalf("brief %t (-script +fake):\n%s%s", brief, diff, m.Dump())
					}
					if whole == nil {
						whole = real.Val()
					} else if !cmp.Equal(whole, real.Val()) {
						briefer++
					}
				}
				time.Sleep(time.Duration(r.Int64N(int64(20 * time.Minute))))
			}
		}
		if briefer < 50 {
			t.Errorf("in %d states only, a brief look sees less", briefer)
		}
	})
}

// randomState replaces all keys of a credential.
func randomState(m *miniredis.Miniredis, r *rand.Rand, keys []string) {
	m.FlushAll()
	now := time.Now().UnixMilli()
	number := func() string {
		near := now + r.Int64N(4*3600*1000) - 2*3600*1000
		return []string{
			"", "0", "1", "7", "300000", "x", "-5", "1e3", " 12", "9999999999999999", "12345678901234567",
			strconv.FormatInt(now+101*365*24*3600*1000, 10), strconv.FormatInt(near, 10), strconv.FormatInt(near, 10),
			strconv.FormatInt(r.Int64N(10_000_000_000), 10),
		}[r.IntN(15)]
	}
	text := func() string {
		return strings.Repeat("t", []int{0, 1, 30, 61, 4096, 4097, 5000, 17000}[r.IntN(8)])
	}
	fill := func(key string, fields ...string) {
		switch r.IntN(12) {
		case 0:
		case 1:
			_, _ = m.Push(key, "another type")
		default:
			for _, f := range fields {
				if r.IntN(4) > 0 {
					m.HSet(key, f, number())
				}
			}
		}
	}
	fill(keys[1], "version", "margin", "renew_left", "expires_at", "doubt", "rejected", "revoked", "young", "accepted_at", "issued_at",
		"fetch_tat", "report_tat", "force_tat", "confirmed_at", "past", "digest")
	fill(keys[3], "*:until", "*:wait", "*:note", "f1:until", "f1:wait", "f1:note", "none:until", "none:wait")
	if m.Type(keys[1]) == "hash" {
		if r.IntN(2) == 0 {
			m.HSet(keys[1], "past", text(), "digest", text())
		}
		if r.IntN(2) == 0 { // as a commit leaves it
			m.HSet(keys[1], "version", "5", "expires_at", strconv.FormatInt(now+r.Int64N(3600*1000), 10), "margin", "300000",
				"renew_left", "300000", "doubt", "0", "rejected", "0")
		}
	}
	if m.Type(keys[3]) == "hash" && r.IntN(2) == 0 {
		left := r.Int64N(100_000)
		until := strconv.FormatInt(now+left, 10)
		m.HSet(keys[3], "*:until", until, "*:wait", strconv.FormatInt(max(0, left-r.Int64N(2000)), 10), "*:note", text(), "f1:until", until, "f1:wait", number(), "f1:note", text())
	}
	if r.IntN(8) > 0 {
		_ = m.Set(keys[0], text())
	} else {
		_, _ = m.Push(keys[0], "another type")
	}
	if r.IntN(2) == 0 {
		_ = m.Set(keys[2], "a lease")
	}
	for _, key := range keys {
		if m.Exists(key) && r.IntN(3) > 0 {
			m.SetTTL(key, time.Duration(1+r.Int64N(int64(time.Hour))))
		}
	}
}
