package dropin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dropin"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	queryAuth       = "/cgi-bin/component/api_query_auth"
	startPush       = "/cgi-bin/component/api_start_push_ticket"
	authorizerToken = "/cgi-bin/component/api_authorizer_token"
	corpToken       = "/cgi-bin/service/get_corp_token"
	me              = `"component_appid":"` + component + `"`
)

// A platform is found by its alias and by the token under either of its names, and by nothing that
// is another one's.
func TestByWhatAPlatformIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		got := x.ask("/cgi-bin/component/api_component_token", "", `{"component_appid":"my-`+component+`"}`)
		if got["component_access_token"] == nil {
			t.Errorf("by its alias: %v", got)
		}
		token, err := x.Cache.Get(t.Context(), x.all[template].TokenKey())
		if err != nil {
			t.Fatal(err)
		}
		for _, param := range []string{"suite_access_token", "access_token"} {
			got := x.ask(corpToken, param+"="+token.Value.Reveal(), `{"auth_corpid":"wwstranger"}`)
			if got["errcode"] != 40084. {
				t.Errorf("by %s: %v", param, got)
			}
		}
		for body, want := range map[string]float64{`{"auth_corpid":"a:b"}`: 40013, `{}`: 40013} {
			if got := x.ask(corpToken, "access_token="+token.Value.Reveal(), body); got["errcode"] != want {
				t.Errorf("%s: %v, want %v", body, got, want)
			}
		}
		if got := x.ask("/cgi-bin/service/get_permanent_code", "access_token="+token.Value.Reveal(), `{}`); got["errcode"] != 40078. {
			t.Errorf("no code: %v", got)
		}
	})
}

// Where no platform is, or one that a new configuration has just taken away, WeChat's own codes say
// so. They repeat nothing of the call.
func TestWithoutAPlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		const canary = "CANARY-of-the-call"
		none := dropin.Server{Apps: apps.New(""), Cache: x.Cache, Platform: x.Server.Platform, Obtain: x.obtain}
		gone := x.Server
		gone.Platform = func(string) *platform.Platform { return nil }
		for _, c := range []struct {
			server     dropin.Server
			path, body string
			want       int
		}{
			{none, "/cgi-bin/component/api_component_token", `{}`, 41002},
			{none, "/cgi-bin/component/api_component_token", `{"component_appid":"` + canary + `"}`, 40013},
			{none, "/cgi-bin/service/get_suite_token", `{}`, 41021},
			{none, "/cgi-bin/service/get_suite_token", `{"suite_id":"` + canary + `"}`, 40083},
			{none, corpToken, `{"auth_corpid":"` + canary + `"}`, 40082},
			{none, "/cgi-bin/service/get_provider_token", `{"corpid":"` + canary + `"}`, 40013},
			{gone, queryAuth, `{` + me + `,"authorization_code":"` + canary + `"}`, 40013},
			{gone, "/cgi-bin/service/get_suite_token", `{"suite_id":"` + suite + `"}`, 40083},
		} {
			answer, err := c.server.Answer(t.Context(), dropin.Call{Path: c.path, Query: url.Values{}, Body: []byte(c.body)})
			no, ok := errors.AsType[*dropin.Refusal](err)
			if !ok || no.Errcode != c.want || strings.Contains(err.Error()+no.Text+no.Hint, canary) {
				t.Errorf("%s %s: %s, %v; want %d", c.path, c.body, answer, err, c.want)
			}
		}
	})
}

// An exchange that WeChat does not answer holds its caller for 5 s. The exchange itself goes on, and
// the same code gets what it brings.
func TestAnExchangeThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		k := x.sim.PlatformKnobs(component)
		k.NoCodePush = true // else the push has the same code exchanged
		x.sim.SetPlatformKnobs(component, k)
		x.sim.AddFault(wechattest.Fault{Path: queryAuth, Delay: 7 * time.Second, Count: 1})
		body := `{` + me + `,"authorization_code":"` + x.sim.Authorize(component, shop) + `"}`
		began := time.Now()
		if got := x.ask(queryAuth, "", body); got["errcode"] != -1. {
			t.Errorf("%v", got)
		}
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("the caller waited %v", took)
		}
		time.Sleep(5 * time.Second)
		if got := x.ask(queryAuth, "", body); got["authorizer_appid"] != shop || got["authorizer_refresh_token"] != apps.Placeholder {
			t.Errorf("the same code again: %v", got)
		}
		if n := x.exchanges(component, shop); n != 1 {
			t.Errorf("%d exchanges", n)
		}
	})
}

// Callers that send one code at the same time share one exchange.
func TestACodeThatSeveralSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		body := `{` + me + `,"authorization_code":"` + x.sim.Authorize(component, shop) + `"}`
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if got := x.ask(queryAuth, "", body); got["authorizer_appid"] != shop {
					t.Errorf("%v", got)
				}
			})
		}
		all.Wait()
		if n := x.exchanges(component, shop); n != 1 {
			t.Errorf("%d exchanges", n)
		}
	})
}

// WeChat is asked for pushes once in ten minutes, however often an SDK calls. What it answers then is
// passed on with its errcode.
func TestStartPushIsRationed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		asked := func() int { return x.sim.Calls(component).Paths[startPush] }
		time.Sleep(11 * time.Minute)
		before := asked()
		for range 20 {
			if got := x.ask(startPush, "", `{`+me+`}`); got["errcode"] != 0. {
				t.Errorf("%v", got)
			}
		}
		if n := asked() - before; n != 1 {
			t.Errorf("WeChat was asked %d times, want 1", n)
		}
		time.Sleep(11 * time.Minute)
		x.sim.AddFault(wechattest.Fault{Path: startPush, Effect: wechattest.EffectErrcode, Code: 45009})
		if got := x.ask(startPush, "", `{`+me+`}`); got["errcode"] != 45009. {
			t.Errorf("WeChat's refusal: %v", got)
		}
		time.Sleep(11 * time.Minute)
		x.sim.ClearFaults()
		x.sim.AddFault(wechattest.Fault{Path: startPush, Effect: wechattest.EffectReset})
		if _, err := x.Answer(t.Context(), dropin.Call{Path: startPush, Body: []byte(`{` + me + `}`)}); err == nil || errors.As(err, new(*dropin.Refusal)) {
			t.Errorf("no answer has no errcode: %v", err)
		}
	})
}

// The life that a caller is told is what is left of it.
func TestTheLifeOfATokenShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		ask := func() float64 {
			life, _ := x.ask("/cgi-bin/service/get_provider_token", "", `{"corpid":"`+provider+`"}`)["expires_in"].(float64)
			return life
		}
		before := ask()
		time.Sleep(10 * time.Minute)
		if after := ask(); before > 7200 || before-after != 600 {
			t.Errorf("%v s, and 10 minutes later %v s", before, after)
		}
	})
}

// The token of an account that has withdrawn is refused as at WeChat, also by a sidecar that has
// served it before.
func TestAnAccountThatWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		x.ask(queryAuth, "", `{`+me+`,"authorization_code":"`+x.sim.Authorize(component, shop)+`"}`)
		refreshed := func() map[string]any {
			return x.ask(authorizerToken, "", `{`+me+`,"authorizer_appid":"`+shop+`"}`)
		}
		if got := refreshed(); got["authorizer_access_token"] == nil || got["authorizer_refresh_token"] != apps.Placeholder {
			t.Fatalf("%v", got)
		}
		time.Sleep(2 * time.Second) // WeChat's times are whole seconds
		x.sim.Withdraw(component, shop)
		time.Sleep(2 * time.Second) // until the push has come
		if got := refreshed(); got["errcode"] != 61003. {
			t.Errorf("%v", got)
		}
	})
}

// What the cache or the vault say stays theirs: the API layer has words for it, and a code of a
// failed fetch would make an SDK refresh what it has.
func TestErrorsThatAreNotWeChatsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		refused := &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40001, Err: &wechat.Error{Code: 40001, Message: "invalid credential"}}
		for _, c := range []struct {
			err  error
			want int // 0: no refusal
		}{
			{refused, 0},
			{&tokencache.FetchError{Class: tokencache.ClassEnded}, 61003},
			{apps.ErrNotAuthorized, 61003},
			{tokencache.ErrClosed, 0},
		} {
			s := x.Server
			s.Obtain = func(context.Context, tokencache.Key) (tokencache.Token, error) { return tokencache.Token{}, c.err }
			_, err := s.Answer(t.Context(), dropin.Call{Path: authorizerToken, Body: []byte(`{` + me + `,"authorizer_appid":"` + shop + `"}`)})
			no, ok := errors.AsType[*dropin.Refusal](err)
			if ok != (c.want != 0) || ok && no.Errcode != c.want || !ok && !errors.Is(err, c.err) {
				t.Errorf("%v: %v, want %d", c.err, err, c.want)
			}
		}
		x.redis.Refuse()
		code := x.sim.Authorize(component, shop)
		_, err := x.Answer(t.Context(), dropin.Call{Path: queryAuth, Body: []byte(`{` + me + `,"authorization_code":"` + code + `"}`)})
		if err == nil || errors.As(err, new(*dropin.Refusal)) || strings.Contains(err.Error(), code) {
			t.Errorf("while the vault is away: %v", err)
		}
		x.redis.Heal()
	})
}

// The answer to an exchange has what WeChat said of the authorisation, also if the code comes once
// more.
func TestAnExchangeSaysWhatWasAuthorised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		body := `{` + me + `,"authorization_code":"` + x.sim.Authorize(component, shop) + `"}`
		for range 2 {
			got, _ := json.Marshal(x.ask(queryAuth, "", body)["func_info"])
			if want := `[{"funcscope_category":{"id":1}},{"funcscope_category":{"id":15}}]`; string(got) != want {
				t.Errorf("func_info is %s, want %s", got, want)
			}
		}
		token, err := x.Cache.Get(t.Context(), x.all[suite].TokenKey())
		if err != nil {
			t.Fatal(err)
		}
		body = `{"auth_code":"` + x.sim.Authorize(suite, corp) + `"}`
		for range 2 {
			got := x.ask("/cgi-bin/service/get_permanent_code", "suite_access_token="+token.Value.Reveal(), body)
			if info, _ := got["auth_corp_info"].(map[string]any); info["corpid"] != corp || len(info) < 2 {
				t.Errorf("auth_corp_info is %v", got["auth_corp_info"])
			}
		}
	})
}
