package config

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"path/filepath"
	"strings"
)

// RedisTLS says with which files the sidecar and Redis show each other who they are, and which side
// does. Empty fields were not given; a certificate comes with its key. [Load] has read each file
// once, so it was good then.
type RedisTLS struct {
	CertFile, KeyFile string // the sidecar's own certificate, with what leads to its CA, and its key; PEM
	CAFile            string // the CAs that Redis' certificate may come from, instead of the host's; PEM
	Only              string // TLSServers or TLSSentinels: the one side of a URL with Sentinels that speaks TLS; "": both
}

// The values of [RedisTLS].Only.
const (
	TLSServers   = "servers"
	TLSSentinels = "sentinels"
)

// The options of a Redis URL that go-redis does not know.
const (
	optionCert = "tls_cert_file"
	optionKey  = "tls_key_file"
	optionCA   = "tls_ca_file"
	optionOnly = "tls_only"
)

// splitTLS takes the options of RedisTLS out of a URL, and leaves everything else as it is.
func splitTLS(raw string) (rest string, files RedisTLS, wrong string) {
	base, query, found := strings.Cut(raw, "?")
	if !found || strings.Contains(query, "@") { // an @ there is refused later
		return raw, files, ""
	}
	var others []string
	hasMaster := false
	for _, option := range strings.Split(query, "&") {
		name, value, _ := strings.Cut(option, "=")
		hasMaster = hasMaster || name == "master_name"
		if name == optionOnly {
			if files.Only != "" || value != TLSServers && value != TLSSentinels {
				return raw, files, "needs, as its one option " + optionOnly + ", " + TLSServers + " or " + TLSSentinels
			}
			files.Only = value
			continue
		}
		to := map[string]*string{optionCert: &files.CertFile, optionKey: &files.KeyFile, optionCA: &files.CAFile}[name]
		if to == nil {
			others = append(others, option)
			continue
		}
		path, err := url.QueryUnescape(value)
		if err != nil || *to != "" || !filepath.IsAbs(path) {
			return raw, files, "needs, as its one option " + name + ", the absolute path of a PEM file, percent-encoded"
		}
		*to = path
	}
	switch {
	case files == (RedisTLS{}):
		return raw, files, ""
	case !strings.HasPrefix(raw, "rediss://"):
		return raw, files, "has options that begin with tls_, which need rediss://"
	case (files.CertFile == "") != (files.KeyFile == ""):
		return raw, files, "needs " + optionCert + " and " + optionKey + " together"
	case files.Only != "" && !hasMaster:
		return raw, files, "has the option " + optionOnly + ", which is for Sentinels: add master_name, or remove it"
	}
	if len(others) == 0 {
		return base, files, ""
	}
	return base + "?" + strings.Join(others, "&"), files, ""
}

// redisTLS checks the files. at is where the URL came from.
func (l *loader) redisTLS(at string, t RedisTLS) {
	read := func(option, path string) ([]byte, bool) {
		data, mode, err := l.readFile(path, maxFile)
		if err != nil {
			l.mistake(at, "%s: %v", option, err)
			return nil, false
		}
		if option == optionKey && mode&worldRead != 0 && !inKubernetesVolume(path) {
			l.warn(at, "%s: %s: every user of this host may read it: chmod o-r", option, path)
		}
		return data, true
	}
	if t.CertFile != "" {
		cert, ok1 := read(optionCert, t.CertFile)
		key, ok2 := read(optionKey, t.KeyFile)
		if ok1 && ok2 {
			// The error is not repeated: it may quote the file.
			if _, err := tls.X509KeyPair(cert, key); err != nil {
				l.mistake(at, "%s and %s: not a certificate and its own key, both in PEM", optionCert, optionKey)
			}
		}
	}
	if t.CAFile != "" {
		if ca, ok := read(optionCA, t.CAFile); ok && !x509.NewCertPool().AppendCertsFromPEM(ca) {
			l.mistake(at, "%s: %s: holds no certificate in PEM", optionCA, t.CAFile)
		}
	}
}
