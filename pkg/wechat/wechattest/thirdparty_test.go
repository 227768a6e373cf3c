package wechattest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// ask makes a call as an SDK does, and returns the members of the answer.
func (o *open) ask(method, url, body string) map[string]any {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	resp, err := o.c.HTTP.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	got := map[string]any{}
	if err != nil || json.Unmarshal(answer, &got) != nil {
		o.t.Fatalf("%s: %s, %v", url, answer, err)
	}
	return got
}

// TestCallsOfAPlatformItself: those that no method of the client makes, because they go through the
// proxy. A token of another kind is refused, each by its own errcode.
func TestCallsOfAPlatformItself(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		o.exchange(o.sim.Authorize("wxp", "wxa"))
		own, mine := o.sim.Issued("wxp:wxa")[0].Value, o.token.Reveal()
		const api, me = "https://api.weixin.qq.com", `{"component_appid":"wxp"}`
		for _, c := range []struct {
			method, path, body string
			want               float64 // the errcode; 0: none
			member             string
		}{
			{"POST", "/cgi-bin/component/api_create_preauthcode?component_access_token=" + mine, me, 0, "pre_auth_code"},
			{"POST", "/cgi-bin/component/api_create_preauthcode?access_token=" + mine, me, 0, "pre_auth_code"},
			{"POST", "/cgi-bin/component/api_create_preauthcode", me, 41021, ""},
			{"POST", "/cgi-bin/component/api_create_preauthcode?component_access_token=x", me, 40001, ""},
			{"POST", "/cgi-bin/component/api_create_preauthcode?component_access_token=" + own, me, 61014, ""},
			{"POST", "/cgi-bin/component/api_create_preauthcode?component_access_token=" + mine, `{"component_appid":"wxother"}`, 61011, ""},
			{"GET", "/cgi-bin/component/api_create_preauthcode?component_access_token=" + mine, "", 43002, ""},
			{"POST", "/cgi-bin/component/api_create_preauthcode?component_access_token=" + mine, "component_appid=wxp", 47001, ""},
			{"POST", "/cgi-bin/component/api_component_token", `{"component_appid":"wxother","component_appsecret":"ps"}`, 40013, ""},
			{"POST", "/cgi-bin/component/api_component_token", me, 41004, ""},
			{"POST", "/cgi-bin/component/api_component_token", `{"component_appid":"wxp","component_appsecret":"wrong"}`, 40125, ""},
			{"POST", "/cgi-bin/component/api_component_token", `{"component_appid":"wxp","component_appsecret":"ps","component_verify_ticket":"x"}`, 61006, ""},
			{"POST", "/cgi-bin/component/api_get_authorizer_list?component_access_token=" + mine, `{"component_appid":"wxp","count":501}`, 40170, ""},
			{"POST", "/cgi-bin/component/api_get_authorizer_info?component_access_token=" + mine, `{"component_appid":"wxp","authorizer_appid":"wxnone"}`, 61003, ""},
			{"GET", "/sns/component/jscode2session?component_appid=wxp&component_access_token=" + mine, "", 0, "session_key"},
			{"GET", "/sns/component/jscode2session?component_appid=wxother&component_access_token=" + mine, "", 61011, ""},
			{"GET", "/sns/component/jscode2session?component_appid=wxp&component_access_token=x", "", 40001, ""},
		} {
			got := o.ask(c.method, api+c.path, c.body)
			code, _ := got["errcode"].(float64)
			if code != c.want || c.member != "" && got[c.member] == nil {
				t.Errorf("%s %.60s %s: %v, want %v", c.method, c.path, c.body, got, c.want)
			}
		}
	})
}

// TestCallsOfASuiteAndAProvider: the same for WeCom, where each kind of call has its own name for
// its token.
func TestCallsOfASuiteAndAProvider(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		token := suiteToken(t, o, "wws", "ss")
		auth, err := o.c.PermanentCode(t.Context(), token, secret.New(o.sim.Authorize("wws", "wwc")))
		if err != nil {
			t.Fatal(err)
		}
		mine, of := token.Reveal(), must(t)(o.c.ProviderToken(t.Context(), "wwprov", secret.New("vs"))).Value.Reveal()
		const service = "https://qyapi.weixin.qq.com/cgi-bin/service/"
		code := `,"permanent_code":"` + auth.Secret.Reveal() + `"}`
		for _, c := range []struct {
			method, path, body string
			want               float64
			member             string
		}{
			{"GET", "get_pre_auth_code?suite_access_token=" + mine, "", 0, "pre_auth_code"},
			{"POST", "get_pre_auth_code?suite_access_token=" + mine, "{}", 43002, ""},
			{"GET", "get_pre_auth_code", "", 41022, ""},
			{"GET", "get_pre_auth_code?suite_access_token=x", "", 40082, ""},
			{"GET", "get_pre_auth_code?suite_access_token=" + of, "", 40082, ""},
			{"POST", "get_auth_info?suite_access_token=" + mine, `{"auth_corpid":"wwc"` + code, 0, "auth_corp_info"},
			{"POST", "v2/get_auth_info?suite_access_token=" + mine, `{"auth_corpid":"wwc"` + code, 0, "auth_corp_info"},
			{"POST", "get_auth_info?suite_access_token=" + mine, `{"auth_corpid":"wwc"}`, 41025, ""},
			{"POST", "get_auth_info?suite_access_token=" + mine, `{"auth_corpid":"wwother"` + code, 40084, ""},
			{"POST", "get_auth_info?suite_access_token=" + mine, `{"auth_corpid":"wwc","permanent_code":"x"}`, 40084, ""},
			{"POST", "get_corp_token?suite_access_token=" + mine, `{"auth_corpid":"wwc"}`, 41025, ""},
			{"POST", "get_corp_token?suite_access_token=" + mine, `nonsense`, 47001, ""},
			{"POST", "get_login_info?access_token=" + of, `{"auth_code":"x"}`, 0, "corpid"},
			{"POST", "get_login_info?provider_access_token=" + of, `{"auth_code":"x"}`, 40082, ""},
			{"POST", "corpid_to_opencorpid?provider_access_token=" + of, `{"corpid":"wwc"}`, 0, "corpid"},
			{"POST", "corpid_to_opencorpid?provider_access_token=" + mine, `{"corpid":"wwc"}`, 40082, ""},
			{"POST", "../license/list_order?provider_access_token=" + of, `{}`, 0, "corpid"},
			{"GET", "../license/list_order?provider_access_token=" + of, ``, 43002, ""},
			{"POST", "get_provider_token", `{"corpid":"wws","provider_secret":"vs"}`, 40013, ""},
		} {
			path := service + c.path
			if rest, up := strings.CutPrefix(c.path, "../"); up {
				path = strings.TrimSuffix(service, "service/") + rest
			}
			got := o.ask(c.method, path, c.body)
			code, _ := got["errcode"].(float64)
			if code != c.want || c.member != "" && got[c.member] == nil {
				t.Errorf("%s %.60s %s: %v, want %v", c.method, c.path, c.body, got, c.want)
			}
		}
	})
}

// TestWhereAPlatformMayCallFrom: a platform's addresses are its own, and WeCom's code is another.
func TestWhereAPlatformMayCallFrom(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		token := suiteToken(t, o, "wws", "ss")
		for _, id := range []string{"wxp", "wws", "wwprov"} {
			o.sim.SetWhitelist(id, "198.51.100.1")
		}
		ctx, code1 := t.Context(), secret.New("code")
		_, component := o.c.ComponentToken(ctx, "wxp", secret.New("ps"), secret.New(o.sim.Ticket("wxp")))
		_, query := o.c.QueryAuth(ctx, o.token, "wxp", code1)
		_, suite := o.c.SuiteToken(ctx, "wws", secret.New("ss"), secret.New(o.sim.Ticket("wws")))
		_, permanent := o.c.PermanentCode(ctx, token, code1)
		_, provider := o.c.ProviderToken(ctx, "wwprov", secret.New("vs"))
		for i, c := range []struct {
			err  error
			want int
		}{{component, 61004}, {query, 61004}, {suite, 60020}, {permanent, 60020}, {provider, 60020}} {
			if code(c.err) != c.want {
				t.Errorf("%d: %v, want %d", i, c.err, c.want)
			}
		}
	})
}

// TestFlappingAuthorizers: every third fetch fails, which says nothing about the authorisation.
func TestFlappingAuthorizers(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		auth := o.exchange(o.sim.Authorize("wxp", "wxa"))
		k := o.sim.PlatformKnobs("wxp")
		k.FlapCode, k.FlapEvery = 61023, 3
		o.sim.SetPlatformKnobs("wxp", k)
		for i := range 7 {
			want := 0
			if i%3 == 2 {
				want = 61023
			}
			if _, _, err := o.c.AuthorizerToken(t.Context(), o.token, "wxp", "wxa", auth.Secret); code(err) != want {
				t.Errorf("fetch %d: %v, want %d", i, err, want)
			}
		}
		if !o.sim.Accepts("wxp", "wxa", auth.Secret.Reveal()) {
			t.Error("the refresh token does not work any more")
		}
	})
}

// TestAQuotaThatAllAuthorizersShare, and one that each has of its own.
func TestAQuotaThatAllAuthorizersShare(t *testing.T) {
	onPlatform(t, func(t *testing.T, o *open) {
		const path = "/cgi-bin/component/api_authorizer_token"
		one, two := o.exchange(o.sim.Authorize("wxp", "wxa")), o.exchange(o.sim.Authorize("wxp", "wxb"))
		limits := o.sim.Knobs()
		limits.PerDay[path] = 2
		o.sim.SetKnobs(limits)
		fetch := func(auth wechat.Authorization) int {
			_, _, err := o.c.AuthorizerToken(t.Context(), o.token, "wxp", auth.Authorizer, auth.Secret)
			return code(err)
		}
		if got := [...]int{fetch(one), fetch(one), fetch(one), fetch(two), fetch(two), fetch(two)}; got != [...]int{0, 0, 45009, 0, 0, 45009} {
			t.Errorf("of its own: %v", got)
		}
		time.Sleep(25 * time.Hour)
		o.sim.PushTicket("wxp")
		o.token = o.component().Value
		k := o.sim.PlatformKnobs("wxp")
		k.QuotaPerPlatform = true
		o.sim.SetPlatformKnobs("wxp", k)
		if got := [...]int{fetch(one), fetch(two), fetch(one), fetch(two)}; got != [...]int{0, 0, 45009, 45009} {
			t.Errorf("shared: %v", got)
		}
	})
}
