package platform

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// Check 5: Redis was emptied, with the vault in it. WeChat's list fills it again, without any
// customer: soon with the token that memory has, and with the next ticket if that is lost, too. Then
// each account that is used costs one fetch.
func TestAnEmptiedVaultIsFilledAgain(t *testing.T) {
	t.Parallel()
	n := atFullSize(5000, 6)
	for name, cold := range map[string]bool{"replicas have the platform's token": false, "replicas are cold": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newRig(t, 3, OpenPlatform)
				x.start()
				accounts := make([]string, n)
				for i := range accounts {
					accounts[i] = fmt.Sprintf("wx%016d", i)
					x.sim.Authorize(id, accounts[i])
					if i%200 == 199 {
						x.eventually("these have authorised", func() bool { return x.record(accounts[i]).State == vault.StateActive })
					}
				}
				x.eventually("all are in the vault", func() bool { return x.active() == n })
				used := accounts[:max(3, n/20)]
				for i, a := range used {
					x.mustGet(i%3, a)
				}
				time.Sleep(11 * time.Minute) // it was compared with the list at the beginning
				x.flushesEachSecond()
				lists := x.sim.Calls(id).Paths["/cgi-bin/component/api_get_authorizer_list"]
				x.cluster.Redis.FlushAll()
				if cold {
					x.forgetAll()
				}
				began := time.Now()
				for x.active() < n && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
				}
				if took := time.Since(began); took > 25*time.Second { // 15 s until it is noticed
					t.Errorf("whole again after %v", took)
				}
				for _, a := range accounts {
					if r := x.record(a); !x.sim.Accepts(id, a, r.Secret.Reveal()) {
						t.Fatalf("%s: %+v", a, r)
					}
				}
				if got := x.sim.Calls(id).Paths["/cgi-bin/component/api_get_authorizer_list"] - lists; got != (n+499)/500 {
					t.Errorf("%d calls for the list of %d", got, n)
				}
				for i, a := range used {
					x.patiently(i%3, a)
					x.patiently((i+1)%3, a) // a fetch that began before the record came back may have ended since
					if got := x.fetches(a); got != 2 {
						t.Errorf("%d fetches for %s in all, want one before and one after", got, a)
					}
				}
				for a, l := range x.sim.Ledger(id).Authorizers {
					if l.Exchanges != 1 {
						t.Errorf("%s authorised again", a)
					}
				}
			})
		})
	}
}

// An emptied vault ends no authorisation: until WeChat's list can be read, which takes minutes here,
// each replica serves the token that it remembers.
func TestAnEmptiedVaultEndsNoAuthorisation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 3, OpenPlatform)
		x.start()
		x.authorized(shop)
		for i := range x.replicas {
			x.mustGet(i, shop)
		}
		time.Sleep(11 * time.Minute) // it was compared with the list at the beginning
		x.sim.AddFault(wechattest.Fault{Path: "/cgi-bin/component/api_get_authorizer_list", Effect: wechattest.EffectErrcode, Code: -1})
		x.cluster.Redis.FlushAll()
		for began := time.Now(); time.Since(began) < 3*time.Minute; time.Sleep(time.Second) {
			for i := range x.replicas {
				if got, err := x.get(i, shop); err != nil || !x.sim.Valid(id+":"+shop, got.Value.Reveal()) {
					t.Fatalf("replica %d, %v after the loss: %+v, %v", i, time.Since(began), got, err)
				}
			}
		}
		x.sim.ClearFaults()
		time.Sleep(recoverAgain)
		x.eventually("the list is read", func() bool { return x.active() == 1 })
		x.patiently(0, shop)
	})
}

// What the list brings back is the authorisation that was there before, so the token that was fetched
// with it stays: it costs no fetch.
func TestWhatTheListBringsBackKeepsItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		x.authorized(shop)
		before := x.mustGet(0, shop)
		x.mustGet(1, shop)
		for _, key := range x.cluster.Redis.Keys() {
			if strings.HasSuffix(key, ":vault") {
				x.cluster.Redis.Del(key)
			}
		}
		if err := x.replicas[0].Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range x.replicas {
			if token := x.mustGet(i, shop); !token.Value.Equal(before.Value) {
				t.Errorf("replica %d has another token", i)
			}
		}
		if r, got := x.record(shop), x.fetches(shop); r.State != vault.StateActive || got != 1 {
			t.Errorf("%d fetches, want 1; %+v", got, r)
		}
	})
}

// What the list has of a later authorisation replaces the secret, and takes back the token that was
// fetched with the earlier one.
func TestALaterAuthorisationOfTheListTakesTheTokenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 2, OpenPlatform)
		x.start()
		x.authorized(shop)
		before := x.mustGet(0, shop)
		x.mustGet(1, shop)
		earlier := x.record(shop) // as if no push had come of the authorisation
		earlier.Secret, earlier.Order = secret.New("of an earlier authorisation"), earlier.Order-60
		if _, err := x.replicas[0].o.Vault.Save(t.Context(), earlier); err != nil {
			t.Fatal(err)
		}
		if err := x.replicas[0].Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for i := range x.replicas {
			if token := x.mustGet(i, shop); token.Value.Equal(before.Value) {
				t.Errorf("replica %d has the token of before", i)
			}
		}
		if r := x.record(shop); !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
			t.Errorf("WeChat does not accept what the vault has: %+v", r)
		}
	})
}

// forgetAll makes every replica as one that has just started, and returns with the next ticket.
func (x *rig) forgetAll() {
	for _, p := range x.replicas {
		for _, set := range [][]tokencache.Credential{nil, p.Credentials()} {
			if err := p.o.Cache.Set(set...); err != nil {
				x.Fatal(err)
			}
		}
	}
	time.Sleep(time.Minute)
	x.sim.PushTicket(id)
}

// active counts the accounts that the vault has as active.
func (x *rig) active() (n int) {
	err := x.replicas[0].eachKept(x.Context(), func(r vault.Record) error {
		if r.State == vault.StateActive {
			n++
		}
		return nil
	})
	if err != nil {
		x.Fatal(err)
	}
	return n
}

// flushesEachSecond makes Redis write its append-only file to the disk once a second, as by default.
func (x *rig) flushesEachSecond() {
	err := x.cluster.Redis.Server().Register("WAITAOF", func(c *server.Peer, _ string, _ []string) {
		time.Sleep(time.Second - time.Duration(time.Now().UnixNano())%time.Second)
		c.WriteLen(2)
		c.WriteInt(1)
		c.WriteInt(0)
	})
	if err != nil {
		x.Fatal(err)
	}
}
