package integration

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/integration/rig"
)

// An image can begin with wait: the program after -- takes its place, and its exit status.
func TestWaitBecomesTheProgram(t *testing.T) {
	t.Parallel()
	c := newCluster(t, rig.StartRedis(t))
	p := c.Add(1)[0]
	out, code := p.Tell("wait", "--timeout", "5m", "--", "sh", "-c", `echo "mine is $0 $1"; sidecar=$(readlink /proc/$$/exe); echo ${sidecar##*/}; exit 7`, "one", "--two")
	if code != 7 || !strings.Contains(out, "mine is one --two\n") || strings.Contains(out, "\nsidecar\n") {
		t.Errorf("exit status %d and\n%s", code, out)
	}
	if out, code := p.Tell("wait", "--", "/nowhere/program"); code != 1 || !strings.Contains(out, "/nowhere/program") {
		t.Errorf("a program that does not exist: exit status %d and\n%s", code, out)
	}
}

// A doctor may be called to a patient that works, on the endpoint where every fetch ends the token.
func TestDoctorDisturbsNothingThatRuns(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	c := newCluster(t, server)
	all := c.Add(2)
	c.wantAllWork(c.everywhere(all, 1, (*rig.Sidecar).Token))
	before, fetches := dump(t, server.Client()), c.Upstream.Calls(appID).Fetches()
	err := c.insist(func() error {
		out, code := all[0].Tell("doctor", "--fetch")
		if code != 0 || !strings.Contains(out, "WeChat accepts the token in Redis") {
			return fmt.Errorf("exit status %d and\n%s", code, out)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	c.wantFetches(fetches)
	if after := dump(t, server.Client()); after != before {
		t.Errorf("Redis held\n%s\nand then\n%s", before, after)
	}
	if got := c.Metric("wxtoken_redis_errors_total") - c.Metric("wxtoken_redis_errors_total", `class="timeout"`); got != 0 {
		t.Errorf("%v Redis errors", got)
	}
}

// dump returns every key with what it holds.
func dump(t *testing.T, rdb redis.UniversalClient) string {
	var b strings.Builder
	keys, err := rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	for _, k := range keys {
		value, err := rdb.Dump(t.Context(), k).Result()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %q\n", k, value)
	}
	return b.String()
}

// The mend for a certificate of an unknown authority works, and one for a certificate of one's own
// is asked for.
func TestDoctorKnowsTheAuthorityInSSLCertFile(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	issued := web.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Certificate[0]})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	c := newCluster(t, rig.At(t, "redis://127.0.0.1:1"))
	for clients, want := range map[string]string{
		"no":  "ok       redis TLS: the certificate is good",
		"yes": "demands a certificate of its clients -- name one in REDIS_URL",
	} {
		secure := rig.FreeAddr(t)
		_, port, _ := net.SplitHostPort(secure)
		rig.StartRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", keyFile, "--tls-ca-cert-file", cert, "--tls-auth-clients", clients)
		env := []string{"SSL_CERT_FILE=" + cert, "WECHAT_APPID=" + appID, "WECHAT_SECRET=" + appSecret, "WECHAT_API_BASE=" + c.Upstream.URL + "/doctor", "REDIS_URL=rediss://" + secure}
		err := c.insist(func() error {
			out, code := rig.Tell(t, env, "doctor")
			if strings.Contains(out, appSecret) {
				t.Errorf("the secret is in\n%s", out)
			}
			if !strings.Contains(out, want) || (code == 0) != (clients == "no") {
				return fmt.Errorf("tls-auth-clients %s: exit status %d and\n%s", clients, code, out)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
