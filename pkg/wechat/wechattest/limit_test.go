package wechattest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// TestClassicQuota: 2000 a day, then 45009 with the advice to use the other endpoint, until
// clear_quota or midnight in China; and clear_quota works 10 times a month.
func TestClassicQuota(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		time.Sleep(time.Hour)
		exhaust := func() *wechat.Error {
			for range 10_000 {
				if _, err := c.Token(t.Context(), "wx1", secret.New("s1")); err != nil {
					e, _ := errors.AsType[*wechat.Error](err)
					return e
				}
			}
			return nil
		}
		e := exhaust()
		if e == nil || e.Code != 45009 || !strings.Contains(e.Message, "getStableAccessToken") {
			t.Fatalf("over quota: %v", e)
		}
		if got := sim.Calls("wx1"); got.Classic != 2001 || got.Issued != 2000 {
			t.Errorf("calls: %+v", got)
		}
		tok := stable(t, c, wechat.Normal).Value.Reveal()
		sim.Tune(func(k *wechattest.Knobs) { k.PerDay["/cgi-bin/token"] = 3 })
		for i := range 10 {
			if w := ask(sim, "POST", "/cgi-bin/clear_quota?access_token="+tok, `{"appid":"wx1"}`); !strings.Contains(w.Body.String(), `"errcode":0`) {
				t.Fatalf("clear_quota %d: %s", i, w.Body)
			}
			before := sim.Calls("wx1").Issued
			if e := exhaust(); e == nil || sim.Calls("wx1").Issued != before+3 {
				t.Fatalf("after clear_quota %d: %v, %+v", i, e, sim.Calls("wx1"))
			}
		}
		if w := ask(sim, "POST", "/cgi-bin/clear_quota/v2?appid=wx1&appsecret=s1", ""); !strings.Contains(w.Body.String(), "48006") {
			t.Errorf("the 11th clear of a month: %s", w.Body)
		}
		time.Sleep(15 * time.Hour) // 00:00 of the next day in China
		classic(t, c)
	})
}

func TestMinuteQuota(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.Tune(func(k *wechattest.Knobs) { k.PerMinute["/cgi-bin/stable_token"] = 2 })
		time.Sleep(59 * time.Second)
		stable(t, c, wechat.Normal)
		stable(t, c, wechat.Normal)
		_, err := c.StableToken(t.Context(), "wx1", secret.New("s1"), wechat.Normal)
		if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Class() != wechat.ClassMinute {
			t.Errorf("third in a minute: %v", err)
		}
		time.Sleep(time.Second)
		stable(t, c, wechat.Normal)
	})
}

// TestWhitelist calls from an address that is not admitted, and from one that is.
func TestWhitelist(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		tok, corp := classic(t, c).Value, corpToken(t, c, "a").Value
		other := sim.TransportFrom("198.51.100.9")
		defer other.Close()
		d := &wechat.Client{HTTP: &http.Client{Transport: other}}
		sim.SetWhitelist("wx1", "203.0.113.0/24", "192.0.2.1")
		sim.SetWhitelist("ww1:A", "203.0.113.7")
		classic(t, c)
		corpToken(t, c, "a")

		_, err := d.Token(t.Context(), "wx1", secret.New("s1"))
		if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Code != 40164 || e.EgressIP() != "198.51.100.9" || e.Class() != wechat.ClassEgress {
			t.Errorf("token from outside: %v", err)
		}
		_, err = d.CorpToken(t.Context(), "ww1", secret.New("a"))
		if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Code != 60020 || e.EgressIP() != "198.51.100.9" || e.Class() != wechat.ClassEgress {
			t.Errorf("WeCom token from outside: %v", err)
		}
		if got := probe(t, d, tok); got != 0 {
			t.Errorf("call from outside: %d, but only fetches are checked", got)
		}
		sim.Tune(func(k *wechattest.Knobs) { k.WhitelistCalls, k.WhitelistCode = true, 61004 })
		if a, b := probe(t, d, tok), probe(t, c, tok); a != 61004 || b != 0 {
			t.Errorf("calls with WhitelistCalls: %d from outside, %d from inside", a, b)
		}
		if err := d.Probe(t.Context(), corp, wechat.ProbeCorpCallbackIP); code(err) != 60020 {
			t.Errorf("WeCom call from outside: %v", err)
		}
		sim.Tune(func(k *wechattest.Knobs) { k.CallerIP = func(*http.Request) string { return "192.0.2.1" } })
		if got := probe(t, d, tok); got != 0 {
			t.Errorf("call from where CallerIP says: %d", got)
		}
	})
}

func TestForwardedAddressCountsForTheWhitelist(t *testing.T) {
	sim := wechattest.New(wechattest.App{ID: "wx1", Secret: "s1", Whitelist: []string{"203.0.113.50"}})
	sim.SetWhitelist("wx1", "58.213.199.30")
	const target = "/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=s1"
	if w := ask(sim, "GET", target, ""); !strings.Contains(w.Body.String(), "access_token") {
		t.Errorf("by the peer's address: %s", w.Body)
	}
	srv := sim.Transport()
	defer srv.Close()
	r, err := http.NewRequest("GET", "http://sim"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "58.213.199.30, 10.0.0.1")
	resp, err := srv.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := sim.Calls("wx1").Issued; got != 2 {
		t.Errorf("%d tokens, want 2", got)
	}
}

func TestRefuseAndApproveAndSecret(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		tok := classic(t, c).Value
		sim.Deny("wx1", 89503)
		if _, err := c.Token(t.Context(), "wx1", secret.New("s1")); code(err) != 89503 {
			t.Errorf("refused: %v", err)
		}
		if got := probe(t, c, tok); got != 0 {
			t.Errorf("the token that there was: %d", got)
		}
		sim.Approve("wx1")
		classic(t, c)
		sim.SetSecret("wx1", "new")
		if _, err := c.Token(t.Context(), "wx1", secret.New("s1")); code(err) != 40125 {
			t.Errorf("old secret: %v", err)
		}
		must(t)(c.Token(t.Context(), "wx1", secret.New("new")))
	})
}

func TestLatency(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.Tune(func(k *wechattest.Knobs) { k.Latency = 300 * time.Millisecond })
		start := time.Now()
		classic(t, c)
		sim.Tune(func(k *wechattest.Knobs) {
			k.LatencyFunc = func(*http.Request) time.Duration { return time.Second }
		})
		classic(t, c)
		if got := time.Since(start); got != 1300*time.Millisecond {
			t.Errorf("took %v, want 1.3s", got)
		}
	})
}

func TestCallsOfNoAppAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		_, err := c.Token(t.Context(), "unknown", secret.New("x"))
		if code(err) != 40013 || probe(t, c, secret.New("garbage")) != 40001 {
			t.Error("an unknown app got a token")
		}
		if got := sim.Calls(""); got.Classic != 1 || got.Probes != 1 || got.BadToken != 1 || got.Paths["/cgi-bin/token"] != 1 {
			t.Errorf("calls of an unknown app: %+v", got)
		}
	})
}
