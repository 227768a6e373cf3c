package wechattest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// callback is a handler that opens what a platform pushes, as the program under test would.
type callback struct {
	envelope *wechat.Envelope
	mu       sync.Mutex
	got      []wechat.Push
	refused  []error
	answer   func(w http.ResponseWriter, p wechat.Push) // nil: success
}

func newCallback(t *testing.T, receiver string) *callback {
	t.Helper()
	e, err := wechat.NewEnvelope(secret.New("tk"), receiver, secret.New(key1), secret.New(key2))
	if err != nil {
		t.Fatal(err)
	}
	return &callback{envelope: e}
}

// onlyKey is an envelope of the platform with one key.
func onlyKey(t *testing.T, key string) *wechat.Envelope {
	t.Helper()
	e, err := wechat.NewEnvelope(secret.New("tk"), "wxp", secret.New(key))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		text, _ := c.envelope.Echo(r.URL.Query())
		_, _ = w.Write(text)
		return
	}
	body, _ := io.ReadAll(r.Body)
	var p wechat.Push
	opened, err := c.envelope.Open(r.URL.Query(), body)
	if err == nil {
		p, err = wechat.ParsePush(opened.Message)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.refused = append(c.refused, err)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	c.got = append(c.got, p)
	if c.answer != nil {
		c.answer(w, p)
		return
	}
	_, _ = io.WriteString(w, "success")
}

// kinds returns the InfoTypes of what arrived, in order.
func (c *callback) kinds() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var kinds []string
	for _, p := range c.got {
		kinds = append(kinds, p.InfoType)
	}
	return kinds
}

func (c *callback) last() wechat.Push {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) == 0 {
		return wechat.Push{}
	}
	return c.got[len(c.got)-1]
}

// pushing runs a test in a bubble with one platform that pushes to a callback. The first ticket has
// arrived when the test begins.
func pushing(t *testing.T, p wechattest.Platform, test func(t *testing.T, sim *wechattest.Server, c *callback)) {
	synctest.Test(t, func(t *testing.T) {
		sim, c := wechattest.New(official), newCallback(t, p.ID)
		transport := wechattest.TransportTo(c)
		defer transport.Close()
		p.Callback, p.Transport = "https://sidecar.test/callback?from=sim", transport
		sim.AddPlatform(p)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { sim.RunPushes(ctx) })
		synctest.Wait()
		test(t, sim, c)
	})
}

func TestTicketsComeEveryTenMinutes(t *testing.T) {
	pushing(t, platform, func(t *testing.T, sim *wechattest.Server, c *callback) {
		first := c.last()
		if first.InfoType != wechat.PushTicket || first.Platform != "wxp" || first.Order != time.Now().Unix() || first.Ticket.Reveal() != sim.Ticket("wxp") {
			t.Errorf("first push: %+v", first)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := len(c.kinds()); got != 7 || c.last().Ticket.Equal(first.Ticket) {
			t.Errorf("%d tickets in an hour and at its beginning, want 7", got)
		}
		sim.StopTickets("wxp")
		time.Sleep(time.Hour)
		transport := sim.Transport()
		defer transport.Close()
		client := &wechat.Client{HTTP: &http.Client{Transport: transport}}
		if err := client.StartPush(t.Context(), "wxp", secret.New("ps")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := len(c.kinds()); got != 8 || c.last().Order != time.Now().Unix() {
			t.Errorf("%d tickets, want one more, by api_start_push_ticket", got)
		}
		if err := client.StartPush(t.Context(), "wxp", secret.New("ps")); err != nil || len(c.kinds()) != 8 {
			t.Errorf("start of what runs: %v", err)
		}
	})
}

func TestEventsOfAPlatform(t *testing.T) {
	pushing(t, platform, func(t *testing.T, sim *wechattest.Server, c *callback) {
		authCode := sim.Authorize("wxp", "wxa")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushAuthorized || got.Authorizer != "wxa" || got.Code.Reveal() != authCode {
			t.Errorf("%+v", got)
		}
		update := sim.UpdateAuthorization("wxp", "wxa")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushUpdated || got.Code.Reveal() != update || update == authCode {
			t.Errorf("%+v", got)
		}
		sim.Withdraw("wxp", "wxa")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushUnauthorized || got.Authorizer != "wxa" || !got.Code.Empty() {
			t.Errorf("%+v", got)
		}
		sim.PushEvent("wxp", wechattest.Push{InfoType: "notify_third_fasteregister", Authorizer: "wxa"})
		synctest.Wait()
		if got := c.last(); got.InfoType != "notify_third_fasteregister" || len(c.refused) != 0 {
			t.Errorf("%+v; refused: %v", got, c.refused)
		}
		k := sim.PlatformKnobs("wxp")
		k.SeparateCodes = true
		sim.SetPlatformKnobs("wxp", k)
		other := sim.Authorize("wxp", "wxb")
		synctest.Wait()
		if got := c.last(); got.Code.Reveal() == other || got.Code.Empty() {
			t.Error("the redirect has the code of the push")
		}
	})
}

func TestEventsOfASuite(t *testing.T) {
	pushing(t, template, func(t *testing.T, sim *wechattest.Server, c *callback) {
		if got := c.last(); got.InfoType != wechat.PushSuiteTicket || got.Platform != "dk1" || got.Ticket.Empty() {
			t.Errorf("%+v", got)
		}
		authCode := sim.Authorize("dk1", "wwc")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushCreateAuth || got.Authorizer != "" || got.Code.Reveal() != authCode {
			t.Errorf("%+v", got)
		}
		sim.UpdateAuthorization("dk1", "wwc")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushChangeAuth || got.Authorizer != "wwc" || !got.Code.Empty() {
			t.Errorf("%+v", got)
		}
		sim.ResetPermanentCode("dk1", "wwc")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushPermanentCode || got.Authorizer != "" || got.Code.Empty() {
			t.Errorf("%+v", got)
		}
		sim.Withdraw("dk1", "wwc")
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushCancelAuth || got.Authorizer != "wwc" || len(c.refused) != 0 {
			t.Errorf("%+v; refused: %v", got, c.refused)
		}
		k := sim.PlatformKnobs("dk1")
		k.NoCodePush = true
		sim.SetPlatformKnobs("dk1", k)
		if sim.Authorize("dk1", "wwd") == "" {
			t.Error("no code for the redirect")
		}
		synctest.Wait()
		if got := c.last(); got.InfoType != wechat.PushCancelAuth {
			t.Errorf("an installation from the provider's website pushed %+v", got)
		}
	})
}

// TestPushesAreRepeatedUntilSuccess, which is exactly that word, with 200, in time.
func TestPushesAreRepeatedUntilSuccess(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"503":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"empty":    func(http.ResponseWriter) {},
		"newline":  func(w http.ResponseWriter) { _, _ = io.WriteString(w, "success\n") },
		"too late": func(w http.ResponseWriter) { time.Sleep(1100 * time.Millisecond); _, _ = io.WriteString(w, "success") },
		"broken":   func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			pushing(t, suite, func(t *testing.T, sim *wechattest.Server, c *callback) {
				times := 0
				c.answer = func(w http.ResponseWriter, p wechat.Push) {
					if times++; times > 2 {
						_, _ = io.WriteString(w, "success")
						return
					}
					answer(w)
				}
				sim.Authorize("wws", "wwc")
				time.Sleep(time.Minute)
				synctest.Wait()
				var ok []bool
				for _, p := range sim.Pushed("wws")[1:] {
					ok = append(ok, p.OK)
				}
				if !slices.Equal(ok, []bool{false, false, true}) {
					t.Errorf("attempts %v, want two failures and a success", ok)
				}
			})
		})
	}
}

func TestDeliveries(t *testing.T) {
	pushing(t, platform, func(t *testing.T, sim *wechattest.Server, c *callback) {
		k := sim.PlatformKnobs("wxp")
		k.Repeats = 0
		ways := map[string][]wechattest.Delivery{
			"lost": {}, "twice": {{}, {After: time.Second}}, "late": {{After: time.Minute}}, "old key": {{PreviousKey: true}}, "empty": {{Empty: true}},
		}
		k.Deliver = func(p wechattest.Push) []wechattest.Delivery { return ways[p.InfoType] }
		sim.SetPlatformKnobs("wxp", k)
		for _, infoType := range []string{"lost", "late", "twice", "old key", "empty"} {
			sim.PushEvent("wxp", wechattest.Push{InfoType: infoType})
			synctest.Wait()
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got, want := c.kinds()[1:], []string{"twice", "old key", "twice", "late"}; !slices.Equal(got, want) {
			t.Errorf("arrived %v, want %v", got, want)
		}
		if len(c.refused) != 1 {
			t.Errorf("refused %v, want the empty one", c.refused)
		}
		// A callback with one key opens only what that key encrypted.
		for _, p := range sim.Pushed("wxp")[1:] {
			if p.OK != (p.InfoType != "empty") {
				t.Errorf("%s: answered %d %q", p.InfoType, p.Status, p.Answer)
			}
		}
		c.envelope = onlyKey(t, key2)
		sim.PushEvent("wxp", wechattest.Push{InfoType: "old key"})
		sim.PushEvent("wxp", wechattest.Push{InfoType: "twice"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := c.kinds()[5:]; !slices.Equal(got, []string{"old key"}) {
			t.Errorf("with the previous key alone arrived %v", got)
		}
		c.envelope = newCallback(t, "wxp").envelope
		// After a change, the replaced key is the previous one.
		sim.ChangeAESKey("wxp", key2)
		k.Deliver = func(wechattest.Push) []wechattest.Delivery { return []wechattest.Delivery{{}, {PreviousKey: true}} }
		sim.SetPlatformKnobs("wxp", k)
		sim.PushEvent("wxp", wechattest.Push{InfoType: "both keys"})
		synctest.Wait()
		if got := c.kinds()[6:]; !slices.Equal(got, []string{"both keys", "both keys"}) {
			t.Errorf("arrived %v", got)
		}
		refused := len(c.refused)
		sim.ChangeToken("wxp", "another token")
		sim.PushEvent("wxp", wechattest.Push{InfoType: "another signature"})
		synctest.Wait()
		if got := len(c.refused) - refused; got != 2 {
			t.Errorf("%d refused, want both deliveries under the new token", got)
		}
	})
}

func TestMarkFailStopsPushesForAMinute(t *testing.T) {
	pushing(t, platform, func(t *testing.T, sim *wechattest.Server, c *callback) {
		k := sim.PlatformKnobs("wxp")
		k.Repeats, k.MarkFailAfter = 0, 2
		sim.SetPlatformKnobs("wxp", k)
		c.answer = func(w http.ResponseWriter, _ wechat.Push) { w.WriteHeader(http.StatusInternalServerError) }
		for i := range 4 {
			sim.PushEvent("wxp", wechattest.Push{InfoType: fmt.Sprint(i)})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		sim.PushEvent("wxp", wechattest.Push{InfoType: "after"})
		synctest.Wait()
		if got := c.kinds()[1:]; !slices.Equal(got, []string{"0", "1", "after"}) {
			t.Errorf("arrived %v", got)
		}
	})
}

func TestTicketsCanRepeat(t *testing.T) {
	pushing(t, suite, func(t *testing.T, sim *wechattest.Server, c *callback) {
		k := sim.PlatformKnobs("wws")
		k.TicketRepeats = true
		sim.SetPlatformKnobs("wws", k)
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		different := make(map[string]bool)
		for _, p := range c.got {
			different[p.Ticket.Reveal()] = true
		}
		if len(c.got) != 5 || len(different) != 3 {
			t.Errorf("%d tickets of %d values, want 5 of 3", len(c.got), len(different))
		}
	})
}

func TestCheckOfAURL(t *testing.T) {
	pushing(t, suite, func(t *testing.T, sim *wechattest.Server, c *callback) {
		if err := sim.CheckURL(t.Context(), "wws"); err == nil {
			t.Error("an echo for the suite's id was accepted: it is for the provider's corpid")
		}
		c.envelope = newCallback(t, "wwprov").envelope
		if err := sim.CheckURL(t.Context(), "wws"); err != nil {
			t.Error(err)
		}
	})
}

// TestPushesOverRealHTTP: without a bubble, and the simulator on a port.
func TestPushesOverRealHTTP(t *testing.T) {
	c := newCallback(t, "wxp")
	arrived := make(chan wechat.Push, 1)
	c.answer = func(w http.ResponseWriter, p wechat.Push) {
		arrived <- p
		_, _ = io.WriteString(w, "success")
	}
	receiver := httptest.NewServer(c)
	defer receiver.Close()
	sim := wechattest.New()
	served := httptest.NewServer(sim)
	defer served.Close()
	sim.AddPlatform(platform)
	sim.SetCallback("wxp", receiver.URL+"/callback")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { sim.RunPushes(ctx) })
	ticket := (<-arrived).Ticket
	cancel()
	running.Wait()
	client := &wechat.Client{BaseURL: served.URL}
	if _, err := client.ComponentToken(t.Context(), "wxp", secret.New("ps"), ticket); err != nil {
		t.Error(err)
	}
}
