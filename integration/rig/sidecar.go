package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Sidecar is one process of the program under test, with the log level debug.
type Sidecar struct {
	Name   string
	Values string // host:port of the listener of values
	Ops    string // host:port of the listener of operations
	TLS    string // host:port of the https face; empty: there is none
	Log    *Buffer
	Link   *Link  // to Redis; nil unless the cluster is Linked
	Clock  *Clock // nil unless it is Clocked

	t      testing.TB
	build  Build
	bodies *Buffer // everything it answered that must hold no value
	proc   *process

	mu   sync.Mutex
	away bool // on purpose: it is no fault that it does not answer
	life int  // grows whenever away changes
}

// Base is the URL of its listener of values, with a slash at the end: the setting that an SDK
// needs.
func (p *Sidecar) Base() string { return "http://" + p.Values + "/" }

// Pid is its process id.
func (p *Sidecar) Pid() int { return p.proc.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Sidecar) Exited() <-chan struct{} { return p.proc.exited }

// ExitCode is its exit status; only valid once it has exited.
func (p *Sidecar) ExitCode() int { return p.proc.cmd.ProcessState.ExitCode() }

// Kill ends it at once, and waits for that.
func (p *Sidecar) Kill() {
	p.setAway(true)
	p.proc.kill()
}

// Terminate sends SIGTERM and does not wait.
func (p *Sidecar) Terminate() {
	p.setAway(true)
	p.proc.signal(syscall.SIGTERM)
}

// Stop sends SIGTERM as a pod's end does: its app still calls, and is still owed its answers.
func (p *Sidecar) Stop() { p.proc.signal(syscall.SIGTERM) }

// Freeze stops the process, as a suspended machine does, until [Sidecar.Thaw].
func (p *Sidecar) Freeze() {
	p.setAway(true)
	p.proc.signal(syscall.SIGSTOP)
	Eventually(p.t, "the process has stopped", p.proc.stopped) // its threads go on for a moment
}

// Thaw lets a frozen process run on.
func (p *Sidecar) Thaw() {
	p.proc.signal(syscall.SIGCONT)
	p.setAway(false)
}

func (p *Sidecar) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
	p.life++
}

// present returns a number that changes when the process goes away or comes back, and whether it is
// there.
func (p *Sidecar) present() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life, !p.away && p.proc.alive()
}

func (p *Sidecar) launch(env []string) {
	p.t.Helper()
	cmd := exec.Command(Binary(p.t, p.build), "--log-level", "debug", "--log-format", "json")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stderr, cmd.Stdout = p.Log, p.Log
	proc, err := start(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	p.proc = proc
	p.t.Cleanup(func() {
		proc.kill()
		if p.t.Failed() && os.Getenv("WXTOKEN_TEST_LOGS") != "0" {
			p.t.Logf("%s:\n%s", p.Name, p.Log)
		}
	})
}

// listens reports whether the process has logged its addresses, and notes them.
func (p *Sidecar) listens() bool {
	for line := range strings.Lines(p.Log.String()) {
		var started struct {
			Msg    string `json:"msg"`
			Listen string `json:"listen"`
			Ops    string `json:"ops_listen"`
			TLS    string `json:"tls_listen"`
		}
		if json.Unmarshal([]byte(line), &started) == nil && started.Msg == "started" {
			p.Values, p.Ops, p.TLS = started.Listen, started.Ops, started.TLS
			return true
		}
	}
	return false
}

// HTTP is the client of the tests.
var HTTP = &http.Client{Timeout: Patience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// Show fetches what must hold no value, and keeps it for the search for secrets.
func (p *Sidecar) Show(path string) (string, error) {
	body, _, err := p.ShowAs("*/*", path)
	return body, err
}

// ShowAs is Show with an Accept header.
func (p *Sidecar) ShowAs(accept, path string) (string, http.Header, error) {
	ask, err := http.NewRequest(http.MethodGet, "http://"+p.Ops+path, nil)
	if err != nil {
		return "", nil, err
	}
	ask.Header.Set("Accept", accept)
	r, err := HTTP.Do(ask)
	if err != nil {
		return "", nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	_, _ = p.bodies.Write(body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, r.Status)
	}
	return string(body), r.Header, err
}

// Tell runs a command of the program beside the sidecar, with its configuration.
func (p *Sidecar) Tell(args ...string) (output string, code int) {
	p.t.Helper()
	env := append(p.proc.cmd.Env[:len(p.proc.cmd.Env):len(p.proc.cmd.Env)], "WXTOKEN_LISTEN="+p.Values, "WXTOKEN_OPS_LISTEN="+p.Ops) // the last one counts
	output, code = Tell(p.t, env, args...)
	_, _ = p.bodies.Write([]byte(output))
	return output, code
}

// Tell runs a command of the program with nothing but env, and returns what it printed and its exit
// status.
func Tell(t testing.TB, env []string, args ...string) (output string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t, Raced), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(out), code
}

// Answer is what the token face says.
type Answer struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
	Version     int64  `json:"version"`
	Stale       bool   `json:"stale"`
}

const tokenPath = "v1/apps/" + AppID + "/token"

// Token asks for the token to use now.
func (p *Sidecar) Token() (Answer, error) { return p.TokenOf(AppID) }

// TokenOf is Token for an app of that name.
func (p *Sidecar) TokenOf(name string) (Answer, error) {
	return p.decode(HTTP.Get(p.Base() + "v1/apps/" + name + "/token"))
}

// Ask gets what a path of the listener of values answers in JSON. Its errors hold no value.
func (p *Sidecar) Ask(path string, into any) error {
	return ask(context.Background(), p, http.MethodGet, path, "", into)
}

// Report says that WeChat rejected a token.
func (p *Sidecar) Report(token string) (Answer, error) {
	body := fmt.Sprintf(`{"access_token":%q,"errcode":42001}`, token)
	return p.decode(HTTP.Post(p.Base()+tokenPath+"/report", "application/json", strings.NewReader(body)))
}

func (p *Sidecar) decode(r *http.Response, err error) (Answer, error) {
	if err != nil {
		return Answer{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return Answer{}, err
	}
	if r.StatusCode != http.StatusOK {
		_, _ = p.bodies.Write(body)
		return Answer{}, fmt.Errorf("%s: %s: %s", p.Name, r.Status, body)
	}
	var a Answer
	return a, json.Unmarshal(body, &a)
}
