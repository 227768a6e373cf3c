package dropin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dropin"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	component = "wx134c8103faa5a59e"
	suite     = "ww4asffe99e54c0f4c"
	template  = "dk4asffe99e54c0f4c"
	provider  = "wwprovider"
	shop      = "wxba5fad812f8e6fb9"
	corp      = "wwcorp"
	aesKey    = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// platforms are what the sidecar of the tests has, one of each kind.
var platforms = []struct {
	id    string
	kind  platform.Kind
	sim   wechattest.PlatformKind
	base  string
	param string
	owner apps.Platform
}{
	{component, platform.OpenPlatform, wechattest.OpenPlatform, wechat.DefaultBaseURL, apps.ComponentToken, apps.WeChat},
	{suite, platform.Suite, wechattest.Suite, wechat.DefaultCorpBaseURL, apps.SuiteToken, apps.WeCom},
	{template, platform.Template, wechattest.Template, wechat.DefaultCorpBaseURL, apps.SuiteToken, apps.WeCom},
	{provider, platform.Provider, wechattest.Provider, wechat.DefaultCorpBaseURL, apps.ProviderToken, apps.WeCom},
}

// rig is a server in front of a WeChat that pushes to it.
type rig struct {
	*testing.T
	dropin.Server
	sim   *wechattest.Server
	redis *tokencachetest.Link
	all   map[string]*platform.Platform
}

// newRig must be called in a bubble. It waits until each platform has its token.
func newRig(t *testing.T) *rig {
	x := &rig{T: t, sim: wechattest.New(), all: map[string]*platform.Platform{}}
	replica := tokencachetest.New(t, 1, &tokencachetest.Upstream{})
	calls, pushes := x.sim.Transport(), wechattest.TransportTo(x)
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", Dialer: replica.Replicas[0].Link.Dial, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = rdb.Close(); _ = calls.Close(); _ = pushes.Close() })
	x.Cache, x.redis = replica.Replicas[0].Cache, replica.Replicas[0].Link
	x.Server.Platform = func(id string) *platform.Platform { return x.all[id] }
	x.Obtain = x.obtain
	var set []apps.App
	var credentials []tokencache.Credential
	for _, c := range platforms {
		x.sim.AddPlatform(wechattest.Platform{ID: c.id, Kind: c.sim, Secret: "SECRET-" + c.id, Token: "token", AESKey: aesKey, CorpID: provider,
			Callback: "http://callback.example/" + c.id, Transport: pushes})
		envelope, err := wechat.NewEnvelope(secret.New("token"), c.id, secret.New(aesKey))
		if err != nil {
			t.Fatal(err)
		}
		o := platform.Options{ID: c.id, Kind: c.kind, Secret: secret.New("SECRET-" + c.id), Cache: x.Cache, Redis: rdb, Namespace: "wxtoken",
			Client: &wechat.Client{BaseURL: c.base, HTTP: &http.Client{Transport: calls}}}
		if c.kind != platform.Provider {
			o.Envelope, o.Vault = envelope, vault.New(vault.NewRedis(rdb, "wxtoken"), vaulttest.Keys(t, vaulttest.Key))
		}
		p, err := platform.New(o)
		if err != nil {
			t.Fatal(err)
		}
		x.all[c.id] = p
		credentials = append(credentials, p.Credentials()...)
		set = append(set, apps.App{Key: p.TokenKey(), ID: c.id, Alias: "my-" + c.id, Platform: c.owner, TokenParam: c.param})
	}
	x.Apps = apps.New("", set...)
	if err := x.Cache.Set(credentials...); err != nil {
		t.Fatal(err)
	}
	x.run()
	replica.Start()
	for _, p := range x.all {
		x.eventually("a token of "+p.ID(), func() bool { _, err := x.Cache.Get(t.Context(), p.TokenKey()); return err == nil })
	}
	return x
}

// run lets the platforms and WeChat's pushes run until the test ends.
func (x *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	run := []func(context.Context){x.sim.RunPushes}
	for _, p := range x.all {
		run = append(run, p.Run)
	}
	for _, f := range run {
		go func() { f(ctx); ended <- struct{}{} }()
	}
	x.Cleanup(func() {
		cancel()
		for range run {
			<-ended
		}
	})
}

// ServeHTTP is the callback of all platforms.
func (x *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p := x.all[strings.TrimPrefix(r.URL.Path, "/")]
	if p == nil || !p.HasAccounts() {
		x.Errorf("a push to %s", r.URL.Path)
	} else if _, err := p.Receive(r.Context(), r.URL.Query(), body); err == nil {
		_, _ = io.WriteString(w, "success")
	}
}

func (x *rig) eventually(what string, is func() bool) {
	x.Helper()
	for began := time.Now(); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			x.Fatalf("in 2 minutes not: %s", what)
		}
	}
}

// obtain is what the program does: the cache asks for a credential that it does not keep.
func (x *rig) obtain(ctx context.Context, k tokencache.Key) (tokencache.Token, error) {
	token, err := x.Cache.Get(ctx, k)
	id, account, _ := strings.Cut(k.App, ":")
	if !errors.Is(err, tokencache.ErrUnknown) {
		return token, err
	}
	spec, err := x.all[id].Credential(ctx, account, k.Kind)
	if err != nil {
		return token, err
	}
	if err := x.Cache.Add(spec); err != nil {
		x.Fatal(err)
	}
	return x.Cache.Get(ctx, k)
}

// ask makes a call, and returns the members of the answer, those of authorization_info included; of a
// refusal only its errcode. No answer has what only the vault may have.
func (x *rig) ask(path, query, body string) map[string]any {
	x.Helper()
	return x.call(dropin.Call{Path: path, Body: []byte(body)}, query)
}

func (x *rig) call(c dropin.Call, query string) map[string]any {
	x.Helper()
	c.Query, _ = url.ParseQuery(query)
	answer, err := x.Answer(x.Context(), c)
	if no, ok := errors.AsType[*dropin.Refusal](err); ok {
		return map[string]any{"errcode": float64(no.Errcode)}
	}
	if err != nil {
		x.Errorf("%s: %v", c.Path, err)
		return nil
	}
	got := map[string]any{}
	if err := json.Unmarshal(answer, &got); err != nil {
		x.Errorf("%s: %s: %v", c.Path, answer, err)
	}
	for _, p := range platforms {
		for _, a := range x.sim.Ledger(p.id).Authorizers {
			for _, durable := range a.Accepts {
				if strings.Contains(string(answer), durable) {
					x.Errorf("%s: a secret of an account left the sidecar", c.Path)
				}
			}
		}
	}
	if auth, ok := got["authorization_info"].(map[string]any); ok {
		for name, value := range auth {
			got[name] = value
		}
	}
	return got
}

// exchanges is how often an account's codes were exchanged at WeChat.
func (x *rig) exchanges(id, account string) int {
	return x.sim.Ledger(id).Authorizers[account].Exchanges
}

// What each call of an SDK is answered: with the tokens that the cluster has, a placeholder in the
// place of each durable secret, and errors as WeChat has them. What is sent in place of tickets and
// secrets does not matter.
func TestAnSDKGetsWeChatsShapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		code := x.sim.Authorize(component, shop)
		installed := x.sim.Authorize(suite, corp)
		templated := x.sim.Authorize(template, corp)
		token := func(id, kind string) string {
			value, err := x.obtain(t.Context(), tokencache.Key{App: id, Kind: kind})
			if err != nil {
				t.Fatal(err)
			}
			return value.Value.Reveal()
		}
		bySuite := "suite_access_token=" + token(suite, apps.SuiteToken)
		byTemplate := "suite_access_token=" + token(template, apps.SuiteToken)
		const me, c, s = `"component_appid":"` + component + `"`, "/cgi-bin/component/", "/cgi-bin/service/"
		const accountToken, anything = "the account's", "anything"
		for _, call := range []struct {
			path, query, body string
			want              map[string]any
		}{
			{c + "api_component_token", "", `{` + me + `,"component_appsecret":"x","component_verify_ticket":"y"}`, map[string]any{"component_access_token": token(component, apps.ComponentToken)}},
			{c + "api_component_token", "", `{"component_appid":"wx0000000000000bad"}`, map[string]any{"errcode": 40013.}},
			{c + "api_component_token", "", `{"component_appid":"` + suite + `"}`, map[string]any{"errcode": 40013.}},
			{c + "api_component_token", "", `nonsense`, map[string]any{"component_access_token": token(component, apps.ComponentToken)}}, // there is one
			{c + "api_start_push_ticket", "", `{` + me + `,"component_secret":"x"}`, map[string]any{"errcode": 0., "errmsg": "ok"}},
			{c + "api_query_auth", "component_access_token=x", `{` + me + `,"authorization_code":"` + code + `"}`,
				map[string]any{"authorizer_appid": shop, "authorizer_access_token": accountToken, "authorizer_refresh_token": "wxtoken", "func_info": anything}},
			{c + "api_query_auth", "", `{` + me + `,"authorization_code":"queryauthcode@@@nonsense"}`, map[string]any{"errcode": 61009.}},
			{c + "api_query_auth", "", `{` + me + `}`, map[string]any{"errcode": 61009.}},
			{c + "api_authorizer_token", "", `{` + me + `,"authorizer_appid":"` + shop + `","authorizer_refresh_token":"of the app"}`,
				map[string]any{"authorizer_access_token": accountToken, "authorizer_refresh_token": "of the app"}},
			{c + "api_authorizer_token", "", `{` + me + `,"authorizer_appid":"wx0000000000000bad","authorizer_refresh_token":"x"}`, map[string]any{"errcode": 61003.}},
			{c + "api_authorizer_token", "", `{` + me + `,"authorizer_appid":"a:b"}`, map[string]any{"errcode": 40013.}},

			{s + "get_suite_token", "", `{"suite_id":"` + suite + `","suite_secret":"x","suite_ticket":"y"}`, map[string]any{"errcode": 0., "suite_access_token": token(suite, apps.SuiteToken)}},
			{s + "get_suite_token", "", `{"suite_id":"wwbad"}`, map[string]any{"errcode": 40083.}},
			{s + "get_suite_token", "", `{}`, map[string]any{"errcode": 41021.}},
			{s + "get_permanent_code", bySuite, `{"auth_code":"` + installed + `"}`,
				map[string]any{"errcode": 0., "permanent_code": "wxtoken", "access_token": accountToken, "auth_corp_info": anything, "auth_info": anything, "auth_user_info": anything}},
			{s + "v2/get_permanent_code", bySuite, `{"auth_code":"` + installed + `"}`, map[string]any{"permanent_code": "wxtoken", "access_token": "absent", "auth_corp_info": anything}},
			{s + "get_permanent_code", byTemplate, `{"auth_code":"` + templated + `"}`, map[string]any{"permanent_code": "wxtoken", "access_token": "absent", "auth_corp_info": anything}},
			{s + "get_permanent_code", bySuite, `{"auth_code":"nonsense"}`, map[string]any{"errcode": 40078.}},
			{s + "get_permanent_code", "suite_access_token=another", `{"auth_code":"x"}`, map[string]any{"errcode": 40082.}}, // of which suite?
			{s + "get_corp_token", bySuite, `{"auth_corpid":"` + corp + `","permanent_code":"wxtoken"}`, map[string]any{"errcode": 0., "access_token": accountToken}},
			{s + "get_corp_token", bySuite, `{"auth_corpid":"wwbad","permanent_code":"wxtoken"}`, map[string]any{"errcode": 40084.}},
			{s + "get_auth_info", bySuite, `{"auth_corpid":"` + corp + `","permanent_code":"wxtoken"}`, map[string]any{"errcode": 0., "auth_corp_info": anything, "auth_info": anything}},
			{s + "v2/get_auth_info", bySuite, `{"auth_corpid":"wwbad","permanent_code":"wxtoken"}`, map[string]any{"errcode": 40084.}},
			{s + "get_provider_token", "", `{"corpid":"` + provider + `","provider_secret":"x"}`, map[string]any{"errcode": 0., "provider_access_token": token(provider, apps.ProviderToken)}},
			{s + "get_provider_token", "", `{"corpid":"wwbad"}`, map[string]any{"errcode": 40013.}},
		} {
			got := x.ask(call.path, call.query, call.body)
			for name, want := range call.want {
				value, there := got[name]
				switch {
				case want == "absent" && !there, want == anything && value != nil:
				case want == accountToken:
					owner := map[bool]string{true: component + ":" + shop, false: suite + ":" + corp}[strings.HasPrefix(call.path, c)]
					if text, _ := value.(string); !x.sim.Valid(owner, text) || got["expires_in"] == nil {
						t.Errorf("%s %s: %v", call.path, call.body, got)
					}
				case value != want:
					t.Errorf("%s %s: %s is %v, want %v: %v", call.path, call.body, name, value, want, got)
				}
			}
		}
		if n := []int{x.exchanges(component, shop), x.exchanges(suite, corp), x.exchanges(template, corp)}; !slices.Equal(n, []int{1, 1, 1}) {
			t.Errorf("%v exchanges, want 1 of each", n)
		}
	})
}

// Where the path before it names a platform, that is the one; another id is refused.
func TestThePathNamesThePlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		for _, c := range []struct {
			named, path, body string
			want              float64 // the errcode
		}{
			{template, "get_suite_token", `{}`, 0},
			{template, "get_suite_token", `{"suite_id":"` + suite + `"}`, 40083},
			{suite, "get_provider_token", `{"corpid":"` + provider + `"}`, 0}, // an SDK has one base URL
			{suite, "get_corp_token", `{"auth_corpid":"` + corp + `"}`, 40084},
		} {
			call := dropin.Call{Path: "/cgi-bin/service/" + c.path, Named: x.Apps.Named(c.named), Body: []byte(c.body)}
			if got := x.call(call, ""); got["errcode"] != c.want {
				t.Errorf("%s %s %s: %v", c.named, c.path, c.body, got)
			}
		}
		call := dropin.Call{Path: "/cgi-bin/service/get_corp_token", Name: template, Body: []byte(`{"auth_corpid":"` + corp + `"}`)}
		if got := x.call(call, ""); got["errcode"] != 40084. {
			t.Errorf("named by the header: %v", got)
		}
	})
}

// An account that authorised no API permission has no token, as at WeChat.
func TestAnAccountWithoutTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t)
		k := x.sim.PlatformKnobs(component)
		k.NoPermissions = true
		x.sim.SetPlatformKnobs(component, k)
		code := x.sim.Authorize(component, shop)
		got := x.ask("/cgi-bin/component/api_query_auth", "", `{"component_appid":"`+component+`","authorization_code":"`+code+`"}`)
		if got["authorizer_appid"] != shop || got["authorizer_access_token"] != nil || got["authorizer_refresh_token"] != nil || got["func_info"] == nil {
			t.Errorf("%v", got)
		}
		got = x.ask("/cgi-bin/component/api_authorizer_token", "", `{"component_appid":"`+component+`","authorizer_appid":"`+shop+`"}`)
		if got["errcode"] != 61003. {
			t.Errorf("%v", got)
		}
	})
}
