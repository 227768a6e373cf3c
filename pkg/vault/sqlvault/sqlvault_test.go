package sqlvault_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/sqlvault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

const platform = vaulttest.Platform

// dump returns all that is in the table.
func (s *server) dump(t *testing.T) string {
	rows, err := s.admin.QueryContext(t.Context(), "SELECT platform, id, state, ord, rev, sealed FROM wxtoken_vault")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all strings.Builder
	for rows.Next() {
		var r vault.Row
		if err := rows.Scan(&r.Platform, &r.ID, &r.State, &r.Order, &r.Rev, &r.Sealed); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %s %s %d %d %q\n", r.Platform, r.ID, r.State, r.Order, r.Rev, r.Sealed)
	}
	return all.String()
}

func TestADatabaseIsAStore(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		if err := store.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		vaulttest.Store(t, func(t *testing.T) (vault.Store, func() string) {
			s.exec(t, "DELETE FROM wxtoken_vault")
			return store, func() string { return s.dump(t) }
		})
	})
}

func row(id string, rev int64, sealed string) vault.Row {
	return vault.Row{Platform: platform, ID: id, State: vault.StateActive, Rev: rev, Sealed: []byte(sealed)}
}

func mustSave(t *testing.T, store *sqlvault.Store, r vault.Row) {
	t.Helper()
	if rev, err := store.Save(t.Context(), r); err != nil || rev != r.Rev+1 {
		t.Fatalf("%q: rev %d, %v", r.ID, rev, err)
	}
}

// IDs that differ in case alone are two, and the order is that of bytes, although the database's
// own order is a language's.
func TestIDsAreBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		ids := []string{"wxA", "wxa", "WXA", "_w", "-w", ".w", "0", "wx", "wx-1", "wx.1", "wx1", "@", "@markers", "code", "code-1", "code0", "codea", "Code/x", strings.Repeat("z", 128)}
		for _, id := range ids {
			mustSave(t, store, row(id, 0, "sealed"))
		}
		for _, id := range []string{vault.Marker, vault.Ticket, vault.CodeID(secret.New("c"))} {
			mustSave(t, store, row(id, 0, "sealed"))
		}
		slices.Sort(ids)
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := store.List(t.Context(), platform, after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				got = append(got, r.ID)
			}
		}
		if !slices.Equal(got, ids) {
			t.Errorf("got  %q\nwant %q", got, ids)
		}
	})
}

// Any bytes go in and come out, as many as a sealed record can have; so do large numbers.
func TestSealedBytesAreNotChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		all := make([]byte, 40<<10)
		for i := range all {
			all[i] = byte(i)
		}
		for i, sealed := range [][]byte{all, {}, nil, []byte(`\x00'"; -- ?`)} {
			r := row(fmt.Sprint("wx", i), 0, string(sealed))
			r.Order = 1<<62 + int64(i)
			mustSave(t, store, r)
			if got, err := store.Load(t.Context(), platform, r.ID); err != nil || string(got.Sealed) != string(sealed) || got.Order != r.Order || got.Age < 0 || got.Age > time.Minute {
				t.Errorf("%d: %d bytes, order %d, age %v, %v", i, len(got.Sealed), got.Order, got.Age, err)
			}
		}
	})
}

// days moves rows into the past, by the database's clock.
func (s *server) days(t *testing.T, n int, where string) {
	t.Helper()
	by := fmt.Sprintf("updated - interval '%d hours'", 24*n)
	if s.kind == sqlvault.MySQL {
		by = fmt.Sprintf("updated - INTERVAL %d HOUR", 24*n)
	}
	s.exec(t, "UPDATE wxtoken_vault SET updated = "+by+" WHERE "+where)
}

func TestACodeIsAbsentAfter30Days(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		code := func(name string, state vault.State) vault.Row {
			r := row(vault.CodeID(secret.New(name)), 0, name)
			r.State = state
			return r
		}
		first := code("first", vault.StateReceived)
		mustSave(t, store, first)
		mustSave(t, store, row("wx1", 0, "authorizer"))
		s.days(t, 29, "1 = 1")
		if got, err := store.Load(t.Context(), platform, first.ID); err != nil || got.Rev != 1 || got.Age.Round(time.Hour) != 29*24*time.Hour {
			t.Errorf("after 29 days: rev %d, age %v, %v", got.Rev, got.Age, err)
		}
		s.days(t, 1, "1 = 1")
		if got, err := store.Load(t.Context(), platform, first.ID); err != nil || got.Rev != 0 {
			t.Errorf("after 30 days: rev %d, %v", got.Rev, err)
		}
		if got, err := store.Load(t.Context(), platform, "wx1"); err != nil || got.Rev != 1 {
			t.Errorf("an authorizer after 30 days: rev %d, %v", got.Rev, err)
		}
		if ids, err := store.Codes(t.Context(), platform); err != nil || len(ids) != 0 {
			t.Errorf("codes after 30 days: %q, %v", ids, err)
		}
		later := first
		later.Rev = 1
		if _, err := store.Save(t.Context(), later); !errors.Is(err, vault.ErrConflict) {
			t.Errorf("over the rev of before: %v", err)
		}
		mustSave(t, store, first)
		mustSave(t, store, later)
	})
}

// A code whose exchange has ended takes a bounded number of old ones with it, and nothing else.
func TestOldCodesAreDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		for i := range 30 {
			r := row(vault.CodeID(secret.New(fmt.Sprint("old", i))), 0, "sealed")
			r.State = []vault.State{vault.StateDone, vault.StateReceived}[i%2]
			mustSave(t, store, r)
		}
		for _, r := range []vault.Row{row("wx1", 0, "a"), row(vault.Ticket, 0, "t"), row(vault.Marker, 0, "m")} {
			r.State = vault.StateReceived
			mustSave(t, store, r)
		}
		s.days(t, 31, "1 = 1")
		other := row(vault.CodeID(secret.New("old of another platform")), 0, "sealed")
		count := func() (n int) {
			if err := s.admin.QueryRow("SELECT count(*) FROM wxtoken_vault WHERE id LIKE 'code/%'").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		other.Platform = "ww1"
		mustSave(t, store, other)
		s.days(t, 31, "platform = 'ww1'")
		done := row(vault.CodeID(secret.New("new")), 0, "sealed")
		done.State = vault.StateReceived
		if mustSave(t, store, done); count() != 32 {
			t.Errorf("a push waits for the deletion: %d codes", count())
		}
		done.State = vault.StateDone
		for _, want := range []int{12, 2, 2} {
			done.Rev++
			if mustSave(t, store, done); count() != want {
				t.Errorf("%d codes, want %d", count(), want)
			}
		}
		for _, id := range []string{"wx1", vault.Ticket, vault.Marker} {
			if got, err := store.Load(t.Context(), platform, id); err != nil || got.Rev != 1 {
				t.Errorf("%q: rev %d, %v", id, got.Rev, err)
			}
		}
	})
}

// One of many that insert the same record, or write over the same rev, succeeds, whatever
// isolation the administrator has made the default.
func TestOneOfManyWritersAtEachIsolation(t *testing.T) {
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *server) {
				if s.kind == sqlvault.MySQL {
					s.exec(t, "SET GLOBAL TRANSACTION ISOLATION LEVEL "+level)
					defer s.exec(t, "SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ")
				} else {
					s.exec(t, "ALTER ROLE sidecar SET default_transaction_isolation = '"+level+"'")
					defer s.exec(t, "ALTER ROLE sidecar RESET default_transaction_isolation")
				}
				race(t, s)
			})
		})
	}
}

// race makes four replicas write every rev of two records at once.
func race(t *testing.T, s *server) {
	stores := []*sqlvault.Store{s.open(t), s.open(t), s.open(t), s.open(t)}
	for _, id := range []string{"wx1", vault.CodeID(secret.New("c"))} {
		for rev := range int64(8) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for i, store := range stores {
				for j := range 2 {
					wg.Go(func() {
						got, err := store.Save(t.Context(), row(id, rev, fmt.Sprint(i, j, rev)))
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil && got == rev+1:
							won++
						case !errors.Is(err, vault.ErrConflict):
							t.Errorf("%s rev %d: %d, %v", id, rev, got, err)
						}
					})
				}
			}
			wg.Wait()
			if won != 1 {
				t.Errorf("%s rev %d: %d writers succeeded", id, rev, won)
			}
		}
	}
}

// Two replicas that insert a code at once, whose row of before counts as absent: one succeeds.
func TestOneOfManyTakesThePlaceOfAnOldCode(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		stores := []*sqlvault.Store{s.open(t), s.open(t), s.open(t)}
		for round := range 10 {
			r := row(vault.CodeID(secret.New(fmt.Sprint("code", round))), 0, "old")
			mustSave(t, stores[0], r)
			s.days(t, 31, "id = '"+r.ID+"'")
			won := make(chan int, len(stores))
			var wg sync.WaitGroup
			for i, store := range stores {
				wg.Go(func() {
					_, err := store.Save(t.Context(), row(r.ID, 0, fmt.Sprint("new", i)))
					if err == nil {
						won <- i
					} else if !errors.Is(err, vault.ErrConflict) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got, err := stores[0].Load(t.Context(), platform, r.ID); err != nil || len(won) != 1 || string(got.Sealed) != fmt.Sprint("new", <-won) || got.Rev != 1 {
				t.Errorf("%+v, %v", got, err)
			}
		}
	})
}

func TestCodesAreTheOldestFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		var want []string
		for i := range 5 {
			r := row(vault.CodeID(secret.New(fmt.Sprint(i))), 0, "sealed")
			r.State = []vault.State{vault.StateReceived, vault.StateSent}[i%2]
			mustSave(t, store, r)
			s.days(t, i+1, "id = '"+r.ID+"'")
			want = slices.Insert(want, 0, r.ID)
		}
		if got, err := store.Codes(t.Context(), platform); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v\nwant %q", got, err, want)
		}
	})
}

// What docs/platforms.md selects from the table of wxcomponent, whose columns its model has (commit
// 80610a8), is what vault import reads.
func TestTheDocumentedMoveFromWxcomponent(t *testing.T) {
	page, err := os.ReadFile("../../../docs/platforms.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), ` wxcomponent -e "`)
	query, _, _ := strings.Cut(rest, `"`)
	onBoth(t, func(t *testing.T, s *server) {
		if s.kind != sqlvault.MySQL {
			return
		}
		s.exec(t, "DROP TABLE IF EXISTS authorizers", `CREATE TABLE authorizers (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, appid varchar(32) NOT NULL UNIQUE,
			apptype int, servicetype int, nickname varchar(128), username varchar(32), headimg text, qrcodeurl text, principalname varchar(128),
			refreshtoken varchar(256) NOT NULL, funcinfo text, verifyinfo int, authtime timestamp) DEFAULT CHARSET utf8`,
			"INSERT INTO authorizers (appid, refreshtoken, authtime) VALUES ('wx1', 'refreshtoken@@@a_-1', NOW()), ('wx2', '', NOW())")
		rows, err := s.admin.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		want := `{"platform": "wx134c8103faa5a59e", "authorizer": "wx1", "refresh_token": "refreshtoken@@@a_-1"}`
		if len(lines) != 1 || lines[0] != want {
			t.Errorf("%q, want %s", lines, want)
		}
	})
}
