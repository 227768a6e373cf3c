package tlsface

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"software.sslmate.com/src/go-pkcs12"
)

var (
	names   = []string{"api.weixin.qq.com", "qyapi.weixin.qq.com"}
	domains = []string{"weixin.qq.com"}
)

func own(t *testing.T) Options {
	t.Helper()
	return Options{Names: names, Domains: domains, TrustDir: t.TempDir(), Log: zap.NewNop()}
}

// face serves with the configuration, and get calls it under a name, trusting what a file says.
func face(t *testing.T, o Options) (get func(name, trusted string) (*http.Response, error)) {
	t.Helper()
	config, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS, server.EnableHTTP2 = config, true
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	t.Cleanup(server.Close)
	return func(name, trusted string) (*http.Response, error) {
		pems, err := os.ReadFile(trusted)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pems) {
			t.Fatalf("%s has no certificate", trusted)
		}
		var dialer net.Dialer
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, server.Listener.Addr().String())
		}
		t.Cleanup(transport.CloseIdleConnections)
		r, err := (&http.Client{Transport: transport}).Get("https://" + name + "/")
		if err == nil {
			_ = r.Body.Close()
		}
		return r, err
	}
}

// An app that trusts what is in the shared directory calls the face by WeChat's names and by no
// other.
func TestAnAppTrustsTheOwnAuthorityForWeChatsNames(t *testing.T) {
	o := own(t)
	get := face(t, o)
	for _, file := range []string{caFile, bundleFile} {
		for _, name := range names {
			r, err := get(name, filepath.Join(o.TrustDir, file))
			if err != nil {
				t.Fatalf("%s, trusting %s: %v", name, file, err)
			}
			if r.ProtoMajor != 2 {
				t.Errorf("%s: %s, want HTTP/2", name, r.Proto)
			}
		}
	}
	if _, err := get("shop.example.com", filepath.Join(o.TrustDir, bundleFile)); err == nil {
		t.Error("the certificate serves a name that is not WeChat's")
	}
}

// Whatever the authority's key were used for, no client would believe it outside of WeChat's names.
func TestTheOwnAuthorityIsBoundToWeChatsNames(t *testing.T) {
	a, err := newAuthority(domains, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.issue([]string{"sh.api.weixin.qq.com"}, time.Now()); err != nil {
		t.Errorf("a name of WeChat: %v", err)
	}
	for _, name := range []string{"example.com", "weixin.qq.com.example.com", "qq.com", "xweixin.qq.com"} {
		if _, err := a.issue([]string{name}, time.Now()); err == nil {
			t.Errorf("clients believe it for %s", name)
		}
	}
	if a.cert.MaxPathLen != 0 || !a.cert.MaxPathLenZero || !a.cert.PermittedDNSDomainsCritical || len(a.cert.ExcludedIPRanges) != 2 {
		t.Errorf("the constraints: %d, critical %t, %d ranges", a.cert.MaxPathLen, a.cert.PermittedDNSDomainsCritical, len(a.cert.ExcludedIPRanges))
	}
}

// SSL_CERT_FILE and Java's trust store replace what a program trusted before, so the public roots
// are in them.
func TestTheTrustFilesHoldThePublicRootsAndNoKey(t *testing.T) {
	o := own(t)
	o.StateDir = t.TempDir()
	if _, err := New(o); err != nil {
		t.Fatal(err)
	}
	pems, err := os.ReadFile(filepath.Join(o.TrustDir, bundleFile))
	if err != nil {
		t.Fatal(err)
	}
	inPEM := strings.Count(string(pems), "BEGIN CERTIFICATE")
	java, err := os.ReadFile(filepath.Join(o.TrustDir, javaFile))
	if err != nil {
		t.Fatal(err)
	}
	inJava, err := pkcs12.DecodeTrustStore(java, javaPassword)
	if err != nil {
		t.Fatal(err)
	}
	if inPEM < 100 || len(inJava) != inPEM {
		t.Errorf("%d certificates in PEM, %d for Java", inPEM, len(inJava))
	}
	state, err := os.ReadFile(filepath.Join(o.StateDir, stateFile))
	if err != nil || !strings.Contains(string(state), "PRIVATE KEY") {
		t.Fatalf("the state: %v", err)
	}
	if info, err := os.Stat(filepath.Join(o.StateDir, stateFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the state has the mode %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(o.TrustDir)
	if err != nil || len(files) != 4 {
		t.Errorf("%d files are shared, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(o.TrustDir, f.Name()))
		if err != nil || strings.Contains(string(text), "PRIVATE KEY") {
			t.Errorf("%s: %v, or it holds a key", f.Name(), err)
		}
	}
}

// An app reads what it trusts once, so it must believe a sidecar whose container was restarted.
func TestTheOwnAuthorityOutlivesARestart(t *testing.T) {
	o := own(t)
	o.StateDir = t.TempDir()
	if _, err := New(o); err != nil {
		t.Fatal(err)
	}
	trusted := filepath.Join(t.TempDir(), "read-by-the-app.pem")
	if err := os.Rename(filepath.Join(o.TrustDir, caFile), trusted); err != nil {
		t.Fatal(err)
	}
	if _, err := face(t, o)(names[0], trusted); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	// What is broken, or for other names, is replaced and not an obstacle.
	o.Domains = []string{"weixin.qq.com", "work.weixin.qq.com"}
	if _, err := face(t, o)(names[0], trusted); err == nil {
		t.Error("the authority stayed although it is for other domains")
	}
	if err := os.WriteFile(filepath.Join(o.StateDir, stateFile), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := face(t, o)(names[0], filepath.Join(o.TrustDir, caFile)); err != nil {
		t.Errorf("after garbage in the state: %v", err)
	}
}

func TestTheCertificateIsRenewedBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := newAuthority(domains, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		l := &leaf{authority: a, names: names, log: zap.NewNop()}
		first, err := l.get()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(leafLife / 2)
		if half, err := l.get(); err != nil || half != first {
			t.Errorf("after half of its life it is another one, or %v", err)
		}
		for range 20 { // years of it
			time.Sleep(leafLife / 2)
			c, err := l.get()
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(c.Leaf.NotAfter); left < leafLife/3 {
				t.Fatalf("%v of its life are left", left)
			}
			if err := verifies(c.Leaf, a.cert, names[0], time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// write puts a new certificate and its key where the options say.
func write(t *testing.T, o Options) *authority {
	t.Helper()
	dir := t.TempDir()
	a, err := loadAuthority(dir, domains)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{o.CertFile, o.KeyFile} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// cert-manager renews what is in the files, and writes one after the other.
func TestACertificateFromFilesIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	o := Options{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	first := write(t, o)
	synctest.Test(t, func(t *testing.T) {
		f := &files{cert: o.CertFile, key: o.KeyFile, log: zap.NewNop()}
		served := func() *x509.Certificate {
			t.Helper()
			time.Sleep(fileCheck)
			c, err := f.get()
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf
		}
		if got := served(); !got.Equal(first.cert) {
			t.Error("not the certificate of the file")
		}
		key, err := os.ReadFile(o.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		second := write(t, o)
		newKey, err := os.ReadFile(o.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.KeyFile, key, 0o600); err != nil { // the certificate is new, the key not yet
			t.Fatal(err)
		}
		if got := served(); !got.Equal(first.cert) {
			t.Error("half a rotation: not the certificate before")
		}
		if err := os.WriteFile(o.KeyFile, newKey, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := served(); !got.Equal(second.cert) {
			t.Error("after the rotation: not the new certificate")
		}
	})
}

// The error of a bad file says which setting is meant, and nothing of what is in it.
func TestABadCertificateIsNamedAndNotQuoted(t *testing.T) {
	dir := t.TempDir()
	o := Options{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Log: zap.NewNop()}
	write(t, o)
	if err := os.WriteFile(o.KeyFile, []byte("precious-key-material"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(o)
	if err == nil || !strings.Contains(err.Error(), "tls_key_file") || strings.Contains(err.Error(), "precious") {
		t.Errorf("got %v", err)
	}
}
