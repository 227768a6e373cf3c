package api

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// The example of WeChat's own documentation, which gives nonce and time.
func TestOfficialVector(t *testing.T) {
	got := signatures{list: []any{signPage("wx1",
		secret.New("sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"),
		"Wm3WZYTPz0wzccnW", 1414587457, "http://mp.weixin.qq.com?params=value#fragment")}}
	body, kind := got.AppendBody(nil, web.FormatText)
	const want = `{"appId":"wx1","timestamp":1414587457,"nonceStr":"Wm3WZYTPz0wzccnW","signature":"0f9de62fce790f9a083d5c99e95740ceb90c27ed"}` + "\n"
	if string(body) != want || kind[0] != "application/json" {
		t.Errorf("got %s %s, want %s", kind, body, want)
	}
}
