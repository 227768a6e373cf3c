package platform

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
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

// The replica that stored a ticket ended before it said so: the token does not wait for the end of
// what failed before the ticket came. Without a newer ticket it does.
func TestANewerTicketEndsTheBackoffWhoeverStoredIt(t *testing.T) {
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
		time.Sleep(2 * time.Minute)
		if n, wait := x.sim.Calls(id).Paths[path], x.replicas[0].o.Cache.Status()[0].Backoff; n > 2 || wait < 2*time.Minute {
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
