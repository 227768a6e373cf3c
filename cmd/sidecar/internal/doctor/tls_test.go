package doctor_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A Redis that lets only clients with a certificate in.
func TestRedisWithClientCertificates(t *testing.T) {
	p := newPatient(t)
	file := func(name string) string { return filepath.Join(p.dir, name) }
	ca, stranger := rig.NewAuthority(t), rig.NewAuthority(t)
	trust := func(a *rig.Authority) {
		text, err := os.ReadFile(a.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		p.file(t, "ca.pem", string(text), 0o600)
	}
	trust(ca)
	ca.SignTo(file("server.pem"), file("server.key"), "127.0.0.1")
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
	stranger.SignTo(file("client.pem"), file("client.key"), "127.0.0.1")
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
	ca.SignTo(file("client.pem"), file("client.key"), "127.0.0.1")
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
	stranger.SignTo(file("other.pem"), file("client.key"), "127.0.0.1")
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "not a certificate and its own key") {
		t.Errorf("with another key: %v", err)
	}
	_ = os.WriteFile(file("client.key"), key, 0o600)

	// Another CA than that of Redis is not trusted.
	trust(stranger)
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
