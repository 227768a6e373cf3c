package main

import (
	"bytes"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dev"
)

// The tests of this package have --dev with and without the tag, so that go test ./... runs all of
// them.
func init() {
	startDev = func(o config.Overrides, getenv func(string) string) (devMode, error) { return dev.Start(o, getenv) }
}

// What --dev needs is 2.3 MB, a Lua VM and a Redis server, which have no place in a pod.
func TestOnlyATagLinksWhatDevNeeds(t *testing.T) {
	deps := func(flags ...string) []string {
		t.Helper()
		out, err := exec.Command("go", slices.Concat([]string{"list", "-deps"}, flags, []string{"."})...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Fields(string(out))
	}
	with, without := deps("-tags", "dev"), deps()
	for _, name := range []string{module + "cmd/sidecar/internal/dev", module + "pkg/wechat/wechattest", "github.com/alicebob/miniredis/v2", "github.com/yuin/gopher-lua"} {
		if !slices.Contains(with, name) {
			t.Errorf("with the tag the program does not link %s", name)
		}
		if slices.Contains(without, name) {
			t.Errorf("without the tag the program links %s", name)
		}
	}
}

// What an SDK asks for is there: a token, a ticket, a menu, the code of a mini program as a
// picture, a login without the AppSecret, and an upload.
func TestDevLooksRightToAnSDK(t *testing.T) {
	p := start(t, map[string]string{"WXTOKEN_OPS_LISTEN": "127.0.0.1:0"})
	waitFor(t, "it has a token", func() bool {
		status, _, _ := ask(t, "GET", p.values+"/v1/apps/"+dev.App.ID+"/token", "")
		return status == http.StatusOK
	})
	id := "appid=" + dev.App.ID
	for _, c := range []struct{ method, path, body, contentType, want string }{
		{"GET", "/cgi-bin/token?grant_type=client_credential&" + id, "", "", `"access_token":"`},
		{"GET", "/cgi-bin/ticket/getticket?type=jsapi&" + id, "", "", `"ticket":"`},
		{"GET", "/cgi-bin/menu/get?" + id, "", "", `"button":[`},
		{"POST", "/wxa/getwxacodeunlimit?" + id, `{"scene":"a=1"}`, "image/jpeg", "\xff\xd8"},
		{"GET", "/sns/jscode2session?js_code=c&grant_type=authorization_code&secret=any&" + id, "", "", `"openid":"`},
		{"GET", "/sns/oauth2/access_token?code=c&grant_type=authorization_code&secret=any&" + id, "", "", `"openid":"`},
		{"POST", "/cgi-bin/message/custom/send?" + id, `{"touser":"o","msgtype":"text","text":{"content":"x"}}`, "", `"errcode":0`},
	} {
		status, header, body := ask(t, c.method, p.values+c.path, c.body)
		if status != http.StatusOK || !strings.Contains(body, c.want) || !strings.HasPrefix(header.Get("Content-Type"), c.contentType) {
			t.Errorf("%s: %d %s %.200q, want %q", c.path, status, header.Get("Content-Type"), body, c.want)
		}
	}
}

// ask makes a call and returns what it answers.
func ask(t *testing.T, method, url, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

func TestAProgramWithoutDevSaysHowToGetIt(t *testing.T) {
	saved := startDev
	startDev = nil
	defer func() { startDev = saved }()
	var stdout, stderr bytes.Buffer
	if code := command(t.Context(), []string{"--dev"}, noEnv, &stdout, &stderr); code != cli.Misuse {
		t.Errorf("exit status %d, want %d", code, cli.Misuse)
	}
	for _, want := range []string{"built without --dev", "make run", "-tags dev"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in: %s", want, &stderr)
		}
	}
}
