package k8s

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The settings for production, on a primary and a replica: the sidecar gets along with exactly
// these, and others with less.
func TestTheProductionSettingsOfRedisWork(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{redisServer(), "redis-cli"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("WXTOKEN_REQUIRE_REDIS") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	certificate := selfSigned(t)
	primary := startRedis(t, certificate)
	startRedis(t, certificate, "--replicaof", "127.0.0.1", primary, "--masterauth", "replica-password")
	cli := func(user string, args ...string) string {
		t.Helper()
		url := fmt.Sprintf("rediss://%s:%s-password@127.0.0.1:%s/0", user, user, primary)
		out, _ := exec.CommandContext(t.Context(), "redis-cli", append([]string{"--no-auth-warning", "--cacert", filepath.Join(certificate, "tls.crt"), "-u", url}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	eventually(t, "the replica does not follow", func() bool { return strings.Contains(cli("sentinel", "INFO", "replication"), "state=online") })

	p, err := start(t, []string{
		fmt.Sprintf("REDIS_URL=rediss://wxtoken:wxtoken-password@127.0.0.1:%s/0", primary),
		"SSL_CERT_FILE=" + filepath.Join(certificate, "tls.crt"),
	}, "--dev")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + p.values + "/v1/apps/" + devApp + "/token"
	var token string
	eventually(t, "no token", func() bool {
		status, answer := do(t, "GET", url, "", "Accept", "text/plain")
		token = strings.TrimSpace(answer)
		return status == 200
	})
	key := "wxtoken:{" + devApp + "}:access_token"
	if got := cli("app", "GET", key); got != token {
		t.Errorf("the reader gets %.40q", got)
	}
	for _, refused := range [][]string{
		{"app", "GET", key + ":meta"}, {"app", "SET", key, "x"}, {"app", "KEYS", "*"},
		{"wxtoken", "FLUSHALL"}, {"wxtoken", "KEYS", "*"}, {"wxtoken", "GET", "others"}, {"replica", "GET", key}, {"sentinel", "GET", key},
	} {
		if got := cli(refused[0], refused[1:]...); !strings.HasPrefix(got, "NOPERM") {
			t.Errorf("%v: %.60q, want NOPERM", refused, got)
		}
	}
	_, metrics := do(t, "GET", "http://"+p.ops+"/metrics", "")
	for _, line := range regexp.MustCompile(`(?m)^wxtoken_redis_errors_total.* [^0]\S*$`).FindAllString(metrics, -1) {
		if !strings.Contains(line, `class="timeout"`) { // that is a busy machine
			t.Error(line)
		}
	}
}

// devApp is the app of --dev.
const devApp = "wx00000000000000de"

// startRedis runs a server with redis.conf and users.acl.template, each password being the user's
// name with "-password", and returns its port.
func startRedis(t *testing.T, certificate string, args ...string) (port string) {
	t.Helper()
	dir := t.TempDir()
	hash := func(password string) string {
		sum := sha256.Sum256([]byte(password))
		return hex.EncodeToString(sum[:])
	}
	users := strings.NewReplacer(
		"SHA256-OF-THE-SIDECARS-PASSWORD", hash("wxtoken-password"), "SHA256-OF-THE-APPS-PASSWORD", hash("app-password"),
		"SHA256-OF-THE-REPLICAS-PASSWORD", hash("replica-password"), "SHA256-OF-THE-SENTINELS-PASSWORD", hash("sentinel-password"),
		"wx0123456789abcdef", devApp,
	).Replace(read(t, "redis/production/users.acl.template"))
	port = freePort(t)
	conf := strings.NewReplacer(
		"/etc/redis/tls/ca.crt", certificate+"/tls.crt", "/etc/redis/tls", certificate, "/etc/redis/acl", dir,
		"dir /data", "dir "+dir, "tls-port 6379", "tls-port "+port+"\nbind 127.0.0.1",
	).Replace(read(t, "redis/production/redis.conf"))
	for name, text := range map[string]string{"users.acl": users, "redis.conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := &output{}
	cmd := exec.Command(redisServer(), append([]string{filepath.Join(dir, "redis.conf")}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "redis-server does not serve", func() bool {
		if strings.Contains(out.String(), "FATAL") {
			t.Fatal(out)
		}
		return strings.Contains(out.String(), "Ready to accept connections")
	})
	return port
}

// redisServer is the server that tests start.
func redisServer() string { return cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server") }

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// selfSigned makes tls.crt and tls.key for 127.0.0.1 in a directory.
func selfSigned(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// docs/redis.md gives the least ACL, and a test there runs with it. The template is the same.
func TestTheUsersAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	rights := regexp.MustCompile(`(?m)^user (wxtoken|app) on \S+ (.*)$`)
	all := func(text string) map[string]string {
		found := map[string]string{}
		for _, m := range rights.FindAllStringSubmatch(text, -1) {
			if found[m[1]] == "" { // the second form is for Redis 6.2
				found[m[1]] = regexp.MustCompile(`\{wx\w+\}`).ReplaceAllString(m[2], "{id}")
			}
		}
		return found
	}
	want, got := all(read(t, "../../docs/redis.md")), all(read(t, "redis/production/users.acl.template"))
	for _, user := range []string{"wxtoken", "app"} {
		if want[user] == "" || got[user] != want[user] {
			t.Errorf("%s:\n got %s\nwant %s", user, got[user], want[user])
		}
	}
}
