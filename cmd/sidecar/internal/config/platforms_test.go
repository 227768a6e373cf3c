package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

const (
	aesKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	vaultKey = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
)

// platformFiles are the secrets of a platform, beside those of the other tests.
var platformFiles = map[string]string{
	"token": "token\n", "aes": aesKey + "\n" + "zyxwvutsrqponmlkjihgfedcba9876543210ZYXWVUT\n", "vault": "# of 2026\n" + vaultKey + "\n", "short": "abc",
	"nothing": "# none\n\n", "mysql": "mysql://user:HUSH@host/db\n", "postgres": "postgresql://user:HUSH@host/db\n",
}

const platformKeys = `vault: {key_file: DIR/vault}
redis: {url: redis://r}
platforms:
- id: wx134c8103faa5a59e
  kind: open_platform
  secret_file: DIR/shop
  token_file: DIR/token
  aes_key_file: DIR/aes
`

func TestAPlatformNeedsNoApp(t *testing.T) {
	f := newFolder(t)
	c, err := f.load("callback_listen: :7202\n"+platformKeys+"  alias: shops\n  idle: 30m\n  forward: http://app:8080/wechat/\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Platforms[0]
	if p.ID != "wx134c8103faa5a59e" || p.Alias != "shops" || p.Idle != 30*time.Minute || p.APIBase != config.DefaultWeChatBase || p.Envelope == nil || p.Echo != p.Envelope || len(c.Apps) != 0 ||
		p.Forward != "http://app:8080/wechat" || c.CallbackListen != ":7202" || len(c.Warnings) != 0 {
		t.Errorf("%+v", p)
	}
	c, err = f.load("vault: {key_file: DIR/vault, volatile: true}\nredis: {url: redis://r}\nplatforms:\n- {id: ww1, kind: wecom_suite, corpid: wwprovider, secret_file: DIR/shop, token_file: DIR/token, aes_key_file: DIR/aes}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Platforms[0]; p.APIBase != config.DefaultWeComBase || p.Idle != config.DefaultIdle || p.Echo == p.Envelope || !c.Vault.Volatile {
		t.Errorf("%+v", p)
	}
}

// A provider needs neither a vault nor a callback, and its corp may have agents of its own.
func TestAProvider(t *testing.T) {
	c, err := newFolder(t).load("redis: {url: redis://r}\napps: [{id: ww1, agent: '1', platform: wecom, secret_file: DIR/shop}]\nplatforms:\n- {id: ww1, kind: wecom_provider, alias: p, secret_file: DIR/shop}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Platforms[0]; p.APIBase != config.DefaultWeComBase || p.Secret.Empty() || p.HasAccounts() || p.Envelope != nil {
		t.Errorf("%+v", p)
	}
}

func TestPlatformMistakes(t *testing.T) {
	other := func(key, value string) string { return platformKeys + "  " + key + ": " + value + "\n" }
	checkMistakes(t, []mistakeCase{
		{"kind", "vault: {key_file: DIR/vault}\nredis: {url: redis://r}\nplatforms:\n- {id: wx1, kind: other, secret_file: DIR/shop, token_file: DIR/token, aes_key_file: DIR/aes}\n",
			"platforms[0].kind: must be one of open_platform, wecom_suite, wecom_dk, wecom_provider"},
		{"nothing", "redis: {url: redis://r}\nplatforms:\n- {alias: a}\n", `platforms[0].id: missing: the platform's appid, the suite's id, or the provider's corpid
platforms[0].kind: missing: open_platform, wecom_suite, wecom_dk, wecom_provider
platforms[0].secret_file: missing: name a file that holds the platform's secret
platforms[0].token_file: missing: name a file that holds the Token of the callback
platforms[0].aes_key_file: missing: name a file that holds the EncodingAESKey of the callback; a second line may hold the previous one
vault.key_file: missing: name a file with a key that seals what WeChat gives only once, as of: openssl rand -base64 32`},
		{"an AES key that is none", "vault: {key_file: DIR/vault}\nredis: {url: redis://r}\nplatforms:\n- {id: wx1, kind: open_platform, secret_file: DIR/shop, token_file: DIR/token, aes_key_file: DIR/short}\n",
			"platforms[0].aes_key_file: DIR/short: wechat: EncodingAESKey 1 of 1 is not one of 43 letters and digits"},
		{"a vault key that is none", "vault: {key_file: DIR/short}\nredis: {url: redis://r}\nplatforms:\n- {id: wx1, kind: open_platform, secret_file: DIR/shop, token_file: DIR/token, aes_key_file: DIR/aes}\n",
			"vault.key_file: DIR/short: line 1 is not a key of 32 bytes in base64: make one with openssl rand -base64 32"},
		{"a database that is none", "vault: {key_file: DIR/vault, url_file: DIR/url}\nredis: {url: redis://r}\nplatforms:\n- {id: wx1, kind: open_platform, secret_file: DIR/shop, token_file: DIR/token, aes_key_file: DIR/aes}\n",
			"vault.url_file: DIR/url: must hold a URL that begins with postgres:// or mysql://"},
		{"a vault that nothing needs", "vault: {key_file: DIR/vault}\n" + rest, "vault: no platform is configured that needs it: remove it"},
		{"corpid", other("corpid", "ww1"), "platforms[0].corpid: belongs to platforms of WeCom: remove it"},
		{"pushes of a provider", "redis: {url: redis://r}\nplatforms:\n- {id: ww1, kind: wecom_provider, secret_file: DIR/shop, token_file: DIR/token, idle: 2h}\n",
			`platforms[0].token_file: belongs to what accounts authorise: a provider has a token, and neither accounts nor pushes: remove it
platforms[0].idle: belongs to what accounts authorise: a provider has a token, and neither accounts nor pushes: remove it`},
		{"a vault for a provider", "vault: {key_file: DIR/vault}\nredis: {url: redis://r}\nplatforms:\n- {id: ww1, kind: wecom_provider, secret_file: DIR/shop}\n", "vault: no platform is configured that needs it: remove it"},
		{"a suite named as a corp", "vault: {key_file: DIR/vault}\nredis: {url: redis://r}\napps: [{id: ww1, agent: '1', platform: wecom, secret_file: DIR/shop}]\nplatforms:\n- {id: ww1, kind: wecom_suite, corpid: ww2, secret_file: DIR/shop, token_file: DIR/token, aes_key_file: DIR/aes}\n",
			"platforms[0].id: another app or platform has this name: a name leads to one of them"},
		{"idle", other("idle", "1s"), "platforms[0].idle: needs a duration of 1m to 168h, with its unit, such as 2h"},
		{"a listener that nothing needs", "callback_listen: :7202\n" + rest, "callback_listen: no platform is configured that needs it: remove it"},
		{"a listener twice", "callback_listen: 127.0.0.1:7200\n" + platformKeys, "callback_listen: must differ from listen, ops_listen and tls_listen"},
		{"a listener that is none", "callback_listen: 7202\n" + platformKeys, "callback_listen: must be host:port or unix:/path, as in 127.0.0.1:7200"},
		{"forward", other("forward", "app:8080"), "platforms[0].forward: must be an absolute URL, such as http://app:8080/wechat"},
		{"forward with a query", other("forward", "http://app/?a=b"), "platforms[0].forward: must be a URL without user, query and fragment"},
		{"one name for two", other("alias", "wx01") + "apps: [{id: wx01, secret_file: DIR/shop}]\n", "platforms[0].alias: another app or platform has this name: a name leads to one of them"},
		{"an inline secret", other("secret", "HUSH"), "platforms[0].secret: secrets are not read from this file: use secret_file, or secret_env for an environment variable (line 9)"},
	})
}

// The files of a platform are secrets: what is wrong with one is said by its name, never by what it
// holds.
func TestMistakesInTheFilesOfAPlatform(t *testing.T) {
	with := func(file, instead string) string {
		return strings.Replace(platformKeys, "DIR/"+file+"\n", instead+"\n", 1)
	}
	checkMistakes(t, []mistakeCase{
		{"a token that is gone", with("token", "DIR/gone"), "platforms[0].token_file: DIR/gone: no such file: create it or correct the path"},
		{"keys that are gone", with("aes", "DIR/gone"), "platforms[0].aes_key_file: DIR/gone: no such file: create it or correct the path"},
		{"keys that are none", with("aes", "DIR/nothing"), "platforms[0].aes_key_file: DIR/nothing: empty"},
		{"a vault key that is gone", strings.Replace(platformKeys, "DIR/vault", "DIR/gone", 1), "vault.key_file: DIR/gone: no such file: create it or correct the path"},
		{"a vault key in no file", strings.Replace(platformKeys, "DIR/vault", "DIR/nothing", 1), "vault.key_file: DIR/nothing: there is no key in it: make one with openssl rand -base64 32"},
		{"a name of no platform", strings.Replace(platformKeys, "id: wx134c8103faa5a59e", "id: 'wx1:wx2'", 1), "platforms[0].id: must be 1 to 64 letters, digits and . _ -"},
		{"an alias that is none", platformKeys + "  alias: a/b\n", "platforms[0].alias: must be 1 to 64 letters, digits and . _ -"},
		{"an empty platform", "vault: {key_file: DIR/vault}\nredis: {url: redis://r}\nplatforms:\n-\n", "platforms[0]: is empty (line 4)"},
		{"two of one name", platformKeys + platformKeys[strings.Index(platformKeys, "- id"):], "platforms[1].id: another app or platform has this name: a name leads to one of them"},
	})
}

// A database of either kind may hold the vault.
func TestAVaultInADatabase(t *testing.T) {
	for _, name := range []string{"mysql", "postgres"} {
		c, err := newFolder(t).load(strings.Replace(platformKeys, "DIR/vault}", "DIR/vault, url_file: DIR/"+name+"}", 1), nil)
		if err != nil || !strings.HasPrefix(c.Vault.URL.Reveal(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
