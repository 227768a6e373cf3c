package sqlvault

import (
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// Kind is a kind of database.
type Kind string

// The kinds of databases. MariaDB is a [MySQL].
const (
	Postgres Kind = "postgres"
	MySQL    Kind = "mysql"
)

var (
	//go:embed postgres.sql
	postgresSchema string
	//go:embed mysql.sql
	mysqlSchema string
)

// KindOf returns the kind of database that a URL names. The error does not repeat the URL.
func KindOf(url secret.String) (Kind, error) {
	switch scheme, _, _ := strings.Cut(url.Reveal(), "://"); scheme {
	case "postgres", "postgresql":
		return Postgres, nil
	case "mysql":
		return MySQL, nil
	}
	return "", errors.New("vault: the URL must start with postgres://, postgresql:// or mysql://")
}

// Schema returns the statements that create the table. Nothing in this package runs them.
func Schema(kind Kind) string {
	if d := dialects[kind]; d != nil {
		return d.schema
	}
	return ""
}

// dialect is what differs between the kinds of databases.
type dialect struct {
	name   string // for people
	schema string
	// The statements.
	load, insert, update, expire, list, codes, old string
	check                                          []string
	// describe returns pairs: a column's name and its type, and the like. wanted has what it must
	// return: one of several texts for each name.
	describe string
	wanted   map[string][]string
	// durability is a statement that returns the settings which decide whether a commit survives a
	// crash, and problem says what is wrong with them.
	durability string
	problem    func(settings []string) string
	// isDuplicate reports whether the database refused an INSERT because the row is there.
	isDuplicate func(error) bool
	// reply returns the code of an answer of the database; false if err is none.
	reply func(err error) (code string, ok bool)
	// advice says for a code what to do.
	advice map[string]string
	// harmless has the codes of statements that changed nothing and may succeed if repeated.
	harmless []string
}

var dialects = map[Kind]*dialect{Postgres: newPostgres(), MySQL: newMySQL()}

// syntax is what differs between the statements of two dialects.
type syntax struct {
	// now is the time of the database, and old that of 30 days before.
	now, old string
	// age is the time since the column updated, in microseconds.
	age string
	// skip ends an INSERT that is to do nothing if the row is there; "" if it fails then.
	skip string
	// numbered says that placeholders are $1, $2, ...
	numbered bool
}

const (
	columns = "platform, id, state, ord, rev, sealed, updated"
	// isCode is the condition for what [vault.IsCode] reports: "0" follows "/".
	isCode = "(id >= 'code/' AND id < 'code0')"
	// hours is how long a code is kept.
	hours = 30 * 24
)

// write fills in the statements.
func (d *dialect) write(x syntax) {
	row := "id, state, ord, rev, sealed, " + x.age
	dead := isCode + " AND updated <= " + x.old
	ended := fmt.Sprintf("'%s', '%s', '%s', '%s'", vault.StateReceived, vault.StateSent, vault.StateDone, vault.StateLost)
	open := fmt.Sprintf("'%s', '%s'", vault.StateReceived, vault.StateSent)
	d.load = "SELECT " + row + " FROM wxtoken_vault WHERE platform = ? AND id = ? AND NOT (" + dead + ")"
	d.insert = "INSERT INTO wxtoken_vault (" + columns + ") VALUES (?, ?, ?, ?, 1, ?, " + x.now + ")" + x.skip
	d.update = "UPDATE wxtoken_vault SET state = ?, ord = ?, sealed = ?, rev = rev + 1, updated = " + x.now +
		" WHERE platform = ? AND id = ? AND rev = ? AND NOT (" + dead + ")"
	d.expire = "DELETE FROM wxtoken_vault WHERE platform = ? AND id = ? AND " + dead
	d.list = "SELECT " + row + " FROM wxtoken_vault WHERE platform = ? AND id > ? AND id <> '" + vault.Marker + "' AND NOT " + isCode +
		" ORDER BY id LIMIT ?"
	// The states are those of a code, so that the index over platform, state and updated leads to
	// the rows: authorizers have others.
	d.codes = "SELECT id FROM wxtoken_vault WHERE platform = ? AND state IN (" + open + ") AND " + isCode +
		" AND updated > " + x.old + " ORDER BY updated, id LIMIT ?"
	d.old = "SELECT id FROM wxtoken_vault WHERE platform = ? AND state IN (" + ended + ") AND " + dead + " LIMIT ?"
	// They change nothing, and need the permissions of those above.
	d.check = []string{
		"SELECT " + columns + " FROM wxtoken_vault WHERE 1 = 0",
		"INSERT INTO wxtoken_vault (" + columns + ") SELECT " + columns + " FROM wxtoken_vault WHERE 1 = 0" + x.skip,
		"UPDATE wxtoken_vault SET state = state, ord = ord, rev = rev, sealed = sealed, updated = updated WHERE 1 = 0",
		"DELETE FROM wxtoken_vault WHERE 1 = 0",
	}
	if !x.numbered {
		return
	}
	for _, text := range []*string{&d.load, &d.insert, &d.update, &d.expire, &d.list, &d.codes, &d.old} {
		*text = number(*text)
	}
}

// number replaces the placeholders ? by $1, $2, ...
func number(text string) string {
	parts := strings.Split(text, "?")
	for i := range parts[1:] {
		parts[i] += "$" + strconv.Itoa(i+1)
	}
	return strings.Join(parts, "")
}

// uriHint says what is wrong with most URLs that do not parse.
const uriHint = "in user, password and options write / ? # @ : and %% as %%2F %%3F %%23 %%40 %%3A and %%25"

// badURL says what is wrong with a URL, and repeats nothing of it.
func badURL(format string, args ...any) error {
	return fmt.Errorf("vault: the URL "+format, args...)
}

// checkURL refuses a URL in which a raw / ? or # of a password would end the host too early, so
// that its rest would pass for a path or for options.
func checkURL(raw string) error {
	_, rest, _ := strings.Cut(raw, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 && strings.ContainsAny(rest[end:], "@#") {
		return badURL("has an @ or # after its host: " + uriHint)
	}
	return nil
}
