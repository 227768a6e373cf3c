package platform

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// mortal is what one replica reaches the vault and WeChat through, until it is killed: before it
// makes one call, or when that call has been acted on and its answer is not read.
type mortal struct {
	vault.Store
	http.RoundTripper
	death atomic.Pointer[death] // nil: it lives on
	kill  func()
	dead  atomic.Bool
}

// death is when a replica is killed.
type death struct {
	at    string // "call", or the state of an authorizer or a code that is saved
	after bool
}

func (m *mortal) Save(ctx context.Context, r vault.Row) (rev int64, err error) {
	err = m.step(string(r.State), func() error { rev, err = m.Store.Save(ctx, r); return err })
	return rev, err
}

func (m *mortal) Load(ctx context.Context, platform, id string) (r vault.Row, err error) {
	err = m.step("load", func() error { r, err = m.Store.Load(ctx, platform, id); return err })
	return r, err
}

func (m *mortal) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	name := "other call"
	if r.URL.Path == "/cgi-bin/component/api_query_auth" || r.URL.Path == "/cgi-bin/service/get_permanent_code" {
		name = "call"
	}
	err = m.step(name, func() error { resp, err = m.RoundTripper.RoundTrip(r); return err })
	if err != nil && resp != nil {
		_ = resp.Body.Close()
		resp = nil
	}
	return resp, err
}

func (m *mortal) step(name string, do func() error) error {
	d := m.death.Load()
	dies := d != nil && name == d.at
	if m.dead.Load() || dies && !d.after {
		m.die()
		return errAway
	}
	err := do()
	if dies {
		m.die()
		return errAway
	}
	return err
}

func (m *mortal) die() {
	m.dead.Store(true)
	m.kill()
}

// P3: a replica is killed at each step of an exchange. Another one ends it: the account has
// the token of its new authorisation, and never the one of before. On WeCom a secret that only the
// dead replica had is lost, and the log says so.
func TestAReplicaThatIsKilledDuringAnExchange(t *testing.T) {
	t.Parallel()
	deaths := []death{{"call", true}, {"active", true}, {"done", false}, {"active", false}, {"sent", true}, {"sent", false}, {"call", false}, {"done", true}}
	for _, kind := range []Kind{OpenPlatform, Suite} {
		for i := range atFullSize(500, 4) {
			d, seed := deaths[i%len(deaths)], rand.New(rand.NewPCG(1, uint64(i)))
			t.Run(fmt.Sprintf("%s %s %v %d", kind, d.at, d.after, i), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x := newRig(t, 2, kind)
					m := x.mortal(1, kind)
					x.start()
					x.authorized(shop)
					x.mustGet(0, shop)
					x.mustGet(1, shop)
					time.Sleep(2*time.Second + time.Duration(seed.Int64N(int64(20*time.Second))))
					again := time.Duration(seed.Int64N(int64(time.Minute)))
					k := x.sim.PlatformKnobs(id)
					k.ReauthorizeKills = true
					k.Deliver = func(wechattest.Push) []wechattest.Delivery {
						return []wechattest.Delivery{{}, {After: again}}
					}
					x.sim.SetPlatformKnobs(id, k)
					m.death.Store(&d)
					x.next.Store(int64(len(x.replicas))) // the next push comes to the mortal one
					code := vault.CodeID(secret.New(x.sim.Authorize(id, shop)))
					x.eventually("the code's end is known", func() bool {
						s := x.record(code).State
						return s == vault.StateDone || s == vault.StateLost
					})
					if !m.dead.Load() {
						t.Fatal("no replica was killed")
					}
					lost := x.record(code).State == vault.StateLost
					mayBe := kind == Suite && (d.at == "call" && d.after || d.at == "active" && !d.after)
					if lost && !mayBe || !lost && mayBe {
						t.Errorf("lost: %v", lost)
					}
					if lost {
						return
					}
					if r := x.record(shop); !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
						t.Error("the vault has a secret that WeChat does not accept")
					}
					time.Sleep(time.Second)
					x.mustGet(0, shop)
				})
			})
		}
	}
}

// mortal lets a replica that has not started reach the vault and WeChat through a mortal.
func (x *rig) mortal(replica int, kind Kind) *mortal {
	calls := x.sim.Transport()
	x.Cleanup(func() { _ = calls.Close() })
	m := &mortal{Store: x.faults.Store, RoundTripper: calls, kill: x.cluster.Replicas[replica].Link.Refuse}
	p := x.replicas[replica]
	p.o.Vault = vault.New(m, vaulttest.Keys(x, vaulttest.Key))
	client := &wechat.Client{HTTP: &http.Client{Transport: m}}
	if p.dialect = (open{client, id, secret.New(x.settings.secret)}); kind == Suite {
		client.BaseURL = "https://qyapi.weixin.qq.com"
		p.dialect = suite{client, id, secret.New(x.settings.secret)}
	}
	return m
}
