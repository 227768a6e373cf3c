package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	appID     = "wx00000000000000f1"
	appSecret = "CANARY+secret/of=the-app"
	namespace = "wxtoken"
	valueKey  = namespace + ":{" + appID + "}:access_token"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wxtoken")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "sidecar")
	build := exec.Command("go", "build", "-o", binary, "../cmd/sidecar")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the sidecar:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// eventually polls until ok, or ends the test with what was awaited.
func eventually(t *testing.T, within time.Duration, awaited string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, awaited)
		}
	}
}

// upstream is the simulator on a real socket. Each sidecar calls it under a path of its own, so that
// a test knows who is asking.
type upstream struct {
	*wechattest.Server
	url string

	mu     sync.Mutex
	asking func(sidecar string, r *http.Request) // told before a call is handled
}

func startUpstream(t *testing.T) *upstream {
	u := &upstream{Server: wechattest.New(wechattest.App{ID: appID, Secret: appSecret})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sidecar, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		r.URL.Path = "/" + path
		u.mu.Lock()
		asking := u.asking
		u.mu.Unlock()
		if asking != nil {
			asking(sidecar, r)
		}
		u.Server.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	u.url = server.URL
	return u
}

func (u *upstream) onCall(f func(sidecar string, r *http.Request)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asking = f
}

func (u *upstream) works(token string) bool {
	return u.Valid(appID, token)
}

// process is one sidecar.
type process struct {
	t      *testing.T
	name   string
	values string // host:port
	ops    string
	cmd    *exec.Cmd
	log    *lockedBuffer
	bodies *lockedBuffer // of everything that must hold no value
	exited chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// cluster is some sidecars on one Redis and one upstream.
type cluster struct {
	t        *testing.T
	redisURL string
	upstream *upstream
	env      []string
	all      []*process
}

func newCluster(t *testing.T, redisURL string, env ...string) *cluster {
	c := &cluster{t: t, redisURL: redisURL, upstream: startUpstream(t), env: env}
	t.Cleanup(c.leakCheck)
	return c
}

// add starts n sidecars and returns when they answer.
func (c *cluster) add(n int) []*process {
	c.t.Helper()
	var started []*process
	for range n {
		p := &process{
			t: c.t, name: fmt.Sprintf("sidecar-%d", len(c.all)),
			log: &lockedBuffer{}, bodies: &lockedBuffer{}, exited: make(chan struct{}),
		}
		p.cmd = exec.Command(binary, "--log-level", "debug", "--log-format", "json")
		p.cmd.Env = append([]string{
			"PATH=" + os.Getenv("PATH"),
			"WECHAT_APPID=" + appID, "WECHAT_SECRET=" + appSecret, "WECHAT_ENDPOINT=token",
			"WECHAT_API_BASE=" + c.upstream.url + "/" + p.name,
			"REDIS_URL=" + c.redisURL, "WXTOKEN_LISTEN=127.0.0.1:0", "WXTOKEN_OPS_LISTEN=127.0.0.1:0",
			"WXTOKEN_DRAIN=0s", // the test, whose connections stay, is not an app that ends
		}, c.env...)
		p.cmd.Stderr, p.cmd.Stdout = p.log, p.log
		if err := p.cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		go func() { _ = p.cmd.Wait(); close(p.exited) }()
		c.t.Cleanup(func() {
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			_ = p.cmd.Process.Kill()
			<-p.exited
			if c.t.Failed() {
				c.t.Logf("%s:\n%s", p.name, p.log)
			}
		})
		c.all = append(c.all, p)
		started = append(started, p)
	}
	for _, p := range started {
		eventually(c.t, 20*time.Second, p.name+" says where it listens", p.listens)
	}
	return started
}

// listens reports whether the process has logged its addresses, and notes them.
func (p *process) listens() bool {
	for line := range strings.Lines(p.log.String()) {
		var started struct {
			Msg    string `json:"msg"`
			Listen string `json:"listen"`
			Ops    string `json:"ops_listen"`
		}
		if json.Unmarshal([]byte(line), &started) == nil && started.Msg == "started" {
			p.values, p.ops = started.Listen, started.Ops
			return true
		}
	}
	return false
}

func (c *cluster) byName(name string) *process {
	for _, p := range c.all {
		if p.name == name {
			return p
		}
	}
	c.t.Fatalf("no sidecar %q", name)
	return nil
}

var client = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// get fetches what must hold no value, and keeps it for the leak check.
func (p *process) get(url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	_, _ = p.bodies.Write(body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, r.Status)
	}
	return string(body), err
}

// answer is what the token face says.
type answer struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
	Version     int64  `json:"version"`
	Stale       bool   `json:"stale"`
}

func (p *process) token() (answer, error) {
	r, err := client.Get("http://" + p.values + "/v1/apps/" + appID + "/token")
	return p.decode(r, err)
}

func (p *process) report(token string) (answer, error) {
	body := fmt.Sprintf(`{"access_token":%q,"errcode":42001}`, token)
	r, err := client.Post("http://"+p.values+"/v1/apps/"+appID+"/token/report", "application/json", strings.NewReader(body))
	return p.decode(r, err)
}

func (p *process) decode(r *http.Response, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return answer{}, err
	}
	if r.StatusCode != http.StatusOK {
		_, _ = p.bodies.Write(body)
		return answer{}, fmt.Errorf("%s: %s: %s", p.name, r.Status, body)
	}
	var a answer
	return a, json.Unmarshal(body, &a)
}

// metric returns the sum of a metric's series whose line contains all of the given labels.
func (p *process) metric(name string, labels ...string) float64 {
	p.t.Helper()
	text, err := p.get("http://" + p.ops + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	sum := 0.0
lines:
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue lines
			}
		}
		var v float64
		fields := strings.Fields(line)
		if _, err := fmt.Sscan(fields[len(fields)-1], &v); err != nil {
			p.t.Fatalf("metric line %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

func (c *cluster) metric(name string, labels ...string) float64 {
	sum := 0.0
	for _, p := range c.all {
		select {
		case <-p.exited:
		default:
			sum += p.metric(name, labels...)
		}
	}
	return sum
}

// once runs the program with nothing but env, and returns what it printed and its exit status.
func (c *cluster) once(env []string) (string, int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}
