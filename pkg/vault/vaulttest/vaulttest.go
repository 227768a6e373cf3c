// Package vaulttest says what every [vault.Store] must do. It is for tests, and not under semver.
package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// Platform is the one that the suite uses. A store may hold others.
const Platform = "wx134c8103faa5a59e"

// Key and OtherKey are keys of a key file.
const (
	Key      = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	OtherKey = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="
)

// Keys parses a key file of these lines.
func Keys(t testing.TB, lines ...string) vault.Keys {
	t.Helper()
	keys, err := vault.ParseKeys(secret.New(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Store runs the suite. open returns an empty store, and raw all that a dump of it would show.
func Store(t *testing.T, open func(t *testing.T) (store vault.Store, raw func() string)) {
	for name, test := range map[string]func(*testing.T, *vault.Vault){
		"nothing is there":                             nothingIsThere,
		"what was saved":                               whatWasSaved,
		"only over what was seen":                      onlyOverWhatWasSeen,
		"one of many writers":                          oneOfManyWriters,
		"a record is one register":                     aRegister,
		"a list":                                       aList,
		"platforms do not meet":                        platformsDoNotMeet,
		"what is not valid":                            whatIsNotValid,
		"the end of the context ends a call":           theEndOfTheContext,
		"many at once":                                 manyAtOnce,
		"an erased record keeps its state and order":   anErasedRecord,
		"codes are records of their own, and not seen": codes,
	} {
		t.Run(name, func(t *testing.T) {
			store, _ := open(t)
			test(t, vault.New(store, Keys(t, Key)))
		})
	}
	t.Run("nothing secret rests in it", func(t *testing.T) { nothingSecretRests(t, open) })
	t.Run("keys change", func(t *testing.T) { keysChange(t, open) })
	t.Run("records are sealed again", func(t *testing.T) { recordsAreSealedAgain(t, open) })
	t.Run("many are sealed again", func(t *testing.T) { manyAreSealedAgain(t, open) })
	t.Run("a repeat is no conflict", func(t *testing.T) { aRepeatIsNoConflict(t, open) })
}

func active(id, text string) vault.Record {
	return vault.Record{Platform: Platform, ID: id, State: vault.StateActive, Secret: secret.New(text), Order: 1_700_000_000, Info: []byte(`{"f":1}`)}
}

func save(t *testing.T, v *vault.Vault, r vault.Record) vault.Record {
	t.Helper()
	saved, err := v.Save(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

func load(t *testing.T, v *vault.Vault, id string) vault.Record {
	t.Helper()
	r, err := v.Load(t.Context(), Platform, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// same reports whether two records are, but for their age.
func same(a, b vault.Record) bool {
	return a.Platform == b.Platform && a.ID == b.ID && a.State == b.State && a.Secret.Equal(b.Secret) &&
		a.Order == b.Order && string(a.Info) == string(b.Info) && a.Rev == b.Rev
}

func nothingIsThere(t *testing.T, v *vault.Vault) {
	for _, id := range []string{vault.Ticket, "wx1", vault.CodeID(secret.New("c"))} {
		if r := load(t, v, id); r.Rev != 0 || r.ID != id || r.Platform != Platform {
			t.Errorf("%q: %+v", id, r)
		}
	}
	if list, err := v.List(t.Context(), Platform, "", 10); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func whatWasSaved(t *testing.T, v *vault.Vault) {
	for _, r := range []vault.Record{
		active("wx1", "refresh"),
		{Platform: Platform, ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New("ticket@@@x"), Order: 7},
		{Platform: Platform, ID: "ww1", State: vault.StateRefused, Order: 9_000_000_000},
	} {
		saved := save(t, v, r)
		if got := load(t, v, r.ID); got.Rev != 1 || !same(got, saved) || got.Age < 0 {
			t.Errorf("got %+v, want %+v", got, saved)
		}
		saved.State, saved.Order = vault.StateWithdrawn, saved.Order+1
		if again := save(t, v, saved); again.Rev != 2 || !same(load(t, v, r.ID), again) {
			t.Errorf("after a change: %+v", again)
		}
	}
}

func onlyOverWhatWasSeen(t *testing.T, v *vault.Vault) {
	first := save(t, v, active("wx1", "one"))
	for _, rev := range []int64{0, 2, 7} {
		r := active("wx1", "two")
		r.Rev = rev
		if _, err := v.Save(t.Context(), r); !errors.Is(err, vault.ErrConflict) {
			t.Errorf("over rev %d: %v", rev, err)
		}
	}
	r := active("wx2", "two")
	r.Rev = 1
	if _, err := v.Save(t.Context(), r); !errors.Is(err, vault.ErrConflict) {
		t.Errorf("over a record that is not there: %v", err)
	}
	if got := load(t, v, "wx1"); !same(got, first) {
		t.Errorf("changed: %+v", got)
	}
}

func oneOfManyWriters(t *testing.T, v *vault.Vault) {
	const writers, rounds = 8, 10
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := 0; n < rounds; {
				r, err := v.Load(t.Context(), Platform, "wx1")
				if err != nil {
					t.Error(err)
					return
				}
				next := active("wx1", fmt.Sprintf("%s+%d", r.Secret.Reveal(), i))
				next.Rev = r.Rev
				switch _, err := v.Save(t.Context(), next); {
				case err == nil:
					n++
				case !errors.Is(err, vault.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if r := load(t, v, "wx1"); r.Rev != writers*rounds || strings.Count(r.Secret.Reveal(), "+") != writers*rounds {
		t.Errorf("rev %d, %d changes: a writer overwrote what it had not seen", r.Rev, strings.Count(r.Secret.Reveal(), "+"))
	}
}

func aList(t *testing.T, v *vault.Vault) {
	var want []string
	for i := range 25 {
		id := fmt.Sprintf("wx%02d", 24-i)
		save(t, v, active(id, "refresh"))
		want = append(want, id)
	}
	save(t, v, vault.Record{Platform: Platform, ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New("t")})
	save(t, v, vault.Record{Platform: Platform, ID: vault.Marker, State: vault.StateDone})
	slices.Sort(want)
	var got []string
	for after := ""; ; {
		page, err := v.List(t.Context(), Platform, after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			got = append(got, r.ID)
			if r.Platform != Platform || !r.Secret.Equal(secret.New("refresh")) || r.Rev != 1 {
				t.Errorf("%+v", r)
			}
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func platformsDoNotMeet(t *testing.T, v *vault.Vault) {
	other := active("wx1", "other")
	other.Platform = "ww-suite"
	save(t, v, other)
	if r := load(t, v, "wx1"); r.Rev != 0 {
		t.Errorf("%+v", r)
	}
	if list, err := v.List(t.Context(), Platform, "", 10); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func whatIsNotValid(t *testing.T, v *vault.Vault) {
	for name, change := range map[string]func(*vault.Record){
		"no platform":      func(r *vault.Record) { r.Platform = "" },
		"a long platform":  func(r *vault.Record) { r.Platform = strings.Repeat("x", 65) },
		"a brace":          func(r *vault.Record) { r.Platform = "a}b" },
		"an id with space": func(r *vault.Record) { r.ID = "a b" },
		"a long id":        func(r *vault.Record) { r.ID = strings.Repeat("x", 129) },
		"no state":         func(r *vault.Record) { r.State = "" },
		"a long secret":    func(r *vault.Record) { r.Secret = secret.New(strings.Repeat("x", 4<<10+1)) },
		"a long info":      func(r *vault.Record) { r.Info = make([]byte, 4<<10+1) },
		"a negative order": func(r *vault.Record) { r.Order = -1 },
	} {
		r := active("wx1", "refresh")
		change(&r)
		if _, err := v.Save(t.Context(), r); err == nil || errors.Is(err, vault.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r := load(t, v, "wx1"); r.Rev != 0 {
		t.Errorf("%+v", r)
	}
}

func theEndOfTheContext(t *testing.T, v *vault.Vault) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Load(ctx, Platform, "wx1"); !errors.Is(err, context.Canceled) {
		t.Errorf("load: %v", err)
	}
	if _, err := v.Save(ctx, active("wx1", "refresh")); !errors.Is(err, context.Canceled) {
		t.Errorf("save: %v", err)
	}
}

func anErasedRecord(t *testing.T, v *vault.Vault) {
	r := save(t, v, active("wx1", "refresh"))
	r.State, r.Secret, r.Info = vault.StateWithdrawn, secret.String{}, nil
	save(t, v, r)
	if got := load(t, v, "wx1"); got.State != vault.StateWithdrawn || got.Order != r.Order || !got.Secret.Empty() || len(got.Info) != 0 || got.Rev != 2 {
		t.Errorf("%+v", got)
	}
}

func codes(t *testing.T, v *vault.Vault) {
	code := secret.New("queryauthcode@@@abc")
	r := vault.Record{Platform: Platform, ID: vault.CodeID(code), State: vault.StateReceived, Secret: code, Order: 3}
	r = save(t, v, r)
	r.State = vault.StateSent
	if r = save(t, v, r); !same(load(t, v, r.ID), r) || r.Rev != 2 {
		t.Errorf("%+v", r)
	}
	later := vault.Record{Platform: Platform, ID: vault.CodeID(secret.New("later")), State: vault.StateReceived, Secret: secret.New("later")}
	later = save(t, v, later)
	open := func(want ...string) {
		t.Helper()
		got, err := v.Codes(t.Context(), Platform)
		slices.Sort(got) // they may be of the same moment
		if slices.Sort(want); err != nil || !slices.Equal(got, want) {
			t.Errorf("codes that are not exchanged: %q, %v", got, err)
		}
	}
	open(r.ID, later.ID)
	done := r
	done.State, done.Secret = vault.StateDone, secret.String{}
	save(t, v, done)
	open(later.ID)
	if strings.Contains(r.ID, "abc") || !vault.IsCode(r.ID) {
		t.Errorf("id %q", r.ID)
	}
	if list, err := v.List(t.Context(), Platform, "", 10); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func nothingSecretRests(t *testing.T, open func(*testing.T) (vault.Store, func() string)) {
	store, raw := open(t)
	r := active("wx1", "refreshtoken@@@secret")
	r.Info = []byte("agent-1000002")
	save(t, vault.New(store, Keys(t, Key)), r)
	dump := raw()
	if !strings.Contains(dump, "wx1") {
		t.Fatalf("the dump does not show the record: %q", dump)
	}
	for _, part := range []string{"refreshtoken", "agent-1000002", "cmVmcmVzaHRva2Vu"} {
		if strings.Contains(dump, part) {
			t.Errorf("the dump holds %q", part)
		}
	}
}

func keysChange(t *testing.T, open func(*testing.T) (vault.Store, func() string)) {
	store, _ := open(t)
	old, both, changed := vault.New(store, Keys(t, Key)), vault.New(store, Keys(t, OtherKey, Key)), vault.New(store, Keys(t, OtherKey))
	r := save(t, old, active("wx1", "refresh"))
	if _, err := changed.Load(t.Context(), Platform, "wx1"); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("with another key: %v", err)
	}
	if _, err := changed.List(t.Context(), Platform, "", 10); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("list with another key: %v", err)
	}
	if got := load(t, both, "wx1"); !same(got, r) {
		t.Errorf("with both keys: %+v", got)
	}
	save(t, both, r)
	if got := load(t, changed, "wx1"); !got.Secret.Equal(r.Secret) {
		t.Errorf("sealed again: %+v", got)
	}
	// A row that was moved, or whose state was changed by hand, does not open.
	row, err := store.Load(t.Context(), Platform, "wx1")
	if err != nil {
		t.Fatal(err)
	}
	row.Platform, row.ID, row.Rev = Platform, "wx2", 0
	if _, err := store.Save(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	if _, err := changed.Load(t.Context(), Platform, "wx2"); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("moved to another record: %v", err)
	}
}

func recordsAreSealedAgain(t *testing.T, open func(*testing.T) (vault.Store, func() string)) {
	store, _ := open(t)
	old, both, changed := vault.New(store, Keys(t, Key)), vault.New(store, Keys(t, OtherKey, Key)), vault.New(store, Keys(t, OtherKey))
	r := save(t, old, active("wx1", "refresh"))
	code := vault.Record{Platform: Platform, ID: vault.CodeID(secret.New("code")), State: vault.StateDone, Info: []byte("{}")}
	save(t, old, code)
	reseal := func(v *vault.Vault, id string, want bool) {
		t.Helper()
		if did, err := v.Reseal(t.Context(), Platform, id); err != nil || did != want {
			t.Errorf("%s was sealed again: %v, %v", id, did, err)
		}
	}
	if _, err := changed.Reseal(t.Context(), Platform, "wx1"); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("without the old key: %v", err)
	}
	reseal(both, "wx1", true)
	reseal(both, "wx1", false)
	reseal(both, "wx2", false) // there is none
	if got := load(t, changed, "wx1"); !got.Secret.Equal(r.Secret) || got.Order != r.Order || got.State != r.State || got.Rev != r.Rev+1 {
		t.Errorf("%+v", got)
	}
	// A code that is delivered again after the old key is gone is known to be done.
	if got := load(t, changed, code.ID); got.State != vault.StateDone || got.Rev != 1 {
		t.Errorf("%+v", got)
	}
	code.ID, code.State = vault.CodeID(secret.New("other")), vault.StateSent
	save(t, old, code)
	if _, err := changed.Load(t.Context(), Platform, code.ID); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("a code that is not exchanged: %v", err)
	}
}

// manyAreSealedAgain is recordsAreSealedAgain for many: one that no key opens, one that is sealed
// with the first key, and one that was saved since it was loaded hold up no other.
func manyAreSealedAgain(t *testing.T, open func(*testing.T) (vault.Store, func() string)) {
	store, _ := open(t)
	old, both, other := vault.New(store, Keys(t, Key)), vault.New(store, Keys(t, OtherKey, Key)), vault.New(store, Keys(t, OtherKey))
	for i := range 30 {
		save(t, old, active(fmt.Sprintf("wx%04d", i), fmt.Sprintf("secret %d", i)))
	}
	save(t, other, active("wx0100", "of the first key"))
	rows, err := store.List(t.Context(), Platform, "", 500)
	if err != nil || len(rows) != 31 {
		t.Fatal(len(rows), err)
	}
	for i := range rows {
		rows[i].Platform = Platform
	}
	rows[1].Sealed = []byte("of no key")
	newer := load(t, old, "wx0002")
	newer.Secret = secret.New("newer")
	save(t, old, newer)
	did, errs := both.ResealAll(t.Context(), rows)
	for i, r := range rows {
		if want := i != 1 && r.ID != "wx0100"; did[i] != want || errors.Is(errs[i], vault.ErrSealed) != (i == 1) || i != 1 && errs[i] != nil {
			t.Errorf("%s was sealed again: %v, %v", r.ID, did[i], errs[i])
		}
	}
	for i := range 30 {
		want := fmt.Sprintf("secret %d", i)
		if i == 1 {
			continue
		}
		if i == 2 {
			want = "newer"
		}
		if got := load(t, other, fmt.Sprintf("wx%04d", i)); got.Secret.Reveal() != want {
			t.Errorf("%d: %+v", i, got)
		}
	}
}

func aRepeatIsNoConflict(t *testing.T, open func(*testing.T) (vault.Store, func() string)) {
	store, _ := open(t)
	row := vault.Row{Platform: Platform, ID: "wx1", State: vault.StateActive, Sealed: []byte("sealed")}
	for range 2 {
		if rev, err := store.Save(t.Context(), row); err != nil || rev != 1 {
			t.Errorf("rev %d, %v", rev, err)
		}
	}
	row.Sealed = []byte("of another call")
	if _, err := store.Save(t.Context(), row); !errors.Is(err, vault.ErrConflict) {
		t.Errorf("another call: %v", err)
	}
}

// manyAtOnce are saved together; what cannot be saved of them holds up no other.
func manyAtOnce(t *testing.T, v *vault.Vault) {
	save(t, v, active("wx1000", "there"))
	invalid := active("wx2000", "x")
	invalid.State = "nonsense"
	records := []vault.Record{active("wx1000", "conflict"), invalid}
	for i := range 130 { // more than one round trip takes
		records = append(records, active(fmt.Sprintf("wx%04d", i), fmt.Sprintf("secret %d", i)))
	}
	for i, err := range v.SaveAll(t.Context(), records) {
		switch {
		case i == 0 && !errors.Is(err, vault.ErrConflict):
			t.Errorf("over what was not seen: %v", err)
		case i == 1 && (err == nil || errors.Is(err, vault.ErrConflict)):
			t.Errorf("what is not valid: %v", err)
		case i > 1 && err != nil:
			t.Errorf("%s: %v", records[i].ID, err)
		}
	}
	if got := load(t, v, "wx1000"); got.Rev != 1 || got.Secret.Reveal() != "there" {
		t.Errorf("%+v", got)
	}
	for i, want := range records[2:] {
		if got := load(t, v, want.ID); got.Rev != 1 || !got.Secret.Equal(want.Secret) {
			t.Errorf("%d: %+v", i, got)
		}
	}
	if errs := v.SaveAll(t.Context(), nil); len(errs) != 0 {
		t.Errorf("of none: %v", errs)
	}
}
