package source_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source/sourcetest"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const id = "wx00000000000000f1"

func app(endpoint string) config.App {
	return config.App{
		ID: id, Platform: config.PlatformWeChat, Endpoint: endpoint, Secret: secret.New("s1"),
		Tickets: []string{config.TicketJSAPI},
	}
}

// span is how long the histories here are: two days with WXTOKEN_LONG=1, as make histories sets it,
// otherwise a few lives of a token.
func span() time.Duration {
	if os.Getenv("WXTOKEN_LONG") == "1" {
		return 48 * time.Hour
	}
	return 7 * time.Hour
}

func TestTwoDaysCostAsManyFetchesAsTheLifeOfATokenImplies(t *testing.T) {
	span := span()
	for _, test := range []struct {
		endpoint    string
		cycle, most time.Duration // between two fetches
		count       func(wechattest.Calls) int
	}{
		{config.EndpointStable, 7200*time.Second - 297*time.Second, time.Minute + time.Second, func(c wechattest.Calls) int { return c.StableNormal }},
		{config.EndpointClassic, 90 * time.Minute, time.Minute + time.Second, func(c wechattest.Calls) int { return c.Classic }},
	} {
		t.Run(test.endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sourcetest.New(t, sourcetest.Options{}, app(test.endpoint))
				s.Replica.Start()
				start := time.Now()
				for time.Since(start) < span {
					token, err := s.Cache.Get(t.Context(), source.Key(app(test.endpoint)))
					if err != nil || token.Stale || !s.WeChat.Valid(id, token.Value.Reveal()) {
						t.Fatalf("after %v: %+v, %v", time.Since(start), token, err)
					}
					ticket, err := s.Cache.Get(t.Context(), source.TicketKey(app(""), config.TicketJSAPI))
					if err != nil || ticket.Stale || !s.WeChat.TicketValid(id, "jsapi", ticket.Value.Reveal()) {
						t.Fatalf("after %v: ticket %+v, %v", time.Since(start), ticket, err)
					}
					time.Sleep(17 * time.Second)
				}
				calls := s.WeChat.Calls(id)
				least, most := int(span/(test.cycle+test.most)), 1+int(span/test.cycle)
				if n := test.count(calls); n < least || n > most || n != calls.Fetches() {
					t.Errorf("%d fetches (%d in all), want %d to %d", n, calls.Fetches(), least, most)
				}
				if n := calls.Tickets; n < int(span/(5*time.Minute)) || n > 1+int(span/(210*time.Second)) {
					t.Errorf("%d ticket fetches", n)
				}
			})
		})
	}
}

func TestATokenThatStableTokenRepeatsAlthoughItIsDeadIsForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sourcetest.New(t, sourcetest.Options{}, app(config.EndpointStable))
		s.Replica.Start()
		s.WeChat.Tune(func(k *wechattest.Knobs) { k.StableKeepsKilled = true })
		old, err := s.Cache.Get(t.Context(), source.Key(app("")))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.WeChat.KillTokens(id)
		token, err := s.Cache.Report(t.Context(), source.Key(app("")), old.Value)
		if err != nil || !s.WeChat.Valid(id, token.Value.Reveal()) {
			t.Fatalf("got %+v, %v", token, err)
		}
		// A normal call first: it is free, and would have been enough after a refresh by another
		// program.
		if c := s.WeChat.Calls(id); c.StableNormal != 2 || c.StableForced != 1 || c.Probes != 1 {
			t.Errorf("%d normal and %d forced fetches, %d probes; want 2, 1, 1", c.StableNormal, c.StableForced, c.Probes)
		}
	})
}

func TestATicketThatMeetsADeadTokenReportsItAndIsFetchedOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sourcetest.New(t, sourcetest.Options{}, app(config.EndpointClassic))
		s.Replica.Start()
		synctest.Wait()
		if _, err := s.Cache.Get(t.Context(), source.TicketKey(app(""), config.TicketJSAPI)); err != nil {
			t.Fatal(err)
		}
		s.WeChat.KillTokens(id)
		before := s.WeChat.Calls(id)
		time.Sleep(5 * time.Minute) // the next look at the ticket finds out
		after := s.WeChat.Calls(id)
		if after.Classic != before.Classic+1 || after.BadToken != before.BadToken+2 { // the ticket's, and the probe's
			t.Errorf("%d fetches and %d rejections more, want 1 and 2", after.Classic-before.Classic, after.BadToken-before.BadToken)
		}
		ticket, err := s.Cache.Get(t.Context(), source.TicketKey(app(""), config.TicketJSAPI))
		if err != nil || ticket.Stale {
			t.Errorf("got %+v, %v", ticket, err)
		}
	})
}

func TestTwoAgentsOfOneCorpDoNotShareAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := config.App{ID: "ww1", Agent: "100", Platform: config.PlatformWeCom, Secret: secret.New("a")}
		two := config.App{ID: "ww1", Agent: "200", Platform: config.PlatformWeCom, Secret: secret.New("b"), Tickets: []string{config.TicketAgentConfig}}
		s := sourcetest.New(t, sourcetest.Options{}, one, two)
		for _, a := range []config.App{one, two} {
			token, err := s.Cache.Get(t.Context(), source.Key(a))
			if err != nil || !s.WeChat.Valid(a.CredentialID(), token.Value.Reveal()) {
				t.Errorf("%s: %+v, %v", a.CredentialID(), token, err)
			}
		}
		key := source.TicketKey(two, config.TicketAgentConfig)
		if _, err := s.Cache.Get(t.Context(), key); err != nil {
			t.Error(err)
		}
	})
}

func TestProbeTellsRejectionFromEverythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ask func(context.Context, secret.String) error
		a := app(config.EndpointStable)
		a.Tickets = nil
		s := sourcetest.New(t, sourcetest.Options{Adjust: func(c *tokencache.Credential) { ask = c.Probe }}, a)
		token, err := s.Cache.Get(t.Context(), source.Key(app("")))
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(t.Context(), token.Value); err != nil {
			t.Errorf("a live token: %v", err)
		}
		if err := ask(t.Context(), secret.New("garbage")); !errors.Is(err, tokencache.ErrRejected) {
			t.Errorf("garbage: %v, want ErrRejected", err)
		}
		s.WeChat.AddFault(wechattest.Fault{Effect: wechattest.EffectStatus, Status: 502})
		if err := ask(t.Context(), token.Value); err == nil || errors.Is(err, tokencache.ErrRejected) {
			t.Errorf("a 502: %v, want an error that is no rejection", err)
		}
		a.Probe = config.ProbeOff
		if s.Set(t, a); ask != nil {
			t.Error("a probe that is switched off is there")
		}
	})
}

// A wrong secret is waited for under its own fingerprint, by the ticket too: the right one heals
// both.
func TestTheRightSecretHealsTheTicketAsSoonAsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := app(config.EndpointStable)
		wrong.Secret = secret.New("wrong")
		s := sourcetest.New(t, sourcetest.Options{Account: func(a *wechattest.App) { a.Secret = "s1" }}, wrong)
		s.Replica.Start()
		ticket := source.TicketKey(wrong, config.TicketJSAPI)
		for range 5 { // until the backoff is minutes long
			if _, err := s.Cache.Get(t.Context(), ticket); err == nil {
				t.Fatal("a ticket with the wrong secret")
			}
			time.Sleep(2 * time.Minute)
		}
		right := app(config.EndpointStable)
		s.Set(t, right)
		start := time.Now()
		for _, err := s.Cache.Get(t.Context(), ticket); err != nil; _, err = s.Cache.Get(t.Context(), ticket) {
			if time.Since(start) > 5*time.Second {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}
