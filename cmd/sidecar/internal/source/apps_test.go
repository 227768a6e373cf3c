package source

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

func TestAppsAreWhatTheConfigurationSays(t *testing.T) {
	app := config.App{
		ID: "ww1", Agent: "100", Alias: "desk", Platform: config.PlatformWeCom, APIBase: "https://qyapi.weixin.qq.com:443/x",
		Secret: secret.New("s"), RequireSecret: true, Tickets: []string{config.TicketJSAPI, config.TicketAgentConfig},
	}
	mini := config.App{ID: "wx1", APIBase: "https://api.weixin.qq.com", APIFallbacks: []string{"https://api2.weixin.qq.com"}}
	set, err := Apps(&config.Config{Apps: []config.App{app, mini}, AllowUpstreamHost: true, DefaultApp: "desk"})
	if err != nil {
		t.Fatal(err)
	}
	got := set.Named("desk")
	if got.Key != (tokencache.Key{App: "ww1:100", Kind: "access_token"}) || got.ID != "ww1" || got.Agent != "100" || got.Alias != "desk" ||
		got.Platform != apps.WeCom || !got.RequireSecret || !got.Secret.Equal(app.Secret) || len(got.Upstreams) != 1 || !set.AllowsHost("QYAPI.weixin.qq.com") || set.AllowsHost("evil.example") {
		t.Errorf("got %+v", got)
	}
	for name, kind := range map[string]string{"jsapi": "jsapi_ticket", "agent_config": "agent_config_ticket"} {
		if k, _ := got.Ticket(name); k != (tokencache.Key{App: "ww1:100", Kind: kind}) {
			t.Errorf("%s: got %s", name, k)
		}
	}
	if s := set.Named("wx1"); s.Platform != apps.WeChat || s.Tickets["wx_card"] != "wx_card_ticket" || len(s.Tickets) != 2 || len(s.Upstreams) != 2 {
		t.Errorf("got %+v", s)
	}
	for _, name := range []string{"ww1:100", "desk"} {
		if k, ok := set.Lookup(name); !ok || k != got.Key {
			t.Errorf("%s: got %s, %v", name, k, ok)
		}
	}
	if _, ok := set.Lookup("ww1"); ok {
		t.Error("a corp is no app")
	}
}

func TestAppsWithoutAUsableUpstreamAreRefused(t *testing.T) {
	for name, base := range map[string]string{
		"no upstream": "", "with a user": "https://u:p@a.example", "with a query": "https://a.example?x=1",
		"no host": "https:///x", "other scheme": "ftp://a.example", "no URL": "https://a\x7f.example",
	} {
		for _, app := range []config.App{{ID: "wx1", APIBase: base}, {ID: "wx1", APIBase: "https://a.example", APIFallbacks: []string{base}}} {
			if _, err := Apps(&config.Config{Apps: []config.App{app}}); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	}
	one := []config.App{{ID: "wx1", APIBase: "https://a.example/prefix"}}
	if _, err := Apps(&config.Config{Apps: one, DefaultApp: "unknown"}); err == nil {
		t.Error("unknown default: no error")
	}
	if _, err := Apps(&config.Config{Apps: one, DefaultApp: "wx1"}); err != nil {
		t.Error(err)
	}
}
