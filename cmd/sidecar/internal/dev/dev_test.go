package dev

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/vault"
)

func TestItStartsOnlyWhatIsNotConfigured(t *testing.T) {
	env := map[string]string{"WECHAT_APPID": "wx1", "REDIS_URL": "redis://localhost"}
	for _, unset := range []string{"", "WECHAT_APPID", "REDIS_URL"} {
		getenv := func(name string) string {
			if name == unset {
				return ""
			}
			return env[name]
		}
		d, err := Start(config.Overrides{}, getenv)
		if err != nil {
			t.Fatal(err)
		}
		if (d.sim != nil) != (unset == "WECHAT_APPID") || (d.redis != nil) != (unset == "REDIS_URL") {
			t.Errorf("without %q: simulator %t, Redis %t", unset, d.sim != nil, d.redis != nil)
		}
		d.Stop()
	}
}

// Else the first refresh of the platform's token would fail, on a newcomer's first screen.
func TestThePlatformHasATicketWhenItStarts(t *testing.T) {
	for _, named := range []struct{ flag, env, want string }{{"", "", "wxtoken"}, {"", "other", "other"}, {"mine", "other", "mine"}} {
		d, err := Start(config.Overrides{Namespace: named.flag}, func(name string) string { return map[string]string{"WXTOKEN_NAMESPACE": named.env}[name] })
		if err != nil {
			t.Fatal(err)
		}
		if d.redis.HGet(named.want+":{"+Platform.ID+"}:vault", vault.Ticket) == "" {
			t.Errorf("%+v: the vault has no ticket", named)
		}
		d.Stop()
	}
}
