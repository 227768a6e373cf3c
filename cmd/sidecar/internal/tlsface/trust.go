package tlsface

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/x509roots/fallback/bundle"
	"software.sslmate.com/src/go-pkcs12"
)

// The files that writeTrust writes.
const (
	caFile     = "ca.pem"
	bundleFile = "bundle.pem"
	javaFile   = "truststore.p12"
	phpFile    = "wxtoken.ini"
)

// javaPassword is the one that every Java program uses for what holds no secret.
const javaPassword = "changeit"

// writeTrust writes what the apps have to trust: the authority, and the public roots beside it,
// because SSL_CERT_FILE and Java's trust store replace what a program trusted before.
func writeTrust(dir string, ca *x509.Certificate) error {
	all := []*x509.Certificate{ca}
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue // a file cannot say until when such a root is to be trusted
		}
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			continue
		}
		all = append(all, cert)
	}
	var pems bytes.Buffer
	entries := make([]pkcs12.TrustStoreEntry, len(all))
	for i, cert := range all {
		pems.Write(pemCert(cert))
		entries[i] = pkcs12.TrustStoreEntry{Cert: cert, FriendlyName: fmt.Sprintf("%03d", i)} // Java wants them to differ
	}
	java, err := pkcs12.Modern.EncodeTrustStoreEntries(entries, javaPassword)
	if err != nil {
		return fmt.Errorf("tls_trust_dir: %s: %w", javaFile, err)
	}
	// PHP's curl does not look at SSL_CERT_FILE.
	trusted := filepath.Join(dir, bundleFile)
	php := fmt.Sprintf("openssl.cafile = %q\ncurl.cainfo = %q\n", trusted, trusted)
	for _, f := range []struct {
		name string
		text []byte
	}{{caFile, pemCert(ca)}, {bundleFile, pems.Bytes()}, {javaFile, java}, {phpFile, []byte(php)}} {
		if err := replaceFile(filepath.Join(dir, f.name), f.text, 0o644); err != nil {
			return fmt.Errorf("tls_trust_dir: %w", err)
		}
	}
	return nil
}

// replaceFile writes a file so that its readers see all of it or what was there before.
func replaceFile(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // which is gone if all went well
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if failed := f.Close(); err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
