package platform

import (
	"context"
	"errors"
	"strings"
	"sync"
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

var kinds = []Kind{OpenPlatform, Suite, Template}

// From the customer's consent to a token that works, on every replica: one exchange, one fetch.
func TestAnAuthorisationBecomesATokenEverywhere(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newRig(t, 3, kind)
				x.start()
				x.authorized(shop)
				first := x.mustGet(0, shop)
				for i := range x.replicas {
					if got := x.mustGet(i, shop); !got.Value.Equal(first.Value) {
						t.Errorf("replica %d has another token", i)
					}
				}
				l := x.sim.Ledger(id)
				if got := l.Authorizers[shop]; got.Exchanges != 1 || got.Fetches != 1 {
					t.Errorf("%+v", got)
				}
				if kind == OpenPlatform {
					if n := x.sim.Calls(id).Paths["/cgi-bin/component/api_component_token"]; n != 1 {
						t.Errorf("%d fetches of the platform's token, want 1", n)
					}
				}
			})
		})
	}
}

// The code comes by the push and by the redirect, on several replicas at once, and each several
// times.
func TestOneCodeIsExchangedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 5, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.Deliver = func(wechattest.Push) []wechattest.Delivery {
			return []wechattest.Delivery{{}, {}, {After: time.Second}}
		}
		x.sim.SetPlatformKnobs(id, k)
		x.start()
		x.sim.AddFault(wechattest.Fault{Path: "/cgi-bin/component/api_query_auth", Delay: 2 * time.Second})
		code := x.sim.Authorize(id, shop)
		var callers sync.WaitGroup
		for i := range 2 {
			callers.Go(func() {
				got, err := x.replicas[i].Exchange(t.Context(), secret.New(code))
				if err != nil || got != (Outcome{vault.StateDone, shop}) {
					t.Errorf("redirect %d: %+v, %v", i, got, err)
				}
			})
		}
		callers.Wait()
		time.Sleep(time.Minute)
		if got := x.sim.Ledger(id).Codes; len(got) != 1 || got[0].Exchanged != 1 || got[0].Refused != 0 {
			t.Errorf("%+v", got)
		}
		x.mustGet(0, shop)
	})
}

// Two different codes of one authorisation are two exchanges, and the second one voids what the
// first one gave: the token works all the same.
func TestTwoCodesOfOneAuthorisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.SeparateCodes = true
		x.sim.SetPlatformKnobs(id, k)
		x.start()
		code := x.authorized(shop)
		x.mustGet(0, shop)
		if got, err := x.replicas[1].Exchange(t.Context(), secret.New(code)); err != nil || got.State != vault.StateDone {
			t.Fatalf("%+v, %v", got, err)
		}
		if r := x.record(shop); !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
			t.Error("the vault has a refresh token that WeChat does not accept")
		}
		time.Sleep(time.Second)
		for i := range x.replicas {
			x.mustGet(i, shop)
		}
	})
}

// P4 on a platform: what was withdrawn is gone everywhere, and its ticket with it. A new
// authorisation makes a token at once.
func TestAWithdrawalEndsTheToken(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newRig(t, 3, kind)
				x.start()
				x.authorized(shop)
				for i := range x.replicas {
					x.mustGet(i, shop)
				}
				time.Sleep(2 * time.Second) // WeChat's times are whole seconds
				x.sim.Withdraw(id, shop)
				time.Sleep(time.Second)
				for i := range x.replicas {
					got, err := x.get(i, shop)
					f, ok := errors.AsType[*tokencache.FetchError](err)
					if !ok || f.Class != tokencache.ClassEnded {
						t.Errorf("replica %d: %+v, %v", i, got, err)
					}
				}
				if got, err := x.cluster.Redis.Get("wxtoken:{" + apps.AccountName(id, shop) + "}:access_token"); err == nil {
					t.Errorf("Redis still has %q", got)
				}
				time.Sleep(2 * time.Second)
				x.authorized(shop)
				time.Sleep(time.Second)
				for i := range x.replicas {
					x.mustGet(i, shop)
				}
			})
		})
	}
}

// P2: of events in any order the newest counts.
func TestOlderEventsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		x.authorized(shop)
		now := time.Now().Unix()
		x.sim.PushEvent(id, wechattest.Push{InfoType: "unauthorized", Authorizer: shop, Order: now - 100})
		x.sim.PushEvent(id, wechattest.Push{InfoType: "component_verify_ticket", Ticket: "ticket@@@old", Order: now - 100})
		time.Sleep(2 * time.Second)
		first := x.mustGet(0, shop)
		x.sim.PushEvent(id, wechattest.Push{InfoType: "unauthorized", Authorizer: shop, Order: now - 100})
		time.Sleep(2 * time.Second)
		if again := x.mustGet(0, shop); !again.Value.Equal(first.Value) {
			t.Error("an older withdrawal took the token back")
		}
		if r := x.record(vault.Ticket); r.Secret.Equal(secret.New("ticket@@@old")) {
			t.Error("an older ticket replaced a newer one")
		}
		// A code that is older than the withdrawal revives nothing.
		x.sim.Withdraw(id, shop)
		time.Sleep(2 * time.Second)
		x.sim.PushEvent(id, wechattest.Push{InfoType: "authorized", Authorizer: shop, Code: "queryauthcode@@@old", Order: now - 50})
		time.Sleep(time.Minute)
		if r := x.record(shop); r.State != vault.StateWithdrawn {
			t.Errorf("%+v", r)
		}
		if r := x.record(vault.CodeID(secret.New("queryauthcode@@@old"))); r.State != vault.StateDone {
			t.Errorf("the code: %+v", r)
		}
	})
}

// P1: a refresh token that WeChat has changed is in the vault before the access token is handed
// out.
func TestARefreshTokenIsKeptBeforeItsAccessTokenIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.Refresh, k.RotateOverlap = wechattest.RefreshRotates, 0
		x.sim.SetPlatformKnobs(id, k)
		x.start()
		x.authorized(shop)
		x.faults.deaf.Store(true)
		if got, err := x.get(0, shop); err == nil {
			t.Errorf("handed out: %+v", got)
		}
		time.Sleep(10 * time.Second)
		if got, err := x.get(0, shop); err == nil {
			t.Errorf("handed out later: %+v", got)
		}
		x.faults.deaf.Store(false)
		x.eventually("there is a token", func() bool { _, err := x.get(0, shop); return err == nil })
		x.mustGet(0, shop)
		if r := x.record(shop); !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
			t.Error("the vault has a refresh token that WeChat does not accept")
		}
	})
}

// P7: WeChat rejects every authorisation for hours. Nothing is erased, little is asked, and all is
// well afterwards: as long again after a short outage, an hour after a long one.
func TestAnOutageEndsNoAuthorisation(t *testing.T) {
	for _, kind := range []Kind{OpenPlatform, Suite} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newRig(t, 1, kind)
				x.start()
				x.authorized(shop)
				k := x.sim.PlatformKnobs(id)
				k.FlapCode, k.FlapEvery = 61003, 1
				if kind == Suite {
					k.FlapCode = 40084
				}
				x.sim.SetPlatformKnobs(id, k)
				before := x.fetches(shop)
				minutes := atFullSize(120, 40)
				for range minutes {
					_, err := x.get(0, shop)
					f, ok := errors.AsType[*tokencache.FetchError](err)
					if !ok || f.Code != k.FlapCode || !errors.Is(err, ErrRefused) && f.Class != tokencache.ClassPermanent {
						t.Fatalf("%v", err)
					}
					time.Sleep(time.Minute)
				}
				if n := x.fetches(shop) - before; n < 2 || n > 7 {
					t.Errorf("%d fetches in %d minutes", n, minutes)
				}
				if r := x.record(shop); r.State != vault.StateRefused || r.Secret.Empty() {
					t.Errorf("%+v", r)
				}
				k.FlapCode, k.FlapEvery = 0, 0
				x.sim.SetPlatformKnobs(id, k)
				time.Sleep(min(time.Hour, time.Duration(minutes)*time.Minute))
				x.mustGet(0, shop)
				if r := x.record(shop); r.State != vault.StateActive {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// P6: ids of no account cost next to nothing.
func TestGarbageIDsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		before := x.calls()
		for i := range atFullSize(100_000, 2000) {
			if _, err := x.get(i%2, "wx"+time.Duration(i).String()); !errors.Is(err, apps.ErrNotAuthorized) {
				t.Fatal(err)
			}
		}
		if n := x.calls() - before; n > asksPerMinute {
			t.Errorf("%d calls", n)
		}
	})
}

// That WeChat cannot say whether it knows an account is no no: it is asked again.
func TestAnAccountThatWeChatCannotSayAnythingAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.authorized(shop)
		time.Sleep(time.Minute)
		x.cluster.Redis.HDel("wxtoken:{"+id+"}:vault", shop)
		const path = "/cgi-bin/component/api_get_authorizer_info"
		x.sim.AddFault(wechattest.Fault{Path: path, Effect: wechattest.EffectErrcode, Code: -1, Count: 1})
		if got, err := x.get(0, shop); err == nil || errors.Is(err, apps.ErrNotAuthorized) {
			t.Errorf("%+v, %v", got, err)
		}
		x.mustGet(0, shop)
		for range 3 {
			if _, err := x.get(0, "wxnobody"); !errors.Is(err, apps.ErrNotAuthorized) {
				t.Errorf("an account that WeChat does not know: %v", err)
			}
		}
		if n := x.sim.Calls(id).Paths[path]; n != 3 {
			t.Errorf("WeChat was asked %d times, want twice for the one and once for the other", n)
		}
	})
}

// P5: success only for what is stored, and soon.
func TestAPushIsAcknowledgedWhenItIsStored(t *testing.T) {
	for what, push := range map[string]func(*rig){
		"a ticket":     func(x *rig) { x.sim.PushTicket(id) },
		"a code":       func(x *rig) { x.sim.Authorize(id, "wx2") },
		"a withdrawal": func(x *rig) { x.sim.Withdraw(id, shop) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newRig(t, 1, OpenPlatform)
				x.start()
				x.authorized(shop)
				time.Sleep(2 * time.Second) // WeChat's times are whole seconds
				x.faults.hang.Store(int64(time.Minute))
				push(x)
				time.Sleep(3 * time.Second)
				pushed := x.sim.Pushed(id)
				last := pushed[len(pushed)-1]
				if last.OK || last.Status != 503 {
					t.Errorf("while the vault hangs: %+v", last)
				}
				x.faults.hang.Store(0)
				x.eventually("it comes again", func() bool {
					pushed := x.sim.Pushed(id)
					return pushed[len(pushed)-1].OK
				})
			})
		})
	}
}

// Without tickets the token lives on, and one replica asks for them.
func TestPushesThatStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 3, OpenPlatform)
		x.sim.StopTickets(id)
		go x.sim.RunPushes(t.Context())
		x.cluster.Start()
		time.Sleep(25 * time.Second)
		if got := x.sim.Calls(id).Paths["/cgi-bin/component/api_start_push_ticket"]; got != 1 {
			t.Errorf("asked %d times for tickets, want once", got)
		}
		if _, err := x.replicas[1].o.Cache.Get(t.Context(), x.replicas[1].TokenKey()); err != nil {
			t.Errorf("after the ticket: %v", err)
		}
	})
}

// A ticket of an account's is fetched with its token, and both are kept while they are asked for.
func TestATicketOfAnAuthorizer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.authorized(shop)
		x.mustGet(0, shop)
		p := x.replicas[0]
		spec, err := p.Credential(t.Context(), shop, "jsapi_ticket")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.o.Cache.Add(spec); err != nil {
			t.Fatal(err)
		}
		got, err := p.o.Cache.Get(t.Context(), spec.Key)
		if err != nil || !x.sim.TicketValid(apps.AccountName(id, shop), "jsapi", got.Value.Reveal()) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := p.Credential(t.Context(), shop, "nonsense"); !errors.Is(err, tokencache.ErrUnknown) {
			t.Errorf("a kind that there is not: %v", err)
		}
	})
}

// WeChat fails while a caller waits for its code: it is not asked in a loop, and the code is
// exchanged once it is well.
func TestACodeWhileWeChatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.NoCodePush = true
		x.sim.SetPlatformKnobs(id, k)
		x.start()
		const path = "/cgi-bin/component/api_query_auth"
		x.sim.AddFault(wechattest.Fault{Path: path, Effect: wechattest.EffectErrcode, Code: -1, Count: 4})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got, err := x.replicas[0].Exchange(ctx, secret.New(x.sim.Authorize(id, shop)))
		if err != nil || got.State == vault.StateDone || got.State == vault.StateLost {
			t.Errorf("%+v, %v", got, err)
		}
		if n := x.sim.Calls(id).Paths[path]; n < 1 || n > 4 {
			t.Errorf("asked %d times in 5 s", n)
		}
		x.eventually("the code is exchanged", func() bool { return x.record(shop).State == vault.StateActive })
		x.mustGet(1, shop)
	})
}

// An authorisation whose exchange lost its answer is read again; on WeCom it is lost, and the log
// says so.
func TestAnExchangeWhoseAnswerIsLost(t *testing.T) {
	for _, kind := range []Kind{OpenPlatform, Suite} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newRig(t, 2, kind)
				x.start()
				for _, path := range []string{"/cgi-bin/component/api_query_auth", "/cgi-bin/service/get_permanent_code"} {
					x.sim.AddFault(wechattest.Fault{Path: path, Effect: wechattest.EffectCut, Count: 1})
				}
				code := secret.New(x.sim.Authorize(id, shop))
				x.eventually("the code's end is known", func() bool {
					s := x.record(vault.CodeID(code)).State
					return s == vault.StateDone || s == vault.StateLost
				})
				if kind == Suite {
					if r := x.record(vault.CodeID(code)); r.State != vault.StateLost || !r.Secret.Empty() {
						t.Errorf("%+v", r)
					}
					return
				}
				x.mustGet(0, shop)
				if r := x.record(shop); !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
					t.Error("the vault has a refresh token that WeChat does not accept")
				}
			})
		})
	}
}

// The secret of a withdrawn authorisation is erased a day later, and its record stays.
func TestWhatWasWithdrawnIsErased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.authorized(shop)
		time.Sleep(30 * time.Minute)
		x.sim.Withdraw(id, shop)
		x.eventually("it is withdrawn", func() bool { return x.record(shop).State == vault.StateWithdrawn })
		withdrawn := x.record(shop)
		// A day by the vault's clock, but for minutes: it is compared with WeChat's list, and keeps the
		// secret.
		x.faults.ahead.Store(int64(23*time.Hour + 40*time.Minute))
		x.eventually("the list was read", func() bool { return x.record(vault.Marker).Rev > 1 })
		if r := x.record(shop); r.Rev != withdrawn.Rev || r.Secret.Empty() {
			t.Errorf("too early: %+v", r)
		}
		time.Sleep(40 * time.Minute)
		if r := x.record(shop); r.State != vault.StateWithdrawn || !r.Secret.Empty() || r.Order != withdrawn.Order {
			t.Errorf("after a day: %+v", r)
		}
	})
}

// An account that authorised no API permission has no token, and costs nothing upstream.
func TestAnAccountWithoutPermissions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.NoPermissions = true
		x.sim.SetPlatformKnobs(id, k)
		x.start()
		x.sim.Authorize(id, shop)
		x.eventually("it is in the vault", func() bool { return x.record(shop).State == vault.StateActive })
		for range 3 {
			_, err := x.get(0, shop)
			if f, ok := errors.AsType[*tokencache.FetchError](err); !ok || f.Class != tokencache.ClassEnded || f.Message != ErrNoPermission.Error() {
				t.Errorf("%v", err)
			}
			time.Sleep(10 * time.Minute)
		}
		if n := x.fetches(shop); n != 0 {
			t.Errorf("%d fetches", n)
		}
		// With permissions, the same account has a token: an exchange that brings none replaces no other.
		k.NoPermissions = false
		x.sim.SetPlatformKnobs(id, k)
		x.authorized(shop)
		x.mustGet(0, shop)
		k.NoPermissions = true
		x.sim.SetPlatformKnobs(id, k)
		before := x.record(shop)
		time.Sleep(2 * time.Second) // WeChat's times are whole seconds
		x.sim.UpdateAuthorization(id, shop)
		x.eventually("the update is in the vault", func() bool { return x.record(shop).Rev > before.Rev })
		if r := x.record(shop); !r.Secret.Equal(before.Secret) {
			t.Error("an empty secret replaced one")
		}
	})
}

// While the vault is away, accounts whose secret is known are served; a code waits.
func TestAVaultThatIsAwayStopsNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.authorized(shop)
		first := x.mustGet(0, shop)
		x.faults.away.Store(true)
		x.sim.KillTokens(apps.AccountName(id, shop))
		if got, err := x.replicas[0].o.Cache.Report(t.Context(), x.replicas[0].authorizerKey(shop), first.Value); err != nil || got.Value.Equal(first.Value) {
			t.Errorf("%+v, %v", got, err)
		}
		x.mustGet(0, shop)
		if _, err := x.replicas[0].Exchange(t.Context(), secret.New("queryauthcode@@@x")); !errors.Is(err, errAway) {
			t.Errorf("a code: %v", err)
		}
		if _, err := x.replicas[0].Authorizers(t.Context(), "", 10); err != nil {
			t.Errorf("the list is not one of the faults: %v", err)
		}
	})
}

// A vault whose records another key has sealed gives nothing, and loses nothing.
func TestAVaultOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.authorized(shop)
		other := vault.New(x.faults.Store, vaulttest.Keys(t, vaulttest.OtherKey))
		before, err := other.Save(t.Context(), x.record(shop))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := x.get(0, shop); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%+v, %v", got, err)
		}
		x.sim.Withdraw(id, shop)
		time.Sleep(time.Minute)
		if r, err := other.Load(t.Context(), id, shop); err != nil || r.Rev != before.Rev || !r.Secret.Equal(before.Secret) {
			t.Errorf("it was overwritten: %+v, %v", r, err)
		}
		if pushed := x.sim.Pushed(id); pushed[len(pushed)-1].OK {
			t.Error("a withdrawal that could not be stored was acknowledged")
		}
	})
}

// A push under the previous key is read while the key changes; one that is forged, or empty, changes
// nothing.
func TestPushesThatAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		synctest.Wait() // until the simulator has noted the answer to its first push
		rev, before := x.record(vault.Ticket).Rev, len(x.sim.Pushed(id))
		k := x.sim.PlatformKnobs(id)
		k.Deliver = func(wechattest.Push) []wechattest.Delivery { return []wechattest.Delivery{{Empty: true}} }
		x.sim.SetPlatformKnobs(id, k)
		x.sim.PushTicket(id)
		time.Sleep(time.Second)
		x.sim.ChangeAESKey(id, "zyxwvutsrqponmlkjihgfedcba9876543210ZYXWVUT")
		k.Deliver = nil
		x.sim.SetPlatformKnobs(id, k)
		x.sim.PushTicket(id) // under a key that the platform does not have
		time.Sleep(time.Second)
		for _, p := range x.sim.Pushed(id)[before:] {
			if p.Status != 403 {
				t.Errorf("%+v", p)
			}
		}
		if got := x.record(vault.Ticket).Rev; got != rev {
			t.Errorf("the ticket changed: rev %d, was %d", got, rev)
		}
		k.Deliver = func(wechattest.Push) []wechattest.Delivery { return []wechattest.Delivery{{PreviousKey: true}} }
		x.sim.SetPlatformKnobs(id, k)
		x.sim.PushTicket(id)
		x.eventually("the ticket under the previous key is stored", func() bool { return x.record(vault.Ticket).Rev > rev })
	})
}

// A provider's token needs no ticket, and no call is made for it but the fetch, which repeats a token
// that is valid.
func TestAProvidersToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, Provider)
		x.start()
		for range 18 {
			for _, p := range x.replicas {
				token, err := p.o.Cache.Get(t.Context(), p.TokenKey())
				if err != nil || token.Stale || !x.sim.Valid(id, token.Value.Reveal()) {
					t.Fatalf("%+v, %v", token, err)
				}
			}
			time.Sleep(10 * time.Minute)
		}
		if calls, issued := x.calls(), x.sim.Calls(id).Issued; calls > 20 || issued > 2 {
			t.Errorf("%d calls and %d tokens in three hours", calls, issued)
		}
		if x.replicas[0].HasAccounts() {
			t.Error("a provider has accounts")
		}
	})
}

// What is kept of an installation is bounded: its longest part is left out, and the rest stays.
func TestWhatIsKeptOfAnInstallationIsBounded(t *testing.T) {
	long := strings.Repeat("x", mostSaid)
	for info, want := range map[string]string{
		`{"a":"1","b":"2"}`:                             `{"a":"1","b":"2"}`,
		`{"a":"1","b":"` + long + `"}`:                  `{"a":"1"}`,
		`{"a":"` + long + `"}`:                          `{}`,
		`["` + long + `"]`:                              ``,
		`{"a":"` + long + `","b":"` + long + `","c":3}`: `{"c":3}`,
	} {
		if got := string(bounded([]byte(info))); got != want {
			t.Errorf("%.40s...: %.40s, want %s", info, got, want)
		}
	}
}
