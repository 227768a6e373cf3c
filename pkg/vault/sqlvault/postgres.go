package sqlvault

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// program is the name under which the database lists the connections.
const program = "wxtoken"

// secretOption finds the options of a PostgreSQL URL that are secret.
var secretOption = regexp.MustCompile(`[?&](?:password|sslpassword)=([^&]*)`)

func openPostgres(raw string) (driver.Connector, []secret.String, error) {
	if err := checkURL(raw); err != nil {
		return nil, nil, err
	}
	cfg, err := pgx.ParseConfig(raw)
	if err != nil {
		// Its text repeats the URL, and can repeat a password that is not percent-encoded.
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, nil, badURL("names a file that cannot be read: %v", file)
		}
		return nil, nil, badURL("is not valid: write postgres://USER:PASSWORD@HOST:5432/DATABASE, with options such as ?sslmode=verify-full&sslrootcert=FILE; " + uriHint)
	}
	// One round trip a statement, and nothing that lives longer than a statement on the server: a
	// pooler such as PgBouncer may give each statement another connection.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = program
	}
	secrets := []secret.String{secret.New(cfg.Password)}
	if _, password, ok := strings.Cut(userinfo(raw), ":"); ok {
		secrets = append(secrets, secret.New(password))
	}
	for _, option := range secretOption.FindAllStringSubmatch(raw, -1) {
		secrets = append(secrets, secret.New(option[1]))
		if plain, err := url.QueryUnescape(option[1]); err == nil {
			secrets = append(secrets, secret.New(plain))
		}
	}
	return stdlib.GetConnector(*cfg), secrets, nil
}

// userinfo returns what is before the host of a URL, as it is written.
func userinfo(raw string) string {
	_, rest, _ := strings.Cut(raw, "://")
	info, _, _ := strings.Cut(rest, "@")
	return info
}

func newPostgres() *dialect {
	d := &dialect{
		name:   "PostgreSQL",
		schema: postgresSchema,
		describe: `SELECT a.attname::text, format_type(a.atttypid, NULL) || coalesce(' ' || c.collname, '')
			FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
			WHERE a.attrelid = 'wxtoken_vault'::regclass AND a.attnum > 0 AND NOT a.attisdropped`,
		wanted: map[string][]string{
			"platform": {"character varying C", "text C"},
			"id":       {"character varying C", "text C"},
			"state":    {"character varying C", "text C", "character varying default", "text default"},
			"ord":      {"bigint"}, "rev": {"bigint"}, "sealed": {"bytea"}, "updated": {"timestamp with time zone"},
		},
		durability: "SELECT current_setting('fsync'), current_setting('synchronous_commit')",
		problem: func(settings []string) string {
			switch {
			case settings[0] == "off":
				return "fsync is off: a crash of the server can lose or spoil records; set fsync = on"
			case settings[1] == "off":
				return "synchronous_commit is off: a crash of the server loses the records of the last moments; set it on, for this user at least"
			}
			return ""
		},
		isDuplicate: func(error) bool { return false }, // ON CONFLICT DO NOTHING
		reply: func(err error) (string, bool) {
			if e, ok := errors.AsType[*pgconn.PgError](err); ok {
				return e.Code, true
			}
			return "", false
		},
		harmless: []string{"40001", "40P01", "57P01", "57P02"},
		advice: map[string]string{
			"42P01": noTable + ", or the user's search_path does not lead to it",
			"42703": otherTable, "42804": otherTable, "42883": otherTable, "42P10": otherTable, "23502": otherTable,
			"28P01": "the password is wrong, or the user is unknown",
			"28000": "the server does not let this user in from here: see its pg_hba.conf, and sslmode in the URL",
			"3D000": "there is no such database: correct the end of the URL",
			"42501": "the user lacks a permission: GRANT SELECT, INSERT, UPDATE, DELETE ON wxtoken_vault, and USAGE on its schema",
			"25006": "the server or the user is read-only: name the primary, or all servers and target_session_attrs=read-write",
			"53300": tooManyConns, "53100": "the server's disk is full",
			"57P01": "the server is being stopped", "57P02": "the server has crashed", "57P03": "the server is starting or stopping",
		},
	}
	d.write(syntax{
		now:      "now()",
		old:      fmt.Sprintf("now() - interval '%d hours'", hours),
		age:      "(extract(epoch FROM now() - updated) * 1000000)::bigint",
		skip:     " ON CONFLICT (platform, id) DO NOTHING",
		numbered: true,
	})
	return d
}
