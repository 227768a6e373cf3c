package wechat_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

// FuzzDecode feeds bodies to the client: it must not panic, must not accept a credential that
// breaks its own promises, and must not let the secret out.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) == 0 {
		f.Fatal(err, files)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(200, body)
	}
	for _, body := range []string{
		`{"access_token":"97_x","expires_in":1e400}`,
		`{"access_token":"97_x","expires_in":"1_000"}`,
		`{"errcode":40125,"errmsg":"` + secretCanary + `"}`,
		`{"errcode":40125,"errmsg":"\u0053ECRETcanary0123456789abcdef"}`,
		`{"errcode":-9223372036854775808}`,
		`{"errmsg":"`,
		strings.Repeat("[", 20000),
	} {
		f.Add(502, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			status = 200
		}
		for name, call := range allCalls {
			cred, err := call(answering(status, "", string(body)))
			if err == nil {
				checkCredential(t, cred)
				continue
			}
			e, ok := errors.AsType[*wechat.Error](err)
			switch {
			case !ok:
				t.Fatalf("%T is not an *Error", err)
			case !cred.Value.Empty() || cred.ExpiresIn != 0:
				t.Fatal("an error and a credential")
			case !e.Sent, len(e.Message) > 200:
				t.Fatalf("%#v", e)
			case e.MayHaveIssued() && e.Code != 0 && e.Status < 500:
				t.Fatalf("%v: WeChat said no, and still may have issued", e)
			}
			sent := tokenCanary
			switch name {
			case "token", "stable", "forced", "corp":
				sent = secretCanary
			}
			if strings.Contains(err.Error(), sent) {
				t.Fatalf("%v shows what was sent (body %q)", err, body)
			}
		}
	})
}

// checkCredential fails on a credential that the doc of [wechat.Credential] excludes. Probes
// return none.
func checkCredential(t *testing.T, cred wechat.Credential) {
	t.Helper()
	if cred == (wechat.Credential{}) {
		return
	}
	value := cred.Value.Reveal()
	if value == "" || len(value) > 4096 || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Fatalf("value %q", value)
	}
	if cred.ExpiresIn <= 0 || cred.ExpiresIn > wechat.MaxExpiresIn || cred.ExpiresIn%time.Second != 0 {
		t.Fatalf("ExpiresIn %v", cred.ExpiresIn)
	}
}
