package integration

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	thirdParty       = "wx134c8103faa5a59e"
	thirdPartySecret = "CANARY-platform-secret"
	callbackToken    = "CANARY-callback-token"
	aesKey           = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	account          = "wxba5fad812f8e6fb9"
)

// platformFiles writes the configuration of a third-party platform, and returns its path. more are
// lines of its section vault.
func platformFiles(t *testing.T, upstream, more string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"secret": thirdPartySecret, "token": callbackToken, "aes": aesKey, "keys": vaulttest.Key,
		"wxtoken.yaml": strings.NewReplacer("DIR", dir, "ID", thirdParty, "UPSTREAM", upstream).Replace(`
vault:
  key_file: DIR/keys
` + more + `
platforms:
  - {id: ID, kind: open_platform, alias: shops, secret_file: DIR/secret, token_file: DIR/token, aes_key_file: DIR/aes, api_base: UPSTREAM}
`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "wxtoken.yaml")
}

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
	if form := secrettest.Find(stdout.String()+stderr.String(), "CANARY-", vaulttest.Key, aesKey); form != "" {
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
	sim.AddPlatform(wechattest.Platform{ID: thirdParty, Secret: thirdPartySecret, Token: callbackToken, AESKey: aesKey, Callback: c.Upstream.URL})
	url := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(url, []byte(db.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"WXTOKEN_CONFIG=" + platformFiles(t, c.Upstream.URL+"/platform", "  url_file: "+url), "REDIS_URL=" + store.URL()}
	db.Run(vaultCommand(t, rig.SQL, env, "", "schema"))

	p := c.Add(1, env...)[0]
	sim.SetCallback(thirdParty, p.Base()+"v1/apps/"+thirdParty+"/callback")
	pushing, stop := context.WithCancel(t.Context())
	pushed := make(chan struct{})
	go func() { defer close(pushed); sim.RunPushes(pushing) }()
	token := func(p *rig.Sidecar, id string) bool {
		r, err := rig.HTTP.Get(p.Base() + "v1/apps/" + id + "/token")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode == http.StatusOK
	}
	eventually(t, "the platform has a token", func() bool { return token(p, thirdParty) })
	sim.Authorize(thirdParty, account)
	eventually(t, "the account has a token", func() bool { return token(p, "shops:"+account) })
	stop()
	<-pushed
	p.Kill()
	before := sim.Calls(thirdParty).Paths
	store.Client().FlushAll(t.Context())

	p = c.Add(1, env...)[0]
	eventually(t, "the account has a token again", func() bool { return token(p, "shops:"+account) })
	after := sim.Calls(thirdParty).Paths
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
	eventually(t, "the account has a token after the restore", func() bool { return token(p, "shops:"+account) })
	for _, p := range c.All {
		if form := secrettest.Find(p.Log.String(), "CANARY-", vaulttest.Key, aesKey); form != "" {
			t.Errorf("%s: a secret in the log: %s", p.Name, form)
		}
	}
}
