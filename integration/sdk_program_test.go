package integration

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// sdk is a user's program, waiting for commands. It is for one goroutine at a time.
type sdk struct {
	t       *testing.T
	name    string
	kind    string
	calls   []string // that it can make, broken ones left out
	c       *sdkCluster
	in      io.Writer
	answers chan string
	stderr  rig.Buffer
	stuck   bool // an answer may yet come, to a command that is no longer waited for
	pic     picture
}

// start starts the program of a variant, with its own, empty caches, beside a sidecar.
func (c *sdkCluster) start(t *testing.T, v variant, p *rig.Sidecar) *sdk {
	t.Helper()
	s := &sdk{t: t, name: v.name, kind: v.kind, c: c, answers: make(chan string), pic: newPicture(t, 300<<10+7)}
	for _, call := range strings.Fields(v.calls) {
		if v.broken[call] == "" {
			s.calls = append(s.calls, call)
		}
	}
	cmd := v.command(t, v.how)
	cmd.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "WXTOKEN_BASE=" + p.Base() + v.path, "WXTOKEN_KIND=" + v.kind, "WXTOKEN_HOW=" + v.how,
		"WXTOKEN_APPID=" + kinds[v.kind].ID, "WXTOKEN_AGENT=" + kinds[v.kind].Agent, "WXTOKEN_CACHE=" + t.TempDir()},
		c.reach(t, p, v.how == https), cmd.Env)
	cmd.Stderr = &s.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.in = in
	done := make(chan struct{})
	go func() {
		defer close(s.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case s.answers <- lines.Text():
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return s
}

// call gives the program a command and waits for its answer.
func (s *sdk) call(result any, command ...string) error {
	if s.stuck {
		return fmt.Errorf("%s: %s: not called, for the one before got no answer", s.name, command[0])
	}
	line, err := json.Marshal(command)
	if err != nil {
		return err
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w: %s", s.name, err, &s.stderr)
	}
	select {
	case text, ok := <-s.answers:
		if !ok {
			return fmt.Errorf("%s: ended: %s", s.name, &s.stderr)
		}
		var answer struct {
			Result json.RawMessage
			Error  string
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			return fmt.Errorf("%s: %q: %w", s.name, text, err)
		}
		if answer.Error != "" {
			return fmt.Errorf("%s: %s", s.name, answer.Error)
		}
		return json.Unmarshal(answer.Result, result)
	case <-time.After(rig.Patience):
		s.stuck = true
		return fmt.Errorf("%s: %s: no answer", s.name, command[0])
	}
}

const (
	sdkMenu = `{"button":[{"type":"click","name":"今日歌曲","key":"TODAY"},{"type":"view","name":"搜索","url":"https://example.com/?q=1&p=2"}]}`
	sdkPage = "https://shop.example.com/cart?from=menu"
	sdkText = `你好 "world" & <b>`
)

// do makes one call and checks that it did what it should.
func (s *sdk) do(name string) error {
	return s.c.insist(func() error { return s.try(name) })
}

// try makes one call: sdk/node/commands.mjs says what each does.
func (s *sdk) try(name string) error {
	switch name {
	case "call":
		if s.kind == "oa" {
			return s.says("今日歌曲 https://example.com/?q=1&p=2", "call")
		}
		return s.says("sim", "call")
	case "send":
		return s.says("ok", "send", sdkText)
	case "login":
		return s.says("sim", "login", "a-code")
	case "download":
		content, err := io.ReadAll(wechattest.MediaBody(70_000))
		if s.kind == "mini" {
			content = wechattest.Code()
		}
		sum := sha256.Sum256(content)
		return errors.Join(err, s.says(hex.EncodeToString(sum[:]), "download"))
	case "upload":
		var id string
		if err := s.call(&id, "upload", s.pic.path); err != nil {
			return err
		}
		return s.c.arrived(id, s.pic)
	case "sign":
		return s.signs("sign", "jsapi")
	case "agentsign":
		return s.signs("agentsign", "agent_config")
	}
	return fmt.Errorf("no call %q", name)
}

// says makes a call that is answered with a text.
func (s *sdk) says(text string, command ...string) error {
	var got string
	if err := s.call(&got, command...); err != nil {
		return err
	}
	return want(got, text)
}

// signs lets the program sign for a page, and checks with which ticket it does.
func (s *sdk) signs(command, ticketType string) error {
	var page struct {
		AppID, CorpID, NonceStr, Signature string
		Timestamp                          json.Number
	}
	if err := s.call(&page, command, sdkPage); err != nil {
		return err
	}
	at, err := page.Timestamp.Int64()
	if err != nil {
		return err
	}
	app := kinds[s.kind]
	if err := want(page.AppID+page.CorpID, app.ID); err != nil {
		return err
	}
	for _, issue := range s.c.Upstream.Issued(app.Name()) {
		if wechat.Sign(secret.New(issue.Value), page.NonceStr, at, sdkPage) != page.Signature {
			continue
		}
		if !s.c.Upstream.TicketValid(app.Name(), ticketType, issue.Value) {
			return fmt.Errorf("%s: signed with a ticket that is not the %s ticket", command, ticketType)
		}
		return nil
	}
	return fmt.Errorf("%s: signed with no ticket of WeChat", command)
}

func want[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// picture is a file to be uploaded.
type picture struct {
	path, sha256 string
	bytes        []byte
}

// newPicture makes a file of random bytes.
func newPicture(t *testing.T, size int) picture {
	t.Helper()
	p := picture{path: filepath.Join(t.TempDir(), "图.jpg"), bytes: make([]byte, size)}
	_, _ = rand.Read(p.bytes)
	if err := os.WriteFile(p.path, p.bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(p.bytes)
	p.sha256 = hex.EncodeToString(sum[:])
	return p
}

// arrived reports whether WeChat got the picture, byte for byte.
func (c *cluster) arrived(mediaID string, p picture) error {
	up, ok := c.Upstream.Uploaded(mediaID)
	return errors.Join(want(ok, true), want(up.Size, int64(len(p.bytes))), want(up.SHA256, p.sha256), want(up.Type, "image"))
}

// program is what a user runs.
type program struct {
	tools   *toolchain
	command func(t *testing.T, how string) *exec.Cmd
}

func nodeProgram(file string) program {
	return program{nodeSDKs, func(t *testing.T, how string) *exec.Cmd {
		// Node looks for packages beside the program.
		dir := t.TempDir()
		if err := os.Symlink(filepath.Join(nodeSDKs.need(t), "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{file, "commands.mjs", "hosts.cjs", "preload.cjs"} {
			if err := copyFile(filepath.Join("sdk/node", f), filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"--require", "./hosts.cjs"}
		if how == "preload" {
			args = append(args, "--require", "./preload.cjs")
		}
		cmd := exec.Command("node", append(args, file)...)
		cmd.Dir, cmd.Env = dir, []string{"HTTPS_PROXY="} // hosts.cjs does that
		return cmd
	}}
}

var goProgram = program{goSDK, func(t *testing.T, how string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(goSDK.need(t), "app"))
	if how == "dial" {
		cmd.Env = []string{"HTTPS_PROXY="} // Go would ask that, and not dial
	}
	return cmd
}}

var pythonProgram = program{pythonSDK, func(t *testing.T, _ string) *exec.Cmd {
	return exec.Command(filepath.Join(pythonSDK.need(t), "bin/python"), "-B", "sdk/python/app.py")
}}

// A short life: the second compiler and a parallel collector cost more than they bring.
var javaProgram = program{javaSDK, func(t *testing.T, _ string) *exec.Cmd {
	dir := javaSDK.need(t)
	return exec.Command("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m",
		"-cp", filepath.Join(dir, "classes")+":"+filepath.Join(dir, "jars", "*"), "App")
}}
