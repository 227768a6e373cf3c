package wechattest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

func suiteToken(t *testing.T, o *open, id, suiteSecret string) secret.String {
	t.Helper()
	return must(t)(o.c.SuiteToken(t.Context(), id, secret.New(suiteSecret), secret.New(o.sim.Ticket(id)))).Value
}

func TestASuiteFromItsCodeToItsEnd(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		token := suiteToken(t, o, "wws", "ss")
		authCode := secret.New(o.sim.Authorize("wws", "wwc"))
		auth, err := o.c.PermanentCode(t.Context(), token, authCode)
		if err != nil || auth.Authorizer != "wwc" || !o.sim.Accepts("wws", "wwc", auth.Secret.Reveal()) || !strings.Contains(string(auth.Info), "agent") {
			t.Fatalf("%+v, %v", auth, err)
		}
		if _, err := o.c.PermanentCode(t.Context(), token, authCode); code(err) != 40078 {
			t.Errorf("exchanged again: %v", err)
		}
		first := must(t)(o.c.CorpTokenBySuite(t.Context(), token, "wwc", auth.Secret)).Value
		must(t)(o.c.CorpTokenBySuite(t.Context(), token, "wwc", auth.Secret))
		if o.sim.Status("wws:wwc", first.Reveal()) != wechattest.Previous || o.c.Probe(t.Context(), first, wechat.ProbeCorpCallbackIP) != nil {
			t.Error("a replaced corp token has no overlap")
		}
		if _, err := o.c.CorpTicket(t.Context(), first, wechat.TicketAgentConfig); err != nil {
			t.Errorf("the corp's ticket: %v", err)
		}
		if _, err := o.c.CorpTicket(t.Context(), token, wechat.TicketJSAPI); code(err) != 40014 {
			t.Errorf("a ticket with the suite's token: %v", err)
		}
		o.sim.Withdraw("wws", "wwc")
		if _, err := o.c.CorpTokenBySuite(t.Context(), token, "wwc", auth.Secret); code(err) != 40084 {
			t.Errorf("after the withdrawal: %v", err)
		}
		if err := o.c.Probe(t.Context(), first, wechat.ProbeCorpCallbackIP); code(err) != 40014 {
			t.Errorf("the token after the withdrawal: %v", err)
		}
	})
}

func TestErrcodesOfSuites(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		ctx, ticket := t.Context(), o.sim.Ticket("wws")
		fetch := func(id, suiteSecret, ticket string) int {
			_, err := o.c.SuiteToken(ctx, id, secret.New(suiteSecret), secret.New(ticket))
			return code(err)
		}
		token := suiteToken(t, o, "wws", "ss")
		exchange := func(token secret.String) int {
			_, err := o.c.PermanentCode(ctx, token, secret.New("auth-code"))
			return code(err)
		}
		for _, tt := range []struct{ got, want int }{
			{fetch("wwother", "ss", ticket), 40083}, {fetch("wws", "wrong", ticket), 40080}, {fetch("wws", "ss", o.sim.Ticket("dk1")), 40085},
			{exchange(token), 40078}, {exchange(secret.New("garbage")), 40082},
		} {
			if tt.got != tt.want {
				t.Errorf("errcode %d, want %d", tt.got, tt.want)
			}
		}
		for body, want := range map[string]string{`{}`: "41021", `{"suite_id":"wws"}`: "41024", `{"suite_id":"wws","suite_secret":"ss"}`: "41023", `suite_id=wws`: "47001"} {
			if got := postTo(t, o, "get_suite_token", body); !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %s", body, got, want)
			}
		}
		time.Sleep(30 * time.Minute)
		if got := fetch("wws", "ss", ticket); got != 40085 {
			t.Errorf("a ticket of 30 minutes: %d", got)
		}
		time.Sleep(90 * time.Minute)
		if got := exchange(token); got != 42009 {
			t.Errorf("a suite token after its end: %d", got)
		}
	})
}

// postTo posts a body to a call of WeCom's service and returns the answer.
func postTo(t *testing.T, o *open, name, body string) string {
	t.Helper()
	resp, err := o.c.HTTP.Post("https://qyapi.weixin.qq.com/cgi-bin/service/"+name, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	return string(answer)
}

func TestSuiteTokensCanRepeat(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		first := suiteToken(t, o, "wws", "ss")
		if suiteToken(t, o, "wws", "ss").Equal(first) {
			t.Error("the same suite token again")
		}
		k := o.sim.PlatformKnobs("wws")
		k.SuiteTokenRepeats, k.OmitErrcode = true, false
		o.sim.SetPlatformKnobs("wws", k)
		first = suiteToken(t, o, "wws", "ss")
		if !suiteToken(t, o, "wws", "ss").Equal(first) {
			t.Error("another suite token")
		}
		one := must(t)(o.c.ProviderToken(t.Context(), "wwprov", secret.New("vs")))
		time.Sleep(time.Minute)
		two := must(t)(o.c.ProviderToken(t.Context(), "wwprov", secret.New("vs")))
		if !one.Value.Equal(two.Value) || two.ExpiresIn != 119*time.Minute {
			t.Errorf("a repeated provider token has %v left", two.ExpiresIn)
		}
		if _, err := o.c.ProviderToken(t.Context(), "wwprov", secret.New("wrong")); code(err) != 40001 {
			t.Errorf("wrong provider_secret: %v", err)
		}
	})
}

// TestTheNewFormOfPermanentCodes has neither token nor agents.
func TestTheNewFormOfPermanentCodes(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		token := suiteToken(t, o, "wws", "ss")
		answers := make(map[string]string)
		for _, name := range []string{"get_permanent_code", "v2/get_permanent_code"} {
			authCode := o.sim.Authorize("wws", "wwc")
			answers[name] = postTo(t, o, name+"?suite_access_token="+token.Reveal(), `{"auth_code":"`+authCode+`"}`)
		}
		for _, member := range []string{"access_token", "agent", "auth_user_info"} {
			if !strings.Contains(answers["get_permanent_code"], member) || strings.Contains(answers["v2/get_permanent_code"], member) {
				t.Errorf("%s: %v", member, answers)
			}
		}
		if got := o.sim.Ledger("wws").Authorizers["wwc"]; got.Exchanges != 2 || len(got.Accepts) != 1 {
			t.Errorf("ledger: %+v", got)
		}
	})
}

// TestAnAppOnBehalf: the permanent code is the secret of gettoken, and not of the suite's call.
func TestAnAppOnBehalf(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		ctx, token := t.Context(), suiteToken(t, o, "dk1", "ds")
		exchange := func() secret.String {
			t.Helper()
			codes := o.sim.Ledger("dk1").Codes
			auth, err := o.c.PermanentCode(ctx, token, secret.New(codes[len(codes)-1].Code))
			if err != nil {
				t.Fatal(err)
			}
			return auth.Secret
		}
		o.sim.Authorize("dk1", "ww1") // a corp that has apps of its own
		first := exchange()
		one := must(t)(o.c.CorpToken(ctx, "ww1", first))
		two := must(t)(o.c.CorpToken(ctx, "ww1", first))
		if !one.Value.Equal(two.Value) || o.sim.Status("dk1:ww1", one.Value.Reveal()) != wechattest.Current {
			t.Error("gettoken of a permanent code does not repeat its token")
		}
		must(t)(o.c.CorpToken(ctx, "ww1", secret.New("a")))
		if _, err := o.c.CorpTokenBySuite(ctx, token, "ww1", first); code(err) != 40084 {
			t.Errorf("get_corp_token for a template: %v", err)
		}
		time.Sleep(time.Second)
		o.sim.ResetPermanentCode("dk1", "ww1")
		second := exchange()
		if _, err := o.c.CorpToken(ctx, "ww1", first); code(err) != 40001 {
			t.Errorf("a permanent code that was reset: %v", err)
		}
		must(t)(o.c.CorpToken(ctx, "ww1", second))
		o.sim.Withdraw("dk1", "ww1")
		if _, err := o.c.CorpToken(ctx, "ww1", second); code(err) != 40001 {
			t.Errorf("after the withdrawal: %v", err)
		}
		if got := o.sim.Ledger("dk1").Authorizers["ww1"]; got.Fetches != 3 || got.Exchanges != 2 {
			t.Errorf("ledger: %+v", got)
		}
	})
}
