package integration

import (
	"bufio"
	"bytes"
	"context"
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
	"reflect"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The SDKs as users install them, in programs as users write them (sdk/*.mjs), with nothing changed
// but the base URL. They hold no secret, keep what they are given in caches of their own, and are
// not told when WeChat ends a token.
const (
	sdkAlias = "shop"
	sdkMenu  = `{"button":[{"type":"click","name":"今日歌曲","key":"TODAY"},{"type":"view","name":"搜索","url":"https://example.com/?q=1&p=2"}]}`
	sdkPage  = "https://shop.example.com/cart?from=menu"
)

// variants are the programs, and what may be set in them besides.
var variants = []struct{ name, program, env string }{
	{"co-wechat-api", "co-wechat-api.mjs", ""},
	{"node-easywechat", "node-easywechat.mjs", ""},
	{"node-easywechat, stable_token", "node-easywechat.mjs", "WXTOKEN_STABLE=1"},
}

var errNoRegistry = errors.New("npm cannot reach a registry")

// installSDKs fills sdk/node_modules once for each package-lock.json.
var installSDKs = sync.OnceValue(func() error {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	lock, err := os.ReadFile("sdk/package-lock.json")
	if err != nil {
		return err
	}
	const installed = "sdk/node_modules/.wxtoken-installed"
	if have, err := os.ReadFile(installed); err == nil && bytes.Equal(have, lock) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--fetch-retries=1", "--fetch-retry-mintimeout=1000")
	npm.Dir, npm.WaitDelay = "sdk", 5*time.Second
	out, err := npm.CombinedOutput()
	switch {
	case err == nil:
		return os.WriteFile(installed, lock, 0o600)
	case ctx.Err() != nil || regexp.MustCompile(`ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|E50\d`).Match(out):
		return fmt.Errorf("%w: %w", errNoRegistry, err)
	}
	return fmt.Errorf("npm ci: %w\n%s", err, out)
})

// needSDKs skips the test where the SDKs cannot be had, unless WXTOKEN_REQUIRE_SDK is set.
func needSDKs(t *testing.T) {
	t.Helper()
	switch err := installSDKs(); {
	case err == nil:
	case os.Getenv("WXTOKEN_REQUIRE_SDK") == "1":
		t.Fatalf("WXTOKEN_REQUIRE_SDK=1, and the SDKs are not there: %v", err)
	case errors.Is(err, errNoRegistry), errors.Is(err, exec.ErrNotFound):
		t.Skipf("the SDKs are not there: %v", err)
	default:
		t.Fatal(err)
	}
}

// sdkCluster has the app that the SDKs use: with a menu, an alias and a ticket, and with allowances
// for a test that kills more tokens in a minute than WeChat does in a year.
func sdkCluster(t *testing.T, sidecars int, faults ...wechattest.Fault) *cluster {
	t.Helper()
	var store rig.Store
	if _, err := tokencachetest.FindRedis(); err == nil {
		store = rig.StartRedis(t)
	} else {
		store = startMiniredis(t)
	}
	file := filepath.Join(t.TempDir(), "wxtoken.yaml")
	c := newCluster(t, store, "WXTOKEN_CONFIG="+file, "WECHAT_APPID=", "WECHAT_ENDPOINT=", "WECHAT_API_BASE=")
	c.Upstream.Server = wechattest.New(wechattest.App{ID: appID, Secret: appSecret, Menu: sdkMenu})
	for _, f := range faults {
		c.Upstream.AddFault(f)
	}
	write(t, file, fmt.Sprintf(`
apps:
  - id: %s
    alias: %s
    endpoint: token
    secret_env: WECHAT_SECRET
    api_base: %s/sdk
    tickets: [jsapi]
    fetches_per_day: 200000
    reports_per_day: 200000
`, appID, sdkAlias, c.Upstream.URL))
	c.Add(sidecars)
	return c
}

// kill ends all tokens and returns how many fetches there have been until then.
func (c *cluster) kill() int {
	before := c.Upstream.Calls(appID).Fetches()
	c.Upstream.KillTokens(appID)
	return before
}

// sdk is a user's program, waiting for commands. It is for one goroutine at a time.
type sdk struct {
	t       *testing.T
	name    string
	c       *cluster
	in      io.Writer
	answers chan string
	stderr  rig.Buffer
	stuck   bool // an answer may yet come, to a command that is no longer waited for
	pic     picture
}

// startSDK starts a program with a base URL and its own, empty caches.
func startSDK(t *testing.T, c *cluster, name, program, base string, env ...string) *sdk {
	t.Helper()
	s := &sdk{t: t, name: name, c: c, answers: make(chan string), pic: newPicture(t, 300<<10+7)}
	cmd := exec.Command("node", program)
	cmd.Dir = "sdk"
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "WXTOKEN_BASE=" + base, "WXTOKEN_APPID=" + appID,
		"WXTOKEN_CACHE=" + t.TempDir()}, env...)
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

// sdkCalls are what the programs can do.
var sdkCalls = []string{"menu", "send", "upload", "ticket", "jssdk"}

// do makes one call and checks that it did what it should.
func (s *sdk) do(name string) error {
	return s.c.insist(func() error { return s.try(name) })
}

func (s *sdk) try(name string) error {
	switch name {
	case "menu":
		var menu any
		if err := s.call(&menu, "menu"); err != nil {
			return err
		}
		return sameMenu(menu)
	case "send":
		var text string
		if err := s.call(&text, "send", "oOpenID", `你好 "world" & <b>`); err != nil {
			return err
		}
		return want(text, "ok")
	case "upload":
		var id string
		if err := s.call(&id, "upload", s.pic.path); err != nil {
			return err
		}
		return s.c.arrived(id, s.pic)
	case "ticket":
		var ticket string
		if err := s.call(&ticket, "ticket"); err != nil {
			return err
		}
		return want(s.c.Upstream.TicketValid(appID, "jsapi", ticket), true)
	case "jssdk":
		var page struct {
			AppID, NonceStr, Signature string
			Timestamp                  json.Number
		}
		var ticket string
		if err := s.call(&page, "jssdk", sdkPage); err != nil {
			return err
		}
		if err := s.call(&ticket, "ticket"); err != nil { // the one that it signed with, from its cache
			return err
		}
		at, err := page.Timestamp.Int64()
		return errors.Join(err, want(page.AppID, appID),
			want(page.Signature, wechat.Sign(secret.New(ticket), page.NonceStr, at, sdkPage)))
	}
	return fmt.Errorf("no call %q", name)
}

func want[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func sameMenu(got any) error {
	var menu any
	if err := json.Unmarshal([]byte(sdkMenu), &menu); err != nil {
		return err
	}
	if !reflect.DeepEqual(got, menu) {
		return fmt.Errorf("got the menu %v, want %v", got, menu)
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

func TestEachSDKNeedsOnlyAnotherBaseURL(t *testing.T) {
	needSDKs(t)
	c := sdkCluster(t, 1)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			s := startSDK(t, c, v.name, v.program, c.All[0].Base(), v.env)
			for _, name := range sdkCalls {
				if err := s.do(name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	c.wantFetches(1) // three programs, one token
}

// The token in the SDK's own cache dies, which it does not know, before each kind of call.
func TestNoSDKSeesAKilledToken(t *testing.T) {
	needSDKs(t)
	c := sdkCluster(t, 1)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			s := startSDK(t, c, v.name, v.program, c.All[0].Base(), v.env)
			var cached string
			if err := c.insist(func() error { return s.call(&cached, "token") }); err != nil {
				t.Fatal(err)
			}
			for _, name := range sdkCalls {
				before := c.kill()
				if err := s.do(name); err != nil {
					t.Errorf("after the token was killed: %v", err)
				}
				// A ticket that the sidecar has needs no token, so none of WeChat's refusals tells
				// of the kill.
				if got := c.Upstream.Calls(appID).Fetches() - before; got > 1 {
					c.want("fetches for one killed token, by "+name, got, 1)
				}
			}
			var still string
			if err := s.call(&still, "token"); err != nil || still != cached && c.overruns() == 0 {
				t.Errorf("the SDK has another token by now (%v): its cache was not part of the game", err)
			}
		})
	}
}

// I1 as users see it: 8 programs on 3 sidecars begin at once, and a token is killed in the middle.
func TestEightNodeProcessesFetchOnceAndOnceMoreForAKilledToken(t *testing.T) {
	needSDKs(t)
	// The token that all of them wait for comes late, so that they are there before it.
	c := sdkCluster(t, 3, wechattest.Fault{Path: "/cgi-bin/token", Count: 1, Delay: 2 * time.Second})
	var all []*sdk
	for i := range 8 {
		v, p := variants[i%len(variants)], c.All[i%len(c.All)]
		all = append(all, startSDK(t, c, fmt.Sprintf("%d: %s", i, v.name), v.program, p.Base(), v.env))
	}
	for _, s := range all {
		var pong string
		if err := s.call(&pong, "ping"); err != nil {
			t.Fatal(err)
		}
	}
	early := c.Upstream.Calls(appID).Issued == 0
	var rounds, failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() {
			for n := i; ; n++ { // each with another call
				select {
				case <-stop:
					return
				default:
				}
				if err := s.do(sdkCalls[n%len(sdkCalls)]); err != nil {
					t.Error(err)
					failed.Add(1)
					return
				}
				rounds.Add(1)
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		from := rounds.Load()
		eventually(t, "the programs make calls", func() bool { return failed.Load() > 0 || rounds.Load() >= from+n })
	}
	more(200)
	c.wantFetches(1)
	c.kill()
	more(400)
	close(stop)
	wg.Wait()
	c.wantFetches(2)
	t.Logf("8 programs, ready before there was a token: %t; %d calls, 1 killed token, %d fetches", early, rounds.Load(), c.Upstream.Calls(appID).Fetches())
}
