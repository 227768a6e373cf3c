package main

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// The faces know of an app what its configuration says.
func TestFaceOfAnApp(t *testing.T) {
	app := config.App{
		ID: "ww1", Agent: "100", Alias: "desk", Platform: config.PlatformWeCom, APIBase: "https://qyapi.weixin.qq.com:443/x",
		Secret: secret.New("s"), RequireSecret: true, Tickets: []string{config.TicketJSAPI, config.TicketAgentConfig},
	}
	s, err := newSettings(&config.Config{Apps: []config.App{app}})
	if err != nil {
		t.Fatal(err)
	}
	got := faceApp(app, "qyapi.weixin.qq.com")
	if got.Key != (tokencache.Key{App: "ww1:100", Kind: "access_token"}) || got.ID != "ww1" || got.Agent != "100" || got.Alias != "desk" ||
		got.Platform != apps.WeCom || !got.RequireSecret || !got.Secret.Equal(app.Secret) || got.Host != "qyapi.weixin.qq.com" {
		t.Errorf("got %+v", got)
	}
	for name, kind := range map[string]string{"jsapi": "jsapi_ticket", "agent_config": "agent_config_ticket"} {
		if k := got.Tickets[name]; k != (tokencache.Key{App: "ww1:100", Kind: kind}) {
			t.Errorf("%s: got %s", name, k)
		}
	}
	if s := faceApp(config.App{ID: "wx1", Platform: config.PlatformWeChat}, ""); s.Platform != apps.WeChat || s.Tickets["wx_card"].Kind != "wx_card_ticket" || len(s.Tickets) != 2 {
		t.Errorf("got %+v", s)
	}
	for _, name := range []string{"ww1:100", "desk"} {
		if k, ok := s.apps.Lookup(name); !ok || k != got.Key {
			t.Errorf("%s: got %s, %v", name, k, ok)
		}
	}
	if _, ok := s.apps.Lookup("ww1"); ok {
		t.Error("a corp is no app")
	}
}
