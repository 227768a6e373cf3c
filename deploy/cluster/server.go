package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// accountsKey is the file with the key that signs the tokens of ServiceAccounts.
const accountsKey = "accounts.pem"

// apiServer is a running kube-apiserver with its etcd.
type apiServer struct {
	tools  tools
	config string // for kubectl
	procs  []*exec.Cmd
	logs   []*bytes.Buffer
}

// start starts both on loopback, and returns when the API server is ready. It gets the flags
// besides those that it always has.
func start(ctx context.Context, t tools, dir string, flags ...string) (_ *apiServer, err error) {
	a := &apiServer{tools: t, config: filepath.Join(dir, "kubeconfig")}
	defer func() {
		if err != nil {
			a.stop()
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	store, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	if err := a.launch(ctx, t.etcd, "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", store, "--advertise-client-urls", store,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--unsafe-no-fsync"); err != nil {
		return nil, err
	}
	token := rand.Text()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	accounts := filepath.Join(dir, accountsKey)
	for path, text := range map[string][]byte{
		accounts:                         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		filepath.Join(dir, "tokens.csv"): []byte(token + ",admin,admin,system:masters\n"),
		a.config: fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"it",
			"clusters":[{"name":"it","cluster":{"server":"https://127.0.0.1:%s","insecure-skip-tls-verify":true}}],
			"users":[{"name":"it","user":{"token":%q}}],"contexts":[{"name":"it","context":{"cluster":"it","user":"it"}}]}`, ports[2], token),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	if err := a.launch(ctx, t.apiserver, append(flags, "--etcd-servers", store, "--bind-address", "127.0.0.1", "--secure-port", ports[2], "--cert-dir", filepath.Join(dir, "certs"),
		"--service-account-key-file", accounts, "--service-account-signing-key-file", accounts, "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-cluster-ip-range", "10.0.0.0/24", "--token-auth-file", filepath.Join(dir, "tokens.csv"), "--authorization-mode", "RBAC")...); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(5 * time.Minute); ; {
		_, err := a.kubectl(ctx, nil, "get", "--raw", "/readyz")
		if err == nil {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("the API server is not ready: %w\n%s", err, a.lastWords())
		}
		time.Sleep(500 * time.Millisecond)
	}
	version, err := a.kubectl(ctx, nil, "version")
	fmt.Println(strings.Join(strings.Fields(regexp.MustCompile(`Kustomize.*`).ReplaceAllString(version.out, "")), " "))
	return a, err
}

func (a *apiServer) launch(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	a.procs, a.logs = append(a.procs, cmd), append(a.logs, log)
	return nil
}

// stop ends the processes, the API server first.
func (a *apiServer) stop() {
	for i := len(a.procs) - 1; i >= 0; i-- {
		_ = a.procs[i].Process.Kill()
		_ = a.procs[i].Wait()
	}
}

// lastWords is the end of what each process logged. They are stopped first, so that nothing writes.
func (a *apiServer) lastWords() string {
	a.stop()
	var b strings.Builder
	for i, log := range a.logs {
		text := log.String()
		fmt.Fprintf(&b, "%s:\n%s\n", filepath.Base(a.procs[i].Path), text[max(0, len(text)-2000):])
	}
	a.procs = nil
	return b.String()
}

// freePorts returns ports that were free a moment ago.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// answer is what kubectl printed: its output, and the warnings of the API server.
type answer struct {
	out      string
	warnings []string
}

// kubectl runs a command. What the user has set for kubectl is out of its sight.
func (a *apiServer) kubectl(ctx context.Context, stdin []byte, args ...string) (answer, error) {
	cmd := exec.CommandContext(ctx, a.tools.kubectl, append([]string{"--kubeconfig", a.config, "--cache-dir", filepath.Dir(a.config)}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECTL_KUBERC=false", "KUBECTL_EXTERNAL_DIFF=")
	cmd.Stdin = bytes.NewReader(stdin)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %.2000s%.2000s", strings.Join(args, " "), err, problems.String(), out.String())
	}
	result := answer{out: out.String()}
	for line := range strings.Lines(problems.String()) {
		if strings.HasPrefix(line, "Warning:") {
			result.warnings = append(result.warnings, strings.TrimSpace(line))
		}
	}
	return result, err
}
