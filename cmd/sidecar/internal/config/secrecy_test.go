package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// canary is the value of every secret. A WeChat secret has as many characters.
const canary = "HUSHc0ffee00c0ffee00c0ffee00HUSH"

func TestConfigPrintsWithoutSecrets(t *testing.T) {
	f := newFolder(t)
	c, err := f.load("bearer_token_file: "+f.write("b", canary)+"\nredis: {url_file: "+f.write("u", "redis://"+canary+":"+canary+"@r")+"}\n"+
		"apps: [{id: a, secret_file: "+f.write("s", canary)+"}, {id: b, secret_env: X}]", map[string]string{"X": canary})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{c, *c, c.Apps, c.Apps[0], c.Redis, &c.Redis} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			checkSecrecy(t, verb, fmt.Sprintf(verb, v))
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		checkSecrecy(t, "json", string(j))
		y, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		checkSecrecy(t, "yaml", string(y))
	}
}

func TestErrorsHoldNoSecretWhereverItIs(t *testing.T) {
	f := newFolder(t)
	const app = "redis: {url: redis://r}\napps:\n- id: wx01\n  secret_file: DIR/shop\n"
	for _, yaml := range []string{
		app + "  secret: " + canary, app + "  secret: [" + canary + "]", app + "  secret: *" + canary, app + "  secret: &" + canary,
		app + "  secret: !" + canary + " x", app + "  " + canary + ": x", app + "  " + canary, app + "  {secret:" + canary + "}",
		app + "  secret: !!int " + canary, app + "  margin: !!int " + canary, app + "  allow: !!binary " + canary,
		app + "  ? " + canary, app + "  : " + canary, app + "  secret: '" + canary, app + "  secret: |" + canary,
		app + "  alias: '" + canary + "/'", app + "  agent: " + canary, app + "  endpoint: " + canary, app + "  platform: " + canary,
		app + "  api_base: " + canary, app + "  api_base: https://x?" + canary, app + "  api_base: 'https://%" + canary + "'",
		app + "  tickets: " + canary, app + "  tickets: [" + canary + "]", app + "  probe: " + canary, app + "  margin: " + canary,
		app + "  fetches_per_day: " + canary, app + "  reports_per_day: [" + canary + "]", app + "  require_secret: " + canary,
		app + "  secret_env: " + canary, app + "<<: *" + canary, app + "  *" + canary + " : x", app + "%TAG ! " + canary,
		"apps: [{id: wx01, secret_file: " + canary + "}]", "apps: [{id: wx01, secret_env: " + canary + "}]", "apps: " + canary, canary,
		"redis: " + canary, "redis: {url: " + canary + "}", "redis: {url: 'redis://:" + canary + "@r/x'}", "redis: {url_file: " + canary + "}",
		"listen: " + canary, "ops_listen: " + canary, "namespace: '" + canary + "{'", "bearer_token_file: " + canary, "log: {level: " + canary + "}",
	} {
		_, err := f.load(yaml, nil)
		if err == nil {
			t.Errorf("no error for %q", yaml)
			continue
		}
		checkSecrecy(t, yaml, err.Error())
		checkSecrecy(t, yaml, fmt.Sprintf("%+v %#v", err, err))
	}
	for _, name := range []string{"WECHAT_APPID", "WECHAT_SECRET_FILE", "WECHAT_ENDPOINT", "WECHAT_API_BASE", "REDIS_URL",
		"WXTOKEN_LISTEN", "WXTOKEN_OPS_LISTEN", "WXTOKEN_NAMESPACE", "WXTOKEN_LOG_LEVEL", "WXTOKEN_LOG_FORMAT"} {
		env := map[string]string{"WECHAT_APPID": "wx01", "WECHAT_SECRET": canary, "REDIS_URL": "redis://r", name: canary + "\n{}"}
		_, err := config.Load(config.Overrides{}, getenv(env))
		if err == nil {
			t.Errorf("no error for %s", name)
			continue
		}
		checkSecrecy(t, name, err.Error())
	}
}

func checkSecrecy(t *testing.T, what, text string) {
	t.Helper()
	if form := secrettest.Find(text, canary, canary[:16]); form != "" {
		t.Errorf("%q: %s in %s", what, form, text)
	}
}

// FuzzParse gives any text as the file. It must not panic, and every error must come without the
// secrets, which stand in every file that the text names and wherever the text has SECRET.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		rest, one("  secret: SECRET\n"), one("  secret_file: /SECRET\n  margin: 5m\n  tickets: [jsapi]\n"),
		"log: {level: info}\nredis: {url: redis://:SECRET@r}\napps: [{id: 1, agent: 2, platform: wecom, secret_env: SECRET}]",
		"a: &a [*a, *SECRET]\n---\n<<: !!binary SECRET", "? [SECRET]\n: {SECRET: |\n  SECRET", "redis: {url: 'redis://u?SECRET=SECRET&master_name=SECRET'}",
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	path := dir + "/wxtoken.yaml"
	env := getenv(map[string]string{"REDIS_URL": "redis://:" + canary + "@r", "WECHAT_APPID": "wx01", "WECHAT_SECRET": canary})
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "HUSH") {
			return
		}
		// An absolute path is repeated, on purpose; no secret starts with a slash.
		text = strings.ReplaceAll(strings.ReplaceAll(text, "/SECRET", "SECRET"), "SECRET", canary)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Overrides{Config: path}, env)
		if err == nil {
			if len(c.Apps) == 0 || c.Redis.URL.Empty() {
				t.Fatalf("incomplete: %+v", c)
			}
			return
		}
		if secrettest.Find(err.Error(), canary) != "" && !strings.Contains(err.Error(), ": /") {
			t.Fatalf("%q: a secret in %v", text, err)
		}
	})
}
