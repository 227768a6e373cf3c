package vaultstore

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
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

// A vault in the Redis of the cache says what its settings mean for the records, and whether it is sure.
// It does not close the connections, which are the caller's.
func TestAVaultInRedisSaysWhatItMayLose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		want string // in the problem; empty: none
		sure bool
	}{
		{"nothing on the disk", nil, "set appendonly yes", true},
		{"keys are evicted", []string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"}, "set maxmemory-policy to noeviction", true},
		{"both", []string{"--maxmemory-policy", "allkeys-lfu"}, "set appendonly yes, and maxmemory-policy", true},
		{"it is durable", []string{"--appendonly", "yes", "--maxmemory-policy", "volatile-lru"}, "", true},
		{"it does not say", []string{"--rename-command", "INFO", ""}, "Redis does not say", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rdb := redis.NewClient(&redis.Options{Addr: tokencachetest.RedisServer(t, append([]string{"--dir", t.TempDir()}, c.args...)...)})
			t.Cleanup(func() { _ = rdb.Close() })
			store, err := Open(&config.Config{Namespace: "wxtoken"}, rdb)
			if err != nil {
				t.Fatal(err)
			}
			problem, sure, err := store.Durability(t.Context(), "wx134c8103faa5a59e")
			if err != nil || sure != c.sure || problem == "" != (c.want == "") || !strings.Contains(problem, c.want) {
				t.Errorf("%q, sure: %v, %v", problem, sure, err)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
			if err := rdb.Ping(t.Context()).Err(); err != nil {
				t.Errorf("the caller's connections were closed: %v", err)
			}
		})
	}
	if schema, err := Schema(&config.Config{}); err == nil || !strings.Contains(err.Error(), "the vault is in Redis") {
		t.Errorf("%q, %v", schema, err)
	}
}
