package doctor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// authority is a CA that signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// sign writes a certificate of 127.0.0.1 and its key.
func (a authority) sign(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", keyDER)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A Redis that lets only clients with a certificate in.
func TestRedisWithClientCertificates(t *testing.T) {
	p := newPatient(t)
	file := func(name string) string { return filepath.Join(p.dir, name) }
	ca, stranger := newAuthority(t), newAuthority(t)
	writePEM(t, file("ca.pem"), "CERTIFICATE", ca.cert.Raw)
	ca.sign(t, file("server.pem"), file("server.key"))
	port := tokencachetest.FreePort(t)
	tokencachetest.RedisServer(t, "--tls-port", port, "--tls-cert-file", file("server.pem"), "--tls-key-file", file("server.key"),
		"--tls-ca-cert-file", file("ca.pem"), "--tls-auth-clients", "yes")
	query := url.Values{optionOf("ca"): {file("ca.pem")}, optionOf("cert"): {file("client.pem")}, optionOf("key"): {file("client.key")}}
	p.env["REDIS_URL"] = "rediss://127.0.0.1:" + port + "/0?" + query.Encode()

	load := func() (*config.Config, error) {
		return config.Load(config.Overrides{}, func(name string) string { return p.env[name] })
	}
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "tls_cert_file: "+file("client.pem")+": no such file") {
		t.Errorf("without the files: %v", err)
	}
	stranger.sign(t, file("client.pem"), file("client.key"))
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	rdb, err := redisclient.Connect(cfg.Redis)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Error("a certificate of another CA is let in")
	}
	p.check(t, want{"redis TLS", doctor.Fail, "refuses the certificate", "tls-ca-cert-file"})

	// The same client takes the new certificate: it is read for each connection.
	ca.sign(t, file("client.pem"), file("client.key"))
	waitFor(t, "an answer with the new certificate", func() bool { return rdb.Ping(t.Context()).Err() == nil })
	p.until(t, func(_ []doctor.Finding, _ string, code int) (objections []string) {
		if code != 0 {
			objections = append(objections, "the doctor finds a fault")
		}
		return objections
	})

	// Half a rotation ends nothing; a key that does not belong to its certificate is a mistake.
	key, err := os.ReadFile(file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	stranger.sign(t, file("other.pem"), file("client.key"))
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "not a certificate and its own key") {
		t.Errorf("with another key: %v", err)
	}
	_ = os.WriteFile(file("client.key"), key, 0o600)

	// Another CA than that of Redis is not trusted.
	writePEM(t, file("ca.pem"), "CERTIFICATE", stranger.cert.Raw)
	cfg, err = load()
	if err != nil {
		t.Fatal(err)
	}
	other, err := redisclient.Connect(cfg.Redis)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with another CA: %v", err)
	}
}

func optionOf(file string) string { return "tls_" + file + "_file" }
