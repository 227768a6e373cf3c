package source

import (
	"errors"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const id = "wx00000000000000f1"

func app(endpoint string) config.App {
	return config.App{
		ID: id, Platform: config.PlatformWeChat, Endpoint: endpoint, Secret: secret.New("s1"),
		Tickets: []string{config.TicketJSAPI},
	}
}

// stack is the whole way from the cache to WeChat, in one bubble.
type stack struct {
	sim    *wechattest.Server
	cache  *tokencache.Cache
	client *wechat.Client
}

func newStack(t *testing.T, a config.App, accounts ...wechattest.App) *stack {
	t.Helper()
	if len(accounts) == 0 {
		accounts = []wechattest.App{{ID: id, Secret: "s1"}}
	}
	s := &stack{sim: wechattest.New(accounts...)}
	transport := s.sim.Transport()
	t.Cleanup(func() { _ = transport.Close() })
	s.client = &wechat.Client{HTTP: &http.Client{Transport: transport}}
	// A cluster of one, for its Redis and the connections to it.
	cluster := tokencachetest.New(t, 1, &tokencachetest.Upstream{}, tokencachetest.Options(tokencache.Options{Reread: 5 * time.Minute}))
	s.cache = cluster.Replicas[0].Cache
	if err := s.cache.Set(credentials(a, s.client, s.cache)...); err != nil {
		t.Fatal(err)
	}
	cluster.Start()
	return s
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
		{config.EndpointStable, 7200*time.Second - stableRenewLeft, time.Minute + time.Second, func(c wechattest.Calls) int { return c.StableNormal }},
		{config.EndpointClassic, 7200*time.Second - ClassicRenewLeft, time.Minute + time.Second, func(c wechattest.Calls) int { return c.Classic }},
	} {
		t.Run(test.endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStack(t, app(test.endpoint))
				start := time.Now()
				for time.Since(start) < span {
					token, err := s.cache.Get(t.Context(), Key(app(test.endpoint)))
					if err != nil || token.Stale || !s.sim.Valid(id, token.Value.Reveal()) {
						t.Fatalf("after %v: %+v, %v", time.Since(start), token, err)
					}
					ticket, err := s.cache.Get(t.Context(), tokencache.Key{App: id, Kind: "jsapi_ticket"})
					if err != nil || ticket.Stale || !s.sim.TicketValid(id, "jsapi", ticket.Value.Reveal()) {
						t.Fatalf("after %v: ticket %+v, %v", time.Since(start), ticket, err)
					}
					time.Sleep(17 * time.Second)
				}
				calls := s.sim.Calls(id)
				least, most := int(span/(test.cycle+test.most)), 1+int(span/test.cycle)
				if n := test.count(calls); n < least || n > most || n != calls.Fetches() {
					t.Errorf("%d fetches (%d in all), want %d to %d", n, calls.Fetches(), least, most)
				}
				if n := calls.Tickets; n < int(span/(5*time.Minute)) || n > 1+int(span/ticketEvery) {
					t.Errorf("%d ticket fetches", n)
				}
			})
		})
	}
}

func TestATokenThatStableTokenRepeatsAlthoughItIsDeadIsForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, app(config.EndpointStable))
		k := s.sim.Knobs()
		k.StableKeepsKilled = true
		s.sim.SetKnobs(k)
		old, err := s.cache.Get(t.Context(), Key(app("")))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.sim.KillTokens(id)
		token, err := s.cache.Report(t.Context(), Key(app("")), old.Value)
		if err != nil || !s.sim.Valid(id, token.Value.Reveal()) {
			t.Fatalf("got %+v, %v", token, err)
		}
		// A normal call first: it is free, and would have been enough after a refresh by another
		// program.
		if c := s.sim.Calls(id); c.StableNormal != 2 || c.StableForced != 1 || c.Probes != 1 {
			t.Errorf("%d normal and %d forced fetches, %d probes; want 2, 1, 1", c.StableNormal, c.StableForced, c.Probes)
		}
	})
}

func TestATicketThatMeetsADeadTokenReportsItAndIsFetchedOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, app(config.EndpointClassic))
		synctest.Wait()
		if _, err := s.cache.Get(t.Context(), tokencache.Key{App: id, Kind: "jsapi_ticket"}); err != nil {
			t.Fatal(err)
		}
		s.sim.KillTokens(id)
		before := s.sim.Calls(id)
		time.Sleep(5 * time.Minute) // the next look at the ticket finds out
		after := s.sim.Calls(id)
		if after.Classic != before.Classic+1 || after.BadToken != before.BadToken+2 { // the ticket's, and the probe's
			t.Errorf("%d fetches and %d rejections more, want 1 and 2", after.Classic-before.Classic, after.BadToken-before.BadToken)
		}
		ticket, err := s.cache.Get(t.Context(), tokencache.Key{App: id, Kind: "jsapi_ticket"})
		if err != nil || ticket.Stale {
			t.Errorf("got %+v, %v", ticket, err)
		}
	})
}

func TestTwoAgentsOfOneCorpDoNotShareAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := config.App{ID: "ww1", Agent: "100", Platform: config.PlatformWeCom, Secret: secret.New("a")}
		two := config.App{ID: "ww1", Agent: "200", Platform: config.PlatformWeCom, Secret: secret.New("b"), Tickets: []string{config.TicketAgentConfig}}
		s := newStack(t, one,
			wechattest.App{ID: "ww1", Agent: "100", Secret: "a", Kind: wechattest.Corp},
			wechattest.App{ID: "ww1", Agent: "200", Secret: "b", Kind: wechattest.Corp})
		if err := s.cache.Set(append(credentials(one, s.client, s.cache), credentials(two, s.client, s.cache)...)...); err != nil {
			t.Fatal(err)
		}
		for _, a := range []config.App{one, two} {
			token, err := s.cache.Get(t.Context(), Key(a))
			if err != nil || !s.sim.Valid(a.CredentialID(), token.Value.Reveal()) {
				t.Errorf("%s: %+v, %v", a.CredentialID(), token, err)
			}
		}
		key := TicketKey(two, config.TicketAgentConfig)
		if _, err := s.cache.Get(t.Context(), key); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatWeChatAnswersDecidesWhoWaits(t *testing.T) {
	for _, test := range []struct {
		code  int
		class tokencache.Class
	}{
		{-1, tokencache.ClassTransient}, {45011, tokencache.ClassTransient}, {45009, tokencache.ClassQuota},
		{40001, tokencache.ClassPermanent}, {40013, tokencache.ClassPermanent}, {40125, tokencache.ClassPermanent}, {40243, tokencache.ClassPermanent},
		{40164, tokencache.ClassLocal}, {61004, tokencache.ClassLocal}, {89503, tokencache.ClassLocal},
	} {
		f, ok := errors.AsType[*tokencache.FetchError](fetchError(&wechat.Error{API: wechat.APIToken, Code: test.code, Status: 200, Sent: true}))
		if !ok || f.Class != test.class || f.Code != test.code || f.Unclear {
			t.Errorf("errcode %d: %+v, want %s and surely nothing issued", test.code, f, test.class)
		}
	}
	f, _ := errors.AsType[*tokencache.FetchError](fetchError(&wechat.Error{API: wechat.APIToken, Status: 502, Sent: true}))
	if f.Class != tokencache.ClassTransient || !f.Unclear {
		t.Errorf("a 502: %+v, want transient and unclear", f)
	}
}

func TestProbeTellsRejectionFromEverythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStack(t, app(config.EndpointStable))
		token, err := s.cache.Get(t.Context(), Key(app("")))
		if err != nil {
			t.Fatal(err)
		}
		ask := probe(app(""), s.client)
		if err := ask(t.Context(), token.Value); err != nil {
			t.Errorf("a live token: %v", err)
		}
		if err := ask(t.Context(), secret.New("garbage")); !errors.Is(err, tokencache.ErrRejected) {
			t.Errorf("garbage: %v, want ErrRejected", err)
		}
		s.sim.AddFault(wechattest.Fault{Effect: wechattest.EffectStatus, Status: 502})
		if err := ask(t.Context(), token.Value); err == nil || errors.Is(err, tokencache.ErrRejected) {
			t.Errorf("a 502: %v, want an error that is no rejection", err)
		}
		off := app("")
		off.Probe = config.ProbeOff
		if probe(off, s.client) != nil {
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
		s := newStack(t, wrong)
		ticket := TicketKey(wrong, config.TicketJSAPI)
		for range 5 { // until the backoff is minutes long
			if _, err := s.cache.Get(t.Context(), ticket); err == nil {
				t.Fatal("a ticket with the wrong secret")
			}
			time.Sleep(2 * time.Minute)
		}
		right := app(config.EndpointStable)
		if err := s.cache.Set(credentials(right, s.client, s.cache)...); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for _, err := s.cache.Get(t.Context(), ticket); err != nil; _, err = s.cache.Get(t.Context(), ticket) {
			if time.Since(start) > 5*time.Second {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}
