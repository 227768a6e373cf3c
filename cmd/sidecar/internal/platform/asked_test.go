package platform

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// A caller waits for an exchange until its context ends, however long WeChat takes. What was begun
// is finished: the program ends after it, and the secret is in the vault.
func TestAnExchangeOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		k := x.sim.PlatformKnobs(id)
		k.NoCodePush = true
		x.sim.SetPlatformKnobs(id, k)
		x.sim.AddFault(wechattest.Fault{Path: "/cgi-bin/component/api_query_auth", Delay: 4 * time.Second, Count: 1})
		code := secret.New(x.sim.Authorize(id, shop))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		got, err := x.replicas[0].Exchange(ctx, code)
		if took := time.Since(began); err != nil || got.State != vault.StateSent || took != time.Second {
			t.Errorf("%+v, %v, after %v", got, err, took)
		}
		stopping, stop := context.WithCancel(t.Context())
		stop()
		x.replicas[0].Run(stopping)
		if a := x.record(shop); a.State != vault.StateActive || a.Secret.Empty() || x.record(vault.CodeID(code)).State != vault.StateDone {
			t.Errorf("when the program ends, the vault has %s of the account, and the code is %s", a.State, x.record(vault.CodeID(code)).State)
		}
	})
}

// Exchanges that hang are bounded: a caller who finds no room waits no longer than its context, and
// its code is kept.
func TestExchangesThatCallersBeginAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		k := x.sim.PlatformKnobs(id)
		k.NoCodePush = true
		x.sim.SetPlatformKnobs(id, k)
		p := x.replicas[0]
		for range cap(p.room) {
			p.room <- struct{}{}
		}
		code := secret.New(x.sim.Authorize(id, shop))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := p.Exchange(ctx, code)
		if err != nil || got.State != vault.StateReceived || x.record(vault.CodeID(code)).Rev == 0 {
			t.Errorf("%+v, %v", got, err)
		}
		for range cap(p.room) {
			<-p.room
		}
	})
}
