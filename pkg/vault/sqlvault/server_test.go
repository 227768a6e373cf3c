package sqlvault_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault/sqlvault"
)

// password is that of every user. It has what a URL must encode.
const (
	password        = "hush:p@ss/w0rd?#%"
	encodedPassword = "hush%3Ap%40ss%2Fw0rd%3F%23%25"
)

// server is one database server, started once for all tests.
type server struct {
	kind       sqlvault.Kind
	dir, port  string
	credential *syscall.Credential // root may not run a server
	command    []string
	cmd        *exec.Cmd
	exited     chan struct{}
	log        bytes.Buffer // of before the server serves
	admin      *sql.DB
}

// servers starts each server once.
var servers = map[sqlvault.Kind]func() (*server, error){
	sqlvault.Postgres: sync.OnceValues(func() (*server, error) { return newServer(sqlvault.Postgres, preparePostgres) }),
	sqlvault.MySQL:    sync.OnceValues(func() (*server, error) { return newServer(sqlvault.MySQL, prepareMySQL) }),
}

// started has the servers to stop.
var started []*server

func TestMain(m *testing.M) {
	_ = mysql.SetLogger(&mysql.NopLogger{}) // of the administrator's connections, which tests cut
	code := m.Run()
	for _, s := range started {
		s.kill()
		_ = os.RemoveAll(s.dir)
	}
	os.Exit(code)
}

// errNotInstalled says which program is missing.
var errNotInstalled = errors.New("is not installed")

// onBoth runs a test on both servers, each with an empty table.
func onBoth(t *testing.T, test func(t *testing.T, s *server)) {
	for _, kind := range []sqlvault.Kind{sqlvault.Postgres, sqlvault.MySQL} {
		t.Run(string(kind), func(t *testing.T) {
			s, err := servers[kind]()
			if errors.Is(err, errNotInstalled) && os.Getenv("WXTOKEN_REQUIRE_SQL") != "1" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.exec(t, "DROP TABLE IF EXISTS wxtoken_vault")
			s.exec(t, sqlvault.Schema(kind))
			s.grant(t)
			test(t, s)
		})
	}
}

func newServer(kind sqlvault.Kind, prepare func(*server) error) (*server, error) {
	dir, err := os.MkdirTemp("", "wxtoken-sql-")
	if err != nil {
		return nil, err
	}
	s := &server{kind: kind, dir: dir}
	started = append(started, s)
	if os.Getuid() == 0 {
		s.credential = &syscall.Credential{Uid: 65534, Gid: 65534} // it has a name, which initdb asks for
	}
	if err := errors.Join(s.writeCertificates(), s.own(dir)); err != nil {
		return nil, err
	}
	// Below the ports that the system gives to connections, so that a server which was killed can
	// have its port again.
	s.port = strconv.Itoa(20_000 + mathrand.IntN(10_000))
	if err := prepare(s); err != nil {
		return nil, err
	}
	return s, s.start()
}

// own gives a file to the user who runs the server.
func (s *server) own(name string) error {
	if s.credential == nil {
		return nil
	}
	return os.Chown(name, int(s.credential.Uid), int(s.credential.Gid))
}

func (s *server) run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// program returns the path of a program, which may be in one of other directories.
func program(name string, globs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, glob := range globs {
		if found, _ := filepath.Glob(filepath.Join(glob, name)); len(found) > 0 {
			return slices.Max(found), nil
		}
	}
	return "", fmt.Errorf("%s %w", name, errNotInstalled)
}

func preparePostgres(s *server) error {
	const debian = "/usr/lib/postgresql/*/bin"
	initdb, err := program("initdb", debian)
	if err != nil {
		return err
	}
	postgres, err := program("postgres", debian)
	if err != nil {
		return err
	}
	pw, data := filepath.Join(s.dir, "pw"), filepath.Join(s.dir, "data")
	if err := errors.Join(os.WriteFile(pw, []byte(password), 0o644), os.Chmod(pw, 0o644)); err != nil {
		return err
	}
	// A language's order, so that the order of bytes is the table's merit.
	if err := s.run(initdb, "-D", data, "-U", "admin", "-A", "scram-sha-256", "--pwfile", pw, "-E", "UTF8", "--no-sync",
		"--locale", "C.UTF-8", "--locale-provider", "icu", "--icu-locale", "en"); err != nil {
		return err
	}
	s.command = []string{postgres, "-D", data, "-p", s.port, "-k", s.dir, "-h", "127.0.0.1", "-F", "-c", "max_connections=60",
		"-c", "ssl=on", "-c", "ssl_cert_file=" + s.file("cert.pem"), "-c", "ssl_key_file=" + s.file("key.pem")}
	s.admin, err = sql.Open("pgx", s.url("admin", encodedPassword, "postgres"))
	return err
}

func prepareMySQL(s *server) error {
	install, err := program("mariadb-install-db")
	if err != nil {
		return err
	}
	mariadbd, err := program("mariadbd", "/usr/sbin", "/usr/libexec")
	if err != nil {
		return err
	}
	data, users := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "users.sql")
	if err := s.run(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db"); err != nil {
		return err
	}
	script := "CREATE USER IF NOT EXISTS admin@'127.0.0.1' IDENTIFIED BY '" + password + "';\nGRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION;\nCREATE DATABASE IF NOT EXISTS vault;\n"
	if err := os.WriteFile(users, []byte(script), 0o644); err != nil {
		return err
	}
	s.command = []string{mariadbd, "--no-defaults", "--datadir=" + data, "--port=" + s.port, "--bind-address=127.0.0.1", "--skip-name-resolve",
		"--socket=" + s.socket(), "--pid-file=" + s.file("pid"), "--innodb-flush-log-at-trx-commit=2", "--init-file=" + users,
		"--innodb-buffer-pool-size=32M", "--ssl-cert=" + s.file("cert.pem"), "--ssl-key=" + s.file("key.pem"), "--ssl-ca=" + s.file("cert.pem"),
		"--autocommit=0"} // which the store must not depend on
	s.admin, err = sql.Open("mysql", fmt.Sprintf("admin:%s@tcp(127.0.0.1:%s)/vault?multiStatements=true&autocommit=1", password, s.port))
	return err
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }
func (s *server) socket() string          { return s.file("socket") }

// start starts the server, and returns when it serves.
func (s *server) start() error {
	s.log.Reset()
	s.cmd = exec.Command(s.command[0], s.command[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(exited) }(s.cmd)
	for range 1200 {
		if s.admin.Ping() == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended:\n%s", s.command[0], &s.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not serve", s.command[0])
}

// kill ends the server at once. PostgreSQL's other processes end when they miss the first one.
func (s *server) kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// url returns the URL of a database.
func (s *server) url(user, encoded, database string, options ...string) string {
	u := fmt.Sprintf("%s://%s:%s@127.0.0.1:%s/%s", s.kind, user, encoded, s.port, database)
	for i, o := range options {
		u += []string{"?", "&"}[min(i, 1)] + o
	}
	return u
}

func (s *server) database() string {
	return map[sqlvault.Kind]string{sqlvault.Postgres: "postgres", sqlvault.MySQL: "vault"}[s.kind]
}

// open opens a store as a user who has what the documentation says that it needs.
func (s *server) open(t *testing.T, options ...string) *sqlvault.Store {
	t.Helper()
	return openURL(t, s.url("sidecar", encodedPassword, s.database(), options...))
}

func openURL(t *testing.T, url string) *sqlvault.Store {
	t.Helper()
	store, err := sqlvault.Open(secret.New(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// exec runs statements as the administrator.
func (s *server) exec(t *testing.T, statements ...string) {
	t.Helper()
	// A connection that holds a lock for ever is a failure.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, text := range statements {
		if _, err := s.admin.ExecContext(ctx, text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// grant makes the users: sidecar, and reader, who may only read.
func (s *server) grant(t *testing.T) {
	t.Helper()
	for _, c := range []struct{ user, may string }{{"sidecar", "SELECT, INSERT, UPDATE, DELETE"}, {"reader", "SELECT"}} {
		if s.kind == sqlvault.MySQL {
			s.exec(t, "CREATE USER IF NOT EXISTS "+c.user+"@'127.0.0.1' IDENTIFIED BY '"+password+"'",
				"GRANT "+c.may+" ON vault.wxtoken_vault TO "+c.user+"@'127.0.0.1'")
			continue
		}
		s.exec(t, "DO $$ BEGIN CREATE ROLE "+c.user+" LOGIN PASSWORD '"+password+"'; EXCEPTION WHEN duplicate_object THEN END $$",
			"GRANT "+c.may+" ON wxtoken_vault TO "+c.user)
	}
}

// writeCertificates writes a certificate for 127.0.0.1 that is its own CA, and another one.
func (s *server) writeCertificates() error {
	for _, name := range []string{"", "other-"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
		cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
			file = s.file(name + file)
			if err := errors.Join(os.WriteFile(file, pem.EncodeToMemory(block), 0o600), s.own(file)); err != nil {
				return err
			}
		}
	}
	return nil
}
