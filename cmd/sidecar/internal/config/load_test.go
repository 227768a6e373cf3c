package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// equalSecrets compares secrets by content; a diff shows them redacted.
var equalSecrets = cmp.Options{cmp.Comparer(secret.String.Equal), cmpopts.IgnoreUnexported(config.Config{})}

// folder is a real directory with the files of one test.
type folder struct {
	t    *testing.T
	path string
}

func newFolder(t *testing.T) folder {
	t.Helper()
	f := folder{t, t.TempDir()}
	f.write("shop", "shop-secret\n")
	for name, text := range platformFiles {
		f.write(name, text)
	}
	f.write("corp", "corp-secret\r\n")
	f.write("bearer", "0123456789abcdef")
	return f
}

// write writes a file that only its owner may read, and returns its path.
func (f folder) write(name, content string) string {
	f.t.Helper()
	path := filepath.Join(f.path, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// load loads a file with the text yaml, in which DIR is the folder.
func (f folder) load(yaml string, env map[string]string) (*config.Config, error) {
	f.t.Helper()
	path := f.write("wxtoken.yaml", strings.ReplaceAll(yaml, "DIR", f.path))
	return config.Load(config.Overrides{Config: path}, getenv(env))
}

func getenv(m map[string]string) func(string) string {
	return func(name string) string { return m[name] }
}

func TestFileOfEverything(t *testing.T) {
	f := newFolder(t)
	got, err := f.load(`
listen: unix:/run/wxtoken/http.sock
ops_listen: :9000
namespace: prod:wxtoken
allow_remote: true
bearer_token_file: DIR/bearer
log: {level: debug, format: json}
drain: {max: 25s, quiet: 5s}
quit: true
kept_bodies: 1048576
metrics_apps: 50
redis: {url: redis://redis:6379/0}
default_app: shop
apps:
  - id: wx0123456789abcdef
    alias: shop
    endpoint: token
    api_base: https://gateway.example/wechat/
    api_fallbacks: [https://gateway2.example/]
    secret_file: DIR/shop
    tickets: [jsapi, wx_card]
    probe: menu/get
    margin: 1m30s
    fetches_per_day: 100
    reports_per_day: 10
    require_secret: true
  - id: ww0123
    platform: wecom
    agent: 1000002
    secret_env: CORP_SECRET
    tickets: [agent_config]
    probe: off
  - {id: wx-plain, secret_file: DIR/corp, alias: , margin: ~}
`, map[string]string{"CORP_SECRET": "from-env"})
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Listen: "unix:/run/wxtoken/http.sock", OpsListen: ":9000", Namespace: "prod:wxtoken", SocketMode: config.DefaultSocketMode,
		AllowRemote: true, Bearer: secret.New("0123456789abcdef"), BearerTokenFile: f.path + "/bearer",
		Log:   config.Log{Level: "debug", Format: "json"},
		Drain: config.Drain{Max: 25 * time.Second, Quiet: 5 * time.Second}, Quit: true, KeptBodies: 1 << 20, MetricsApps: 50,
		Redis:      config.Redis{URL: secret.New("redis://redis:6379/0"), Form: config.RedisSingle},
		DefaultApp: "wx0123456789abcdef",
		Apps: []config.App{{
			ID: "wx0123456789abcdef", Alias: "shop", Platform: "wechat", Endpoint: "token",
			APIBase: "https://gateway.example/wechat", APIFallbacks: []string{"https://gateway2.example"},
			Secret: secret.New("shop-secret"), SecretFile: f.path + "/shop",
			Tickets: []string{"jsapi", "wx_card"}, Probe: "menu/get", Margin: 90 * time.Second,
			FetchesPerDay: 100, ReportsPerDay: 10, RequireSecret: true,
		}, {
			ID: "ww0123", Agent: "1000002", Platform: "wecom", APIBase: "https://qyapi.weixin.qq.com",
			Secret: secret.New("from-env"), Tickets: []string{"agent_config"}, Probe: "off",
		}, {
			ID: "wx-plain", Platform: "wechat", Endpoint: "stable_token", APIBase: "https://api.weixin.qq.com",
			APIFallbacks: []string{"https://api2.weixin.qq.com"}, Secret: secret.New("corp-secret"), SecretFile: f.path + "/corp", Probe: "getcallbackip",
		}},
	}
	if diff := cmp.Diff(want, got, equalSecrets); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	if got, want := got.Apps[1].CredentialID(), "ww0123:1000002"; got != want {
		t.Errorf("CredentialID = %q, want %q", got, want)
	}
	if got, want := got.Apps[2].CredentialID(), "wx-plain"; got != want {
		t.Errorf("CredentialID = %q, want %q", got, want)
	}
}

// Secrets made with echo, and files of Windows, have something around their values.
func TestWhatIsAroundAValueIsTrimmed(t *testing.T) {
	f := newFolder(t)
	f.write("spaced", "\ufeffshop-secret \r\n\n")
	plain := map[string]string{
		"WECHAT_APPID": "wx01", "WECHAT_SECRET_FILE": f.path + "/spaced", "WECHAT_ENDPOINT": "token", "WECHAT_API_BASE": "https://h",
		"REDIS_URL": "redis://redis", "WXTOKEN_LISTEN": "127.0.0.1:1", "WXTOKEN_OPS_LISTEN": ":2", "WXTOKEN_NAMESPACE": "ns", "WXTOKEN_DRAIN": "1s",
		"WXTOKEN_LOG_LEVEL": "warn", "WXTOKEN_LOG_FORMAT": "json", "WXTOKEN_QUIT": "true",
	}
	want, err := config.Load(config.Overrides{}, getenv(plain))
	if err != nil {
		t.Fatal(err)
	}
	for _, around := range []string{"%s\n", "%s\r\n", " %s ", "\ufeff%s\n\n", "\t%s"} {
		env := map[string]string{}
		for name, value := range plain {
			env[name] = fmt.Sprintf(around, value)
		}
		got, err := config.Load(config.Overrides{}, getenv(env))
		if err != nil {
			t.Errorf("%q: %v", around, err)
			continue
		}
		if diff := cmp.Diff(want, got, equalSecrets); diff != "" {
			t.Errorf("%q (-want +got):\n%s", around, diff)
		}
	}
}

func TestEnvironmentAloneIsEnough(t *testing.T) {
	f := newFolder(t)
	want := &config.Config{
		Listen: "127.0.0.1:7200", OpsListen: ":7201", Namespace: "wxtoken", SocketMode: config.DefaultSocketMode,
		Log:        config.Log{Level: "info", Format: "auto"},
		Drain:      config.Drain{Max: 20 * time.Second, Quiet: time.Second},
		Redis:      config.Redis{URL: secret.New("redis://:pw@127.0.0.1"), Form: config.RedisSingle},
		DefaultApp: "wx01", MetricsApps: 200,
		Apps: []config.App{{
			ID: "wx01", Platform: "wechat", Endpoint: "stable_token", APIBase: "https://api.weixin.qq.com",
			APIFallbacks: []string{"https://api2.weixin.qq.com"},
			Secret:       secret.New("shop-secret"), Probe: "getcallbackip",
		}},
	}
	env := map[string]string{"WECHAT_APPID": "wx01", "WECHAT_SECRET": "shop-secret\n", "REDIS_URL": "redis://:pw@127.0.0.1"}
	got, err := config.Load(config.Overrides{}, getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equalSecrets); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}

	// The same with the secret in a file and the other choices made.
	env = map[string]string{
		"WECHAT_APPID": "wx01", "WECHAT_SECRET_FILE": f.path + "/shop", "WECHAT_ENDPOINT": "token", "WECHAT_TICKETS": "jsapi, wx_card\n",
		"WECHAT_API_BASE": "http://127.0.0.1:9", "REDIS_URL": "redis://:pw@127.0.0.1",
		"WXTOKEN_LISTEN": "[::1]:1", "WXTOKEN_OPS_LISTEN": "0.0.0.0:2", "WXTOKEN_NAMESPACE": "ns",
		"WXTOKEN_LOG_LEVEL": "warn", "WXTOKEN_LOG_FORMAT": "console",
		"WXTOKEN_DRAIN": "0s", "WXTOKEN_DRAIN_QUIET": "10s", "WXTOKEN_QUIT": "true", "WXTOKEN_METRICS_APPS": "0",
	}
	want.Drain, want.Quit, want.MetricsApps = config.Drain{Quiet: 10 * time.Second}, true, 0
	want.Listen, want.OpsListen, want.Namespace = "[::1]:1", "0.0.0.0:2", "ns"
	want.Log = config.Log{Level: "warn", Format: "console"}
	want.Apps[0].SecretFile, want.Apps[0].Endpoint, want.Apps[0].APIBase = f.path+"/shop", "token", "http://127.0.0.1:9"
	want.Apps[0].APIFallbacks, want.Apps[0].Tickets = nil, []string{"jsapi", "wx_card"}
	got, err = config.Load(config.Overrides{}, getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equalSecrets); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestFlagsGoOverEnvironmentOverFile(t *testing.T) {
	f := newFolder(t)
	path := f.write("wxtoken.yaml", strings.ReplaceAll(`
listen: 127.0.0.1:1
ops_listen: 127.0.0.1:1
namespace: file
log: {level: error, format: json}
redis: {url: redis://file}
apps: [{id: wxfile, secret_file: DIR/shop}]
`, "DIR", f.path))
	env := map[string]string{
		"WXTOKEN_CONFIG": path, "WXTOKEN_LISTEN": "127.0.0.1:2", "WXTOKEN_OPS_LISTEN": "127.0.0.1:3", "WXTOKEN_NAMESPACE": "env",
		"REDIS_URL": "redis://env", "WXTOKEN_LOG_LEVEL": "warn", "WXTOKEN_LOG_FORMAT": "console",
		"WECHAT_APPID": "wxenv", "WECHAT_SECRET": "s",
	}
	summary := func(c *config.Config) []string {
		return []string{c.Listen, c.OpsListen, c.Namespace, c.Redis.URL.Reveal(), c.Log.Level, c.Log.Format, c.Apps[0].ID, c.Apps[1].ID}
	}
	got, err := config.Load(config.Overrides{}, getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"127.0.0.1:2", "127.0.0.1:3", "env", "redis://env", "warn", "console", "wxfile", "wxenv"}
	if diff := cmp.Diff(want, summary(got)); diff != "" {
		t.Errorf("environment over file (-want +got):\n%s", diff)
	}

	env["WXTOKEN_CONFIG"] = "/nonexistent" // --config goes over it
	got, err = config.Load(config.Overrides{
		Config: path, Listen: "127.0.0.1:4", OpsListen: "127.0.0.1:5", Namespace: "flag",
		RedisURL: "redis://flag", LogLevel: "debug", LogFormat: "auto",
	}, getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	want = []string{"127.0.0.1:4", "127.0.0.1:5", "flag", "redis://flag", "debug", "auto", "wxfile", "wxenv"}
	if diff := cmp.Diff(want, summary(got)); diff != "" {
		t.Errorf("flags over environment (-want +got):\n%s", diff)
	}
}

func TestWarningsStopNothing(t *testing.T) {
	f := newFolder(t)
	if err := os.Chmod(f.path+"/shop", 0o644); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"WECHAT_APPID": "wx01", "WECHAT_SECRET_FILE": f.path + "/shop", "WECHAT_API_BASE": "http://gateway"}
	got, err := config.Load(config.Overrides{RedisURL: "redis://:pw@redis"}, getenv(env))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"--redis-url: the password and all tokens go to another host in clear: use rediss://, or a network that nothing else can read",
		"--redis-url: every user of this host can see the password in the list of processes: use REDIS_URL or redis.url_file",
		"WECHAT_API_BASE: http sends the secret and all tokens in clear: use https",
		"WECHAT_SECRET_FILE: " + f.path + "/shop: every user of this host may read it: chmod o-r",
	}
	if diff := cmp.Diff(want, got.Warnings); diff != "" {
		t.Errorf("Warnings (-want +got):\n%s", diff)
	}
}

func TestWhatGoesInClearIsWarnedOf(t *testing.T) {
	f := newFolder(t)
	const plain, unverified = "in clear: use rediss://", "with skip_verify an attacker on the way"
	for url, want := range map[string]string{
		"redis://:pw@redis:6379": plain, "redis://u:pw@10.0.0.1?addr=10.0.0.2:6379": plain, "redis://u:pw@127.0.0.1?addr=10.0.0.2:6379": plain,
		"redis://redis?master_name=m&password=pw": plain, "rediss://redis?skip_verify=true": unverified, "rediss://:pw@redis?skip_verify=1": unverified,
		"redis://redis:6379": "", "redis://:pw@127.0.0.1:6379": "", "redis://:pw@localhost": "", "redis://:pw@[::1]:6379": "", "unix://u:pw@/redis.sock": "",
		"rediss://:pw@redis": "", "rediss://:pw@redis?skip_verify=false": "",
	} {
		got, err := config.Load(config.Overrides{}, getenv(map[string]string{"WECHAT_APPID": "wx01", "WECHAT_SECRET": "s", "REDIS_URL": url}))
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if said := strings.Join(got.Warnings, "\n"); want == "" && said != "" || !strings.Contains(said, want) {
			t.Errorf("%s: warnings %q, want %q", url, said, want)
		}
	}
	bearer := f.path + "/bearer"
	if err := os.WriteFile(bearer, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	for listen, want := range map[string]bool{":7200": true, "10.0.0.1:7200": true, "127.0.0.1:7200": false, "unix:/run/v.sock": false} {
		file := f.path + "/remote.yaml"
		if err := os.WriteFile(file, []byte("allow_remote: true\nbearer_token_file: "+bearer+"\nlisten: \""+listen+"\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := config.Load(config.Overrides{Config: file}, getenv(map[string]string{"WECHAT_APPID": "wx01", "WECHAT_SECRET": "s", "REDIS_URL": "redis://redis"}))
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(got.Warnings, "\n"); strings.Contains(said, "this listener has no TLS") != want {
			t.Errorf("%s: warnings %q", listen, said)
		}
	}
}

func TestTheModeOfASocketIsASetting(t *testing.T) {
	for text, want := range map[string]fs.FileMode{"": 0o660, "0600": 0o600, "660": 0o660, "0o666": 0, "0666": 0o666, "0777": 0, "0640": 0, "rw": 0, "0060": 0} {
		env := map[string]string{"WECHAT_APPID": "wx01", "WECHAT_SECRET": "s", "REDIS_URL": "redis://redis", "WXTOKEN_LISTEN": "unix:/run/v.sock", "WXTOKEN_SOCKET_MODE": text}
		got, err := config.Load(config.Overrides{}, getenv(env))
		switch {
		case want == 0 && (err == nil || !strings.Contains(err.Error(), "WXTOKEN_SOCKET_MODE: must be 0600, 0660, 0606 or 0666")):
			t.Errorf("%q: %v", text, err)
		case want != 0 && (err != nil || got.SocketMode != want):
			t.Errorf("%q: %v, %v", text, got, err)
		case want == 0o666 && !strings.Contains(strings.Join(got.Warnings, ""), "every user that reaches the socket"):
			t.Errorf("%q: warnings %q", text, got.Warnings)
		}
	}
}

func TestErrorIsATypeWithPaths(t *testing.T) {
	_, err := config.Load(config.Overrides{Listen: "x"}, getenv(map[string]string{"REDIS_URL": "redis://r", "WECHAT_APPID": "wx01", "WECHAT_SECRET": "s"}))
	got, ok := errors.AsType[*config.Errors](err)
	if !ok {
		t.Fatalf("Load = %v", err)
	}
	want := []config.Mistake{{Path: "--listen", Text: "must be host:port or unix:/path, as in 127.0.0.1:7200"}}
	if diff := cmp.Diff(want, got.Mistakes); diff != "" {
		t.Errorf("Mistakes (-want +got):\n%s", diff)
	}
	if got, want := err.Error(), "config: --listen: must be host:port or unix:/path, as in 127.0.0.1:7200"; got != want {
		t.Errorf("Error = %q, want %q", got, want)
	}
}

func TestListenAddresses(t *testing.T) {
	f := newFolder(t)
	const (
		ok     = ""
		remote = "config: WXTOKEN_LISTEN: other hosts can reach this address: use a loopback host or unix:/path, or give both allow_remote: true and bearer_token_file"
		form   = "config: WXTOKEN_LISTEN: must be host:port or unix:/path, as in 127.0.0.1:7200"
		socket = "config: WXTOKEN_LISTEN: unix: needs an absolute path of at most 103 bytes, as in unix:/run/wxtoken/http.sock"
		allow  = "allow_remote: true\n"
		bearer = "bearer_token_file: DIR/bearer\n"
	)
	for _, c := range []struct{ listen, extra, want string }{
		{"127.0.0.1:0", "", ok},
		{"127.8.8.8:7200", "", ok},
		{"localhost:7200", "", ok},
		{"[::1]:7200", "", ok},
		{"[::ffff:127.0.0.1]:7200", "", ok},
		{"unix:/run/w.sock", "", ok},
		{":7200", "", remote},
		{"0.0.0.0:7200", "", remote},
		{"[::]:7200", "", remote},
		{"10.0.0.1:7200", "", remote},
		{"localhost.example:7200", "", remote},
		{":7200", allow, remote},
		{":7200", bearer, remote},
		{":7200", allow + bearer, ok},
		{"127.0.0.1:7200", bearer, ok},
		{"127.0.0.1", "", form},
		{"127.0.0.1:http", "", form},
		{"127.0.0.1:70000", "", form},
		{"http://127.0.0.1:7200", "", form},
		{"unix:w.sock", "", socket},
		{"unix:/" + strings.Repeat("x", 103), "", socket},
		{":7201", allow + bearer, "config: ops_listen: must differ from listen"},
	} {
		_, err := f.load(c.extra+"redis: {url: redis://r}\napps: [{id: wx01, secret_file: DIR/shop}]", map[string]string{"WXTOKEN_LISTEN": c.listen})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("listen %q, %q:\n got %s\nwant %s", c.listen, c.extra, got, c.want)
		}
	}
}
