package apps_test

import (
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

func app(id, alias, upstream string) apps.App {
	u, err := url.Parse(upstream)
	if err != nil {
		panic(err)
	}
	return apps.App{Key: tokencache.Key{App: id, Kind: "access_token"}, ID: id, Alias: alias, Upstreams: []*url.URL{u}}
}

// agent is an app of the corp ww1.
func agent(number, alias string) apps.App {
	a := app("ww1:"+number, alias, "https://qyapi.weixin.qq.com")
	a.ID, a.Agent, a.Platform = "ww1", number, apps.WeCom
	return a
}

// The order in which a call names its app: appid, token, header, default.
func TestTheAppThatACallMeans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tokencachetest.New(t, 1, &tokencachetest.Upstream{})
		token := cluster.Replicas[0].MustGet(t).Value
		owner := app(tokencachetest.Key.App, "owner", "https://api.weixin.qq.com")
		set := apps.New("standard", owner, app("wx1", "shop", "https://api.weixin.qq.com"), app("wx2", "standard", "https://api.weixin.qq.com"),
			agent("1", "hr"), agent("2", "it"))
		for _, c := range []struct {
			name string
			call apps.Call
			want string // the id; empty: none
		}{
			{"says nothing", apps.Call{}, "wx2"},
			{"appid", apps.Call{ID: "wx1"}, "wx1"},
			{"appid before token and header", apps.Call{ID: "wx1", Token: token, Name: "hr"}, "wx1"},
			{"token", apps.Call{Token: token}, owner.ID},
			{"token before header", apps.Call{Token: token, Name: "shop"}, owner.ID},
			{"a foreign token says nothing", apps.Call{Token: secret.New("foreign")}, "wx2"},
			{"header, by id", apps.Call{Name: "wx1"}, "wx1"},
			{"header, by alias", apps.Call{Name: "shop"}, "wx1"},
			{"header, by agent", apps.Call{Name: "ww1:2"}, "ww1:2"},
			{"an unknown header says nothing", apps.Call{Name: "unknown"}, "wx2"},
			{"an unknown appid rules the default out", apps.Call{ID: "wx9"}, ""},
			{"an unknown appid, and a header", apps.Call{ID: "wx9", Name: "shop"}, "wx1"},
			{"a corpid with two agents means neither", apps.Call{ID: "ww1"}, ""},
		} {
			got := ""
			if a := set.Of(c.call, cluster.Replicas[0].Cache); a != nil {
				got = a.Key.App
			}
			if got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
	})
}

func TestWhereACallWithoutAnAppGoes(t *testing.T) {
	one := apps.New("", app("wx1", "", "https://api.weixin.qq.com"), app("wx2", "", "https://api.weixin.qq.com"))
	two := apps.New("", app("wx1", "", "https://api.weixin.qq.com"), agent("1", ""))
	for _, c := range []struct {
		set  *apps.Set
		host string
		want string
	}{
		{one, "localhost:7200", "wx1"}, {one, "api.weixin.qq.com", "wx1"},
		{two, "qyapi.weixin.qq.com", "ww1:1"}, {two, "localhost:7200", ""}, {apps.New(""), "localhost:7200", ""}, {nil, "localhost", ""},
	} {
		got := ""
		if a := c.set.At(c.host); a != nil {
			got = a.Key.App
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.host, got, c.want)
		}
	}
}

// thirdParty is a platform that accounts authorise.
func thirdParty(id string, platform apps.Platform) apps.App {
	a := app(id, "shops", "https://api.weixin.qq.com")
	a.Key.Kind, a.TokenParam, a.Platform = "component_access_token", "component_access_token", platform
	return a
}

// An account that has authorised a platform is an app by its whole name, and by its id alone where
// that names nothing else. A platform itself must be named.
func TestAccountsOfAThirdPartyPlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := tokencachetest.New(t, 1, &tokencachetest.Upstream{}).Replicas[0].Cache
		platform := thirdParty("wxp", apps.WeChat)
		set := apps.New("", app("wx1", "", "https://api.weixin.qq.com"), agent("1", ""), agent("2", ""), platform)
		for name, want := range map[string]string{
			"wxp:wxa": "wxp:wxa", "shops:wxa": "wxp:wxa", "wxa": "wxp:wxa", "shops": "wxp", "wx1": "wx1", "ww1:1": "ww1:1",
			"ww1": "", "ww9:1": "", "wx1:wxa": "", "wxp:a b": "", "wxp:": "", "": "",
		} {
			got := ""
			if a := set.Named(name); a != nil {
				got = a.Key.App
			}
			if got != want {
				t.Errorf("%q names %q, want %q", name, got, want)
			}
		}
		if got := len(set.Agents("ww1")); got != 2 {
			t.Errorf("a corp with two agents has %d beside a platform", got)
		}
		account := tokencache.Key{App: "wxp:wxa", Kind: "access_token"}
		if a := set.ByKey(account); a == nil || a.ID != "wxa" || a.API() != wechat.APICall || a.IsThirdParty() {
			t.Errorf("by its key: %+v", a)
		}
		if a := set.ByKey(platform.Key); a == nil || a.API() != wechat.APIComponent {
			t.Errorf("the platform: %+v", a)
		}
		for what, c := range map[string]apps.Call{"its appid": {ID: "wxa"}, "the header": {Name: "shops:wxa"}} {
			if a := set.Of(c, cache); a == nil || a.Key != account {
				t.Errorf("by %s: %+v", what, a)
			}
		}
		if a := apps.New("", platform).At("api.weixin.qq.com"); a != nil {
			t.Errorf("a call that names no app is the platform's: %+v", a)
		}
		two := apps.New("", platform, thirdParty("wxq", apps.WeChat))
		if a := two.Named("wxa"); a != nil {
			t.Errorf("with two platforms an id alone names %+v", a)
		}
		if a := thirdParty("ww-suite", apps.WeCom); a.API() != wechat.APISuite {
			t.Errorf("a suite: %v", a.API())
		}
	})
}

func TestNamesOnAPlatform(t *testing.T) {
	set := apps.New("", app("wx1", "shop", "https://api.weixin.qq.com"), agent("1", "hr"), agent("2", ""))
	if a := set.Find(apps.WeChat, "shop"); a == nil || a.ID != "wx1" || a.API() != wechat.APICall || a.Platform.String() != "WeChat" {
		t.Errorf("shop: %+v", a)
	}
	if a := set.Find(apps.WeCom, "shop"); a != nil {
		t.Errorf("shop is an app of WeCom: %+v", a)
	}
	if a := set.Find(apps.WeCom, "hr"); a == nil || a.API() != wechat.APICorpCall || a.Platform.String() != "WeCom" {
		t.Errorf("hr: %+v", a)
	}
	if a := set.Only(apps.WeChat); a == nil || a.ID != "wx1" {
		t.Errorf("the only app of WeChat: %+v", a)
	}
	if a := set.Only(apps.WeCom); a != nil {
		t.Errorf("the only one of two agents: %+v", a)
	}
	for name, want := range map[string]int{"ww1": 2, "hr": 1, "ww1:2": 1, "wx1": 0, "unknown": 0} {
		if got := len(set.Agents(name)); got != want {
			t.Errorf("%s: %d agents, want %d", name, got, want)
		}
	}
	if set.AllowsHost("api.weixin.qq.com") {
		t.Error("a host is allowed without leave")
	}
}
