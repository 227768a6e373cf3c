package platform

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// P6: some of many accounts are used all day. WeChat is asked for the tokens of those alone,
// each time that one must be renewed, however many replicas hand it out. No read gets a dead token.
func TestDaysCostWhatIsUsed(t *testing.T) {
	t.Parallel()
	n, used, replicas := atFullSize(5000, 10), atFullSize(300, 2), atFullSize(50, 10)
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

// Check 12: weeks in which everything that can be replaced is. WeChat gives a new refresh token with
// each access token and voids the last one soon, the vault cannot be written now and then, the account
// withdraws and authorises again, and a person changes the secret of the platform, the keys and the
// token of its pushes, and the keys of the vault. P1 to P8 hold.
func TestDaysOfRotatedSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := soak{rig: newRig(t, 2, OpenPlatform), secrets: map[string]bool{}}
		k := s.sim.PlatformKnobs(id)
		k.Refresh, k.RotateOverlap = wechattest.RefreshRotates, 10*time.Minute
		k.Repeats, k.MarkFailAfter = 0, 3
		s.sim.SetPlatformKnobs(id, k)
		s.start()
		s.authorized(shop)
		changes := []func(){s.changeAESKey, s.changeToken, s.resetSecret, s.changeVaultKey}
		for s.hour = range atFullSize(21*24, 2+len(changes)) {
			switch {
			case !long && s.hour > 1:
				changes[s.hour-2]()
			case s.hour%3 == 0:
				s.rotateUnkept()
			case s.hour%24 == 1:
				s.withdraw()
			case s.hour%24 == 11:
				changes[s.hour/24%len(changes)]()
			}
			s.check()
			time.Sleep(time.Duration(atFullSize(60, 5)) * time.Minute)
		}
		s.finish()
	})
}

// soak is a long history of one account, on replicas that are restarted with new settings.
type soak struct {
	*rig
	hour      int
	secrets   map[string]bool // what must never rest in the open
	refreshed int             // refresh tokens that the vault had
	restarts  int
}

// report says that the account's token is dead, has the first replica fetch another one, and gives
// the event of that time to reach the others.
func (s *soak) report() (tokencache.Token, error) {
	defer time.Sleep(time.Second)
	s.sim.KillTokens(apps.AccountName(id, shop))
	old, _ := s.get(0, shop)
	return s.replicas[0].o.Cache.Report(s.Context(), s.replicas[0].authorizerKey(shop), old.Value)
}

// rotateUnkept makes WeChat give a refresh token that the vault cannot keep: so no token that came
// with one is handed out (P1).
func (s *soak) rotateUnkept() {
	s.faults.deaf.Store(true)
	if token, err := s.report(); err == nil && !token.Stale {
		s.Errorf("hour %d: a token whose refresh token is nowhere: %+v", s.hour, token)
	}
	time.Sleep(time.Minute)
	s.faults.deaf.Store(false)
	s.eventually("the new refresh token is in the vault", func() bool {
		token, err := s.get(0, shop)
		return err == nil && !token.Stale && s.sim.Accepts(id, shop, s.record(shop).Secret.Reveal())
	})
}

// withdraw lets the account withdraw (P4), and authorise again.
func (s *soak) withdraw() {
	s.sim.Withdraw(id, shop)
	s.eventually("it is withdrawn", func() bool { return s.record(shop).State == vault.StateWithdrawn })
	time.Sleep(250 * time.Millisecond)
	for i := range s.replicas {
		if token, err := s.get(i, shop); err == nil {
			s.Errorf("hour %d: withdrawn: %+v", s.hour, token)
		}
	}
	time.Sleep(2 * time.Second) // WeChat's times are whole seconds
	s.secrets[s.authorized(shop)] = true
}

// update restarts the replicas with other settings.
func (s *soak) update(change func(*settings)) {
	change(&s.settings)
	for _, secret := range slices.Concat([]string{s.settings.secret, s.settings.token}, s.settings.aesKeys, s.settings.vaultKeys) {
		s.secrets[secret] = true
	}
	s.restarts++
	s.restart()
}

// key returns 32 bytes in base64 that no other hour has.
func (s *soak) key() string {
	sum := sha256.Sum256(fmt.Append(nil, s.hour))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// changeAESKey changes what pushes are encrypted with. The replicas know both keys meanwhile, so no
// push is refused.
func (s *soak) changeAESKey() {
	next := strings.TrimSuffix(s.key(), "=")
	s.update(func(to *settings) { to.aesKeys = []string{next, to.aesKeys[0]} })
	s.sim.ChangeAESKey(id, next)
	before := s.sim.PlatformKnobs(id)
	synctest.Wait() // until the simulator has noted the answers to earlier pushes
	k, n := before, len(s.sim.Pushed(id))
	k.Deliver = func(wechattest.Push) []wechattest.Delivery { return []wechattest.Delivery{{}, {PreviousKey: true}} }
	s.sim.SetPlatformKnobs(id, k)
	s.withdraw()
	s.sim.PushTicket(id)
	time.Sleep(time.Second)
	s.sim.SetPlatformKnobs(id, before)
	for _, p := range s.sim.Pushed(id)[n:] {
		if !p.OK {
			s.Errorf("hour %d: %+v", s.hour, p)
		}
	}
	s.update(func(to *settings) { to.aesKeys = []string{next} })
}

// changeToken changes what pushes are signed with. There can only be one, so WeChat's pushes are
// refused until the replicas have it, and after some failures WeChat makes none for a minute. A
// withdrawal that is lost then ends nothing (P7), and the code of an authorisation comes by the
// redirect.
func (s *soak) changeToken() {
	next := fmt.Sprint("callback-token-", s.hour)
	s.sim.ChangeToken(id, next)
	for range s.sim.PlatformKnobs(id).MarkFailAfter {
		s.sim.PushTicket(id)
		time.Sleep(time.Second)
	}
	n := len(s.sim.Pushed(id))
	s.sim.Withdraw(id, shop)
	if token, err := s.report(); err == nil && !token.Stale {
		s.Errorf("hour %d: WeChat takes no refresh token, but %+v", s.hour, token)
	}
	if r := s.record(shop); r.State != vault.StateRefused || r.Secret.Empty() {
		s.Errorf("hour %d: after a withdrawal that was not pushed: %+v", s.hour, r)
	}
	code := s.sim.Authorize(id, shop)
	s.secrets[code] = true
	s.update(func(to *settings) { to.token = next })
	if got, err := s.replicas[1].Exchange(s.Context(), secret.New(code)); err != nil || got != (Outcome{vault.StateDone, shop}) {
		s.Errorf("hour %d: by the redirect: %+v, %v", s.hour, got, err)
	}
	if got := s.sim.Pushed(id)[n:]; len(got) != 0 {
		s.Errorf("hour %d: WeChat pushed: %+v", s.hour, got)
	}
	time.Sleep(time.Minute)
	ticket := s.record(vault.Ticket).Rev
	s.sim.PushTicket(id)
	s.eventually("tickets are stored again", func() bool { return s.record(vault.Ticket).Rev > ticket })
}

// resetSecret changes the AppSecret at WeChat, which has no token for the old one from then on. What
// the account has serves until its end. With the new secret nothing waits for what failed under the
// old one; after hours of it, for the allowance of fetches at most.
func (s *soak) resetSecret() {
	s.runOnOldSecret(20*time.Minute, 5*time.Second)
	if long {
		s.runOnOldSecret(110*time.Minute, allowedEvery+5*time.Second)
	}
}

// Of the 500 fetches of a platform's token that a day may have, 50 may be at once, and the others are
// this far apart.
const (
	allowedAtOnce = 50
	allowedEvery  = 24 * time.Hour / 450
)

// runOnOldSecret is a reset of the AppSecret that the replicas learn so much later. After it, there
// must be a token within mended.
func (s *soak) runOnOldSecret(late, mended time.Duration) {
	if _, err := s.report(); err != nil {
		s.Errorf("hour %d: %v", s.hour, err)
	}
	next := fmt.Sprintf("app-secret-%d-%v", s.hour, late)
	s.sim.SetSecret(id, next)
	s.sim.KillTokens(id)
	if err := s.replicas[0].o.Cache.Revoke(s.Context(), s.replicas[0].TokenKey()); err != nil {
		s.Error(err)
	}
	calls := s.calls()
	for began := time.Now(); time.Since(began) < late; time.Sleep(10 * time.Minute) {
		for i := range s.replicas {
			s.mustGet(i, shop)
		}
	}
	if token, err := s.report(); err == nil && !token.Stale {
		s.Errorf("hour %d: without a token of the platform: %+v", s.hour, token)
	}
	if n := s.calls() - calls; n > allowedAtOnce+int(late/allowedEvery)+2 { // and those for a ticket
		s.Errorf("hour %d: %d calls with the old secret", s.hour, n)
	}
	s.update(func(to *settings) { to.secret = next })
	began := time.Now()
	s.patiently(0, shop)
	if took := time.Since(began); took > mended {
		s.Errorf("hour %d: a token %v after the new secret", s.hour, took)
	}
}

// changeVaultKey changes what seals the vault, in the steps of docs/platforms.md. A refresh token
// that one replica has sealed is read by the other one at every step.
func (s *soak) changeVaultKey() {
	next, old := s.key(), s.settings.vaultKeys[0]
	for _, keys := range [][]string{{old, next}, {next, old}, {next}} {
		if len(keys) == 1 {
			s.reseal()
		}
		s.update(func(to *settings) { to.vaultKeys = keys })
		for i := range s.replicas {
			if _, err := s.report(); err != nil {
				s.Errorf("hour %d: %v", s.hour, err)
			}
			s.mustGet(i, shop)
		}
	}
}

// reseal is vault rekey.
func (s *soak) reseal() {
	ids, err := s.replicas[0].o.Vault.Codes(s.Context(), id)
	if err != nil {
		s.Fatal(err)
	}
	for _, record := range append(ids, vault.Ticket, vault.Marker, shop) {
		if _, err := s.replicas[0].o.Vault.Reseal(s.Context(), id, record); err != nil {
			s.Fatal(err)
		}
	}
}

// check is what holds each hour: every replica has a token that works, and WeChat accepts what the
// vault has (P2).
func (s *soak) check() {
	for i := range s.replicas {
		s.patiently(i, shop)
		s.mustGet(i, shop)
	}
	r := s.record(shop)
	if r.State != vault.StateActive || !s.sim.Accepts(id, shop, r.Secret.Reveal()) {
		s.Fatalf("hour %d: WeChat does not accept what the vault has: %+v", s.hour, r)
	}
	if !s.secrets[r.Secret.Reveal()] {
		s.refreshed++
	}
	s.secrets[r.Secret.Reveal()], s.secrets[s.sim.Ticket(id)] = true, true
	rests := s.rests()
	for secret := range s.secrets {
		if strings.Contains(rests, secret) {
			s.Errorf("hour %d: Redis has %q in the open", s.hour, secret)
		}
	}
}

// rests is all that Redis has.
func (s *soak) rests() string {
	var all strings.Builder
	m := s.cluster.Redis
	for _, key := range m.Keys() {
		fmt.Fprintln(&all, key)
		switch m.Type(key) {
		case "string":
			value, _ := m.Get(key)
			fmt.Fprintln(&all, value)
		case "hash":
			fields, _ := m.HKeys(key)
			for _, f := range fields {
				fmt.Fprintln(&all, f, m.HGet(key, f))
			}
		case "stream":
			entries, _ := m.Stream(key)
			fmt.Fprintln(&all, entries)
		case "set":
			members, _ := m.Members(key)
			fmt.Fprintln(&all, members)
		default:
			s.Fatalf("%s is a %s", key, m.Type(key))
		}
	}
	return all.String()
}

// finish is what holds in the end: each code was exchanged once at most (P3), and WeChat was asked
// for what was used (P6).
func (s *soak) finish() {
	for _, c := range s.sim.Ledger(id).Codes {
		if c.Exchanged > 1 || c.Refused > 0 {
			s.Errorf("%+v", c)
		}
	}
	paths := s.sim.Calls(id).Paths
	s.Logf("%d hours: %d refresh tokens, %d rolling restarts, %d fetches, calls %v", s.hour+1, s.refreshed, s.restarts, s.fetches(shop), paths)
	// Once in 90 minutes, once for each event, and twice where the vault was away.
	if n, most := s.fetches(shop), 2*(s.hour+1)+20; n > most {
		s.Errorf("%d fetches, want at most %d", n, most)
	}
	if s.refreshed < 4 || s.restarts < 7 {
		s.Errorf("%d refresh tokens, %d rolling restarts: nothing was tried", s.refreshed, s.restarts)
	}
}
