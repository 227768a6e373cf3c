package tokencache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
)

// JournalIsRead is run on miniredis and on a real server: see servers_test.go.
func JournalIsRead(t *testing.T, rdb *redis.Client) {
	x := scripted{t, newStore(rdb, "ns", "pod-1"), &Credential{Key: Key{App: "wx1", Kind: "access_token"}, Overlap: 5 * time.Minute}}
	st := x.fetched()
	x.begin(x.lease("second"), ReasonMissing, st.version+1, decisionGo)
	x.finish("second", outcome{reason: ReasonMissing, result: ResultFailed, took: 40 * time.Millisecond,
		failed: &FetchError{Class: ClassQuota, Code: 45009, Message: "m"}})
	if err := x.cut("lease", now()); err != nil {
		t.Fatal(err)
	}
	got, err := x.s.journals(t.Context(), []string{"wx0", "wx1"}, 10)
	if err != nil || len(got) != 4 {
		t.Fatalf("got %+v, %v", got, err)
	}
	cut, failed, asking, first := got[0], got[1], got[2], got[3]
	if cut.Result != ResultCut || cut.Why != ResultRefused || cut.Reason != ReasonDue || cut.By != "pod-1" {
		t.Errorf("the cut: %+v", cut)
	}
	if asking.Result != ResultCut || asking.Why != "fetch" || asking.Reason != ReasonMissing {
		t.Errorf("the cut before the fetch: %+v", asking)
	}
	if failed.Result != ResultFailed || failed.Code != 45009 || failed.Took != 40*time.Millisecond || failed.Backoff < 2*time.Minute || failed.Version != st.version {
		t.Errorf("the failure: %+v", failed)
	}
	if first.Result != ResultCommitted || first.Reason != ReasonMissing || first.Version != st.version || first.Key != x.spec.Key {
		t.Errorf("the commit: %+v", first)
	}
	for _, e := range got {
		if e.Age < 0 || e.Age > 10*time.Second {
			t.Errorf("%s is %v old", e.Result, e.Age)
		}
	}
	if got, err := x.s.journals(t.Context(), []string{"wx1"}, 2); err != nil || len(got) != 2 || got[0].Result != ResultCut {
		t.Errorf("of the last two: %+v, %v", got, err)
	}
	// One app's journal that cannot be read does not hide the others.
	rdb.Set(t.Context(), x.s.journalKey("wx0"), "a string", 0)
	got, err = x.s.journals(t.Context(), []string{"wx0", "wx1"}, 10)
	var storeError *StoreError
	if len(got) != 4 || !errors.As(err, &storeError) || storeError.Op != "journal" || !answered(err) {
		t.Errorf("beside a key of another type: %d entries, %v", len(got), err)
	}
	// Those of thousands of apps are not one pipeline.
	longest := &longestPipeline{}
	rdb.AddHook(longest)
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("wx%d", i)
	}
	if got, _ = x.s.journals(t.Context(), many, 10); len(got) != 4 || longest.commands > batch {
		t.Errorf("of 1000 apps: %d entries, %d commands in a pipeline", len(got), longest.commands)
	}
}

// longestPipeline is a hook that sees how many commands a pipeline had.
type longestPipeline struct {
	redis.Hook
	commands int
}

func (p *longestPipeline) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (p *longestPipeline) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (p *longestPipeline) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		p.commands = max(p.commands, len(commands))
		return next(ctx, commands)
	}
}

func FuzzDecodeJournal(f *testing.F) {
	f.Add("wx1", int64(1_700_000_000_500), "1700000000000-0", "kind", "access_token", "result", "committed")
	f.Add("wx1", int64(1), "99999999999999-1", "took_ms", "9223372036854775807", "code", "-1")
	f.Add("wx1", int64(-1), "-", "by", "\x00\xff<script>\u202e", "backoff_ms", "-5")
	f.Add("", int64(0), "0-0", "version", "1e9", "kind", "")
	f.Fuzz(func(t *testing.T, app string, now int64, id, name1, text1, name2, text2 string) {
		item := []any{id, []any{name1, text1, name2, text2, "kind", "access_token", "result", "x", "odd"}}
		for _, reply := range []any{item, []any{now, []any{item, id, nil, []any{now, item}, []any{id, now}}}, []any{id, item}, []any{now}, nil, now} {
			entries, err := decodeJournal(app, reply)
			if err != nil && len(entries) > 0 {
				t.Error("entries beside an error")
			}
			for _, e := range entries {
				if e.Age < 0 || e.Took < 0 || e.Backoff < 0 || e.Version < 0 || e.Key.validate() != nil {
					t.Errorf("%+v", e)
				}
				for _, s := range []string{e.By, string(e.Reason), string(e.Result)} {
					if len(s) > maxWord || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
						t.Errorf("%q is not for one line", s)
					}
				}
			}
		}
	})
}
