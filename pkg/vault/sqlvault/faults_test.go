package sqlvault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/sqlvault"
)

// mustFail fails unless err says what to do and repeats nothing of a password.
func mustFail(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %q is not in: %v", what, part, err)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
		text := fmt.Sprintf(verb, err)
		for _, hush := range []string{"hush", "w0rd", "p@ss", "p%40ss"} {
			if strings.Contains(text, hush) {
				t.Errorf("%s: a part of the password is in: %s", what, text)
			}
		}
		if strings.Contains(text, "\n") {
			t.Errorf("%s: more than one line: %s", what, text)
		}
	}
}

func TestErrorsSayWhatToDoAndRepeatNoPassword(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for what, c := range map[string]struct {
			url  string
			want map[sqlvault.Kind]string
		}{
			"a wrong password": {s.url("sidecar", encodedPassword+"hush", s.database()), both("password is wrong")},
			"an unknown user":  {s.url("unknown", encodedPassword, s.database()), both("user is unknown")},
			// Both servers repeat the name.
			"a user called like the password": {s.url(encodedPassword, encodedPassword, s.database()), both("user is unknown")},
			"no such database":                {s.url("sidecar", encodedPassword, "nothing"), map[sqlvault.Kind]string{sqlvault.Postgres: "no such database", sqlvault.MySQL: "no permission in this database"}},
			"no server":                       {fmt.Sprintf("%s://u:%s@127.0.0.1:1/db", s.kind, encodedPassword), both("cannot be reached")},
			"a wrong CA":                      {s.url("sidecar", encodedPassword, s.database(), s.verify("other-cert.pem")...), both("certificate")},
		} {
			store := openURL(t, c.url)
			mustFail(t, what, store.Check(t.Context()), "vault: ", c.want[s.kind])
			_, err := store.Load(t.Context(), platform, "wx1")
			mustFail(t, what, err, ": load: ", c.want[s.kind])
			_, err = store.Save(t.Context(), row("wx1", 0, "sealed"))
			mustFail(t, what, err, ": save: ", c.want[s.kind])
		}
		if err := s.open(t, s.verify("cert.pem")...).Check(t.Context()); err != nil {
			t.Errorf("with its CA: %v", err)
		}
	})
}

func both(text string) map[sqlvault.Kind]string {
	return map[sqlvault.Kind]string{sqlvault.Postgres: text, sqlvault.MySQL: text}
}

// verify returns the options of a URL by which the server's certificate is verified.
func (s *server) verify(ca string) []string {
	if s.kind == sqlvault.MySQL {
		return []string{"tls=true", "ssl-ca=" + s.file(ca)}
	}
	return []string{"sslmode=verify-full", "sslrootcert=" + s.file(ca)}
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		reader := openURL(t, s.url("reader", encodedPassword, s.database()))
		mustFail(t, "a user who may only read", reader.Check(t.Context()), "GRANT SELECT, INSERT, UPDATE, DELETE ON wxtoken_vault")
		_, err := reader.Save(t.Context(), row("wx1", 0, "sealed"))
		mustFail(t, "a save of one who may only read", err, "GRANT")
		if _, err := reader.Load(t.Context(), platform, "wx1"); err != nil {
			t.Errorf("a load of one who may only read: %v", err)
		}

		admin := openURL(t, s.url("admin", encodedPassword, s.database()))
		if err := admin.Check(t.Context()); err != nil {
			t.Error(err)
		}
		schema := sqlvault.Schema(s.kind)
		for what, c := range map[string]struct{ old, new, want string }{
			"no rev":         {"    rev      bigint       NOT NULL,\n", "", "sqlvault.Schema"},
			"a text":         {"ord      bigint ", "ord      varchar(20) ", "ord is"},
			"no primary key": {"PRIMARY KEY (platform, id)", "UNIQUE (id, platform, rev)", "sqlvault.Schema"},
			"another order": {map[sqlvault.Kind]string{sqlvault.Postgres: `id       varchar(128) COLLATE "C"`, sqlvault.MySQL: "id       varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"}[s.kind],
				"id varchar(128)", "id is"},
			"another engine": {"InnoDB", "MyISAM", "engine"},
		} {
			changed := strings.Replace(schema, c.old, c.new, 1)
			if changed == schema {
				continue // PostgreSQL has no engines
			}
			s.exec(t, "DROP TABLE IF EXISTS wxtoken_vault", changed)
			mustFail(t, what, admin.Check(t.Context()), c.want, "sqlvault.Schema")
		}
		s.exec(t, "DROP TABLE wxtoken_vault")
		mustFail(t, "no table", admin.Check(t.Context()), "there is no table", "sqlvault.Schema")
		_, err = admin.Load(t.Context(), platform, "wx1")
		mustFail(t, "no table", err, "there is no table", "sqlvault.Schema")
	})
}

// A server that is killed costs the calls of its absence, and none afterwards.
func TestAServerIsKilledAndStartedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		mustSave(t, store, row("wx1", 0, "sealed"))
		s.kill()
		begin := time.Now()
		_, err := store.Load(t.Context(), platform, "wx1")
		mustFail(t, "without a server", err, "cannot be reached")
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("the call took %v", d)
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Load(t.Context(), platform, "wx1"); err != nil || got.Rev != 1 {
			t.Errorf("rev %d, %v", got.Rev, err)
		}
		mustSave(t, store, row("wx1", 1, "sealed again"))

		// A restart that no call has seen: the connection that is kept is dead.
		s.kill()
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		mustSave(t, store, row("wx1", 2, "sealed a third time"))

		// An administrator ends the idle connection.
		if s.kind == sqlvault.Postgres {
			s.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sidecar'")
		} else {
			s.exec(t, "KILL USER sidecar@'127.0.0.1'")
		}
		mustSave(t, store, row("wx1", 3, "after the end of the connection"))
	})
}

// A server that accepts connections and says nothing, and a row that another transaction has
// locked, cost the deadline; the row is as it was, or as the call made it.
func TestCallsEndInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // after the parallel tests below
	for _, kind := range []sqlvault.Kind{sqlvault.Postgres, sqlvault.MySQL} {
		t.Run("silent "+string(kind), func(t *testing.T) {
			t.Parallel()
			store := openURL(t, fmt.Sprintf("%s://u:%s@%s/db", kind, encodedPassword, l.Addr()))
			begin := time.Now()
			_, err := store.Load(t.Context(), platform, "wx1")
			if d := time.Since(begin); d > 4*time.Second || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %v: %v", d, err)
			}
			mustFail(t, "a silent server", err, "no answer in time")
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin = time.Now()
			_, err = store.Save(ctx, row("wx1", 0, "x"))
			if d := time.Since(begin); d > time.Second || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the caller's deadline: after %v: %v", d, err)
			}
		})
	}
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		mustSave(t, store, row("wx1", 0, "sealed"))
		tx, err := s.admin.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("UPDATE wxtoken_vault SET state = state, rev = 7 WHERE id = 'wx1'"); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = store.Save(t.Context(), row("wx1", 1, "again"))
		if d := time.Since(begin); d < time.Second || d > 4*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", d, err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Save(t.Context(), row("wx1", 1, "again")); !errors.Is(err, vault.ErrConflict) {
			t.Errorf("over what the other transaction wrote: %v", err)
		}
	})
}

// More callers than connections wait for their turn; a replica never takes more than three.
func TestAReplicaTakesFewConnections(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		errs := make(chan error, 40)
		for i := range cap(errs) {
			go func() {
				_, err := store.Save(t.Context(), row(fmt.Sprint("wx", i), 0, "sealed"))
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		query := "SELECT count(*) FROM pg_stat_activity WHERE usename = 'sidecar' AND application_name = 'wxtoken'"
		if s.kind == sqlvault.MySQL {
			query = "SELECT count(*) FROM information_schema.processlist WHERE user = 'sidecar'"
		}
		var n int
		for range 100 { // the server sees the end of a connection a moment later
			if err := s.admin.QueryRow(query).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n == 1 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%d connections of an idle replica", n)
	})
}

func TestDurability(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		store := s.open(t)
		// The tests' servers do not write to the disk.
		want := map[sqlvault.Kind]string{sqlvault.Postgres: "fsync is off", sqlvault.MySQL: "innodb_flush_log_at_trx_commit is 2"}[s.kind]
		if got, err := store.Durability(t.Context()); err != nil || !strings.Contains(got, want) {
			t.Errorf("%q, %v", got, err)
		}
		if s.kind == sqlvault.MySQL {
			s.exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
			defer s.exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
			if got, err := store.Durability(t.Context()); err != nil || got != "" {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
}

// What a URL has wrong is said without a server, and without a piece of the URL that may be
// secret.
func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://u:hush@h/0":                  "must start with",
		"hush":                                "must start with",
		"postgres://u:hush/w0rd@h/db":         "%2F",
		"postgres://u:hush#w0rd@h/db":         "%23",
		"postgres://u:hush%zz@h/db":           "postgres://USER:PASSWORD",
		"postgres://u:hush/db":                "postgres://USER:PASSWORD",
		"postgres://u:hush@h/db?sslmode=w0rd": "postgres://USER:PASSWORD",
		"postgres://u:hush@h/db?sslmode=verify-full&sslrootcert=/no/file": "/no/file",
		"mysql://u:hush/w0rd@h/db":                                        "%2F",
		"mysql://u:hush%zz@h/db":                                          "mysql://USER:PASSWORD",
		"mysql://u:hush/db":                                               "mysql://USER:PASSWORD",
		"mysql://u:hush@h":                                                "mysql://USER:PASSWORD",
		"mysql://u:hush@/db":                                              "neither a host nor a socket",
		"mysql://u:hush@h/db?w0rd=1":                                      "unknown option, number 1",
		"mysql://u:hush@h/db?tls=w0rd":                                    "option tls",
		"mysql://u:hush@h/db?tls=false&ssl-ca=/no/file":                   "ssl-ca",
		"mysql://u:hush@h/db?ssl-ca=/no/file":                             "/no/file",
		"mysql://u:hush@h/db?ssl-cert=/no/cert&ssl-key=/no/file":          "/no/cert",
		"mysql://u:hush@h/db?tls=preferred&ssl-cert=/no/cert":             "ssl-cert",
	} {
		store, err := sqlvault.Open(secret.New(raw))
		if store != nil && err == nil {
			_ = store.Close()
		}
		mustFail(t, raw, err, "vault: the URL ", want)
	}
	for _, raw := range []string{"postgres:///db?host=/var/run/postgresql", "postgresql://u@h1:5432,h2:5433/db?target_session_attrs=read-write", "mysql://u@[::1]/db", "mysql://u@/db?socket=/run/mysqld.sock", "mysql://u@h:3307/db?tls=skip-verify"} {
		if err := openURL(t, raw).Close(); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestSchema(t *testing.T) {
	for _, kind := range []sqlvault.Kind{sqlvault.Postgres, sqlvault.MySQL} {
		if got, err := sqlvault.KindOf(secret.New(string(kind) + "://u:p@h/db")); err != nil || got != kind || !strings.Contains(sqlvault.Schema(kind), "CREATE TABLE wxtoken_vault") {
			t.Errorf("%s: %v, %v", kind, got, err)
		}
	}
	if sqlvault.Schema("sqlite") != "" {
		t.Error("a schema for a kind that there is not")
	}
	// The statements have these numbers and prefixes in their text.
	code := vault.Row{ID: vault.CodeID(secret.New("c"))}
	if !strings.HasPrefix(code.ID, "code/") || code.Life() != 720*time.Hour {
		t.Errorf("%q lives %v", code.ID, code.Life())
	}
}
