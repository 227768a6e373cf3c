package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	canarySecret = "CANARY-app-secret"
	canaryBearer = "CANARY-bearer-0123456789"
)

// rig is a running sidecar of two apps with its WeChat, which listens on unix sockets.
type rig struct {
	sim         *wechattest.Server
	config, dir string
	env         map[string]string // over the configuration
	*program                      // once it is started
}

// newRig makes all but the sidecar.
func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "wx") // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{dir: dir, config: filepath.Join(dir, "config.yaml")}
	r.sim = wechattest.New(wechattest.App{ID: "wx1", Secret: canarySecret}, wechattest.App{ID: "wx2", Secret: canarySecret})
	upstream := httptest.NewServer(r.sim)
	t.Cleanup(upstream.Close)
	r.write(t, "secret", canarySecret)
	r.write(t, "bearer", canaryBearer)
	r.write(t, "config.yaml", strings.NewReplacer("DIR", dir, "UPSTREAM", upstream.URL, "REDIS", miniredis.RunT(t).Addr()).Replace(`
listen: unix:DIR/v.sock
ops_listen: unix:DIR/o.sock
bearer_token_file: DIR/bearer
redis: {url: redis://REDIS}
apps:
  - {id: wx1, alias: shop, secret_file: DIR/secret, api_base: UPSTREAM, tickets: [jsapi]}
  - {id: wx2, secret_file: DIR/secret, api_base: UPSTREAM}
`))
	return r
}

func (r *rig) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts the sidecar, and stops it at the end of the test.
func (r *rig) start(t *testing.T) {
	t.Helper()
	r.program = begin(t, r.getenv, "--config", r.config)
}

func (r *rig) getenv(name string) string {
	if name == "WXTOKEN_CONFIG" {
		return r.config
	}
	return r.env[name]
}

// ask runs a command with the configuration of the sidecar.
func (r *rig) ask(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = command(t.Context(), args, r.getenv, &out, &err)
	return code, out.String(), err.String()
}

func (r *rig) want(t *testing.T, code int, onStdout, onStderr string, args ...string) (stdout string) {
	t.Helper()
	got, stdout, stderr := r.ask(t, args...)
	if got != code || !strings.Contains(stdout, onStdout) || !strings.Contains(stderr, onStderr) {
		t.Errorf("%q: exit status %d, want %d, with %q on stdout and %q on stderr\n%s\n%s", args, got, code, onStdout, onStderr, stdout, stderr)
	}
	said, hidden := stderr, []string{"CANARY", canarySecret, canaryBearer}
	if args[0] != "get" {
		said += stdout
	}
	for _, app := range []string{"wx1", "wx2"} {
		for _, i := range r.sim.Issued(app) {
			hidden = append(hidden, i.Value)
		}
	}
	if form := secrettest.Find(said, hidden...); form != "" {
		t.Errorf("%q: the output holds a secret or a value: %s", args, form)
	}
	return stdout
}

// wantInTime repeats a command that gives up after a short time until it has got as far as the
// words on stderr in that time.
func (r *rig) wantInTime(t *testing.T, onStderr string, args ...string) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%q says %q", args, onStderr), func() bool {
		_, _, stderr := r.ask(t, args...)
		return strings.Contains(stderr, onStderr)
	})
	r.want(t, 1, "", "", args...)
}

func TestCommandsAskARunningSidecar(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.want(t, 0, "", "", "wait", "--timeout", "5m")

	token := r.sim.Issued("wx1")[0].Value
	for _, args := range [][]string{{"get", "shop"}, {"get", "wx1", "--timeout", "5m"}, {"get", "--timeout=5m", "shop"}} {
		if got := r.want(t, 0, token, "", args...); got != token+"\n" {
			t.Errorf("%q printed %q, want the bare token", args, got)
		}
	}
	r.want(t, 0, `{"access_token":"`+token+`","expires_in":7`, "", "get", "shop", "--json")
	ticket := strings.TrimSpace(r.want(t, 0, "", "", "get", "shop", "--ticket", "jsapi"))
	if !strings.Contains(fmt.Sprint(r.sim.Issued("wx1")), ticket) || ticket == token || ticket == "" {
		t.Errorf("the ticket is %q", ticket)
	}

	r.want(t, 1, "", "name one: shop, wx2", "get")
	r.want(t, 1, "", "No such app", "get", "unknown")
	r.want(t, 1, "", "neither an id nor an alias", "get", "../wx1")
	r.want(t, 0, "", "", "get", "wx2", "--ticket", "jsapi") // without an entry in the configuration
	r.want(t, 1, "", "jsapi and wx_card", "get", "wx2", "--ticket", "agent_config")
	r.want(t, 2, "", "2 arguments", "get", "shop", "wx2")
	r.wantInTime(t, "app unknown: No such app", "wait", "--app", "unknown", "--timeout", "300ms")
	r.want(t, 0, "", "", "wait", "--app", "shop", "--app", "wx2")

	r.want(t, 0, "ok", "", "healthcheck")
	table := r.want(t, 0, "LAST ERROR", "", "status")
	for _, want := range []string{`shop \(wx1\) +access_token +fresh +1h5\S+ +1h[45]\S+ +\d{13}`, `shop \(wx1\) +jsapi_ticket +fresh`, `wx2 +access_token +fresh`} {
		if !regexp.MustCompile(want).MatchString(table) {
			t.Errorf("the table has no %s:\n%s", want, table)
		}
	}
	r.want(t, 0, `"started": true`, "", "status", "--json")
}

// An entry point and a postStart hook begin before the sidecar does.
func TestWaitOutlastsASidecarThatStartsLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.sim.Deny("wx2", 40243)
	wait := begin(t, noEnv, "wait", "--config", r.config, "--app", "shop", "--timeout", "5m")
	waitFor(t, "it says what it waits for", func() bool { return strings.Contains(wait.stderr.String(), "no sidecar listens there") })
	r.start(t)
	wait.wantExit()
	// Without --app it is every app, and says which one is missing, and why.
	r.wantInTime(t, "not within 1s: app wx2: Upstream refuses the app until a person acts", "wait", "--timeout", "1s")
	r.want(t, 0, "frozen", "", "status")
	// Each look finds less time left, and says so once: what a failed hook printed becomes a part of
	// the pod's status.
	_, _, stderr := r.ask(t, "wait", "--timeout", "3s")
	if n := strings.Count(stderr, "waiting: "); n != 1 || !strings.Contains(stderr, "come back in") {
		t.Errorf("in 3 s it says %d times what it waits for:\n%s", n, stderr)
	}
}

// A new configuration that is wrong leaves a sidecar running: its probe must not end it.
func TestAWrongConfigurationDoesNotFailTheHealthcheck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(t)
	r.want(t, 0, "", "", "wait", "--app", "shop", "--timeout", "5m")
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, "config.yaml", string(text)+"nonsense: 1\n")
	r.write(t, "secret", "")
	r.want(t, 0, "ok", "", "healthcheck")
	r.want(t, 0, "", "", "get", "shop")
	// But if no sidecar answers, that may be why.
	r.write(t, "config.yaml", "ops_listen: [unix]\n")
	r.want(t, 1, "", "ops_listen: needs a text", "healthcheck", "--ops-listen", "unix:"+r.dir+"/missing.sock")
}

func TestHealthcheckFailsWithoutAGoodAnswer(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			http.Error(w, "ill", http.StatusServiceUnavailable)
		default:
			<-hang
		}
	}))
	defer server.Close()
	defer close(hang)
	address := strings.TrimPrefix(server.URL, "http://")
	r := &rig{sim: wechattest.New(wechattest.App{ID: "wx1"}, wechattest.App{ID: "wx2"})}
	r.want(t, 1, "", "ill", "healthcheck", "--ops-listen", address)
	r.want(t, 1, "", "no answer in time", "status", "--ops-listen", address, "--timeout", "50ms")
	r.want(t, 1, "", "no sidecar listens there", "healthcheck", "--ops-listen", "127.0.0.1:1")
	r.want(t, 2, "", "bogus", "healthcheck", "--bogus")
}

// A richer /status, and one of a sidecar in trouble.
func TestStatusShowsTroubleAndIgnoresWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/json" {
			t.Error("it takes a page for people")
		}
		_, _ = w.Write([]byte(`{"started":false,"missing":"wx1 access_token","news":{"a":[1]},"apps":[{"id":"wx1","credentials":[
			{"kind":"access_token","state":"missing","in_doubt":true,"foreign_refresher":true,"backoff":34,"error":"errcode 40125:\nwrong","history":[{}]}]}]}`))
	}))
	defer server.Close()
	r := &rig{sim: wechattest.New(wechattest.App{ID: "wx1"}, wechattest.App{ID: "wx2"})}
	table := r.want(t, 0, "not started: wx1 access_token", "", "status", "--ops-listen", strings.TrimPrefix(server.URL, "http://"))
	want := `wx1 +access_token +missing, in doubt, foreign refresher suspected +- +- +- +errcode 40125: wrong; WeChat is asked again in 34s\n`
	if !regexp.MustCompile(want).MatchString(table) {
		t.Errorf("the table is\n%s", table)
	}
}

func TestEveryCommandTellsHowToUseIt(t *testing.T) {
	t.Parallel()
	r := &rig{sim: wechattest.New(wechattest.App{ID: "wx1"}, wechattest.App{ID: "wx2"})}
	list := r.want(t, 0, "exit status", "", "help")
	if again := r.want(t, 0, "", "", "--help"); again != list {
		t.Error("help and --help differ")
	}
	for _, s := range commands() {
		if !strings.Contains(list, "\n  "+s.Name+" ") {
			t.Errorf("the list has no %s", s.Name)
		}
		text := r.want(t, 0, "usage: sidecar", "", s.Name, "--help")
		for _, want := range []string{s.Name, "exit status:\n  0  ", "\n  2  "} {
			if !strings.Contains(text, want) {
				t.Errorf("the help of %s has no %q", s.Name, want)
			}
		}
		if again := r.want(t, 0, "", "", "help", s.Name); again != text {
			t.Errorf("help %s and %s --help differ", s.Name, s.Name)
		}
	}
	r.want(t, 2, "", `unknown command "sttaus"; did you mean "status"?`, "sttaus")
	r.want(t, 2, "", `unknown command "heathcheck"; did you mean "healthcheck"?`, "help", "heathcheck")
	r.want(t, 2, "", "unknown command \"xyzzy\"\n", "xyzzy")
	r.want(t, 0, "platform  ", "", "version")
	r.want(t, 0, "sidecar ", "", "--version")
	r.want(t, 2, "", "takes at most 0", "serve", "redis://user:password@host")
}
