package vaultcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.yaml.in/yaml/v3"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/vaultstore"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

func TestList(t *testing.T) {
	onBoth(t, func(x *rig) {
		x.fill(3)
		table := x.run(0, "", "shops ("+open+"), open_platform: 4 accounts, 1 code not exchanged yet, the newest ticket came just now, never compared", "", "ls")
		for _, want := range []string{suite + ", wecom_suite: 0 accounts, 0 codes not exchanged yet, there is no ticket", "AUTHORIZER", "2023-11-14T22:13:21Z"} {
			if !strings.Contains(table, want) {
				x.Errorf("no %q in\n%s", want, table)
			}
		}
		for i, line := range strings.Split(strings.TrimSpace(x.run(0, "", "", "", "ls", "shops", "--json")), "\n") {
			var a account
			if err := json.Unmarshal([]byte(line), &a); err != nil || a.Platform != open {
				x.Fatal(line, err)
			}
			want := account{open, fmt.Sprintf("wx%d", i-1), vault.StateActive, a.Saved, int64(1_700_000_000 + i - 1), 1, "kept"}
			if i == 4 {
				want = account{open, "wxgone", vault.StateWithdrawn, a.Saved, 1_800_000_000, 1, "none"}
			}
			if i > 0 && a != want || i == 0 && a.Authorizer != "" {
				x.Errorf("%s, want %+v", line, want)
			}
		}
		x.write("keys", vaulttest.OtherKey) // what no key opens is still shown
		x.run(0, "", "unreadable", "", "ls", open)
	})
}

// A backup is of use only with the key, and brings back all that a vault had.
func TestABackupIsRestored(t *testing.T) {
	onBoth(t, func(x *rig) {
		x.run(1, "", "", "the vault has no account", "export")
		x.fill(20)
		backup := x.run(0, "", `"authorizer":"wx19"`, "exported 21 accounts of 2 platforms", "export")
		if n := strings.Count(backup, "\n"); n != 21 {
			x.Errorf("%d lines", n)
		}
		x.run(0, backup, "dry run: 0 added, 0 replaced, 21 unchanged, 0 kept", "", "import", "--dry-run")
		x.rdb.FlushAll(x.Context())
		x.run(0, backup, "dry run: 21 added", "", "import", "--dry-run")
		if r := x.load(open, "wx7"); r.Rev != 0 {
			x.Errorf("a dry run wrote %+v", r)
		}
		x.write("keys", vaulttest.OtherKey)
		x.run(1, backup, "", "line 1: no key of vault.key_file opens it", "import")
		// With a new key on top, what is restored is sealed with it.
		x.write("keys", vaulttest.OtherKey+"\n"+vaulttest.Key)
		x.run(0, backup, "21 added, 0 replaced, 0 unchanged, 0 kept", "", "import")
		if r := x.load(open, "wx7", vaulttest.OtherKey); r.Secret.Reveal() != planted+"7" || r.Order != 1_700_000_007 || r.State != vault.StateActive || string(r.Info) != planted {
			x.Errorf("%+v", r)
		}
		if r := x.load(open, "wxgone", vaulttest.OtherKey); r.State != vault.StateWithdrawn || !r.Secret.Empty() {
			x.Errorf("%+v", r)
		}
		x.run(0, backup, "0 added, 0 replaced, 21 unchanged", "", "import")
	})
}

// pages is a store with so many accounts, which gives them page by page.
type pages struct {
	vaultstore.Store
	n, calls int
}

func (p *pages) List(_ context.Context, _, after string, n int) (rows []vault.Row, _ error) {
	p.calls++
	from := 0
	if after != "" {
		_, _ = fmt.Sscanf(after, "wx%d", &from)
		from++
	}
	for i := from; i < min(p.n, from+n); i++ {
		rows = append(rows, vault.Row{ID: fmt.Sprintf("wx%04d", i), Rev: 1})
	}
	return rows, nil
}

func TestEachAccountOfManyPages(t *testing.T) {
	for _, n := range []int{0, 1, pageSize, 2*pageSize + 1} {
		store, seen := &pages{n: n}, 0
		s := &session{store: store}
		err := s.each(t.Context(), open, func(row vault.Row) error {
			if row.ID != fmt.Sprintf("wx%04d", seen) || row.Platform != open {
				t.Fatalf("%d: %+v", seen, row)
			}
			seen++
			return nil
		})
		if err != nil || seen != n || store.calls != n/pageSize+1 {
			t.Errorf("%d of %d in %d calls, %v", seen, n, store.calls, err)
		}
	}
}

// A file has its name when it is whole, and an emptied vault does not replace it.
func TestABackupInAFile(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	x.fill(2)
	file := filepath.Join(x.dir, "backup", "vault.jsonl")
	x.run(1, "", "", "no such file or directory", "export", "--file", file)
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	x.run(0, "", "", "exported 3 accounts of 1 platform\n", "export", "shops", "--file", file)
	x.rdb.FlushAll(t.Context())
	x.run(1, "", "", "the vault has no account", "export", "--file", file)
	info, err := os.Stat(file)
	if left, _ := os.ReadDir(filepath.Dir(file)); err != nil || info.Mode().Perm() != 0o600 || len(left) != 1 {
		t.Errorf("%v, %v, %v", info, left, err)
	}
	x.run(0, "", "3 added", "", "import", "--file", file)
	x.run(1, "", "", "no such file", "import", "--file", file+"2")
	x.write("keys", vaulttest.OtherKey)
	x.run(1, "", `"sealed"`, "no key opens 3 of them", "export")
}

// One wrong line, and nothing is written; what is wrong is said, and no part of the line repeated.
func TestAWrongLineIsNotImported(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	const good = `{"platform":"shops","authorizer":"wx1","refresh_token":"CANARY-good"}`
	for name, c := range map[string]struct{ line, want string }{
		"no JSON":           {planted + "plain", "line 2: it is not a JSON object"},
		"an unknown key":    {`{"platform":"shops","authorizer":"wx2","refreshToken":"CANARY-x"}`, "line 2: it is not a JSON object"},
		"two on a line":     {good + good, "line 2: there is more than one JSON object"},
		"an unknown one":    {`{"platform":"CANARY-p","authorizer":"wx2","refresh_token":"CANARY-x"}`, "line 2: platform: no such platform is configured: there is " + open},
		"no account":        {`{"platform":"shops","authorizer":"CANARY:x","refresh_token":"CANARY-x"}`, "line 2: authorizer must be"},
		"an empty secret":   {`{"platform":"shops","authorizer":"wx2","refresh_token":""}`, "line 2: refresh_token is missing or empty"},
		"another kind's":    {`{"platform":"shops","authorizer":"wx2","permanent_code":"CANARY-x"}`, "line 2: an account of this platform has a refresh_token"},
		"a suite's":         {`{"platform":"` + suite + `","authorizer":"ww2","refresh_token":"CANARY-x"}`, "line 2: an account of this platform has a permanent_code"},
		"a serialized one":  {`{"platform":"shops","authorizer":"wx2","refresh_token":"\u0000\u0005CANARY-x"}`, "line 2: refresh_token is not one line of plain letters"},
		"a long one":        {`{"platform":"shops","authorizer":"wx2","refresh_token":"CANARY-` + strings.Repeat("x", 1000) + `"}`, "line 2: refresh_token is not one line of plain letters"},
		"milliseconds":      {`{"platform":"shops","authorizer":"wx2","refresh_token":"CANARY-x","order":1700000000000}`, "line 2: order must be a time of the past"},
		"twice":             {good, "line 2: it is about the same account as line 1"},
		"twice, by its id":  {strings.Replace(good, "shops", open, 1), "line 2: it is about the same account as line 1"},
		"both":              {`{"platform":"shops","authorizer":"wx2","refresh_token":"CANARY-x","sealed":"AAAA"}`, "line 2: it has a sealed and a plain secret"},
		"another seal":      {`{"platform":"shops","authorizer":"wx2","state":"active","sealed":"AAAA"}`, "line 2: no key of vault.key_file opens it"},
		"a state of a code": {`{"platform":"shops","authorizer":"wx2","state":"sent","sealed":"AAAA"}`, "line 2: state must be"},
		"too long":          {strings.Repeat(planted, longestLine), "line 2 is too long to be a record"},
		"a plain withdrawal": {`{"platform":"shops","authorizer":"wx2","state":"withdrawn","refresh_token":"CANARY-x"}`,
			"line 2: state of a plain line must be active"},
	} {
		x.run(1, good+"\n"+c.line+"\n", "", c.want, "import")
		if r := x.load(open, "wx1"); r.Rev != 0 {
			t.Errorf("%s: the line before it was written", name)
		}
	}
	x.run(1, "\n \n", "", "there is no line to import", "import")
	x.run(1, strings.Repeat("{\n", 100), "", "100 of 100 lines are wrong, and nothing was written", "import")
}

// Lines of another program are sealed. They fill what is missing, and replace what is older.
func TestPlainLinesAreSealed(t *testing.T) {
	onBoth(t, func(x *rig) {
		x.save(vault.Record{Platform: open, ID: "wx2", State: vault.StateActive, Secret: secret.New(planted + "here"), Order: 1_700_000_000})
		x.save(vault.Record{Platform: open, ID: "wx3", State: vault.StateActive, Secret: secret.New(planted + "here"), Order: 1_700_000_000})
		x.run(0, `{"platform":"shops","authorizer":"wx1","refresh_token":"CANARY-new"}
{"platform":"shops","authorizer":"wx2","refresh_token":"CANARY-new"}
{"platform":"shops","authorizer":"wx3","refresh_token":"CANARY-new","order":1700000001}
{"platform":"`+suite+`","authorizer":"ww1","permanent_code":"CANARY-code"}
`, "2 added, 1 replaced, 0 unchanged, 1 kept", "line 2: the vault has another secret of "+open+":wx2", "import")
		for _, c := range []struct{ platform, id, want string }{{open, "wx1", "new"}, {open, "wx2", "here"}, {open, "wx3", "new"}, {suite, "ww1", "code"}} {
			if r := x.load(c.platform, c.id); r.Secret.Reveal() != planted+c.want || r.State != vault.StateActive {
				x.Errorf("%s: %+v with %q", c.id, r, r.Secret.Reveal())
			}
		}
		if raw := x.rdb.HGetAll(x.Context(), config.DefaultNamespace+":{"+open+"}:vault").String(); len(raw) < 100 || strings.Contains(raw, planted) {
			x.Errorf("in Redis: %s", raw)
		}
	})
}

// All that is sealed is sealed again, so that the old key can be taken away.
func TestRekey(t *testing.T) {
	onBoth(t, func(x *rig) {
		x.fill(10)
		x.write("keys", vaulttest.OtherKey)
		x.run(1, "", "0 records sealed again", "no key opens 13 records", "rekey")
		x.write("keys", vaulttest.OtherKey+"\n"+vaulttest.Key)
		x.run(0, "", "13 records sealed again with the first key, 0 had been", "", "rekey")
		x.run(0, "", "0 records sealed again with the first key, 13 had been", "", "rekey", "shops")
		for _, id := range []string{"wx0", "wx9", "wxgone", vault.Ticket, vault.CodeID(secret.New(planted + "code"))} {
			if r := x.load(open, id, vaulttest.OtherKey); r.Rev != 2 {
				x.Errorf("%+v", r)
			}
		}
		if _, err := x.vault(vaulttest.Key).Load(x.Context(), open, "wx0"); !errors.Is(err, vault.ErrSealed) {
			x.Errorf("with the old key: %v", err)
		}
	})
}

// The vault has lost an account and holds an old secret of another one: WeChat has both.
func TestRecover(t *testing.T) {
	onBoth(t, func(x *rig) {
		x.save(vault.Record{Platform: open, ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New(x.sim.Ticket(open)), Order: time.Now().Unix()})
		x.authorize("wx1", "wx2")
		x.rdb.HDel(x.Context(), config.DefaultNamespace+":{"+open+"}:vault", "wx1")
		old := x.load(open, "wx2")
		old.State, old.Secret, old.Order = vault.StateRefused, secret.New(planted+"old"), 1
		x.save(old)
		x.save(vault.Record{Platform: open, ID: "wx3", State: vault.StateRefused, Secret: secret.New(planted + "3")})
		x.run(0, "", open+": compared with WeChat's list: 1 added, 1 replaced, 0 unchanged, 0 not in it\n"+
			open+": of 1 account that WeChat refused, it accepts 0 again\n", open+":wx3 is still refused: ", "recover", "shops")
		for _, id := range []string{"wx1", "wx2"} {
			if r := x.load(open, id); r.State != vault.StateActive || !x.sim.Accepts(open, id, r.Secret.Reveal()) {
				x.Errorf("%+v", r)
			}
		}
		if r := x.load(open, vault.Marker); r.State != vault.StateDone {
			x.Errorf("it is not noted: %+v", r)
		}
		// One that is refused although WeChat accepts it.
		well := x.load(open, "wx1")
		well.State = vault.StateRefused
		x.save(well)
		x.run(0, "", "of 2 accounts that WeChat refused, it accepts 1 again", "", "recover", open)
		x.run(0, "", "WeCom has no list of accounts", "", "recover", suite)
		for _, issue := range x.sim.Issued(open) {
			x.secrets = append(x.secrets, issue.Value)
		}
		x.run(0, "", "", "", "recover", open)
		x.rdb.FlushAll(x.Context())
		x.run(1, "", suite+": WeCom has no list", open+": ", "recover") // there is no ticket
	})
}

func TestForget(t *testing.T) {
	onBoth(t, func(x *rig) {
		x.fill(2)
		token := config.DefaultNamespace + ":{" + open + ":wx1}:access_token"
		x.rdb.Set(x.Context(), token, planted+"token", 0)
		x.run(1, "", "", "Type wx1 to go on: ", "forget", "shops:wx1")
		x.run(1, "yes\n", "", "not confirmed: nothing was changed", "forget", "shops:wx1")
		if r := x.load(open, "wx1"); r.State != vault.StateActive || r.Secret.Empty() {
			x.Errorf("%+v", r)
		}
		x.run(0, "wx1\n", open+":wx1 was active, and is withdrawn", "", "forget", "shops:wx1")
		if r := x.load(open, "wx1"); r.State != vault.StateWithdrawn || !r.Secret.Empty() || len(r.Info) > 0 {
			x.Errorf("%+v", r)
		}
		if n := x.rdb.Exists(x.Context(), token).Val(); n != 0 {
			x.Error("its token is still there")
		}
		x.run(0, "", open+":wx0 was active", "", "forget", "--yes", open+":wx0")
		x.run(1, "", "", "the vault has no account "+open+":wx9", "forget", open+":wx9", "--yes")
		x.run(1, "", "", "no such platform", "forget", "wx9:wx1", "--yes")
		x.run(1, "", "", "must be PLATFORM:AUTHORIZER", "forget", "wx1", "--yes")
	})
}

func TestSchemaAndAVaultInADatabase(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	x.run(1, "", "", "the vault is in Redis, which needs no schema", "schema")
	text, err := os.ReadFile(filepath.Join(x.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	x.write("url", "postgres://u:"+planted+"@127.0.0.1:1/db")
	x.write("config.yaml", strings.Replace(string(text), "vault: {", "vault: {url_file: "+x.dir+"/url, ", 1))
	if _, err := vaultstore.Schema(&config.Config{Vault: config.Vault{URL: secret.New("mysql://host/db")}}); err != nil {
		x.run(1, "", "", "built without vaults in PostgreSQL and MySQL: take the image whose tag ends with -sql, or build it with -tags sql", "schema")
		x.run(1, "", "", "-tags sql", "ls")
		return
	}
	x.run(0, "", "CREATE TABLE wxtoken_vault", "", "schema")
	x.run(1, "", "", "the database cannot be reached", "ls")
}

func TestWrongUsage(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	for _, c := range []struct {
		want string
		args []string
	}{
		{"name one of: export, forget, import, ls, recover, rekey, schema", nil},
		{"name one of", []string{planted}},
		{"ls takes no --yes", []string{"ls", "--yes"}},
		{"import takes no argument", []string{"import", planted}},
		{"forget needs an account", []string{"forget"}},
		{"3 arguments", []string{"ls", "a", "b"}},
	} {
		x.run(2, "", "", c.want, c.args...)
	}
	x.run(1, "", "", "no such platform is configured: there is "+open+", "+suite, "ls", planted)
	x.run(0, "", "usage: sidecar vault", "", "--help")
	if err := os.Remove(filepath.Join(x.dir, "secret")); err != nil {
		t.Fatal(err)
	}
	x.run(2, "", "", "secret_file", "ls")
	x.write("config.yaml", "redis: {url: redis://127.0.0.1:1}\napps:\n  - {id: wx1, secret_file: "+x.dir+"/token}\n")
	x.run(1, "", "", "no platform is configured", "ls")
}

// What does not answer is said, and a backup that stops halfway is a failure.
func TestAVaultThatIsAway(t *testing.T) {
	m := miniredis.RunT(t)
	x := newRig(t, m.Addr())
	m.Close()
	for _, args := range [][]string{{"ls"}, {"export"}, {"rekey"}, {"recover"}, {"forget", "--yes", "shops:wx1"}} {
		x.run(1, "", "", "vault: redis: ", args...)
	}
	x.run(1, `{"platform":"shops","authorizer":"wx1","refresh_token":"CANARY-new"}`, "", "line 1 may not have been written", "import")
}

// What the documents tell people to run is a use of the command, the CronJob's arguments as well.
func TestDocumentedUses(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	for _, page := range []string{"platforms.md", "platforms.zh-CN.md"} {
		text, err := os.ReadFile(filepath.Join("../../../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		_, job, _ := strings.Cut(string(text), "```yaml\napiVersion: batch/v1\n")
		job, _, _ = strings.Cut(job, "```")
		var manifest any
		args := regexp.MustCompile(`args: \[vault, (.*)\]`).FindStringSubmatch(job)
		if err := yaml.Unmarshal([]byte(job), &manifest); err != nil || args == nil {
			t.Fatalf("%s: the CronJob: %v, %q", page, err, args)
		}
		uses := []string{strings.ReplaceAll(args[1], ",", "")}
		for _, m := range regexp.MustCompile(`(?m)^sidecar vault ([^|#<\n]+)`).FindAllStringSubmatch(string(text), -1) {
			uses = append(uses, m[1])
		}
		if len(uses) != len(subcommands)+1 {
			t.Errorf("%s: %d uses: %q", page, len(uses), uses)
		}
		for _, use := range uses {
			var stdout, stderr strings.Builder
			getenv := func(string) string { return filepath.Join(x.dir, "none") } // so that only usage is judged
			cli.Run(t.Context(), []cli.Command{Command(strings.NewReader(""))}, append([]string{"vault"}, strings.Fields(use)...), getenv, &stdout, &stderr)
			if strings.Contains(stderr.String(), "see: sidecar vault --help") {
				t.Errorf("%s: %s: %s", page, use, &stderr)
			}
		}
	}
}
