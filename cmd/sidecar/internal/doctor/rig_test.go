package doctor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	canarySecret   = "CANARY-app-secret"
	canaryPassword = "CANARY+redis/password" // must be percent-encoded
)

// patience is how long a test waits for what a busy machine delays.
const patience = 2 * time.Minute

// waitFor polls until ok.
func waitFor(t *testing.T, awaited string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", awaited)
		}
	}
}

// patient is what a sidecar would start with. It begins in good health.
type patient struct {
	env   map[string]string
	sim   *wechattest.Server
	redis string // address of the server
	dir   string
	ca    string // see secure
}

func newPatient(t *testing.T, redisArgs ...string) *patient {
	t.Helper()
	args := append([]string{"--requirepass", canaryPassword, "--appendonly", "yes"}, redisArgs...)
	p := &patient{dir: t.TempDir(), redis: tokencachetest.RedisServer(t, args...)}
	p.sim = wechattest.New(wechattest.App{ID: "wx1", Secret: canarySecret}, wechattest.App{ID: "ww1", Agent: "2", Kind: wechattest.Corp, Secret: canarySecret})
	upstream := httptest.NewServer(p.sim)
	t.Cleanup(upstream.Close)
	p.env = map[string]string{
		"WECHAT_APPID": "wx1", "WECHAT_API_BASE": upstream.URL, "WECHAT_SECRET_FILE": p.file(t, "secret", canarySecret+"\n", 0o400),
		"REDIS_URL": "redis://:CANARY%2Bredis%2Fpassword@" + p.redis,
	}
	return p
}

// file writes a file and returns its path.
func (p *patient) file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// admin is who may do everything in the Redis of the patient.
func (p *patient) admin(t *testing.T) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: p.redis, Password: canaryPassword})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (p *patient) do(t *testing.T, command ...any) {
	t.Helper()
	if err := p.admin(t).Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
	}
}

// classic puts the patient on the endpoint where a fetch ends the token.
func (p *patient) classic() { p.env["WECHAT_ENDPOINT"] = "token" }

// stand stores a token as a sidecar does.
func (p *patient) stand(t *testing.T, app, value string) {
	p.do(t, "SET", "wxtoken:{"+app+"}:access_token", value, "PX", "600000")
}

// until runs the doctor until judge has no objection. The doctor gives a question up if there is no
// answer for a while, for redisIOTimeout at least. That may be the fault of a busy machine: so a
// run that took longer is done again.
func (p *patient) until(t *testing.T, judge func(findings []doctor.Finding, text string, code int) (objections []string), args ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		begun := time.Now()
		findings, text, code, objections := p.examine(t, args...)
		objections = append(objections, judge(findings, text, code)...)
		if len(objections) == 0 {
			return
		}
		if time.Since(begun) < redisclient.IOTimeout || time.Now().After(deadline) {
			t.Errorf("%s:\n%s", strings.Join(objections, "\n"), text)
			return
		}
	}
}

// examine runs the command, for people and for programs, and returns what both said. That holds no
// secret.
func (p *patient) examine(t *testing.T, args ...string) (findings []doctor.Finding, text string, code int, objections []string) {
	t.Helper()
	getenv := func(name string) string { return p.env[name] }
	var stdout, stderr, asJSON bytes.Buffer
	code = cli.Run(t.Context(), []cli.Command{doctor.Command}, append([]string{"doctor"}, args...), getenv, &stdout, &stderr)
	again := cli.Run(t.Context(), []cli.Command{doctor.Command}, append([]string{"doctor", "--json"}, args...), getenv, &asJSON, &stderr)
	if stderr.Len() > 0 || again != code {
		objections = append(objections, fmt.Sprintf("exit status %d and then %d; stderr: %s", code, again, &stderr))
	}
	for line := range strings.Lines(asJSON.String()) {
		var f doctor.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		findings = append(findings, f)
	}
	if lines := strings.Count(stdout.String(), "\n"); lines != len(findings) {
		objections = append(objections, fmt.Sprintf("%d lines and %d findings", lines, len(findings)))
	}
	hidden := []string{"CANARY", canarySecret, canaryPassword}
	for _, app := range []string{"wx1", "ww1:2"} {
		for _, i := range p.sim.Issued(app) {
			hidden = append(hidden, i.Value)
		}
	}
	if said := stdout.String() + asJSON.String(); secrettest.Find(said, hidden...) != "" {
		t.Errorf("the report holds a secret or a token:\n%s", said)
	}
	return findings, stdout.String(), code, objections
}

// want is the finding that a staged fault must lead to.
type want struct {
	check string
	state doctor.State
	text  string // part of what was found
	fix   string // part of what to do
}

// check runs the doctor: it must find this, and no other fault but what follows from it.
func (p *patient) check(t *testing.T, w want, args ...string) {
	t.Helper()
	p.until(t, func(findings []doctor.Finding, _ string, code int) (objections []string) {
		found := false
		for _, f := range findings {
			if f.Check == w.check && f.State == w.state && strings.Contains(f.Text, w.text) && strings.Contains(f.Fix, w.fix) {
				found = true
			} else if f.State == doctor.Fail || f.State == doctor.Warn {
				objections = append(objections, fmt.Sprintf("found besides: %+v", f))
			}
		}
		if !found {
			objections = append(objections, fmt.Sprintf("not found: %+v", w))
		}
		wantCode := 0
		if w.state == doctor.Fail {
			wantCode = 1
		}
		if code != wantCode {
			objections = append(objections, fmt.Sprintf("exit status %d, want %d", code, wantCode))
		}
		return objections
	}, args...)
}

// secure starts a Redis with TLS whose certificate is for name, and returns its address. p.ca is
// then the file of its CA.
func (p *patient) secure(t *testing.T, name string) string {
	t.Helper()
	port := tokencachetest.FreePort(t)
	authority := rig.NewAuthority(t)
	p.ca = authority.CAFile
	tokencachetest.RedisServer(t, append(authority.Sign(name), "--tls-port", port)...)
	return "127.0.0.1:" + port
}
