package vaultstore

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// The drivers of databases are in a program that was built with the tag sql, and in no other.
func TestOnlyTheTagSQLLinksDrivers(t *testing.T) {
	for tags, want := range map[string]bool{"": false, "dev": false, "sql": true} {
		out, err := exec.Command("go", "list", "-deps", "-tags", tags, "github.com/wxtoken/sidecar/cmd/sidecar").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"github.com/jackc/pgx/v5", "github.com/go-sql-driver/mysql"} {
			if strings.Contains(string(out), "\n"+name+"\n") != want {
				t.Errorf("with the tags %q, the program imports %s: %v", tags, name, !want)
			}
		}
	}
	cfg := &config.Config{Vault: config.Vault{URL: secret.New("mysql://user@host/database")}}
	store, err := Open(cfg, nil)
	schema, noSchema := Schema(cfg)
	if openSQL == nil {
		if err == nil || noSchema == nil || !strings.Contains(err.Error(), "-tags sql") || !strings.Contains(noSchema.Error(), "-tags sql") {
			t.Errorf("without the tag, there is no advice: %v, %v", err, noSchema)
		}
		return
	}
	if err != nil || noSchema != nil || !strings.Contains(schema, "CREATE TABLE wxtoken_vault") {
		t.Fatal(err, noSchema)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
