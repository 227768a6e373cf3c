package vaultcmd

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	open  = "wx134c8103faa5a59e" // a platform with the alias shops
	suite = "ww4asuite"
	// planted begins every secret of these tests.
	planted = "CANARY-"
)

// rig is a configuration, with the vault that it names and a WeChat.
type rig struct {
	*testing.T
	dir     string
	sim     *wechattest.Server
	rdb     *redis.Client
	secrets []string // which no output may hold
}

// newRig makes a rig whose Redis is at addr.
func newRig(t *testing.T, addr string) *rig {
	x := &rig{T: t, dir: t.TempDir(), sim: wechattest.New(), rdb: redis.NewClient(&redis.Options{Addr: addr})}
	t.Cleanup(func() { _ = x.rdb.Close() })
	upstream := httptest.NewServer(x.sim)
	t.Cleanup(upstream.Close)
	x.sim.AddPlatform(wechattest.Platform{ID: open, Secret: planted + "app-secret", Token: planted + "token", AESKey: strings.Repeat("A", 43), Callback: upstream.URL})
	x.write("secret", planted+"app-secret")
	x.write("token", planted+"token")
	x.write("aes", strings.Repeat("A", 43))
	x.write("keys", vaulttest.Key)
	x.write("config.yaml", strings.NewReplacer("DIR", x.dir, "REDIS", addr, "UPSTREAM", upstream.URL, "OPEN", open, "SUITE", suite).Replace(`
redis: {url: redis://REDIS}
vault: {key_file: DIR/keys, volatile: true}
platforms:
  - {id: OPEN, kind: open_platform, alias: shops, secret_file: DIR/secret, token_file: DIR/token, aes_key_file: DIR/aes, api_base: UPSTREAM}
  - {id: SUITE, kind: wecom_suite, corpid: wwprovider, secret_file: DIR/secret, token_file: DIR/token, aes_key_file: DIR/aes, api_base: UPSTREAM}
`))
	x.secrets = []string{planted, vaulttest.Key, vaulttest.OtherKey, strings.Repeat("A", 43)}
	return x
}

// onBoth runs a test with a miniredis, and with a real redis-server.
func onBoth(t *testing.T, test func(x *rig)) {
	t.Run("miniredis", func(t *testing.T) { test(newRig(t, miniredis.RunT(t).Addr())) })
	t.Run("redis-server", func(t *testing.T) { test(newRig(t, tokencachetest.RedisServer(t, "--appendonly", "yes"))) })
}

func (x *rig) write(name, content string) {
	x.Helper()
	if err := os.WriteFile(filepath.Join(x.dir, name), []byte(content), 0o600); err != nil {
		x.Fatal(err)
	}
}

// run runs the command, and returns what it printed on stdout. It fails the test if the exit status
// is another one, if stdout or stderr lacks what they must say, or if any of it is secret.
func (x *rig) run(status int, stdin, onStdout, onStderr string, args ...string) string {
	x.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string {
		return map[string]string{"WXTOKEN_CONFIG": filepath.Join(x.dir, "config.yaml")}[name]
	}
	got := cli.Run(x.Context(), []cli.Command{Command(strings.NewReader(stdin))}, append([]string{"vault"}, args...), getenv, &stdout, &stderr)
	if got != status || !strings.Contains(stdout.String(), onStdout) || !strings.Contains(stderr.String(), onStderr) {
		x.Errorf("%q: exit status %d, want %d, with %q on stdout and %q on stderr\n%s\n%s", args, got, status, onStdout, onStderr, &stdout, &stderr)
	}
	if form := secrettest.Find(stdout.String()+stderr.String(), x.secrets...); form != "" {
		x.Errorf("%q: the output holds a secret: %s", args, form)
	}
	return stdout.String()
}

// vault opens the vault as a sidecar with these keys does.
func (x *rig) vault(keys ...string) *vault.Vault {
	if len(keys) == 0 {
		keys = []string{vaulttest.Key}
	}
	return vault.New(vault.NewRedis(x.rdb, config.DefaultNamespace), vaulttest.Keys(x, keys...))
}

func (x *rig) save(r vault.Record) vault.Record {
	x.Helper()
	saved, err := x.vault().Save(x.Context(), r)
	if err != nil {
		x.Fatal(err)
	}
	return saved
}

func (x *rig) load(platform, id string, keys ...string) vault.Record {
	x.Helper()
	r, err := x.vault(keys...).Load(x.Context(), platform, id)
	if err != nil {
		x.Fatal(err)
	}
	return r
}

// fill puts n accounts into the vault of the platform, besides a ticket, a code, and one that has
// withdrawn.
func (x *rig) fill(n int) {
	x.Helper()
	for i := range n {
		x.save(vault.Record{Platform: open, ID: fmt.Sprintf("wx%d", i), State: vault.StateActive, Secret: secret.New(fmt.Sprint(planted, i)), Order: int64(1_700_000_000 + i), Info: []byte(planted)})
	}
	x.save(vault.Record{Platform: open, ID: "wxgone", State: vault.StateWithdrawn, Order: 1_800_000_000})
	x.save(vault.Record{Platform: open, ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New(planted + "ticket")})
	code := secret.New(planted + "code")
	x.save(vault.Record{Platform: open, ID: vault.CodeID(code), State: vault.StateReceived, Secret: code})
}

// authorize lets accounts authorise the platform, and exchanges their codes as a sidecar does. The
// vault must have a ticket.
func (x *rig) authorize(ids ...string) {
	x.Helper()
	cfg, err := config.Load(config.Overrides{Config: filepath.Join(x.dir, "config.yaml")}, func(string) string { return "" })
	if err != nil {
		x.Fatal(err)
	}
	s := &session{cfg: cfg}
	defer s.close()
	if err := s.open(""); err != nil {
		x.Fatal(err)
	}
	p, err := s.platform(cfg.Platforms[0], nil)
	if err != nil {
		x.Fatal(err)
	}
	for _, id := range ids {
		if out, err := p.Exchange(x.Context(), secret.New(x.sim.Authorize(open, id))); err != nil || out.State != vault.StateDone {
			x.Fatal(out, err)
		}
	}
}
