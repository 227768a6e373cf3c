package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// The drivers of databases are in a program that was built with the tag sql, and in no other.
func TestOnlyTheTagSQLLinksDrivers(t *testing.T) {
	for tags, want := range map[string]bool{"": false, "dev": false, "sql": true} {
		out, err := exec.Command("go", "list", "-deps", "-tags", tags, module+"cmd/sidecar").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"github.com/jackc/pgx/v5", "github.com/go-sql-driver/mysql"} {
			if strings.Contains(string(out), "\n"+name+"\n") != want {
				t.Errorf("with the tags %q, the program imports %s: %v", tags, name, !want)
			}
		}
	}
	if openSQL == nil {
		if !strings.Contains(noSQL, "-tags sql") {
			t.Error("without the tag, there is no advice")
		}
		return
	}
	url := secret.New("mysql://user@host/database")
	store, err := openSQL(url)
	if err != nil || store == nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
