package redisclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// useFiles makes to use the files of from. The certificate and its key are read again for each
// connection, so that a rotation needs no restart; the CAs are read now.
func useFiles(to *tls.Config, from config.RedisTLS) error {
	if to == nil {
		return nil // not rediss://
	}
	if from.CAFile != "" {
		ca, err := os.ReadFile(from.CAFile)
		if err != nil {
			return fmt.Errorf("the CAs of Redis: %w", err)
		}
		to.RootCAs = x509.NewCertPool()
		if !to.RootCAs.AppendCertsFromPEM(ca) {
			return errors.New("the CAs of Redis: " + from.CAFile + " holds no certificate in PEM")
		}
	}
	if from.CertFile != "" {
		c := &clientCertificate{files: from}
		to.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.get() }
	}
	return nil
}

// clientCertificate is what the sidecar shows to Redis. Safe for concurrent use.
type clientCertificate struct {
	files config.RedisTLS

	mu   sync.Mutex
	last *tls.Certificate // that could be read
}

// get returns the certificate as it is now. While a rotation has replaced only one of the two
// files, it is the one before.
func (c *clientCertificate) get() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	switch {
	case err == nil:
		c.last = &now
	case c.last == nil:
		return nil, errors.New("the client certificate or its key cannot be read") // the cause may quote a file
	}
	return c.last, nil
}
