package platform

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

func TestStatusSaysWhatTheVaultHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		p := x.replicas[0]
		time.Sleep(time.Minute)
		if s := p.Status(); s.HasTicket || s.Ticket != time.Minute || s.Authorizers != nil || s.TicketLife != 12*time.Hour {
			t.Errorf("before the start: %+v", s)
		}
		x.start()
		x.authorized("wxshop1")
		x.authorized("wxshop2")
		x.authorized("wxshop3")
		time.Sleep(2 * time.Second) // two events of one second cannot be ordered
		x.sim.Withdraw(id, "wxshop2")
		x.eventually("wxshop2 has withdrawn", func() bool { return x.record("wxshop2").State == vault.StateWithdrawn })
		refused := x.record("wxshop3")
		refused.State = vault.StateRefused
		if _, err := p.o.Vault.Save(t.Context(), refused); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * countEvery)
		s := p.Status()
		if !s.HasTicket || s.Ticket > 11*time.Minute || s.Vault != nil || s.Codes != 0 || s.Counted > 2*countEvery {
			t.Errorf("%+v", s)
		}
		if a := s.Authorizers; a[vault.StateActive] != 1 || a[vault.StateWithdrawn] != 1 || a[vault.StateRefused] != 1 {
			t.Errorf("%v", a)
		}
		// The store rounds an age to its own clock.
		if w := s.Worst; len(w) != 2 || w[0].ID != "wxshop3" || w[1].ID != "wxshop2" || w[1].Since < 2*countEvery-time.Second || w[1].Since > 3*countEvery {
			t.Errorf("%+v", w)
		}

		x.faults.away.Store(true)
		time.Sleep(time.Minute)
		if s := p.Status(); s.Vault == nil || len(s.Authorizers) != 3 || s.Ticket < time.Minute {
			t.Errorf("with the vault away: %+v", s)
		}
		x.faults.away.Store(false)
		time.Sleep(time.Minute)
		if s := p.Status(); s.Vault != nil {
			t.Errorf("with the vault back: %v", s.Vault)
		}
	})
}

// Counting reads the whole vault, so it is not done for each scrape, nor at each look.
func TestAccountsAreCountedEveryFewMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		x.authorized("wxshop1")
		time.Sleep(time.Hour)
		before := x.faults.lists.Load()
		for range 1000 {
			x.replicas[0].Status()
		}
		time.Sleep(time.Hour)
		if n := x.faults.lists.Load() - before; n < 6 || n > 13 {
			t.Errorf("the vault was listed %d times in an hour", n)
		}
	})
}

// What is refused is observed: a person must see that WeChat's pushes do not come through.
func TestEventsSayWhatWasRefusedAndHowACodeCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		p := x.replicas[0]
		seen := make(chan Event, 100)
		p.o.Observe = func(e Event) { seen <- e }
		x.start()
		x.authorized("wxshop1")
		x.authorized("wx570bc396a51b8ff8")
		time.Sleep(2 * time.Second) // two events of one second cannot be ordered
		x.sim.Withdraw(id, "wx570bc396a51b8ff8")
		x.eventually("the test account has withdrawn", func() bool { return x.record("wx570bc396a51b8ff8").State == vault.StateWithdrawn })
		if _, err := p.Receive(t.Context(), nil, []byte("<xml><Encrypt>x</Encrypt></xml>")); err != wechat.ErrSignature {
			t.Errorf("a forged push: %v", err)
		}
		synctest.Wait() // an event comes after what it tells of was saved
		var got []string
		for len(seen) > 0 {
			e := <-seen
			got = append(got, strings.Join([]string{e.What, e.Label, e.Via}, " "))
			if e.Err != nil {
				got[len(got)-1] += ": " + e.Err.Error()
			}
		}
		all := strings.Join(got, "\n")
		for _, want := range []string{"exchange done push", "withdrawn test", "push other : wechat: the push is not signed"} {
			if !strings.Contains(all, want) {
				t.Errorf("no %q in\n%s", want, all)
			}
		}
	})
}
