package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

// What docs/platforms.md says for a move from WxJava works word for word, with the keys and
// the values that weixin-java-open 4.6.0 writes. Values of Redisson's own codecs are refused.
func TestTheDocumentedMoveFromWxJava(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bash", "jq", "redis-cli"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	store := rig.StartRedis(t)
	redis := store.Client()
	const refresh = "wechat_authorizer_refresh_token:" + rig.PlatformID + ":"
	for key, value := range map[string]string{
		refresh + "wxa1":                                             "refreshtoken@@@CANARY-1_-",
		"shop:" + refresh + "wxa2":                                   "refreshtoken@@@CANARY-2", // with a keyPrefix
		"wechat_authorizer_refresh_token:wx9:wxa3":                   "refreshtoken@@@CANARY-3", // of another platform
		"wechat_authorizer_access_token:" + rig.PlatformID + ":wxa1": "CANARY-access",
		"wechat_component_verify_ticket:" + rig.PlatformID:           "ticket@@@CANARY",
	} {
		if err := redis.Set(t.Context(), key, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	bin := t.TempDir()
	if err := os.Symlink(rig.Binary(t, rig.Raced), filepath.Join(bin, "sidecar")); err != nil {
		t.Fatal(err)
	}
	env := []string{"WXTOKEN_CONFIG=" + rig.New(t, store).AddPlatform().Config("command"), "REDIS_URL=" + store.URL(),
		"WXJAVA_REDIS=" + store.URL(), "PATH=" + bin + ":" + os.Getenv("PATH")}
	script := documented(t, "wechat_authorizer_refresh_token:$P")
	run := func(script, want string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail\n"+script)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || strings.Contains(string(out), "CANARY") {
			t.Errorf("%v, without %q:\n%s", err, want, out)
		}
	}
	run(script, "dry run: 2 added, 0 replaced, 0 unchanged, 0 kept\n")
	script = strings.ReplaceAll(script, " --dry-run", "")
	run(script, "2 added, 0 replaced, 0 unchanged, 0 kept\n")
	run(script, "0 added, 0 replaced, 2 unchanged, 0 kept\n")
	kept := vault.New(vault.NewRedis(redis, namespace), vaulttest.Keys(t, vaulttest.Key))
	for account, secret := range map[string]string{"wxa1": "refreshtoken@@@CANARY-1_-", "wxa2": "refreshtoken@@@CANARY-2"} {
		if r, err := kept.Load(t.Context(), rig.PlatformID, account); err != nil || r.Secret.Reveal() != secret {
			t.Errorf("%s: %+v, %v", account, r, err)
		}
	}
	if err := redis.Set(t.Context(), refresh+"wxa4", "\x04>\x17refreshtoken@@@CANARY-4", 0).Err(); err != nil {
		t.Fatal(err)
	}
	run(script, "refresh_token is not one line of plain letters")
}

// documented returns the script of docs/platforms.md that has a text in it.
func documented(t *testing.T, text string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/platforms.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(page), "```sh\n")[1:] {
		if script, _, _ := strings.Cut(block, "```"); strings.Contains(script, text) {
			return script
		}
	}
	t.Fatalf("docs/platforms.md has no script with %s", text)
	return ""
}
