package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// rest completes a file whose mistake is elsewhere.
const rest = "redis: {url: redis://r}\napps: [{id: wx01, secret_file: DIR/shop}]\n"

// one is a file with one app that has more keys.
func one(keys string) string {
	return "redis: {url: redis://r}\napps:\n- id: wx01\n" + keys
}

func TestShapeMistakes(t *testing.T) {
	checkMistakes(t, []mistakeCase{
		{"unknown key", "listn: x\n" + rest, `listn: unknown key (line 1); did you mean "listen"?`},
		{"hyphen and case", "Ops-Listen: x\n" + rest, `Ops-Listen: unknown key (line 1); did you mean "ops_listen"?`},
		{"nothing near", "colour: x\n" + rest, `colour: unknown key (line 1)`},
		{"unknown key of an app", one("  secret_fil: /x\n"), `apps[0].secret_fil: unknown key (line 4); did you mean "secret_file"?`},
		{"appid", "redis: {url: redis://r}\napps:\n- appid: wx01\n  secret_file: DIR/shop\n", `apps[0].appid: unknown key (line 3); did you mean "id"?`},
		{"a secret that lost its key", one("  {secret:0123456789abcdef0123456789abcdef}\n"), "wxtoken.yaml: is not YAML: line 4: could not find expected ':'"},
		{"a secret as a key", one("  secret:0123456789abcdef0123456789abcdef:\n"), "apps[0].?: unknown key (line 4)"},
		{"inline secret", one("  secret: HUSH\n"), "apps[0].secret: secrets are not read from this file: use secret_file, or secret_env for an environment variable (line 4)"},
		{"inline bearer", "bearer_token: HUSH\n" + rest, "bearer_token: secrets are not read from this file: use bearer_token_file (line 1)"},
		{"inline password", "redis: {url: redis://r, password: HUSH}\napps: [{id: wx01, secret_file: DIR/shop}]",
			"redis.password: secrets are not read from this file: use url_file for a URL with its password, or the variable REDIS_URL (line 1)"},
		{"twice", "namespace: a\nlisten: 127.0.0.1:1\nnamespace: b\n" + rest, "namespace: is given twice (lines 1 and 3)"},
		{"number for a duration", one("  secret_file: DIR/shop\n  margin: 60\n"), "apps[0].margin: needs a duration with its unit, such as 90s or 1m30s (line 5)"},
		{"text for a number", one("  secret_file: DIR/shop\n  fetches_per_day: many\n"), "apps[0].fetches_per_day: needs a whole number, 0 or more (line 5)"},
		{"negative number", one("  secret_file: DIR/shop\n  reports_per_day: -1\n"), "apps[0].reports_per_day: needs a whole number, 0 or more (line 5)"},
		{"text for a bool", "allow_remote: \"true\"\n" + rest, "allow_remote: needs true or false (line 1)"},
		{"bool for a text", one("  secret_file: DIR/shop\n  probe: false\n"), "apps[0].probe: needs a text (line 5)"},
		{"text for a list", one("  secret_file: DIR/shop\n  tickets: jsapi\n"), "apps[0].tickets: needs a list (line 5)"},
		{"list for a text", one("  secret_file: [HUSH]\n"), "apps[0].secret_file: needs a text (line 4)"},
		{"text for keys", "redis: redis://:HUSH@r\napps: [{id: wx01, secret_file: DIR/shop}]", "redis: needs keys and values (line 1)"},
		{"mapping for a list", "redis: {url: redis://r}\napps: {id: wx01}", "apps: needs a list (line 2)"},
		{"empty item", "redis: {url: redis://r}\napps:\n-\n", "apps[0]: is empty (line 3)"},
		{"reference", "namespace: &n ns\nlisten: *n\n" + rest, "listen: needs a text (line 2): references such as *name are not supported, write the value out"},
		{"merge", one("  <<: {secret_file: DIR/shop}\n"), "apps[0].<<: merge keys are not supported: write the keys out (line 4)"},
		{"key that is no word", one("  secret_file: DIR/shop\n  [a]: b\n"), "apps[0].?: unknown key (line 5)"},
		{"reference as a key", "namespace: &HUSH ns\n*HUSH : x\n" + rest, "?: unknown key (line 2)"},
		{"no follow-ups", "listen: :7200\nalow_remote: true\nredis: {uri: x}\napp: []", `alow_remote: unknown key (line 2); did you mean "allow_remote"?
redis.uri: unknown key (line 3); did you mean "url"?
app: unknown key (line 4); did you mean "apps"?`},
		{"root", "HUSH", `wxtoken.yaml: must hold keys and values, as in "namespace: wxtoken"`},
		{"syntax", "redis: {url\n- HUSH: [", "wxtoken.yaml: is not YAML: line 1: did not find expected ',' or '}'"},
		{"anchor", one("  secret: *HUSH\n"), "wxtoken.yaml: is not YAML: unknown anchor [...] referenced"},
		{"two documents", rest + "---\n" + rest, "wxtoken.yaml: holds more than one YAML document: keep one of them"},
	})
}

func TestValueMistakes(t *testing.T) {
	const noApp = "apps: no app is configured: set WECHAT_APPID, and WECHAT_SECRET or WECHAT_SECRET_FILE, for one app; or name a file with a list of apps in --config or WXTOKEN_CONFIG"
	const noRedis = "redis.url: missing: set REDIS_URL or redis.url, for example to redis://redis:6379/0"
	const name = "must be 1 to 64 letters, digits and . _ -"
	shop := func(keys string) string { return one("  secret_file: DIR/shop\n" + keys) }
	checkMistakes(t, []mistakeCase{
		{"empty file", "", noRedis + "\n" + noApp},
		{"comments", "# nothing\n", noRedis + "\n" + noApp},
		{"null", "~\n", noRedis + "\n" + noApp},
		{"no apps", "redis: {url: redis://r}\napps: []\n", noApp},
		{"namespace", "namespace: a{b}\n" + rest, "namespace: must be 1 to 64 letters, digits and . _ - :"},
		{"log", "log: {level: loud, format: xml}\n" + rest, "log.level: must be one of debug, info, warn, error\nlog.format: must be one of auto, json, console"},
		{"drain", "drain: {max: 20, quiet: -1s}\nquit: maybe\n" + rest, "quit: needs true or false (line 2)\ndrain.max: needs a duration of 0s to 1h0m0s, with its unit, such as 90s\n" +
			"drain.quiet: needs a duration of 0s to 1h0m0s, with its unit, such as 90s"},
		{"tls without a listener", "tls_trust_dir: /t\n" + rest, "tls_trust_dir: is given, but not tls_listen, to which it belongs"},
		{"tls on a socket", "tls_listen: unix:/run/s\ntls_trust_dir: t\n" + rest, "tls_listen: must be host:port, as in 127.0.0.1:443\ntls_trust_dir: must be an absolute path"},
		{"tls for other hosts", "tls_listen: :443\ntls_trust_dir: /t\n" + rest,
			"tls_listen: other hosts can reach this address: use a loopback host, or give both allow_remote: true and bearer_token_file"},
		{"tls on a taken address", "tls_listen: 127.0.0.1:7200\ntls_trust_dir: /t\n" + rest, "tls_listen: must differ from listen and ops_listen"},
		{"tls without trust", "tls_listen: 127.0.0.1:443\n" + rest,
			"tls_trust_dir: missing: name a directory that the apps share with the sidecar, for what they have to trust; or give tls_cert_file and tls_key_file"},
		{"tls with half a certificate", "tls_listen: 127.0.0.1:443\ntls_cert_file: /c\n" + rest, "tls_cert_file: is given without tls_key_file"},
		{"tls with a certificate and an authority", "tls_listen: 127.0.0.1:443\ntls_cert_file: /c\ntls_key_file: /k\ntls_state_dir: /s\n" + rest,
			"tls_state_dir: belongs to the sidecar's own authority, but tls_cert_file is given: remove one of them"},
		{"tls with its key in the open", "tls_listen: 127.0.0.1:443\ntls_trust_dir: /t\ntls_state_dir: /t\n" + rest,
			"tls_state_dir: must differ from tls_trust_dir: it holds a key, which no app may see"},
		{"metrics_apps", "metrics_apps: -1\n" + rest, "metrics_apps: needs a whole number, 0 or more"},
		{"missing id and secret", "redis: {url: redis://r}\napps: [{alias: x}]", "apps[0].id: missing: the appid, or the corpid of a WeCom corporation\n" +
			"apps[0].secret_file: missing: name a file that holds the secret, or an environment variable in secret_env"},
		{"id", "redis: {url: redis://r}\napps: [{id: 'a/b', alias: 'a b', secret_file: DIR/shop}]", "apps[0].id: " + name + "\napps[0].alias: " + name},
		{"dots", "redis: {url: redis://r}\napps: [{id: .., secret_file: DIR/shop}]", "apps[0].id: " + name},
		{"ids", "redis: {url: redis://r}\napps: [{id: a, secret_file: DIR/shop}, {id: a, secret_file: DIR/shop}]", "apps[1].id: the same app as apps[0].id: give it once"},
		{"aliases", "redis: {url: redis://r}\napps: [{id: a, alias: x, secret_file: DIR/shop}, {id: b, alias: x, secret_file: DIR/shop}]",
			"apps[1].alias: the same as apps[0].alias: an alias names one app"},
		{"alias and id", "redis: {url: redis://r}\napps: [{id: a, alias: b, secret_file: DIR/shop}, {id: b, secret_file: DIR/shop}]",
			"apps[0].alias: the same as apps[1].id: an alias must differ from every id"},
		{"platform", shop("  platform: qq\n  agent: 1\n"), "apps[0].platform: must be one of wechat, wecom"},
		{"wechat", shop("  endpoint: x\n  agent: 1\n  tickets: [agent_config, jsapi, jsapi]\n  probe: x\n"),
			"apps[0].endpoint: must be one of stable_token, token\napps[0].agent: only apps with platform: wecom have an agent\n" +
				"apps[0].tickets[0]: must be one of jsapi, wx_card\napps[0].probe: must be one of getcallbackip, menu/get, off\napps[0].tickets: names a ticket twice"},
		{"wecom", shop("  platform: wecom\n  endpoint: token\n  tickets: [wx_card]\n  probe: menu/get\n"),
			"apps[0].endpoint: WeCom has no choice of endpoints: remove it\napps[0].agent: missing: each agent of a WeCom corporation has a secret of its own\n" +
				"apps[0].tickets[0]: must be one of jsapi, agent_config\napps[0].probe: must be one of getcallbackip, off"},
		{"agent", shop("  platform: wecom\n  agent: 'a:b'\n"), "apps[0].agent: " + name},
		{"margin", shop("  margin: 4m\n"), "apps[0].margin: must be 1s to 3m, or absent for the default"},
		{"negative margin", shop("  margin: -1s\n"), "apps[0].margin: must be 1s to 3m, or absent for the default"},
		{"relative base", shop("  api_base: api.weixin.qq.com\n"), "apps[0].api_base: must be an absolute URL, such as https://api.weixin.qq.com"},
		{"default app that is not there", shop("default_app: shoop\n"), "default_app: is neither an id (of WeCom, corpid:agent) nor an alias of an app that is configured here"},
		{"fallback that is no URL", shop("  api_fallbacks: [api2.weixin.qq.com]\n"), "apps[0].api_fallbacks[0]: must be an absolute URL, such as https://api.weixin.qq.com"},
		{"base of another kind", shop("  api_base: ftp://h\n"), "apps[0].api_base: must be an absolute URL, such as https://api.weixin.qq.com"},
		{"base with user", shop("  api_base: https://u:HUSH@h\n"), "apps[0].api_base: must be a URL without user, query and fragment"},
		{"base with query", shop("  api_base: https://h?secret=HUSH\n"), "apps[0].api_base: must be a URL without user, query and fragment"},
		{"two secrets", shop("  secret_env: X\n"), "apps[0].secret_file: apps[0].secret_env is given as well: remove one of them"},
		{"unset variable", one("  secret_env: HUSH\n"), "apps[0].secret_env: the environment variable that it names is empty or not set"},
		{"relative file", one("  secret_file: HUSH\n"), "apps[0].secret_file: must be the absolute path of a file that holds the secret"},
		{"no file", one("  secret_file: DIR/none\n"), "apps[0].secret_file: DIR/none: no such file: create it or correct the path"},
		{"directory", one("  secret_file: DIR\n"), "apps[0].secret_file: DIR: not a regular file"},
		{"empty secret", one("  secret_file: DIR/newline\n"), "apps[0].secret_file: DIR/newline: empty"},
		{"long secret", one("  secret_file: DIR/long\n"), "apps[0].secret_file: DIR/long: longer than 4096 bytes"},
		{"two lines", one("  secret_file: DIR/lines\n"),
			"apps[0].secret_file: DIR/lines: holds a space, a control character or a byte that is not ASCII: it must hold the secret and nothing else"},
		{"short bearer", "bearer_token_file: DIR/shop\n" + rest, "bearer_token_file: DIR/shop: shorter than 16 characters: fill it with, say, openssl rand -hex 32"},
		{"two urls", "redis: {url: redis://r, url_file: DIR/url}\napps: [{id: wx01, secret_file: DIR/shop}]", "redis.url_file: redis.url is given as well: remove one of them"},
		{"password in the file", "redis: {url: 'redis://:HUSH@r'}\napps: [{id: wx01, secret_file: DIR/shop}]",
			"redis.url: passwords are not read from this file: use url_file for a URL with its password, or the variable REDIS_URL"},
		{"bad url in a file", "redis: {url_file: DIR/shop}\napps: [{id: wx01, secret_file: DIR/shop}]", "redis.url_file: the URL must start with redis://, rediss:// or unix://"},
	})
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	checkMistakes(t, []mistakeCase{{"all", `
lisen: 127.0.0.1:1
namespace: "a b"
redis: {url: http://x}
apps:
- {id: wx01, secret_file: DIR/shop, tickets: [jsapi, x]}
- {id: wx02, secret_file: DIR/none}
- {id: wx03, endpoint: [], secret_env: NONE}
`, `lisen: unknown key (line 2); did you mean "listen"?
apps[2].endpoint: needs a text (line 8)
namespace: must be 1 to 64 letters, digits and . _ - :
redis.url: the URL must start with redis://, rediss:// or unix://
apps[0].tickets[1]: must be one of jsapi, wx_card
apps[1].secret_file: DIR/none: no such file: create it or correct the path
apps[2].secret_env: the environment variable that it names is empty or not set`}})
}

func TestEnvironmentMistakes(t *testing.T) {
	f := newFolder(t)
	file := f.write("wxtoken.yaml", strings.ReplaceAll(rest, "DIR", f.path))
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nothing", nil, "config: 2 mistakes\n" +
			"  redis.url: missing: set REDIS_URL or redis.url, for example to redis://redis:6379/0\n" +
			"  apps: no app is configured: set WECHAT_APPID, and WECHAT_SECRET or WECHAT_SECRET_FILE, for one app; or name a file with a list of apps in --config or WXTOKEN_CONFIG"},
		{"no secret", map[string]string{"REDIS_URL": "redis://r", "WECHAT_APPID": "wx01"},
			"config: WECHAT_SECRET: missing: set it, or WECHAT_SECRET_FILE to the path of a file that holds the secret"},
		{"two secrets", map[string]string{"REDIS_URL": "redis://r", "WECHAT_APPID": "wx01", "WECHAT_SECRET": "HUSH", "WECHAT_SECRET_FILE": "/x"},
			"config: WECHAT_SECRET_FILE: WECHAT_SECRET is given as well: remove one of them"},
		{"swapped", map[string]string{"REDIS_URL": "redis://r", "WECHAT_APPID": "wx01", "WECHAT_SECRET_FILE": "HUSH"},
			"config: WECHAT_SECRET_FILE: must be the absolute path of a file that holds the secret"},
		{"endpoint", map[string]string{"REDIS_URL": "redis://r", "WECHAT_APPID": "wx01", "WECHAT_SECRET": "HUSH", "WECHAT_ENDPOINT": "x"},
			"config: WECHAT_ENDPOINT: must be one of stable_token, token"},
		{"no appid", map[string]string{"WXTOKEN_CONFIG": file, "WECHAT_SECRET": "HUSH", "WECHAT_API_BASE": "https://h", "WECHAT_ENDPOINT": "token", "WECHAT_SECRET_FILE": "/x"},
			"config: 3 mistakes\n" +
				"  WECHAT_SECRET_FILE: is set, but not WECHAT_APPID, to which it belongs\n" +
				"  WECHAT_ENDPOINT: is set, but not WECHAT_APPID, to which it belongs\n" +
				"  WECHAT_API_BASE: is set, but not WECHAT_APPID, to which it belongs"},
		{"in the file as well", map[string]string{"WXTOKEN_CONFIG": file, "WECHAT_APPID": "wx01", "WECHAT_SECRET": "HUSH"},
			"config: WECHAT_APPID: the same app as apps[0].id: give it once"},
		{"no file", map[string]string{"WXTOKEN_CONFIG": "/none.yaml", "WXTOKEN_NAMESPACE": "{}"}, "config: 2 mistakes\n" +
			"  WXTOKEN_CONFIG: /none.yaml: no such file: create it or correct the path\n" +
			"  WXTOKEN_NAMESPACE: must be 1 to 64 letters, digits and . _ - :"},
	} {
		_, err := config.Load(config.Overrides{}, getenv(c.env))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.name, err, c.want)
		}
	}
}

func TestUnreadableFiles(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	f := newFolder(t)
	if err := os.Chmod(f.path+"/shop", 0); err != nil {
		t.Fatal(err)
	}
	_, err := f.load(rest, nil)
	want := "config: apps[0].secret_file: " + f.path + "/shop: permission denied: let the user that this program runs as read it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

type mistakeCase struct{ name, yaml, want string }

// checkMistakes loads each file and compares all lines of its error. In want DIR is the folder.
func checkMistakes(t *testing.T, cases []mistakeCase) {
	t.Helper()
	f := newFolder(t)
	f.write("newline", "\n")
	f.write("long", strings.Repeat("HUSH", 1025))
	f.write("lines", "HUSH\nHUSH\n")
	f.write("url", "redis://:pw@r")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.load(c.yaml, nil)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) == 1 {
				lines[0] = strings.TrimPrefix(lines[0], "config: ")
			} else {
				lines = lines[1:]
			}
			for i := range lines {
				lines[i] = strings.ReplaceAll(strings.TrimPrefix(lines[i], "  "), f.path, "DIR")
			}
			if diff := cmp.Diff(strings.Split(c.want, "\n"), lines); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), "HUSH") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
}
