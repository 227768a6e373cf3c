package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

const account = "wxba5fad812f8e6fb9"

// vaultCommand runs sidecar vault with a configuration, and returns what it printed. It must
// succeed, and print no secret.
func vaultCommand(t *testing.T, how rig.Build, env []string, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), rig.Binary(t, how), append([]string{"vault"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = append([]string{"PATH=" + os.Getenv("PATH")}, env...), strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("vault %q: %v\n%s\n%s", args, err, &stdout, &stderr)
	}
	if form := secrettest.Find(stdout.String()+stderr.String(), rig.PlatformSecrets...); form != "" {
		t.Errorf("vault %q prints a secret: %s", args, form)
	}
	return stdout.String()
}

// With the vault in PostgreSQL, a Redis that loses everything costs one fetch of each token: WeChat
// is asked for no list, no account and no code.
func TestAVaultInPostgreSQLOutlivesRedis(t *testing.T) {
	t.Parallel()
	store := rig.StartRedis(t)
	db := rig.StartPostgres(t)
	c := newCluster(t, store)
	c.Build = rig.SQL
	sim := c.Upstream.Server
	url := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(url, []byte(db.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	platform := c.AddPlatform("  url_file: " + url)
	env := []string{"WXTOKEN_CONFIG=" + platform.Config("command"), "REDIS_URL=" + store.URL()}
	db.Run(vaultCommand(t, rig.SQL, env, "", "schema"))

	p := c.Add(1)[0]
	stop := platform.StartPushes()
	token := func(p *rig.Sidecar, name string) bool {
		_, err := p.TokenOf(name)
		return err == nil
	}
	eventually(t, "the platform has a token", func() bool { return token(p, rig.PlatformID) })
	sim.Authorize(rig.PlatformID, account)
	eventually(t, "the account has a token", func() bool { return token(p, rig.PlatformAlias+":"+account) })
	stop()
	p.Kill()
	before := sim.Calls(rig.PlatformID).Paths
	store.Client().FlushAll(t.Context())

	p = c.Add(1)[0]
	eventually(t, "the account has a token again", func() bool { return token(p, rig.PlatformAlias+":"+account) })
	after := sim.Calls(rig.PlatformID).Paths
	for _, path := range []string{"api_get_authorizer_list", "api_get_authorizer_info", "api_query_auth", "api_start_push_ticket"} {
		if path = "/cgi-bin/component/" + path; after[path] != before[path] {
			t.Errorf("%s was called", path)
		}
	}
	if n := after["/cgi-bin/component/api_component_token"] - before["/cgi-bin/component/api_component_token"]; n != 1 {
		t.Errorf("%d fetches of the platform's token, want 1", n)
	}
	if list := vaultCommand(t, rig.SQL, env, "", "ls"); !regexp.MustCompile(account + ` +active `).MatchString(list) {
		t.Errorf("ls:\n%s", list)
	}
	backup := vaultCommand(t, rig.SQL, env, "", "export")
	db.Run("DELETE FROM wxtoken_vault")
	if did := vaultCommand(t, rig.SQL, env, backup, "import"); !strings.HasPrefix(did, "1 added,") {
		t.Errorf("import: %s", did)
	}
	eventually(t, "the account has a token after the restore", func() bool { return token(p, rig.PlatformAlias+":"+account) })
}
