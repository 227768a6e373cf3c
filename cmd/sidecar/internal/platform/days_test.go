package platform

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// P6, check 2: some of many accounts are used all day. WeChat is asked for the tokens of those alone,
// each time that one must be renewed, however many replicas hand it out. No read gets a dead token.
func TestDaysCostWhatIsUsed(t *testing.T) {
	t.Parallel()
	n, used, replicas := atFullSize(1000, 10), atFullSize(60, 2), atFullSize(10, 2)
	span := time.Duration(atFullSize(24, 2)) * time.Hour
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, replicas, OpenPlatform)
		x.start()
		accounts := x.seed(n)
		for began := time.Now(); time.Since(began) < span; time.Sleep(20 * time.Minute) {
			for i, a := range accounts[:used] {
				x.patiently(i%replicas, a)
				x.mustGet((i+1)%replicas, a)
			}
		}
		// A token lives for 2 hours, and is renewed half an hour before its end.
		least, most := int(span/(2*time.Hour)), int(span/(90*time.Minute))+1
		for i, a := range accounts {
			switch got := x.fetches(a); {
			case i < used && (got < least || got > most):
				t.Errorf("%d fetches for an account in %v, want %d to %d", got, span, least, most)
			case i >= used && got != 0:
				t.Errorf("%d fetches for an account that no reader wants", got)
			}
		}
		if got := x.sim.Calls(id).Paths["/cgi-bin/component/api_component_token"]; got > most+1 {
			t.Errorf("%d fetches of the platform's token in %v, want at most %d", got, span, most+1)
		}
	})
}

// Check 12: WeChat gives a new refresh token with each access token, and voids the last one soon,
// while the vault cannot be written now and then, and the account withdraws and authorises again. What
// WeChat accepts is in the vault whenever it can be written, and what is handed out works.
func TestDaysOfRotatedSecrets(t *testing.T) {
	t.Parallel()
	days := atFullSize(21, 0)
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		k := x.sim.PlatformKnobs(id)
		k.Refresh, k.RotateOverlap = wechattest.RefreshRotates, 10*time.Minute
		x.sim.SetPlatformKnobs(id, k)
		x.start()
		x.authorized(shop)
		secrets := map[string]bool{}
		withdrawn := 0
		for hour := range days*24 + 3 {
			if hour%3 == 1 { // no new refresh token can be kept, so no token that came with one is handed out
				x.faults.deaf.Store(true)
				x.sim.KillTokens(apps.AccountName(id, shop))
				old, _ := x.get(0, shop)
				if token, err := x.replicas[0].o.Cache.Report(t.Context(), x.replicas[0].authorizerKey(shop), old.Value); err == nil && !token.Stale {
					t.Errorf("hour %d: a token whose refresh token is nowhere: %+v", hour, token)
				}
				time.Sleep(time.Minute)
				x.faults.deaf.Store(false)
				x.eventually("the new refresh token is in the vault", func() bool {
					_, err := x.get(0, shop)
					return err == nil && x.sim.Accepts(id, shop, x.record(shop).Secret.Reveal())
				})
			}
			if hour%24 == 2 {
				x.sim.Withdraw(id, shop)
				x.eventually("it is withdrawn", func() bool { return x.record(shop).State == vault.StateWithdrawn })
				if token, err := x.get(0, shop); err == nil {
					t.Errorf("hour %d: withdrawn: %+v", hour, token)
				}
				time.Sleep(2 * time.Second) // WeChat's times are whole seconds
				x.authorized(shop)
				withdrawn++
			}
			x.patiently(0, shop)
			r := x.record(shop)
			if r.State != vault.StateActive || !x.sim.Accepts(id, shop, r.Secret.Reveal()) {
				t.Fatalf("hour %d: WeChat does not accept what the vault has: %+v", hour, r)
			}
			secrets[r.Secret.Reveal()] = true
			time.Sleep(time.Hour)
		}
		if len(secrets) < 2 || withdrawn == 0 {
			t.Errorf("%d refresh tokens, %d withdrawals: nothing was tried", len(secrets), withdrawn)
		}
	})
}
