package wechattest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The apps of most tests.
var (
	official = wechattest.App{ID: "wx1", Secret: "s1", Menu: `{"button":[]}`, UserTokens: []string{"user-token"}}
	mini     = wechattest.App{ID: "wx2", Secret: "s2", Kind: wechattest.MiniProgram}
	agentA   = wechattest.App{ID: "ww1", Secret: "a", Kind: wechattest.Corp, Agent: "A"}
	agentB   = wechattest.App{ID: "ww1", Secret: "b", Kind: wechattest.Corp, Agent: "B"}
)

// bubble runs a test in virtual time, with a simulator and a client that talks to it over real
// HTTP.
func bubble(t *testing.T, test func(t *testing.T, sim *wechattest.Server, c *wechat.Client)) {
	synctest.Test(t, func(t *testing.T) {
		sim := wechattest.New(official, mini, agentA, agentB)
		transport := sim.Transport()
		defer transport.Close()
		test(t, sim, &wechat.Client{HTTP: &http.Client{Transport: transport}})
	})
}

// The fetches of the official account and of agent A, which must succeed unless noted.
func classic(t *testing.T, c *wechat.Client) wechat.Credential {
	t.Helper()
	return must(t)(c.Token(t.Context(), "wx1", secret.New("s1")))
}

func stable(t *testing.T, c *wechat.Client, m wechat.Mode) wechat.Credential {
	t.Helper()
	return must(t)(c.StableToken(t.Context(), "wx1", secret.New("s1"), m))
}

func corpToken(t *testing.T, c *wechat.Client, corpSecret string) wechat.Credential {
	t.Helper()
	return must(t)(c.CorpToken(t.Context(), "ww1", secret.New(corpSecret)))
}

func must(t *testing.T) func(wechat.Credential, error) wechat.Credential {
	return func(cred wechat.Credential, err error) wechat.Credential {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return cred
	}
}

// code returns the errcode of an error, 0 for nil and -999 for anything else.
func code(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*wechat.Error](err); ok && e.Code != 0 {
		return e.Code
	}
	return -999
}

func probe(t *testing.T, c *wechat.Client, token secret.String) int {
	t.Helper()
	return code(c.Probe(t.Context(), token, wechat.ProbeCallbackIP))
}

func TestClientReachesEveryEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		ctx := t.Context()
		for name, tok := range map[string]wechat.Credential{
			"classic": classic(t, c), "stable": stable(t, c, wechat.Normal), "forced": stable(t, c, wechat.Forced),
		} {
			if got := code(c.Probe(ctx, tok.Value, wechat.ProbeCallbackIP)); name != "stable" && got != 0 {
				t.Errorf("%s: probe = %d", name, got)
			}
			if tok.ExpiresIn != 2*time.Hour {
				t.Errorf("%s: ExpiresIn = %v", name, tok.ExpiresIn)
			}
		}
		tok := classic(t, c).Value
		jsapi := must(t)(c.Ticket(ctx, tok, wechat.TicketJSAPI))
		card := must(t)(c.Ticket(ctx, tok, wechat.TicketWXCard))
		if jsapi.Value.Equal(card.Value) {
			t.Error("jsapi and wx_card have the same ticket")
		}
		if !sim.TicketValid("wx1", "jsapi", jsapi.Value.Reveal()) || sim.TicketValid("wx1", "jsapi", card.Value.Reveal()) {
			t.Error("TicketValid is wrong")
		}
		if err := c.Probe(ctx, tok, wechat.ProbeMenu); err != nil {
			t.Error(err)
		}
		a, b := corpToken(t, c, "a").Value, corpToken(t, c, "b").Value
		if a.Equal(b) {
			t.Error("two agents of a corp have the same token")
		}
		if err := c.Probe(ctx, a, wechat.ProbeCorpCallbackIP); err != nil {
			t.Error(err)
		}
		must(t)(c.CorpTicket(ctx, a, wechat.TicketJSAPI))
		must(t)(c.CorpTicket(ctx, b, wechat.TicketAgentConfig))
		if got := sim.Calls("ww1:A"); got.Corp != 1 || got.Tickets != 1 || got.Probes != 1 || got.Issued != 1 || got.Fetches() != 1 {
			t.Errorf("calls of agent A: %+v", got)
		}
		if got := sim.Calls("wx1"); got.Classic != 2 || got.StableNormal != 1 || got.StableForced != 1 || got.Issued != 4 || got.Tickets != 2 || got.BadToken != 1 {
			t.Errorf("calls of wx1: %+v", got)
		}
	})
}

// TestEveryFault lets each fault strike a classic fetch and checks both sides: what the client
// makes of it, and whether a token was issued.
func TestEveryFault(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  wechattest.Fault
		class  wechat.Class
		may    bool // what the client says
		issued int  // what is true
		is     error
		took   time.Duration
	}{
		{"-1", wechattest.Fault{Effect: wechattest.EffectErrcode, Code: -1}, wechat.ClassRetry, false, 0, nil, 0},
		{"errcode of one's own", wechattest.Fault{Effect: wechattest.EffectErrcode, Code: 50002, Message: "s1"}, wechat.ClassConfig, false, 0, nil, 0},
		{"502", wechattest.Fault{Effect: wechattest.EffectStatus}, wechat.ClassRetry, true, 0, nil, 0},
		{"504 after acting", wechattest.Fault{Effect: wechattest.EffectStatus, Status: 504, After: true}, wechat.ClassRetry, true, 1, nil, 0},
		{"403", wechattest.Fault{Effect: wechattest.EffectStatus, Status: 403}, wechat.ClassConfig, false, 0, nil, 0},
		{"HTML", wechattest.Fault{Effect: wechattest.EffectHTML}, wechat.ClassRetry, true, 0, nil, 0},
		{"empty", wechattest.Fault{Effect: wechattest.EffectEmpty}, wechat.ClassRetry, true, 0, nil, 0},
		{"redirect", wechattest.Fault{Effect: wechattest.EffectRedirect}, wechat.ClassConfig, false, 0, nil, 0},
		{"hang", wechattest.Fault{Effect: wechattest.EffectHang}, wechat.ClassRetry, true, 0, context.DeadlineExceeded, 8 * time.Second},
		{"hang after acting", wechattest.Fault{Effect: wechattest.EffectHang, After: true}, wechat.ClassRetry, true, 1, context.DeadlineExceeded, 8 * time.Second},
		{"reset", wechattest.Fault{Effect: wechattest.EffectReset}, wechat.ClassRetry, true, 0, io.EOF, 0},
		{"reset after acting", wechattest.Fault{Effect: wechattest.EffectReset, After: true}, wechat.ClassRetry, true, 1, io.EOF, 0},
		{"truncate", wechattest.Fault{Effect: wechattest.EffectTruncate}, wechat.ClassRetry, true, 1, nil, 0},
		{"cut", wechattest.Fault{Effect: wechattest.EffectCut}, wechat.ClassRetry, true, 1, io.ErrUnexpectedEOF, 0},
		{"too slow after acting", wechattest.Fault{Delay: time.Minute, After: true}, wechat.ClassRetry, true, 1, context.DeadlineExceeded, 8 * time.Second},
		{"too slow", wechattest.Fault{Delay: time.Minute}, wechat.ClassRetry, true, 0, context.DeadlineExceeded, 8 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
				tt.fault.Count = 1
				sim.AddFault(tt.fault)
				start := time.Now()
				_, err := c.Token(t.Context(), "wx1", secret.New("s1"))
				took := time.Since(start)
				synctest.Wait()
				e, ok := errors.AsType[*wechat.Error](err)
				if !ok || e.Class() != tt.class || e.MayHaveIssued() != tt.may || !e.Sent || tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("error %v (%#v)", err, e)
				}
				if got := sim.Calls("wx1"); took != tt.took || got.Issued != tt.issued || got.Classic != 1 {
					t.Errorf("took %v with %+v, want %v and %d issued", took, got, tt.took, tt.issued)
				}
				classic(t, c) // the fault is used up
			})
		})
	}
}

func TestTextFaultAndShortDelayDoNotHurt(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.AddFault(wechattest.Fault{Effect: wechattest.EffectText, Count: 1})
		sim.AddFault(wechattest.Fault{Delay: time.Second, Count: 1})
		classic(t, c)
		start := time.Now()
		classic(t, c)
		if got := time.Since(start); got != time.Second {
			t.Errorf("the delayed call took %v, want 1s", got)
		}
	})
}

// TestAnswersOvertakeEachOther: the first of two classic fetches is answered after the second, with
// the token that the second replaced.
func TestAnswersOvertakeEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.AddFault(wechattest.Fault{Path: "/cgi-bin/token", App: "wx1", Count: 1, After: true, Delay: 3 * time.Second})
		late := make(chan secret.String)
		go func() { late <- classic(t, c).Value }()
		time.Sleep(time.Second)
		second := classic(t, c).Value
		first := <-late
		if got := sim.Status("wx1", first.Reveal()); got != wechattest.Previous {
			t.Errorf("the late token is %s", got)
		}
		if got := sim.Status("wx1", second.Reveal()); got != wechattest.Current {
			t.Errorf("the early token is %s", got)
		}
	})
}

func TestFaultsAreSelective(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		sim.AddFault(wechattest.Fault{Path: "/cgi-bin/stable_token", App: "wx1", Skip: 1, Count: 2, Effect: wechattest.EffectErrcode, Code: -1})
		sim.AddFault(wechattest.Fault{App: "wx2", Effect: wechattest.EffectErrcode, Code: 50002})
		other := func() int {
			_, err := c.StableToken(t.Context(), "wx2", secret.New("s2"), wechat.Normal)
			return code(err)
		}
		var got []int
		for range 4 {
			_, err := c.StableToken(t.Context(), "wx1", secret.New("s1"), wechat.Normal)
			got = append(got, code(err), other())
		}
		want := []int{0, 50002, -1, 50002, -1, 50002, 0, 50002}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("codes %v, want %v", got, want)
			}
		}
		classic(t, c)
		sim.ClearFaults()
		if got := other(); got != 0 {
			t.Errorf("after ClearFaults: %d", got)
		}
		sim.Tune(func(k *wechattest.Knobs) {
			k.FaultFunc = func(_ *http.Request, app string) *wechattest.Fault {
				if app == "wx2" {
					return &wechattest.Fault{Effect: wechattest.EffectErrcode, Code: -1000}
				}
				return nil
			}
		})
		if got := other(); got != -1000 {
			t.Errorf("FaultFunc: %d", got)
		}
		classic(t, c)
	})
}

// TestConcurrentFetchesKeepOrder: whatever the interleaving, one token is current and one previous.
func TestConcurrentFetchesKeepOrder(t *testing.T) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := c.Token(t.Context(), "wx1", secret.New("s1"))
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := make(map[wechattest.Status]int)
		for _, i := range sim.Issued("wx1") {
			got[sim.Status("wx1", i.Value)]++
		}
		if got[wechattest.Current] != 1 || got[wechattest.Previous] != 1 || got[wechattest.Superseded] != 48 {
			t.Errorf("tokens: %v", got)
		}
	})
}

// TestCloseEndsWhatHangs: nothing outlives the transport; the bubble would notice.
func TestCloseEndsWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := wechattest.New(official)
		transport := sim.Transport()
		sim.AddFault(wechattest.Fault{Effect: wechattest.EffectHang})
		c := &wechat.Client{HTTP: &http.Client{Transport: transport}}
		failed := make(chan error)
		go func() {
			_, err := c.Token(t.Context(), "wx1", secret.New("s1"))
			failed <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; err == nil || time.Since(start) != 0 {
			t.Errorf("%v after %v, want an error at once", err, time.Since(start))
		}
		if _, err := transport.DialContext(t.Context(), "tcp", "sim:80"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dialling a closed transport: %v", err)
		}
	})
}
