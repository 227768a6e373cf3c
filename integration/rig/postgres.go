package rig

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Postgres is a PostgreSQL server process, whose database is empty.
type Postgres struct {
	// URL is what goes into the file that vault.url_file names. Its password is in no other place.
	URL string

	t          testing.TB
	dir, port  string
	credential *syscall.Credential // root may not run a server
}

// PostgresPassword is a secret, which must not be found anywhere.
const PostgresPassword = "CANARY-database-password"

// StartPostgres starts a server. Where none is installed the test is skipped, and fails with
// WXTOKEN_REQUIRE_SQL=1.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	for _, name := range []string{"initdb", "postgres", "psql"} {
		if postgresTool(name) != "" {
			continue
		}
		if os.Getenv("WXTOKEN_REQUIRE_SQL") == "1" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	dir, err := os.MkdirTemp("", "wxtoken-pg-") // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Postgres{t: t, dir: dir}
	if os.Getuid() == 0 {
		s.credential = &syscall.Credential{Uid: 65534, Gid: 65534} // it has a name, which initdb asks for
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	if out, err := s.command("initdb", "-D", data, "-U", "wxtoken", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale", "C").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	_, s.port, _ = net.SplitHostPort(FreeAddr(t))
	s.URL = "postgres://wxtoken:" + PostgresPassword + "@127.0.0.1:" + s.port + "/postgres?sslmode=disable"
	server := s.command("postgres", "-D", data, "-p", s.port, "-k", dir, "-h", "127.0.0.1", "-F")
	var log Buffer
	server.Stdout, server.Stderr = &log, &log
	proc, err := start(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proc.kill)
	Eventually(t, "PostgreSQL serves", func() bool {
		if !proc.alive() {
			t.Fatalf("postgres ended:\n%s", &log)
		}
		return s.psql("SELECT 1").Run() == nil
	})
	return s
}

// Run has psql run statements.
func (s *Postgres) Run(statements string) {
	s.t.Helper()
	if out, err := s.psql(statements).CombinedOutput(); err != nil {
		s.t.Fatalf("psql: %v\n%s", err, out)
	}
}

func (s *Postgres) psql(statements string) *exec.Cmd {
	cmd := s.command("psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", s.port, "-U", "wxtoken", "postgres")
	cmd.Stdin = strings.NewReader(statements)
	return cmd
}

// postgresTool returns the path of a program of PostgreSQL, which Debian keeps away from PATH;
// empty if it is not installed.
func postgresTool(name string) string {
	if found, _ := filepath.Glob(filepath.Join("/usr/lib/postgresql/*/bin", name)); len(found) > 0 {
		return slices.Max(found)
	}
	path, _ := exec.LookPath(name)
	return path
}

func (s *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(postgresTool(name), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: s.credential}
	return cmd
}
