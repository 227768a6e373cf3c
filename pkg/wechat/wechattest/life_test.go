package wechattest_test

import (
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// TestClassicOverlap follows one token: current, replaced, dead after 5 minutes to the second.
func TestClassicOverlap(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		expect := func(tok secret.String, want wechattest.Status, errcode int) {
			t.Helper()
			if got := sim.Status("wx1", tok.Reveal()); got != want {
				t.Errorf("status = %s, want %s", got, want)
			}
			if got := probe(t, c, tok); got != errcode {
				t.Errorf("probe of a token that is %s = %d, want %d", want, got, errcode)
			}
		}
		first := classic(t, c).Value
		expect(first, wechattest.Current, 0)
		second := classic(t, c).Value
		expect(first, wechattest.Previous, 0)
		time.Sleep(5*time.Minute - time.Second)
		expect(first, wechattest.Previous, 0)
		time.Sleep(time.Second)
		expect(first, wechattest.Superseded, 40001)
		expect(second, wechattest.Current, 0)
		// A third and a fourth within the overlap: only one replaced token lives.
		third := classic(t, c).Value
		fourth := classic(t, c).Value
		expect(second, wechattest.Superseded, 40001)
		expect(third, wechattest.Previous, 0)
		expect(fourth, wechattest.Current, 0)
		// To the end of its own life.
		time.Sleep(2*time.Hour - time.Second)
		expect(fourth, wechattest.Current, 0)
		time.Sleep(time.Second)
		expect(fourth, wechattest.Expired, 42001)
		expect(third, wechattest.Expired, 40001) // replaced as well
		expect(secret.New("garbage"), wechattest.Unknown, 40001)
		if sim.Valid("wx1", fourth.Reveal()) || sim.Status("wx2", fourth.Reveal()) != wechattest.Unknown {
			t.Error("a dead token, or that of another app, is valid")
		}
	})
}

func TestKnobsOfTheOverlap(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.Tune(func(k *wechattest.Knobs) {
			k.OverlapKeeps, k.FlapFor, k.ReplacedExpiredCode, k.ExpiresIn = -1, time.Minute, 42001, 7*time.Minute
		})
		first, second, third := classic(t, c), classic(t, c), classic(t, c)
		if third.ExpiresIn != 7*time.Minute {
			t.Errorf("ExpiresIn = %v", third.ExpiresIn)
		}
		for _, tok := range []wechat.Credential{first, second, third} {
			if got := probe(t, c, tok.Value); got != 0 {
				t.Errorf("probe = %d: every replaced token has its overlap", got)
			}
		}
		time.Sleep(5 * time.Minute)
		got := []int{probe(t, c, first.Value), probe(t, c, first.Value), probe(t, c, first.Value)}
		if got[0] != 0 || got[1] != 40001 || got[2] != 0 {
			t.Errorf("flapping token answers %v", got)
		}
		time.Sleep(time.Minute)
		if got := probe(t, c, first.Value); got != 40001 {
			t.Errorf("after flapping: %d", got)
		}
		time.Sleep(time.Minute)
		if got := probe(t, c, first.Value); got != 42001 {
			t.Errorf("replaced and expired: %d", got)
		}
	})
}

// TestStableTokenRotatesInItsLastFiveMinutes, and not a second before.
func TestStableTokenRotatesInItsLastFiveMinutes(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		first := stable(t, c, wechat.Normal)
		time.Sleep(115*time.Minute - time.Second)
		same := stable(t, c, wechat.Normal)
		if !same.Value.Equal(first.Value) || same.ExpiresIn != 301*time.Second {
			t.Errorf("301 s before the end: another token or %v left", same.ExpiresIn)
		}
		time.Sleep(time.Second)
		next := stable(t, c, wechat.Normal)
		if next.Value.Equal(first.Value) || next.ExpiresIn != 2*time.Hour {
			t.Errorf("300 s before the end: the same token or %v left", next.ExpiresIn)
		}
		time.Sleep(5*time.Minute - time.Second)
		if a, b := probe(t, c, first.Value), probe(t, c, next.Value); a != 0 || b != 0 {
			t.Errorf("in the overlap: %d and %d", a, b)
		}
		time.Sleep(time.Second)
		if got := sim.Status("wx1", first.Value.Reveal()); got != wechattest.Expired {
			t.Errorf("old token is %s", got)
		}
		if got := sim.Calls("wx1"); got.Issued != 2 || got.StableNormal != 3 {
			t.Errorf("calls: %+v", got)
		}
	})
}

func TestShortLifeStillHasAStableStretch(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.Tune(func(k *wechattest.Knobs) { k.ExpiresIn = 10 * time.Second })
		first := stable(t, c, wechat.Normal).Value
		time.Sleep(4 * time.Second)
		if !stable(t, c, wechat.Normal).Value.Equal(first) {
			t.Error("replaced in the first half of its life")
		}
	})
}

// TestForcedRefresh: 30 seconds apart, 20 a day, and the old token dies at once.
func TestForcedRefresh(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		time.Sleep(time.Hour) // away from the start of the bubble, midnight UTC
		first := stable(t, c, wechat.Normal).Value
		second := stable(t, c, wechat.Forced).Value
		if got := sim.Status("wx1", first.Reveal()); got != wechattest.Superseded {
			t.Errorf("the replaced token is %s", got)
		}
		time.Sleep(30*time.Second - time.Nanosecond)
		if got := stable(t, c, wechat.Forced); !got.Value.Equal(second) || got.ExpiresIn >= 2*time.Hour {
			t.Error("within 30 s: not the unchanged token with its remaining life")
		}
		time.Sleep(time.Nanosecond)
		for i := 2; i <= 20; i++ {
			stable(t, c, wechat.Forced)
			time.Sleep(30 * time.Second)
		}
		if _, err := c.StableToken(t.Context(), "wx1", secret.New("s1"), wechat.Forced); code(err) != 45009 {
			t.Errorf("the 21st of a day: %v", err)
		}
		stable(t, c, wechat.Normal) // has its own count
		if got := sim.Calls("wx1"); got.Issued != 21 {
			t.Errorf("%d tokens, want 1 + 20", got.Issued)
		}
		time.Sleep(24 * time.Hour)
		stable(t, c, wechat.Forced)
	})
}

func TestForcedRefreshKnobs(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.Tune(func(k *wechattest.Knobs) {
			k.ForcedTooSoonCode, k.ForcedOverlap, k.ForcedPerDay, k.ForcedOverQuotaCode = 45009, time.Minute, 2, 0
		})
		first := stable(t, c, wechat.Forced).Value
		if _, err := c.StableToken(t.Context(), "wx1", secret.New("s1"), wechat.Forced); code(err) != 45009 {
			t.Errorf("too soon: %v", err)
		}
		time.Sleep(30 * time.Second)
		second := stable(t, c, wechat.Forced).Value
		if got := sim.Status("wx1", first.Reveal()); got != wechattest.Previous {
			t.Errorf("the replaced token is %s", got)
		}
		time.Sleep(30 * time.Second)
		if !stable(t, c, wechat.Forced).Value.Equal(second) {
			t.Error("over the day's quota: not the unchanged token")
		}
	})
}

// TestClassicAndStableAreTwoWorlds, unless the knob says otherwise.
func TestClassicAndStableAreTwoWorlds(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		cl, st := classic(t, c).Value, stable(t, c, wechat.Normal).Value
		classic(t, c)
		time.Sleep(30 * time.Second)
		stable(t, c, wechat.Forced)
		if a, b := sim.Status("wx1", cl.Reveal()), sim.Status("wx1", st.Reveal()); a != wechattest.Previous || b != wechattest.Superseded {
			t.Errorf("classic %s, stable %s", a, b)
		}
		sim.Tune(func(k *wechattest.Knobs) { k.Interfere = true })
		st = stable(t, c, wechat.Normal).Value
		classic(t, c)
		if got := sim.Status("wx1", st.Reveal()); got != wechattest.Previous {
			t.Errorf("with Interfere the stable token is %s", got)
		}
		if stable(t, c, wechat.Normal).Value.Equal(st) {
			t.Error("with Interfere the endpoint returns a replaced token")
		}
	})
}

func TestForeignRefreshAndKill(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		mine := classic(t, c).Value
		theirs := sim.ForeignRefresh("wx1", wechattest.FetchClassic)
		if got := sim.Status("wx1", mine.Reveal()); got != wechattest.Previous || !theirs.Foreign {
			t.Errorf("after a foreign fetch my token is %s", got)
		}
		st := stable(t, c, wechat.Normal).Value
		sim.ForeignRefresh("wx1", wechattest.FetchForced)
		if got := probe(t, c, st); got != 40001 {
			t.Errorf("after a foreign force: %d", got)
		}
		if stable(t, c, wechat.Forced).Value.Equal(st) {
			t.Error("the dead token comes back")
		}
		if calls, issued := sim.Calls("wx1"), sim.Issued("wx1"); calls.Issued != 2 || len(issued) != 4 {
			t.Errorf("%d issued to us, %d in all; want 2 and 4", calls.Issued, len(issued))
		}

		st, cl := stable(t, c, wechat.Normal).Value, classic(t, c).Value
		sim.KillTokens("wx1")
		if a, b := probe(t, c, st), probe(t, c, cl); a != 40001 || b != 40001 {
			t.Errorf("killed tokens: %d and %d", a, b)
		}
		sim.Tune(func(k *wechattest.Knobs) { k.KilledCode, k.StableKeepsKilled = 42001, true })
		if got := probe(t, c, st); got != 42001 {
			t.Errorf("killed token with the knob: %d", got)
		}
		if !stable(t, c, wechat.Normal).Value.Equal(st) {
			t.Error("StableKeepsKilled: another token")
		}
		sim.Tune(func(k *wechattest.Knobs) { k.StableKeepsKilled = false })
		if stable(t, c, wechat.Normal).Value.Equal(st) {
			t.Error("the killed token comes back")
		}
	})
}

func TestCorpTokenStaysTheSameWhileValid(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		first := corpToken(t, c, "a")
		time.Sleep(time.Hour)
		same := corpToken(t, c, "a")
		if !same.Value.Equal(first.Value) || same.ExpiresIn != time.Hour {
			t.Errorf("another token, or %v left", same.ExpiresIn)
		}
		time.Sleep(time.Hour)
		if err := c.Probe(t.Context(), first.Value, wechat.ProbeCorpCallbackIP); code(err) != 42001 {
			t.Errorf("expired: %v", err)
		}
		second := corpToken(t, c, "a").Value
		sim.KillTokens("ww1:A")
		if err := c.Probe(t.Context(), second, wechat.ProbeCorpCallbackIP); code(err) != 40014 {
			t.Errorf("killed: %v", err)
		}
		third := corpToken(t, c, "a").Value
		sim.Tune(func(k *wechattest.Knobs) { k.CorpRenews = true })
		if third.Equal(second) || corpToken(t, c, "a").Value.Equal(third) {
			t.Error("a token came back")
		}
	})
}

// TestTicketLooksFreshUntilItIsNot: always 7200, until a new one comes near the boundary.
func TestTicketLooksFreshUntilItIsNot(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		get := func() wechat.Credential {
			return must(t)(c.Ticket(t.Context(), classic(t, c).Value, wechat.TicketJSAPI))
		}
		first := get()
		time.Sleep(2*time.Hour - time.Second)
		if late := get(); !late.Value.Equal(first.Value) || late.ExpiresIn != 2*time.Hour {
			t.Errorf("a second before the boundary: another ticket or %v", late.ExpiresIn)
		}
		time.Sleep(time.Second)
		second := get().Value
		valid := func(v secret.String) bool { return sim.TicketValid("wx1", "jsapi", v.Reveal()) }
		if second.Equal(first.Value) || !valid(first.Value) || !valid(second) {
			t.Error("at the boundary: the same ticket, or one of the two is dead")
		}
		time.Sleep(5 * time.Minute)
		if valid(first.Value) || !valid(second) || valid(secret.New("")) {
			t.Error("after the overlap: the old ticket lives or the new one is dead")
		}
	})
}

// TestLifeTellsWhatWasTrueThen: what a test asks afterwards is what [wechattest.Server.Status] said
// then.
func TestLifeTellsWhatWasTrueThen(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		born := time.Now()
		want := func(tok secret.String, from, to time.Time) {
			t.Helper()
			f, u, ok := sim.Life("wx1", tok.Reveal())
			if !ok || !f.Equal(from) || !u.Equal(to) {
				t.Errorf("lives from %v to %v (%t), want %v to %v", f, u, ok, from, to)
			}
		}
		first := classic(t, c).Value
		want(first, born, born.Add(2*time.Hour))
		time.Sleep(time.Minute)
		second := classic(t, c).Value
		want(first, born, born.Add(6*time.Minute))
		time.Sleep(time.Minute)
		sim.KillTokens("wx1")
		time.Sleep(time.Minute)
		sim.KillTokens("wx1") // an app is killed once
		want(first, born, born.Add(2*time.Minute))
		want(second, born.Add(time.Minute), born.Add(2*time.Minute))
		if _, _, ok := sim.Life("wx2", first.Reveal()); ok {
			t.Error("another app's token has a life")
		}
	})
}

func TestARipeStableTokenIsReplacedOnceAndLivesOn(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.Ripen("wx1") // nothing there yet
		first := stable(t, c, wechat.Normal).Value
		sim.Ripen("wx1")
		second := stable(t, c, wechat.Normal).Value
		if second.Equal(first) {
			t.Error("the token stays")
		}
		if !stable(t, c, wechat.Normal).Value.Equal(second) {
			t.Error("it is replaced twice")
		}
		if got := sim.Status("wx1", first.Reveal()); got != wechattest.Previous {
			t.Errorf("the replaced one is %s, want it in its overlap", got)
		}
	})
}
