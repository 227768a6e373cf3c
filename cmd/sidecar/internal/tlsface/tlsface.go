// Package tlsface makes the certificates of the https face: the listener that answers under
// WeChat's own names, in a pod whose hosts file leads these names to it.
//
// The certificate is the user's, from two files, or comes from an authority of this sidecar's own.
// No browser and no other pod trusts that authority. It is bound to WeChat's names by a name
// constraint, and its key never leaves the sidecar. What the pod's apps need in order to trust it
// is written to a directory that they share with the sidecar:
//
//	ca.pem         the authority's certificate alone, for NODE_EXTRA_CA_CERTS and its like
//	bundle.pem     the same and the public roots, for SSL_CERT_FILE and its like
//	truststore.p12 the same as bundle.pem for Java, with the password changeit
//	wxtoken.ini    bundle.pem's name for PHP, which reads it by PHP_INI_SCAN_DIR
package tlsface

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Options say where the certificate comes from.
type Options struct {
	// CertFile and KeyFile are a certificate and its key in PEM. They are read again when they
	// change. Empty: the sidecar is its own authority.
	CertFile, KeyFile string
	// Names are the host names that the own authority is for.
	Names []string
	// Domains are what its name constraint permits: these domains and all below them.
	Domains []string
	// TrustDir is where the own authority writes what the apps have to trust.
	TrustDir string
	// StateDir, unless empty, is where the own authority is kept, key included, so that it outlives
	// a restart of the container: apps read what they trust once. It must be a directory that no
	// other container sees.
	StateDir string
	// Log gets a line when a certificate cannot be renewed. Required.
	Log *zap.Logger
}

// New returns the TLS configuration of the face, for HTTP/2 and HTTP/1.1. With an own authority,
// the files of TrustDir are written before it returns. The configuration is safe for concurrent
// use.
func New(o Options) (*tls.Config, error) {
	var get func() (*tls.Certificate, error)
	if o.CertFile != "" {
		f := &files{cert: o.CertFile, key: o.KeyFile, log: o.Log}
		if _, err := f.get(); err != nil {
			return nil, err
		}
		get = f.get
	} else {
		a, err := loadAuthority(o.StateDir, o.Domains)
		if err != nil {
			return nil, err
		}
		if err := writeTrust(o.TrustDir, a.cert); err != nil {
			return nil, err
		}
		l := &leaf{authority: a, names: o.Names, log: o.Log}
		if _, err := l.get(); err != nil {
			return nil, err
		}
		get = l.get
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return get() },
	}, nil
}

// fileCheck is how often the files of a certificate are looked at.
const fileCheck = 10 * time.Second

// files is a certificate from files, which something else renews. Safe for concurrent use.
type files struct {
	cert, key string
	log       *zap.Logger

	mu     sync.Mutex
	last   *tls.Certificate // that could be read
	looked time.Time
	state  [2]os.FileInfo // of the two files, when last was read
}

// get returns the certificate as it is now. While a rotation has replaced only one of the two
// files, it is the one before.
func (f *files) get() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != nil && time.Since(f.looked) < fileCheck {
		return f.last, nil
	}
	f.looked = time.Now()
	state, err := f.stat()
	if err == nil && f.last != nil && same(state[0], f.state[0]) && same(state[1], f.state[1]) {
		return f.last, nil
	}
	// The cause is not repeated: it may quote what is in the file of the key.
	pair, failed := tls.LoadX509KeyPair(f.cert, f.key)
	switch {
	case err == nil && failed == nil:
		f.last, f.state = &pair, state
	case f.last == nil:
		return nil, errors.New("tls_cert_file and tls_key_file: they must be a certificate and its key, in PEM, that this process can read")
	default:
		f.log.Warn("the certificate of the https face cannot be read again, the old one stays")
	}
	return f.last, nil
}

func (f *files) stat() (state [2]os.FileInfo, err error) {
	for i, path := range []string{f.cert, f.key} {
		if state[i], err = os.Stat(path); err != nil {
			return state, err
		}
	}
	return state, nil
}

// same reports whether a file is the one that it was. Kubernetes replaces a mounted Secret by a
// symbolic link, so the file itself is another one.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// leaf is the certificate that the own authority issues, and renews before its end. Safe for
// concurrent use.
type leaf struct {
	authority *authority
	names     []string
	log       *zap.Logger

	mu   sync.Mutex
	last *tls.Certificate
}

// get returns a certificate with more than a third of its life left. It looks at each handshake,
// so no timer can be late.
func (l *leaf) get() (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.last != nil && now.Before(l.last.Leaf.NotAfter.Add(-leafLife/3)) && now.After(l.last.Leaf.NotBefore) {
		return l.last, nil
	}
	next, err := l.authority.issue(l.names, now)
	if err != nil {
		if l.last != nil {
			l.log.Error("the certificate of the https face was not renewed", zap.Error(err))
			return l.last, nil
		}
		return nil, fmt.Errorf("making the certificate of the https face: %w", err)
	}
	l.last = next
	return next, nil
}

// verifies reports whether a client that trusts only ca accepts cert for a name now.
func verifies(cert, ca *x509.Certificate, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}
