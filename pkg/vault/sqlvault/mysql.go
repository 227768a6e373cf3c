package sqlvault

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/wxtoken/sidecar/pkg/secret"
)

func openMySQL(raw string) (driver.Connector, []secret.String, error) {
	cfg, err := mysqlConfig(raw)
	if err != nil {
		return nil, nil, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, nil, badURL("is not one that the driver takes") // the error repeats values
	}
	secrets := []secret.String{secret.New(cfg.Passwd)}
	if _, password, ok := strings.Cut(userinfo(raw), ":"); ok {
		secrets = append(secrets, secret.New(password))
	}
	return connector, secrets, nil
}

func mysqlConfig(raw string) (*mysql.Config, error) {
	if err := checkURL(raw); err != nil {
		return nil, err
	}
	const form = "is not valid: write mysql://USER:PASSWORD@HOST:3306/DATABASE, with options such as ?tls=true&ssl-ca=FILE; "
	u, err := url.Parse(raw)
	if err != nil {
		return nil, badURL(form + uriHint)
	}
	q, err := url.ParseQuery(u.RawQuery)
	database := strings.TrimPrefix(u.Path, "/")
	if err != nil || database == "" || strings.Contains(database, "/") {
		return nil, badURL(form + uriHint)
	}
	cfg := mysql.NewConfig()
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.DBName = database
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(u.Hostname(), u.Port())
	if u.Port() == "" {
		cfg.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	if socket := q.Get("socket"); socket != "" {
		cfg.Net, cfg.Addr = "unix", socket
	} else if u.Hostname() == "" {
		return nil, badURL("names neither a host nor a socket")
	}
	// The number of rows that an UPDATE found. Without autocommit, which a server can have switched
	// off, a write would end with its connection.
	cfg.ClientFoundRows = true
	cfg.Params = map[string]string{"autocommit": "1"}
	cfg.ConnectionAttributes = "program_name:" + program
	cfg.Logger = &mysql.NopLogger{} // what it logs is in the errors, too
	return cfg, mysqlTLS(cfg, u.RawQuery, q)
}

// mysqlTLS reads the options of the URL that are about TLS, and refuses those that it does not
// know. It names none of them: an unknown name may be a piece of a password.
func mysqlTLS(cfg *mysql.Config, query string, q url.Values) error {
	for i, pair := range strings.Split(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		switch name {
		case "tls", "ssl-ca", "ssl-cert", "ssl-key", "socket":
		default:
			if query != "" {
				return badURL("has an unknown option, number %s after the ?: there are tls, ssl-ca, ssl-cert, ssl-key and socket", strconv.Itoa(i+1))
			}
		}
	}
	ca, cert, key := q.Get("ssl-ca"), q.Get("ssl-cert"), q.Get("ssl-key")
	mode := q.Get("tls")
	switch {
	case mode == "" && ca+cert+key != "":
		mode = "true"
	case mode == "":
		mode = "preferred"
	case mode != "true" && mode != "false" && mode != "preferred" && mode != "skip-verify":
		return badURL("has a value that does not fit its option tls: it is true, false, preferred or skip-verify")
	case ca != "" && mode != "true":
		return badURL("has ssl-ca, which only tls=true looks at")
	case cert+key != "" && mode != "true" && mode != "skip-verify":
		return badURL("has ssl-cert or ssl-key, which only tls=true and tls=skip-verify send")
	}
	cfg.TLSConfig = mode
	if ca+cert+key == "" {
		return nil
	}
	cfg.TLS = &tls.Config{InsecureSkipVerify: mode == "skip-verify"}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return badURL("names a file that cannot be read: %v", err)
		}
		cfg.TLS.RootCAs = x509.NewCertPool()
		if !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return badURL("names a file in ssl-ca that has no certificate in PEM")
		}
	}
	if cert+key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return badURL("names a certificate and a key, ssl-cert and ssl-key, that cannot be used: %v", err)
		}
		cfg.TLS.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func newMySQL() *dialect {
	text := []string{"varchar utf8mb4_bin", "varchar ascii_bin", "varchar latin1_bin"}
	d := &dialect{
		name:   "MySQL",
		schema: mysqlSchema,
		describe: `SELECT column_name, CONCAT(data_type, COALESCE(CONCAT(' ', collation_name), ''))
			FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'wxtoken_vault'
			UNION ALL SELECT 'the engine', COALESCE(engine, 'none')
			FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'wxtoken_vault'
			UNION ALL SELECT 'the primary key', COALESCE(GROUP_CONCAT(column_name ORDER BY seq_in_index), 'none')
			FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 'wxtoken_vault' AND index_name = 'PRIMARY'`,
		wanted: map[string][]string{
			"platform": text, "id": text, "state": append(text, "varchar utf8mb4_general_ci"),
			"ord": {"bigint"}, "rev": {"bigint"}, "sealed": {"blob", "mediumblob", "longblob", "varbinary"}, "updated": {"datetime"},
			"the engine": {"InnoDB"}, "the primary key": {"platform,id"},
		},
		durability: "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, ''",
		problem: func(settings []string) string {
			if settings[0] != "1" {
				return "innodb_flush_log_at_trx_commit is " + settings[0] + ": a crash of the server loses the records of the last moments; set it to 1"
			}
			return ""
		},
		isDuplicate: func(err error) bool { return mysqlCode(err) == 1062 },
		reply: func(err error) (string, bool) {
			code := mysqlCode(err)
			return strconv.Itoa(code), code != 0
		},
		harmless: []string{"1213", "1020", "1053"},
		advice: map[string]string{
			"1146": noTable, "1054": otherTable, "1366": otherTable, "1406": otherTable, "1048": otherTable, "1364": otherTable,
			"1045": "the password is wrong, or the user is unknown, or not let in from here",
			"1698": "the password is wrong, or the user is unknown, or not let in from here",
			"1130": "the server does not let this host in", "1129": "the server has blocked this host: FLUSH HOSTS",
			"1044": "the user has no permission in this database: GRANT SELECT, INSERT, UPDATE, DELETE ON wxtoken_vault",
			"1142": "the user lacks a permission: GRANT SELECT, INSERT, UPDATE, DELETE ON wxtoken_vault",
			"1143": "the user lacks a permission: GRANT SELECT, INSERT, UPDATE, DELETE ON wxtoken_vault",
			"1049": "there is no such database: correct the end of the URL",
			"1290": readOnly, "1836": readOnly, "1792": readOnly,
			"1040": tooManyConns, "1203": tooManyConns, "1226": tooManyConns,
			"3159": "the server demands TLS: set tls=true in the URL",
			"1053": "the server is being stopped", "1021": "the server's disk is full", "1114": "the server's disk is full",
		},
	}
	d.write(syntax{
		now: "UTC_TIMESTAMP(6)",
		old: fmt.Sprintf("UTC_TIMESTAMP(6) - INTERVAL %d HOUR", hours),
		age: "TIMESTAMPDIFF(MICROSECOND, updated, UTC_TIMESTAMP(6))",
	})
	return d
}

const readOnly = "the server is read-only, such as a replica: name the primary"

// mysqlCode returns the number of an answer of the database; 0 if err is none.
func mysqlCode(err error) int {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return int(e.Number)
	}
	return 0
}
