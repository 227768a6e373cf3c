package tlsface

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// An app reads what it trusts once, at its start, so the authority outlives every pod.
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour
	// skew is how far the clock of an app on the same node may be behind.
	skew = time.Hour
)

// authority issues the certificates of one sidecar.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes an authority that can vouch for the given domains and what is below them, for
// no address and for no other authority.
func newAuthority(domains []string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{"wxtoken"}, CommonName: "wxtoken sidecar of " + host},
		NotBefore:    now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign,
		PermittedDNSDomains:         domains,
		PermittedDNSDomainsCritical: true,
		ExcludedIPRanges:            []*net.IPNet{everyAddress(net.IPv4len), everyAddress(net.IPv6len)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: key}, err
}

func everyAddress(bytes int) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, bytes), Mask: make(net.IPMask, bytes)}
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] &= 0x7f        // positive
	return new(big.Int).SetBytes(b)
}

// issue returns a certificate for names.
func (a *authority) issue(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{Organization: []string{"wxtoken"}, CommonName: names[0]},
		DNSNames:     names,
		NotBefore:    now.Add(-skew), NotAfter: now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := verifies(cert, a.cert, name, now); err != nil {
			return nil, err
		}
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}

// stateFile holds the authority, certificate and key in PEM.
const stateFile = "authority.pem"

// loadAuthority returns the authority that an earlier process of this container left in dir, or a
// new one, which it leaves there. Without dir it is in memory alone.
func loadAuthority(dir string, domains []string) (*authority, error) {
	now := time.Now()
	if dir == "" {
		return newAuthority(domains, now)
	}
	path := filepath.Join(dir, stateFile)
	if old, err := readAuthority(path); err == nil && old.serves(domains, now) {
		return old, nil
	}
	a, err := newAuthority(domains, now)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	text := append(pemCert(a.cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := replaceFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("tls_state_dir: %w", err)
	}
	return a, nil
}

// readAuthority reads what loadAuthority has written. Its errors quote nothing of the file.
func readAuthority(path string) (*authority, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, errors.New("not an authority")
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a key that signs")
	}
	return &authority{cert: pair.Leaf, key: signer}, nil
}

// serves reports whether an authority of an earlier process is as a new one would be, and lasts.
func (a *authority) serves(domains []string, now time.Time) bool {
	return a.cert.IsCA && slices.Equal(a.cert.PermittedDNSDomains, domains) &&
		now.After(a.cert.NotBefore) && now.Before(a.cert.NotAfter.Add(-authorityLife/2))
}

func pemCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
