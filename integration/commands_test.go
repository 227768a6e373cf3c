package integration

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// tell runs a command beside the sidecar p, with its configuration.
func (p *process) tell(args ...string) (output string, code int) {
	p.t.Helper()
	env := append(p.cmd.Env[:len(p.cmd.Env):len(p.cmd.Env)], "WXTOKEN_LISTEN="+p.values, "WXTOKEN_OPS_LISTEN="+p.ops) // the last one counts
	output, code = tell(p.t, env, args...)
	_, _ = p.bodies.Write([]byte(output))
	return output, code
}

func tell(t *testing.T, env []string, args ...string) (output string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(out), code
}

// An image can begin with wait: the program after -- takes its place, and its exit status.
func TestWaitBecomesTheProgram(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "redis://"+startRedis(t).addr)
	p := c.add(1)[0]
	out, code := p.tell("wait", "--timeout", "20s", "--", "sh", "-c", `echo "mine is $0 $1"; sidecar=$(readlink /proc/$$/exe); echo ${sidecar##*/}; exit 7`, "one", "--two")
	if code != 7 || !strings.Contains(out, "mine is one --two\n") || strings.Contains(out, "\nsidecar\n") {
		t.Errorf("exit status %d and\n%s", code, out)
	}
	if out, code := p.tell("wait", "--", "/nowhere/program"); code != 1 || !strings.Contains(out, "/nowhere/program") {
		t.Errorf("a program that does not exist: exit status %d and\n%s", code, out)
	}
}

// A doctor may be called to a patient that works, on the endpoint where every fetch ends the token.
func TestDoctorDisturbsNothingThatRuns(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	c := newCluster(t, "redis://"+server.addr)
	all := c.add(2)
	c.wantAllWork(everywhere(t, all, 1, (*process).token))
	before, fetches := dump(t, server.client()), c.upstream.Calls(appID).Fetches()
	out, code := all[0].tell("doctor", "--fetch")
	if code != 0 || !strings.Contains(out, "WeChat accepts the token that stands in Redis") {
		t.Errorf("exit status %d and\n%s", code, out)
	}
	c.wantFetches(fetches)
	if after := dump(t, server.client()); after != before {
		t.Errorf("Redis held\n%s\nand then\n%s", before, after)
	}
	if got := c.metric("wxtoken_redis_errors_total"); got != 0 {
		t.Errorf("%v Redis errors", got)
	}
}

// dump returns every key with what it holds.
func dump(t *testing.T, rdb *redis.Client) string {
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

// The mend for a certificate of an unknown authority works, and one for a certificate of one's own is asked for.
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
	u := startUpstream(t)
	for clients, want := range map[string]string{
		"no":  "ok       redis TLS: the certificate is good",
		"yes": "demands a certificate of its clients -- set tls-auth-clients no",
	} {
		secure := freeAddr(t)
		_, port, _ := net.SplitHostPort(secure)
		startRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", keyFile, "--tls-ca-cert-file", cert, "--tls-auth-clients", clients)
		env := []string{"SSL_CERT_FILE=" + cert, "WECHAT_APPID=" + appID, "WECHAT_SECRET=" + appSecret, "WECHAT_API_BASE=" + u.url + "/doctor", "REDIS_URL=rediss://" + secure}
		if out, code := tell(t, env, "doctor"); !strings.Contains(out, want) || (code == 0) != (clients == "no") || strings.Contains(out, appSecret) {
			t.Errorf("tls-auth-clients %s: exit status %d and\n%s", clients, code, out)
		}
	}
}
