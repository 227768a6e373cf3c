package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// An import never replaces what is as new or newer, and an empty secret nothing.
func TestAnImportReplacesOnlyWhatIsOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		p := x.replicas[0]
		line := func(state vault.State, text string, order int64) vault.Record {
			return vault.Record{Platform: id, ID: shop, State: state, Secret: secret.New(text), Order: order}
		}
		for _, c := range []struct {
			name          string
			there, line   vault.Record
			want          Imported
			secret, state string
		}{
			{"into nothing", vault.Record{}, line(vault.StateActive, "a", 0), ImportAdded, "a", "active"},
			{"a withdrawal into nothing", vault.Record{}, line(vault.StateWithdrawn, "", 5), ImportAdded, "", "withdrawn"},
			{"a newer one", line(vault.StateActive, "a", 5), line(vault.StateActive, "b", 6), ImportReplaced, "b", "active"},
			{"a newer one over a withdrawal", line(vault.StateWithdrawn, "a", 5), line(vault.StateActive, "b", 6), ImportReplaced, "b", "active"},
			{"an older one", line(vault.StateActive, "a", 5), line(vault.StateActive, "b", 4), ImportKept, "a", "active"},
			{"one of the same second", line(vault.StateActive, "a", 5), line(vault.StateActive, "b", 5), ImportKept, "a", "active"},
			{"one without a time over a withdrawal", line(vault.StateWithdrawn, "", 5), line(vault.StateActive, "b", 0), ImportKept, "", "withdrawn"},
			{"the same", line(vault.StateRefused, "a", 5), line(vault.StateActive, "a", 5), ImportUnchanged, "a", "refused"},
			{"a newer one without a secret", line(vault.StateActive, "a", 5), line(vault.StateWithdrawn, "", 6), ImportReplaced, "a", "withdrawn"},
		} {
			x.cluster.Redis.FlushAll()
			if c.there.ID != "" {
				if _, err := p.o.Vault.Save(t.Context(), c.there); err != nil {
					t.Fatal(err)
				}
			}
			before := x.record(shop)
			if got, err := p.Import(t.Context(), []vault.Record{c.line}, true); err[0] != nil || got[0] != c.want || x.record(shop).Rev != before.Rev {
				t.Errorf("%s, dry: %s, %v, %+v", c.name, got, err, x.record(shop))
			}
			got, err := p.Import(t.Context(), []vault.Record{c.line}, false)
			if r := x.record(shop); err[0] != nil || got[0] != c.want || r.Secret.Reveal() != c.secret || string(r.State) != c.state {
				t.Errorf("%s: %s, %v, %+v with %q", c.name, got, err, r, r.Secret.Reveal())
			}
		}
	})
}

// Thousands are moved in seconds, although each needs the disk of Redis, which is written once a
// second. What another replica saves meanwhile is not overwritten, and an account that cannot be read
// holds up no other.
func TestAnImportOfManyWaitsForTheDiskTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1100
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.flushesEachSecond()
		p := x.replicas[0]
		lines := make([]vault.Record, n)
		for i := range lines {
			lines[i] = vault.Record{Platform: id, ID: fmt.Sprintf("wx%016d", i), State: vault.StateActive, Secret: secret.New("imported"), Order: 5}
		}
		unreadable := lines[7]
		if _, err := vault.New(x.faults, vaulttest.Keys(t, vaulttest.OtherKey)).Save(t.Context(), unreadable); err != nil {
			t.Fatal(err)
		}
		raced := lines[8]
		x.faults.beforeSaves(func() {
			raced.Secret, raced.Order = secret.New("newer"), 6
			if _, err := vault.New(x.faults.Store, vaulttest.Keys(t, vaulttest.Key)).Save(t.Context(), raced); err != nil {
				t.Error(err)
			}
		})
		began := time.Now()
		var what []Imported
		var errs []error
		for page := range slices.Chunk(lines, pageSize) {
			w, e := p.Import(t.Context(), page, false)
			what, errs = append(what, w...), append(errs, e...)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%d records took %v", n, took)
		}
		for i, r := range lines {
			switch i {
			case 7:
				if !errors.Is(errs[i], vault.ErrSealed) {
					t.Errorf("one that cannot be read: %s, %v", what[i], errs[i])
				}
			case 8:
				if got := x.record(r.ID); what[i] != ImportKept || errs[i] != nil || got.Secret.Reveal() != "newer" {
					t.Errorf("one that was saved meanwhile: %s, %v, %+v", what[i], errs[i], got)
				}
			default:
				if got := x.record(r.ID); what[i] != ImportAdded || errs[i] != nil || got.Secret.Reveal() != "imported" {
					t.Fatalf("%d: %s, %v, %+v", i, what[i], errs[i], got)
				}
			}
		}
	})
}

// What an import replaces takes back the token that was fetched before, from every replica.
func TestAnImportTakesTheTokenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		x.authorized(shop)
		x.mustGet(0, shop)
		x.mustGet(1, shop)
		withdrawn := vault.Record{Platform: id, ID: shop, State: vault.StateWithdrawn, Order: x.record(shop).Order + 1}
		what, errs := x.replicas[0].Import(t.Context(), []vault.Record{withdrawn}, false)
		if what[0] != ImportReplaced || errs[0] != nil {
			t.Fatal(what, errs)
		}
		time.Sleep(time.Second)
		for i := range x.replicas {
			if token, err := x.get(i, shop); err == nil {
				t.Errorf("replica %d hands out %+v", i, token)
			}
		}
	})
}

// While the vault hangs, an import fails once, and not for each record in turn.
func TestAnImportWithoutTheVaultFailsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		lines := make([]vault.Record, pageSize)
		for i := range lines {
			lines[i] = vault.Record{Platform: id, ID: fmt.Sprintf("wx%016d", i), State: vault.StateActive, Secret: secret.New("imported")}
		}
		x.faults.hang.Store(int64(5 * time.Second))
		x.faults.away.Store(true)
		began := time.Now()
		_, errs := x.replicas[0].Import(t.Context(), lines, false)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		for i, err := range errs {
			if err == nil {
				t.Fatalf("record %d: no error", i)
			}
		}
	})
}

// A person ends an authorisation: no replica has its token any more, a fetch under way does not
// bring it back, and neither does WeChat's list, which still has the account. Its owner does.
func TestWhatAPersonForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		x.authorized(shop)
		for i := range x.replicas {
			x.mustGet(i, shop)
		}
		time.Sleep(time.Minute)
		moved := x.record(shop)
		moved.Order = 0 // as of a vault that was moved, or of an account that WeChat was asked about
		if _, err := x.replicas[0].o.Vault.Save(t.Context(), moved); err != nil {
			t.Fatal(err)
		}
		if _, err := x.replicas[0].Forget(t.Context(), "wx9"); !errors.Is(err, apps.ErrNotAuthorized) {
			t.Errorf("one that is not there: %v", err)
		}
		was, err := x.replicas[0].Forget(t.Context(), shop)
		if err != nil || was != vault.StateActive {
			t.Fatal(was, err)
		}
		time.Sleep(250 * time.Millisecond)
		for i := range x.replicas {
			_, err := x.get(i, shop)
			if f, ok := errors.AsType[*tokencache.FetchError](err); !ok || f.Class != tokencache.ClassEnded {
				t.Errorf("replica %d: %v", i, err)
			}
		}
		if err := x.replicas[1].Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := x.record(shop); r.State != vault.StateWithdrawn || !r.Secret.Empty() || r.Info != nil {
			t.Errorf("%+v", r)
		}
		time.Sleep(time.Minute)
		x.authorized(shop)
		x.mustGet(1, shop)
	})
}

// Acceptance 10: a person who knows that WeChat works again need not wait for the next try.
func TestRecoverTriesAtOnceWhatWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		refused := []string{"wx1", "wx2", "wx3"}
		k := x.sim.PlatformKnobs(id)
		k.FlapCode, k.FlapEvery = 61003, 1
		for _, a := range refused {
			x.authorized(a)
		}
		x.sim.SetPlatformKnobs(id, k)
		for range 6 {
			for _, a := range refused {
				_, _ = x.get(0, a)
			}
			time.Sleep(time.Minute)
		}
		still := map[string]bool{}
		tell := func(a string, err error) { still[a] = err != nil }
		if err := x.replicas[1].RetryRefused(t.Context(), tell); err != nil || len(still) != 3 || !still["wx1"] {
			t.Errorf("while WeChat refuses: %v, %v", still, err)
		}
		k.FlapCode, k.FlapEvery = 0, 0
		x.sim.SetPlatformKnobs(id, k)
		clear(still)
		if err := x.replicas[1].RetryRefused(t.Context(), tell); err != nil || len(still) != 3 {
			t.Fatal(still, err)
		}
		for _, a := range refused {
			if r := x.record(a); still[a] || r.State != vault.StateActive {
				t.Errorf("%s: %v, %+v", a, still[a], r)
			}
			before := x.fetches(a)
			x.mustGet(0, a)
			if n := x.fetches(a); n != before {
				t.Errorf("%s was fetched once more", a)
			}
		}
	})
}

// resealing is a store in which a person seals a record again just before a replica saves it.
type resealing struct {
	vault.Store
	t    *testing.T
	keys vault.Keys
	n    atomic.Int64 // how often it is still to be done
}

func (s *resealing) Save(ctx context.Context, r vault.Row) (int64, error) {
	if r.State == vault.StateActive && r.Rev > 0 && s.n.Add(-1) == 0 {
		if did, err := vault.New(s.Store, s.keys).Reseal(ctx, r.Platform, r.ID); err != nil || !did {
			s.t.Errorf("sealed again: %v, %v", did, err)
		}
	}
	return s.Store.Save(ctx, r)
}

// A refresh token that WeChat has just replaced is not lost because the records are sealed again at
// that moment.
func TestANewKeyLosesNoRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.Refresh, k.RotateOverlap = wechattest.RefreshRotates, 0
		k.InfoOmitsTokens, k.ListOmitsTokens = true, true // so that WeChat gives it once only
		x.sim.SetPlatformKnobs(id, k)
		both := vaulttest.Keys(t, vaulttest.OtherKey, vaulttest.Key)
		x.replicas[0].o.Vault = vault.New(x.faults, vaulttest.Keys(t, vaulttest.Key, vaulttest.OtherKey))
		between := &resealing{Store: x.faults.Store, t: t, keys: both}
		x.faults.Store = between
		x.start()
		x.authorized(shop)
		between.n.Store(1)
		x.mustGet(0, shop)
		if between.n.Load() > 0 {
			t.Fatal("nothing was sealed again")
		}
		r, err := vault.New(x.faults, both).Load(t.Context(), id, shop)
		if err != nil || !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
			t.Errorf("the vault has a refresh token that WeChat does not accept: %+v, %v", r, err)
		}
	})
}
