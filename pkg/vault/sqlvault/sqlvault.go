// Package sqlvault keeps the rows of a vault in PostgreSQL, MySQL or MariaDB: in one table,
// wxtoken_vault, which [Schema] defines and an administrator creates. The package never changes
// the schema.
//
// A save is one statement that compares the rev and writes: an INSERT for rev 0, else an UPDATE
// with the rev in its WHERE clause. It is correct at every isolation level, because the level
// decides only whether the database makes the second of two writers wait and miss, or fail: a
// failed statement changes nothing and is repeated. Ages are measured by the database's clock.
//
// A code is absent from its 30th day on. Its row is deleted later, when another code of the
// platform is done.
//
// It is a package of its own because the drivers are large: pkg/vault does not import them.
package sqlvault

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

const (
	// timeout bounds one call: the wait for a connection, the statements, and their repetition.
	timeout = 2 * time.Second
	// sweepTimeout bounds the deletion of old codes, which follows a save that has succeeded.
	sweepTimeout = 500 * time.Millisecond

	// mostConns is how many connections one replica opens. PostgreSQL takes 100 in all unless it is
	// configured otherwise, and a deployment can have 50 replicas, so an idle one keeps one
	// connection, and after a minute none.
	mostConns = 3
	idleConns = 1
	idleTime  = time.Minute
	// connLife makes a replica leave a server that a load balancer or a DNS name has left.
	connLife = 15 * time.Minute

	// mostCodes bounds what Codes returns.
	mostCodes = 1000
	// mostSwept bounds how many old codes one save deletes.
	mostSwept = 20
)

// Store is a [vault.Store] in a table of a database. Create it with [Open]. Safe for concurrent
// use.
type Store struct {
	db *sql.DB
	d  *dialect
	// secrets are the parts of the URL that no error may repeat.
	secrets []secret.String
}

// Open returns a store for a URL that begins with postgres://, postgresql:// or mysql://. It does
// no I/O but for reading the files of certificates that the URL names: see [Store.Check]. The
// error says what is wrong with the URL and repeats nothing secret of it.
//
// PostgreSQL's URL has the options of libpq, such as sslmode=verify-full and sslrootcert=FILE; its
// environment variables (PGPASSWORD, ...) count as well. MySQL's URL has the options tls=preferred
// (the default: encrypted if the server can, without a look at its certificate), tls=true,
// tls=skip-verify, tls=false, ssl-ca=FILE, ssl-cert=FILE, ssl-key=FILE and socket=FILE.
func Open(url secret.String) (*Store, error) {
	kind, err := KindOf(url)
	if err != nil {
		return nil, err
	}
	open := openPostgres
	if kind == MySQL {
		open = openMySQL
	}
	connector, secrets, err := open(url.Reveal())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(mostConns)
	db.SetMaxIdleConns(idleConns)
	db.SetConnMaxIdleTime(idleTime)
	db.SetConnMaxLifetime(connLife)
	return &Store{db, dialects[kind], append(secrets, url)}, nil
}

// Close closes the connections. Calls that follow fail.
func (s *Store) Close() error { return s.db.Close() }

// Load implements [vault.Store].
func (s *Store) Load(ctx context.Context, platform, id string) (r vault.Row, err error) {
	err = s.do(ctx, "load", func(ctx context.Context) error {
		r, err = s.load(ctx, platform, id)
		return err
	})
	return r, err
}

func (s *Store) load(ctx context.Context, platform, id string) (vault.Row, error) {
	r, err := scan(s.db.QueryRowContext(ctx, s.d.load, platform, id))
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return r, err
}

// scan reads the columns id, state, ord, rev, sealed and the age in microseconds.
func scan(row interface{ Scan(...any) error }) (r vault.Row, err error) {
	var age int64
	if err := row.Scan(&r.ID, &r.State, &r.Order, &r.Rev, &r.Sealed, &age); err != nil {
		return vault.Row{}, err
	}
	if r.Rev < 1 || r.Order < 0 {
		return vault.Row{}, errForeign
	}
	r.Age = max(0, time.Duration(age)*time.Microsecond)
	return r, nil
}

// SaveAll implements [vault.Store].
func (s *Store) SaveAll(ctx context.Context, rows []vault.Row) []error {
	return vault.SaveEach(ctx, rows, s.Save)
}

// Save implements [vault.Store]. The row is as safe as the database makes a commit: see
// [Store.Durability].
func (s *Store) Save(ctx context.Context, r vault.Row) (rev int64, err error) {
	if r.Sealed == nil {
		r.Sealed = []byte{} // nil would be NULL
	}
	err = s.do(ctx, "save", func(ctx context.Context) error {
		rev, err = s.save(ctx, r)
		return err
	})
	if err == nil && vault.IsCode(r.ID) && !r.IsOpen() {
		s.sweep(ctx, r.Platform)
	}
	return rev, err
}

func (s *Store) save(ctx context.Context, r vault.Row) (int64, error) {
	wrote, err := s.write(ctx, r)
	if err == nil && !wrote && r.Rev == 0 && vault.IsCode(r.ID) {
		// The row of a code that counts as absent may be in the way.
		var deleted int64
		if deleted, err = s.exec(ctx, s.d.expire, r.Platform, r.ID); err == nil && deleted > 0 {
			wrote, err = s.write(ctx, r)
		}
	}
	switch {
	case err != nil:
		return 0, err
	case wrote:
		return r.Rev + 1, nil
	}
	// The row has another rev than the caller has seen. Or this very call wrote it, the answer was
	// lost, and the call is repeated.
	now, err := s.load(ctx, r.Platform, r.ID)
	switch {
	case err != nil:
		return 0, err
	case now.Rev == r.Rev+1 && bytes.Equal(now.Sealed, r.Sealed):
		return now.Rev, nil
	}
	return 0, vault.ErrConflict
}

// write compares the rev and writes, in one statement. It reports whether it wrote.
func (s *Store) write(ctx context.Context, r vault.Row) (bool, error) {
	if r.Rev == 0 {
		n, err := s.exec(ctx, s.d.insert, r.Platform, r.ID, string(r.State), r.Order, r.Sealed)
		if s.d.isDuplicate(err) {
			return false, nil
		}
		return n > 0, err
	}
	n, err := s.exec(ctx, s.d.update, string(r.State), r.Order, r.Sealed, r.Platform, r.ID, r.Rev)
	return n > 0, err
}

// exec returns how many rows a statement changed.
func (s *Store) exec(ctx context.Context, text string, args ...any) (int64, error) {
	result, err := s.db.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// sweep deletes some codes that count as absent. A failure is ignored: the next sweep finds them
// again. Only a code whose exchange has ended is followed by a sweep, so that a push waits for
// none.
//
// The rows are found by a read without locks and deleted by their keys. A DELETE over a range
// would lock the gaps in MySQL, and deadlock with inserts.
func (s *Store) sweep(ctx context.Context, platform string) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	ids, err := s.ids(ctx, s.d.old, platform, mostSwept)
	for i := 0; err == nil && i < len(ids); i++ {
		_, err = s.exec(ctx, s.d.expire, platform, ids[i])
	}
}

// ids returns the one column of a statement.
func (s *Store) ids(ctx context.Context, text string, args ...any) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// List implements [vault.Store].
func (s *Store) List(ctx context.Context, platform, after string, n int) (list []vault.Row, err error) {
	if n <= 0 {
		return nil, nil
	}
	err = s.do(ctx, "list", func(ctx context.Context) error {
		list, err = s.list(ctx, platform, after, n)
		return err
	})
	return list, err
}

func (s *Store) list(ctx context.Context, platform, after string, n int) ([]vault.Row, error) {
	rows, err := s.db.QueryContext(ctx, s.d.list, platform, after, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []vault.Row
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// Codes implements [vault.Store].
func (s *Store) Codes(ctx context.Context, platform string) (ids []string, err error) {
	err = s.do(ctx, "codes", func(ctx context.Context) error {
		ids, err = s.ids(ctx, s.d.codes, platform, mostCodes)
		return err
	})
	return ids, err
}
