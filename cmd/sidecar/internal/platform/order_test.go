package platform

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// P2: a push that says that an authorisation has changed, and brings no code, takes the token back
// once, however often and late it comes.
func TestARepeatedChangeTakesTheTokenBackOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, Suite)
		x.start()
		x.authorized(shop)
		first := x.mustGet(0, shop)
		time.Sleep(2 * time.Second) // WeChat's times are whole seconds
		change := wechattest.Push{InfoType: "change_auth", Authorizer: shop, Order: time.Now().Unix()}
		x.sim.PushEvent(id, change)
		time.Sleep(2 * time.Second)
		second := x.mustGet(1, shop)
		if second.Value.Equal(first.Value) {
			t.Error("the change did not take the token back")
		}
		old := change
		old.Order -= 1000
		for _, push := range []wechattest.Push{change, old, change} {
			x.sim.PushEvent(id, push)
			time.Sleep(time.Minute)
			if got := x.mustGet(0, shop); !got.Value.Equal(second.Value) {
				t.Fatalf("a repeat of %+v took the token back", push)
			}
		}
		change.Order = time.Now().Unix()
		x.sim.PushEvent(id, change)
		time.Sleep(2 * time.Second)
		if got := x.mustGet(0, shop); got.Value.Equal(second.Value) {
			t.Error("a second change did not take the token back")
		}
		for _, p := range x.sim.Pushed(id) {
			if !p.OK {
				t.Errorf("%+v", p)
			}
		}
	})
}

// The replica that stored a ticket ended before it announced it. The token does not wait for the
// end of a backoff that is older than the ticket. Without a newer ticket it does.
func TestANewerTicketEndsTheBackoffOnEveryReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const path = "/cgi-bin/component/api_component_token"
		x := newRig(t, 2, OpenPlatform)
		for _, p := range x.replicas {
			go p.Run(t.Context())
		}
		store := func() {
			r := x.record(vault.Ticket)
			r.State, r.Secret, r.Order = vault.StateReceived, secret.New(x.sim.Ticket(id)), r.Order+1
			if _, err := x.replicas[0].o.Vault.Save(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		x.sim.AddFault(wechattest.Fault{Path: path, Effect: wechattest.EffectErrcode, Code: 45009})
		store()
		x.cluster.Start()
		time.Sleep(time.Minute)
		if n, wait := x.sim.Calls(id).Paths[path], x.replicas[0].o.Cache.Status()[0].Backoff; n > 2 || wait < time.Minute {
			t.Fatalf("%d fetches with one ticket, and a backoff of %v", n, wait)
		}
		x.sim.ClearFaults()
		store()
		time.Sleep(20 * time.Second)
		if _, ok := x.replicas[1].o.Cache.Fresh(x.replicas[1].TokenKey(), 0); !ok {
			t.Error("the token waits in spite of a new ticket")
		}
	})
}

// P2: tickets arrive in any order on many replicas, and the newest one counts.
func TestOfTicketsInAnyOrderTheNewestCounts(t *testing.T) {
	t.Parallel()
	n := atFullSize(1000, 60)
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, atFullSize(10, 4), OpenPlatform)
		x.start()
		k := x.sim.PlatformKnobs(id)
		k.TicketEvery = time.Hour
		k.Deliver = func(wechattest.Push) []wechattest.Delivery {
			return []wechattest.Delivery{{After: rand.N(time.Minute)}, {After: rand.N(time.Minute)}}
		}
		x.sim.SetPlatformKnobs(id, k)
		first := time.Now().Unix() + 1
		for i := range n {
			x.sim.PushEvent(id, wechattest.Push{InfoType: "component_verify_ticket", Ticket: fmt.Sprint("ticket@@@", i), Order: first + int64(i)})
		}
		time.Sleep(5 * time.Minute)
		if r := x.record(vault.Ticket); r.Order != first+int64(n-1) || r.Secret.Reveal() != fmt.Sprint("ticket@@@", n-1) {
			t.Errorf("the ticket of %d, want %d", r.Order-first, n-1)
		}
	})
}

// P2 and P4: accounts authorise, change their permissions and withdraw, and the pushes of it
// come late, twice and in any order. In the end each account is as WeChat has it.
func TestAfterEventsInAnyOrderAllIsAsWeChatHasIt(t *testing.T) {
	t.Parallel()
	for round := range atFullSize(100, 1) {
		synctest.Test(t, func(t *testing.T) {
			seed := rand.New(rand.NewPCG(2, uint64(round)))
			x := newRig(t, 3, OpenPlatform)
			x.start()
			k := x.sim.PlatformKnobs(id)
			k.Deliver = func(push wechattest.Push) []wechattest.Delivery {
				if push.Ticket != "" {
					return []wechattest.Delivery{{}}
				}
				return []wechattest.Delivery{{After: rand.N(time.Minute)}, {After: rand.N(2 * time.Minute)}}
			}
			x.sim.SetPlatformKnobs(id, k)
			accounts := make([]string, atFullSize(100, 12))
			authorized := make([]bool, len(accounts))
			for range 6 {
				for i := range accounts {
					accounts[i] = fmt.Sprintf("wx%016d", i)
					switch what := seed.IntN(4); {
					case what < 2 || !authorized[i] && what == 2:
						x.sim.Authorize(id, accounts[i])
						authorized[i] = true
					case authorized[i] && what == 2:
						x.sim.UpdateAuthorization(id, accounts[i])
					case authorized[i]:
						x.sim.Withdraw(id, accounts[i])
						authorized[i] = false
					}
				}
				time.Sleep(time.Duration(2+seed.IntN(40)) * time.Second) // WeChat's times are whole seconds
			}
			time.Sleep(15 * time.Minute)
			for i, a := range accounts {
				r := x.record(a)
				if !authorized[i] {
					_, err := x.get(i%3, a)
					if f, ok := errors.AsType[*tokencache.FetchError](err); r.Rev > 0 && (r.State != vault.StateWithdrawn || !ok || f.Class != tokencache.ClassEnded) {
						t.Errorf("%s has withdrawn: %s, %v", a, r.State, err)
					}
					continue
				}
				if r.State != vault.StateActive || !x.sim.Accepts(id, a, r.Secret.Reveal()) {
					t.Errorf("%s is authorised: %+v", a, r)
					continue
				}
				x.mustGet(i%3, a)
			}
		})
	}
}
