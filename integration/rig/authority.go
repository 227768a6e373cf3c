package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Authority is a CA that signs certificates for tests.
type Authority struct {
	CAFile string // its certificate

	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, CAFile: filepath.Join(t.TempDir(), "ca.pem"), key: newKey(t)}
	der, err := x509.CreateCertificate(rand.Reader, template("test CA"), template("test CA"), a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	WritePEM(t, a.CAFile, "CERTIFICATE", der)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// template is of a certificate that is valid now, of a CA if it has no names.
func template(subject string, names ...string) *x509.Certificate {
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: subject},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true}
	if len(names) == 0 {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		return c
	}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return c
}

// SignTo writes a certificate for names or addresses, for servers and clients, and its key.
func (a *Authority) SignTo(certFile, keyFile string, names ...string) {
	a.t.Helper()
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template("test", names...), a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	WritePEM(a.t, certFile, "CERTIFICATE", der)
	WritePEM(a.t, keyFile, "PRIVATE KEY", keyDER)
}

// Sign returns the arguments by which redis-server shows a certificate for names and demands none
// of its clients.
func (a *Authority) Sign(names ...string) (args []string) {
	a.t.Helper()
	dir := a.t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.SignTo(certFile, keyFile, names...)
	return []string{"--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-ca-cert-file", a.CAFile, "--tls-auth-clients", "no"}
}

// WritePEM writes one block.
func WritePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Resolve lets this process find each of the names at 127.0.0.1 until the test ends. Not for
// parallel tests.
func Resolve(t testing.TB, names ...string) {
	t.Helper()
	service, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", service.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = before; _ = service.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := service.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = service.WriteTo(dnsAnswer(b[:n], names), from)
		}
	}()
}

// dnsAnswer answers one question: 127.0.0.1 for type A of one of the names, nothing for its other
// types, and for any other name that there is none.
func dnsAnswer(query []byte, names []string) []byte {
	const header = 12
	var labels []string
	i := header
	for i < len(query) && query[i] != 0 {
		labels = append(labels, string(query[i+1:i+1+int(query[i])]))
		i += 1 + int(query[i])
	}
	question := query[header : i+5]
	known := slices.Contains(names, strings.ToLower(strings.Join(labels, ".")))
	answer := []byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}
	if !known {
		answer[3] = 0x83
	}
	answer = append(answer, question...)
	if known && query[i+2] == 1 {
		answer[7] = 1
		answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return answer
}
