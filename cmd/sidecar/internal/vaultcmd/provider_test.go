package vaultcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

const provider = "wwprovider"

// withProvider adds a provider to the configuration.
func (x *rig) withProvider() {
	x.Helper()
	text, err := os.ReadFile(filepath.Join(x.dir, "config.yaml"))
	if err != nil {
		x.Fatal(err)
	}
	x.write("config.yaml", string(text)+"  - {id: "+provider+", kind: wecom_provider, secret_file: "+x.dir+"/secret}\n")
}

// A provider has no accounts: no subcommand looks for any, or says that its ticket is missing.
func TestAProviderIsNotInTheVault(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	x.withProvider()
	x.fill(1)
	if out := x.run(0, "", open, "", "ls"); strings.Contains(out, provider) {
		t.Errorf("ls shows the provider:\n%s", out)
	}
	x.run(0, "", "", "exported 2 accounts of 2 platforms", "export")
	x.run(1, "", "", "no such platform is configured", "ls", provider)
	x.run(1, "", "", "no such platform is configured", "forget", "--yes", provider+":ww1")
	x.run(1, `{"platform":"`+provider+`","authorizer":"ww1","permanent_code":"x"}`, "", "no such platform is configured", "import")
	x.write("config.yaml", "redis: {url: redis://r}\nplatforms: [{id: "+provider+", kind: wecom_provider, secret_file: "+x.dir+"/secret}]\n")
	x.run(1, "", "", "no platform is configured that has accounts", "ls")
}

// One record that no key opens keeps neither the others from being sealed again, nor the exit status
// from saying so. It is left as it is.
func TestARecordThatNoKeyOpensIsLeftAlone(t *testing.T) {
	x := newRig(t, miniredis.RunT(t).Addr())
	x.fill(3)
	strange := vault.New(vault.NewRedis(x.rdb, "wxtoken"), vaulttest.Keys(t, vaulttest.OtherKey))
	for _, r := range []vault.Record{
		{Platform: open, ID: "wxstrange", State: vault.StateActive, Secret: secret.New(planted + "strange")},
		{Platform: suite, ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New(planted + "strange")},
		{Platform: suite, ID: vault.Marker, State: vault.StateActive, Secret: secret.New(planted + "strange")},
	} {
		if _, err := strange.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	const third = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
	x.secrets = append(x.secrets, third)
	x.write("keys", third+"\n"+vaulttest.Key)
	x.run(1, "", "6 records sealed again with the first key, 0 had been", open+":wxstrange: no key opens its record", "rekey")
	x.run(1, "", "", suite+": the ticket: no key opens its record", "rekey", suite)
	x.run(1, "", "", suite+": the time of the last comparison: no key opens its record", "rekey", suite)
	if r := x.load(open, "wxstrange", vaulttest.OtherKey); r.Secret.Reveal() != planted+"strange" {
		t.Errorf("%+v", r)
	}
	if r := x.load(open, "wx1", third); r.Secret.Reveal() != planted+"1" {
		t.Errorf("%+v", r)
	}
	x.write("keys", third+"\n"+vaulttest.OtherKey)
	x.run(0, "", "3 records sealed again", "", "rekey")
}

// While Redis is away each subcommand fails, and says so on one line. An export leaves no file.
func TestARedisThatRefuses(t *testing.T) {
	m := miniredis.RunT(t)
	x := newRig(t, m.Addr())
	x.fill(1)
	m.SetError("LOADING Redis is loading the dataset in memory")
	file := filepath.Join(x.dir, "backup.jsonl")
	line := `{"platform":"shops","authorizer":"wx9","refresh_token":"` + planted + `9"}`
	for _, args := range [][]string{{"ls"}, {"export", "--file", file}, {"import"}, {"rekey"}, {"recover"}, {"forget", "--yes", "shops:wx0"}} {
		x.run(1, line, "", "LOADING", args...)
	}
	if files, err := filepath.Glob(filepath.Join(x.dir, "*backup*")); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
	if files, err := filepath.Glob(filepath.Join(x.dir, ".vault-*")); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
	m.SetError("")
	if r := x.load(open, "wx0"); r.State != vault.StateActive {
		t.Errorf("%+v", r)
	}
	x.run(1, "", "", "the vault is in Redis, which needs no schema", "schema")
}
