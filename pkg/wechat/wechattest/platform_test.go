package wechattest_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The platforms of most tests.
var (
	platform = wechattest.Platform{ID: "wxp", Secret: "ps", Token: "tk", AESKey: key1, PreviousAESKey: key2}
	suite    = wechattest.Platform{ID: "wws", Secret: "ss", Kind: wechattest.Suite, Token: "tk", AESKey: key1, CorpID: "wwprov"}
	template = wechattest.Platform{ID: "dk1", Secret: "ds", Kind: wechattest.Template, Token: "tk", AESKey: key1, CorpID: "wwprov"}
	provider = wechattest.Platform{ID: "wwprov", Secret: "vs", Kind: wechattest.Provider}
)

const (
	key1 = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	key2 = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
)

// open is what a program that has a platform does, against a simulator in virtual time. Its methods
// fail the test if a call that has to succeed does not.
type open struct {
	t     *testing.T
	sim   *wechattest.Server
	c     *wechat.Client
	token secret.String // of the platform, or of the suite
}

// onPlatform runs a test in a bubble with all platforms, none of which pushes.
func onPlatform(t *testing.T, test func(t *testing.T, o *open)) {
	bubble(t, func(t *testing.T, sim *wechattest.Server, c *wechat.Client) {
		for _, p := range []wechattest.Platform{platform, suite, template, provider} {
			sim.AddPlatform(p)
		}
		o := &open{t: t, sim: sim, c: c}
		o.token = o.component().Value
		test(t, o)
	})
}

func (o *open) component() wechat.Credential {
	o.t.Helper()
	return must(o.t)(o.c.ComponentToken(o.t.Context(), "wxp", secret.New("ps"), secret.New(o.sim.Ticket("wxp"))))
}

func (o *open) exchange(code string) wechat.Authorization {
	o.t.Helper()
	auth, err := o.c.QueryAuth(o.t.Context(), o.token, "wxp", secret.New(code))
	if err != nil {
		o.t.Fatal(err)
	}
	return auth
}

// refresh fetches the token of wxa; refused is the errcode.
func (o *open) refresh(refreshToken secret.String) (token, next secret.String, refused int) {
	cred, next, err := o.c.AuthorizerToken(o.t.Context(), o.token, "wxp", "wxa", refreshToken)
	return cred.Value, next, code(err)
}

func (o *open) knobs(change func(*wechattest.PlatformKnobs)) {
	k := o.sim.PlatformKnobs("wxp")
	change(&k)
	o.sim.SetPlatformKnobs("wxp", k)
}

// TestAnAuthorizationFromItsCodeToItsEnd: authorise, exchange, refresh, use, withdraw.
func TestAnAuthorizationFromItsCodeToItsEnd(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		authCode := o.sim.Authorize("wxp", "wxa")
		auth := o.exchange(authCode)
		if auth.Authorizer != "wxa" || auth.Secret.Empty() || auth.Info == nil || !auth.Date.Equal(time.Now().Truncate(time.Second)) {
			t.Errorf("exchange: %+v", auth)
		}
		if _, err := o.c.QueryAuth(t.Context(), o.token, "wxp", secret.New(authCode)); code(err) != 61009 {
			t.Errorf("exchanged again: %v", err)
		}
		token, next, refused := o.refresh(auth.Secret)
		if refused != 0 || !next.Equal(auth.Secret) || !o.sim.Accepts("wxp", "wxa", next.Reveal()) {
			t.Errorf("refresh: %d, the refresh token is another one", refused)
		}
		// The token is like that of an app: calls, tickets, status, counts.
		ticket, err := o.c.Ticket(t.Context(), token, wechat.TicketJSAPI)
		if err != nil || !o.sim.TicketValid("wxp:wxa", "jsapi", ticket.Value.Reveal()) || probe(t, o.c, token) != 0 {
			t.Errorf("the authorizer's token: %v", err)
		}
		if got := o.sim.Calls("wxp:wxa"); o.sim.Status("wxp:wxa", token.Reveal()) != wechattest.Current || got.Issued != 2 || got.Tickets != 1 {
			t.Errorf("calls: %+v", got)
		}
		o.sim.Withdraw("wxp", "wxa")
		if _, _, refused := o.refresh(auth.Secret); refused != 61003 || probe(t, o.c, token) != 40001 {
			t.Errorf("after the withdrawal: %d", refused)
		}
		l := o.sim.Ledger("wxp")
		if a := l.Authorizers["wxa"]; a.Authorized || len(a.Accepts) != 0 || a.Exchanges != 1 || a.Fetches != 1 {
			t.Errorf("ledger: %+v", a)
		}
		if c := l.Codes[0]; len(l.Codes) != 1 || c.Code != authCode || c.Authorizer != "wxa" || c.Exchanged != 1 || c.Refused != 1 {
			t.Errorf("ledger: %+v", l.Codes)
		}
	})
}

func TestComponentTokenNeedsATicketAndReplacesTheLast(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		fetch := func(appid, appSecret, ticket string) int {
			_, err := o.c.ComponentToken(t.Context(), appid, secret.New(appSecret), secret.New(ticket))
			return code(err)
		}
		list := func(token secret.String) int {
			_, _, err := o.c.AuthorizerList(t.Context(), token, "wxp", 0, 1)
			return code(err)
		}
		ticket := o.sim.Ticket("wxp")
		for _, tt := range []struct{ got, want int }{
			{fetch("wxp", "ps", "ticket@@@other"), 61006}, {fetch("wxp", "wrong", ticket), 40125}, {fetch("wxother", "ps", ticket), 40013},
			{list(secret.New("garbage")), 40001},
		} {
			if tt.got != tt.want {
				t.Errorf("errcode %d, want %d", tt.got, tt.want)
			}
		}
		first, second := o.token, o.component().Value
		time.Sleep(5*time.Minute - time.Second)
		if list(first) != 0 || list(second) != 0 {
			t.Error("no overlap")
		}
		time.Sleep(time.Second)
		if list(first) != 40001 || list(second) != 0 {
			t.Error("the overlap does not end")
		}
		time.Sleep(2 * time.Hour)
		if got := list(second); got != 42001 {
			t.Errorf("after its end: %d", got)
		}
		time.Sleep(12 * time.Hour)
		if got := fetch("wxp", "ps", ticket); got != 61005 {
			t.Errorf("ticket of 12 h: %d", got)
		}
	})
}

// TestOverlaps: none, and without an end.
func TestOverlaps(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		auth := o.exchange(o.sim.Authorize("wxp", "wxa"))
		o.knobs(func(k *wechattest.PlatformKnobs) { k.Overlap, k.AuthorizerOverlap = 0, wechattest.Forever })
		first, _, _ := o.refresh(auth.Secret)
		second, _, _ := o.refresh(auth.Secret)
		third, _, _ := o.refresh(auth.Secret)
		time.Sleep(110 * time.Minute)
		for _, token := range []secret.String{first, second, third} {
			if got := probe(t, o.c, token); got != 0 {
				t.Errorf("one of three authorizer tokens: %d", got)
			}
		}
		dead := o.token
		o.component()
		if _, err := o.c.AuthorizerInfo(t.Context(), dead, "wxp", "wxa"); code(err) != 40001 {
			t.Errorf("a replaced component token without an overlap: %v", err)
		}
	})
}

func TestKindsOfTokensAreNotMixed(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		auth := o.exchange(o.sim.Authorize("wxp", "wxa"))
		token, _, _ := o.refresh(auth.Secret)
		if _, err := o.c.AuthorizerInfo(t.Context(), token, "wxp", "wxa"); code(err) != 61014 {
			t.Errorf("a call of the platform with an account's token: %v", err)
		}
		if _, err := o.c.Ticket(t.Context(), o.token, wechat.TicketJSAPI); code(err) != 61015 {
			t.Errorf("a call of an account with the platform's token: %v", err)
		}
		if got := probe(t, o.c, o.token); got != 0 {
			t.Errorf("getcallbackip with the platform's token: %d", got)
		}
		if _, err := o.c.Token(t.Context(), "wxp", secret.New("ps")); code(err) != 61024 {
			t.Errorf("/cgi-bin/token of a platform: %v", err)
		}
		if _, err := o.c.AuthorizerInfo(t.Context(), o.token, "wxother", "wxa"); code(err) != 61011 {
			t.Errorf("another platform's appid: %v", err)
		}
	})
}

func TestRefreshTokens(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		first := o.exchange(o.sim.Authorize("wxp", "wxa")).Secret
		o.knobs(func(k *wechattest.PlatformKnobs) { k.Refresh = wechattest.RefreshEmpty })
		if _, next, refused := o.refresh(first); refused != 0 || !next.Empty() || !o.sim.Accepts("wxp", "wxa", first.Reveal()) {
			t.Errorf("empty: %d", refused)
		}
		o.knobs(func(k *wechattest.PlatformKnobs) { k.Refresh = wechattest.RefreshRotates })
		_, second, _ := o.refresh(first)
		if got := o.sim.Ledger("wxp").Authorizers["wxa"].Accepts; second.Equal(first) || !slices.Equal(got, []string{second.Reveal(), first.Reveal()}) {
			t.Errorf("in the overlap WeChat accepts %d refresh tokens", len(got))
		}
		time.Sleep(5 * time.Minute)
		if _, _, refused := o.refresh(first); refused != 61023 {
			t.Errorf("a rotated refresh token: %d", refused)
		}
		// Authorising again voids it at once.
		again := o.sim.Authorize("wxp", "wxa")
		if _, _, refused := o.refresh(second); refused != 61023 {
			t.Errorf("a refresh token from before the authorisation: %d", refused)
		}
		third := o.exchange(again).Secret
		update := o.exchange(o.sim.UpdateAuthorization("wxp", "wxa")).Secret
		if _, _, refused := o.refresh(third); refused != 0 || !update.Equal(third) {
			t.Errorf("after an update: %d", refused)
		}
	})
}

// TestFlapping: every second fetch of each authorizer is refused, as for hours in an outage.
func TestFlapping(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		refreshToken := o.exchange(o.sim.Authorize("wxp", "wxa")).Secret
		for _, want := range []int{61003, 61023} {
			o.knobs(func(k *wechattest.PlatformKnobs) { k.FlapCode, k.FlapEvery = want, 2 })
			_, _, first := o.refresh(refreshToken)
			_, _, second := o.refresh(refreshToken)
			if first != 0 || second != want {
				t.Errorf("%d, then %d; want 0, then %d", first, second, want)
			}
		}
		if !o.sim.Accepts("wxp", "wxa", refreshToken.Reveal()) {
			t.Error("flapping ended the authorisation")
		}
	})
}

func TestQuotaOfAnAuthorizerOrOfAll(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		a := o.exchange(o.sim.Authorize("wxp", "wxa")).Secret
		b := o.exchange(o.sim.Authorize("wxp", "wxb")).Secret
		k := o.sim.Knobs()
		k.PerDay["/cgi-bin/component/api_authorizer_token"] = 1
		o.sim.SetKnobs(k)
		fetch := func(id string, refreshToken secret.String) int {
			_, _, err := o.c.AuthorizerToken(t.Context(), o.token, "wxp", id, refreshToken)
			return code(err)
		}
		if got := [3]int{fetch("wxa", a), fetch("wxa", a), fetch("wxb", b)}; got != [3]int{0, 45009, 0} {
			t.Errorf("per authorizer: %v", got)
		}
		o.knobs(func(k *wechattest.PlatformKnobs) { k.QuotaPerPlatform = true })
		time.Sleep(time.Second)
		if got := [2]int{fetch("wxa", a), fetch("wxb", b)}; got != [2]int{0, 45009} {
			t.Errorf("per platform: %v", got)
		}
	})
}

func TestCodes(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		late := o.sim.Authorize("wxp", "wxa")
		time.Sleep(10 * time.Minute)
		if _, err := o.c.QueryAuth(t.Context(), o.token, "wxp", secret.New(late)); code(err) != 61010 {
			t.Errorf("after 10 minutes: %v", err)
		}
		o.knobs(func(k *wechattest.PlatformKnobs) { k.SeparateCodes = true })
		o.sim.Authorize("wxp", "wxb")
		var codes []string
		for _, c := range o.sim.Ledger("wxp").Codes {
			if c.Authorizer == "wxb" {
				codes = append(codes, c.Code)
			}
		}
		if len(codes) != 2 {
			t.Fatalf("%d codes, want one for the push and one for the redirect", len(codes))
		}
		first, second := o.exchange(codes[0]).Secret, o.exchange(codes[1]).Secret
		if o.sim.Accepts("wxp", "wxb", first.Reveal()) || !o.sim.Accepts("wxp", "wxb", second.Reveal()) {
			t.Error("the second exchange has to void what the first gave")
		}
		o.knobs(func(k *wechattest.PlatformKnobs) { k.NoPermissions = true })
		if auth := o.exchange(o.sim.Authorize("wxp", "wxc")); !auth.Secret.Empty() {
			t.Error("an account without API permissions gave a refresh token")
		}
	})
}

// TestWeChatIsTheBackup: the info and the list have the refresh tokens of what was exchanged.
func TestWeChatIsTheBackup(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		known := o.exchange(o.sim.Authorize("wxp", "wxa")).Secret
		time.Sleep(time.Second)
		o.sim.Authorize("wxp", "wxb") // never exchanged
		o.sim.Authorize("wxp", "wxc")
		o.sim.Withdraw("wxp", "wxc")
		info := func(id string) (secret.String, int) {
			auth, err := o.c.AuthorizerInfo(t.Context(), o.token, "wxp", id)
			return auth.Secret, code(err)
		}
		list := func(offset, count int) []wechat.ListedAuthorizer {
			total, page, err := o.c.AuthorizerList(t.Context(), o.token, "wxp", offset, count)
			if err != nil || total != 2 {
				t.Errorf("list: %d, %v", total, err)
			}
			return page
		}
		page := list(0, 500)
		if len(page) != 2 || page[0].Authorizer != "wxa" || !page[0].RefreshToken.Equal(known) || page[0].AuthTime == 0 || !page[1].RefreshToken.Empty() {
			t.Errorf("list: %+v", page)
		}
		if one := list(1, 1); len(one) != 1 || one[0].Authorizer != "wxb" || len(list(2, 1)) != 0 {
			t.Errorf("second page: %+v", one)
		}
		for id, want := range map[string]int{"wxa": 0, "wxb": 0, "wxc": 61003, "wxd": 61003} {
			if got, errcode := info(id); errcode != want || !got.Empty() != (id == "wxa") {
				t.Errorf("info of %s: %d, with a refresh token: %v", id, errcode, !got.Empty())
			}
		}
		o.knobs(func(k *wechattest.PlatformKnobs) { k.ListOmitsTokens, k.InfoOmitsTokens = true, true })
		if got, _ := info("wxa"); !got.Empty() || !list(0, 1)[0].RefreshToken.Empty() {
			t.Error("the knobs leave no refresh token out")
		}
	})
}

func TestPlatformsAddress(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		o.sim.SetWhitelist("wxp", "198.51.100.0/24")
		_, err := o.c.AuthorizerInfo(t.Context(), o.token, "wxp", "wxa")
		if code(err) != 61004 || code(o.c.StartPush(t.Context(), "wxp", secret.New("ps"))) != 61004 {
			t.Errorf("from another address: %v", err)
		}
		o.sim.SetWhitelist("wxp")
		resp, err := o.c.HTTP.Get("http://api/sns/component/jscode2session?component_appid=wxp&component_access_token=" + o.token.Reveal())
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(err)
		}
		resp.Body.Close()
	})
}
