package tokencache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alicebob/miniredis/v2"
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
}

// Thousands of journals are asked for in parts, between which Redis answers others, and only so
// much of them is kept.
func TestTheJournalsOfThousandsOfAppsAreBounded(t *testing.T) {
	m := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	s := newStore(rdb, "ns", "pod-1")
	apps := make([]string, 1050)
	for i := range apps {
		apps[i] = fmt.Sprintf("wx%05d", i)
		for n := range 2 {
			if _, err := m.XAdd(s.journalKey(apps[i]), fmt.Sprintf("%d-%d", 1_700_000_000_000+i*60_000, n), []string{"kind", "access_token", "result", "committed"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	most := &roundTrips{}
	rdb.AddHook(most)
	got, err := s.journals(t.Context(), apps, 10)
	if err != nil || len(got) != mostEntries || got[0].Key.App != apps[len(apps)-1] {
		t.Fatalf("%d entries, %v; the first: %+v", len(got), err, got[:min(1, len(got))])
	}
	if !slices.IsSortedFunc(got, func(a, b Entry) int { return cmp.Compare(a.Age, b.Age) }) {
		t.Error("they are not sorted")
	}
	if most.commands > journalsAtOnce || most.commands == 0 {
		t.Errorf("one round trip has %d commands", most.commands)
	}
}

// roundTrips remembers how many commands the longest one had.
type roundTrips struct{ commands int }

func (l *roundTrips) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (l *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, all []redis.Cmder) error {
		l.commands = max(l.commands, len(all))
		return next(ctx, all)
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
