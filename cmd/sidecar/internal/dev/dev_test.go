package dev

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
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
