package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The SDKs of third-party platforms and suites, as those of sdk_test.go: they hold no secret and no
// ticket, and keep what they are given in place of refresh tokens and permanent codes.

const provider = "ww00000000000000d0"

// sdkPlatforms are what the SDKs of platforms are for, by the kind that the programs know.
var sdkPlatforms = map[string]wechattest.Platform{
	"open":     {ID: "wx00000000000000d1", Token: "token", AESKey: sdkAESKey, Secret: "CANARY+secret/of=the-platform"},
	"suite":    {ID: "ww00000000000000d2", Kind: wechattest.Suite, Token: "token", AESKey: sdkAESKey, CorpID: provider, Secret: "CANARY+secret/of=the-suite"},
	"provider": {ID: provider, Kind: wechattest.Provider, Secret: "CANARY+secret/of=the-provider"},
}

const sdkAESKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

// platformSDKs are rows of docs/sdks.md.
var platformSDKs = map[string]variant{
	"node-easywechat, open platform":   {program: nodeProgram("node-easywechat-open.mjs"), kind: "open"},
	"node-easywechat, open work":       {program: nodeProgram("node-easywechat-open.mjs"), kind: "suite"},
	"silenceper-wechat, open platform": {program: goProgram, kind: "open", how: "transport"},
	"wechatpy, component":              {program: pythonProgram, kind: "open", how: "adapter"},
	"WxJava, open":                     {program: javaProgram, kind: "open", how: https},
	"WxJava, cp tp":                    {program: javaProgram, kind: "suite"},
}

// newPlatformCluster has a sidecar with a platform, a suite and its provider, whose pushes arrive.
func newPlatformCluster(t *testing.T) *sdkCluster {
	t.Helper()
	var store rig.Store
	if _, err := tokencachetest.FindRedis(); err == nil {
		store = rig.StartRedis(t)
	} else {
		store = startMiniredis(t)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "wxtoken.yaml")
	c := &sdkCluster{cluster: newCluster(t, store, "WXTOKEN_CONFIG="+file, "WECHAT_APPID=", "WECHAT_ENDPOINT=", "WECHAT_API_BASE="), trusted: map[*rig.Sidecar]string{}}
	c.Upstream.Server = wechattest.New(kinds["oa"]) // which the rig knows
	write(t, dir+"/key", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	write(t, dir+"/token", "token")
	write(t, dir+"/aes", sdkAESKey)
	config := "tls_listen: 127.0.0.1:0\nvault: {key_file: " + dir + "/key, volatile: true}\nplatforms:\n"
	for kind, p := range sdkPlatforms {
		write(t, dir+"/"+kind, p.Secret)
		config += fmt.Sprintf("- {id: %s, kind: %s, secret_file: %s/%s, api_base: %s/sdk", p.ID,
			map[string]string{"open": "open_platform", "suite": "wecom_suite", "provider": "wecom_provider"}[kind], dir, kind, c.Upstream.URL)
		if kind != "provider" {
			config += ", token_file: " + dir + "/token, aes_key_file: " + dir + "/aes"
		}
		if kind == "suite" {
			config += ", corpid: " + provider
		}
		config += "}\n"
	}
	write(t, file, config)
	c.Upstream.AddPlatform(sdkPlatforms["provider"])
	c.add(1)
	for _, kind := range []string{"open", "suite"} { // whose first ticket is pushed at once
		p := sdkPlatforms[kind]
		p.Callback = c.All[0].Base() + "v1/apps/" + p.ID + "/callback"
		c.Upstream.AddPlatform(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); c.Upstream.RunPushes(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	for _, p := range sdkPlatforms {
		eventually(t, "a token of "+p.ID, func() bool { return c.Upstream.Calls(p.ID).Issued > 0 })
	}
	return c
}

// Each does what it is for: its own token and a call with it, the exchange of a code, the token of the
// account and a call for it. Then each of the tokens in its cache dies, which it does not know.
func TestEachSDKOfAPlatformHoldsNoSecret(t *testing.T) {
	t.Parallel()
	c := newPlatformCluster(t)
	n := 0
	for name, v := range platformSDKs {
		n++
		account := fmt.Sprintf("%s%016x", sdkPlatforms[v.kind].ID[:2], n)
		t.Run(name, func(t *testing.T) { v.tools.need(t); c.exercisePlatform(t, v, account) })
	}
}

func (c *sdkCluster) exercisePlatform(t *testing.T, v variant, account string) {
	p := sdkPlatforms[v.kind]
	run := v.command
	v.command = func(t *testing.T, how string) *exec.Cmd {
		cmd := run(t, how)
		cmd.Env = append(cmd.Env, "WXTOKEN_APPID="+p.ID, "WXTOKEN_ACCOUNT="+account, "WXTOKEN_PROVIDER="+provider)
		return cmd
	}
	s := c.start(t, v, c.All[0])
	type answer struct{ Account, Token, Secret, Info string }
	ask := func(command ...string) (got answer) {
		t.Helper()
		if err := c.insist(func() error { return s.call(&got, command...) }); err != nil {
			t.Error(err)
		}
		return got
	}
	says := func(command string) (text string) {
		t.Helper()
		if err := c.insist(func() error { return s.call(&text, command) }); err != nil || text == "" {
			t.Errorf("%s: %q, %v", command, text, err)
		}
		return text
	}
	fetches := func() int { return c.Upstream.Calls(p.ID).Issued }
	before := fetches()
	if !c.Upstream.Valid(p.ID, says("token")) {
		t.Error("the token of the platform does not work")
	}
	says("platformcall")
	got := ask("exchange", c.Upstream.Authorize(p.ID, account))
	if got.Account != account || !c.Upstream.Valid(p.ID+":"+account, got.Token) || got.Secret != "wxtoken" || v.kind == "suite" && got.Info != account {
		t.Errorf("the exchange brought %s, %s, %s", got.Account, got.Secret, got.Info)
	}
	if got := ask("refresh"); !c.Upstream.Valid(p.ID+":"+account, got.Token) || got.Secret != "of-this-app" {
		t.Error("the token of the account does not work, or another refresh token came back")
	}
	if v.kind == "suite" && !c.Upstream.Valid(provider, says("providertoken")) {
		t.Error("the token of the provider does not work")
	}
	address := says("accountcall")
	c.Upstream.KillTokens(p.ID)
	c.Upstream.KillTokens(p.ID + ":" + account)
	says("platformcall")
	if again := says("accountcall"); again != address || strings.Contains(again, "errcode") {
		t.Errorf("accountcall: %q, then %q", address, again)
	}
	c.want("exchanges", c.Upstream.Ledger(p.ID).Authorizers[account].Exchanges, 1)
	c.want("fetches of the platform's token for one that was killed", fetches()-before, 1)
	c.want("fetches of the account's token", c.Upstream.Ledger(p.ID).Authorizers[account].Fetches, 2)
}
