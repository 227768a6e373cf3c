package wechat_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
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
		`{"errcode":40125,"errmsg":"` + tokenCanary + ` ` + base64.RawURLEncoding.EncodeToString([]byte(secretCanary)) + `"}`,
		// As WeChat and WeCom were seen to answer.
		`{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r rid: 6aac0063-7ed08fb9-1250f724"}`,
		`{"errcode":40164,"errmsg":"invalid ip 119.33.28.152, not in whitelist hint: [g_G8404063055]"}`,
		`{"errcode":61004,"errmsg":"access clientip is not registered, not in ip-white-list"}`,
		`{"errcode":60020,"errmsg":"not allow to access from your ip, hint: [1600000000_1], from ip: fe80::1%25eth0"}`,
		`{"errcode":45009,"errmsg":"reach max api daily quota limit, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r rid: 617682e0-09059ac5-34a8e2ea"}`,
		`{"errcode":50004,"errmsg":"user not allow to use accesstoken, maybe for punishment rid: 1-2-3"}`, `{"errcode":89503,"errmsg":"wait"}`, `{"errcode":89506}`, `{"errcode":-1000,"errmsg":"system error"}`,
		`{"errcode":0,"errmsg":"ok","ticket":"bxLdikRXVbTPdHSM05e5u5sUoXNKd8-41ZO3MhKoyN5OfkWITDGgnr2fwJ0m9E8NYzWKVZvdVtaUgWvsdshFKA","expires_in":7200}`,
		`{"errcode":0,"errmsg":"ok","access_token":"accesstoken000001","expires_in":7200}`, `{"errcode":46003,"errmsg":"menu no exist"}`,
		`{"errcode":40125,"errmsg":"\u0053ECRETcanary0123456789abcdef"}`,
		`{"errcode":-9223372036854775808}`,
		// Of platforms and suites.
		`{"component_access_token":"c","authorizer_access_token":"a","suite_access_token":"s","provider_access_token":"p","expires_in":7200,"authorizer_refresh_token":"refreshtoken@@@r"}`,
		`{"authorization_info":{"authorizer_appid":"wxa","authorizer_access_token":"a","expires_in":7200,"authorizer_refresh_token":"r","func_info":[{"funcscope_category":{"id":1}}]}}`,
		`{"total_count":2,"list":[{"authorizer_appid":"wxa","refresh_token":"r","auth_time":1558000607},{"authorizer_appid":"wxb"}]}`,
		`{"permanent_code":"p","auth_corp_info":{"corpid":"wwc"},"auth_info":{"agent":[{"agentid":1}]}}`,
		`{"errcode":61003,"errmsg":"component is not authorized by this account rid: 1-2-3"}`,
		`{"errcode":61023,"errmsg":"refresh_token is invalid ` + codeCanary + `"}`,
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
			case e.RetryAfter() < 0, e.RetryAfter() > 24*time.Hour:
				t.Fatalf("retry after %v", e.RetryAfter())
			}
			if ip, err := netip.ParseAddr(e.EgressIP()); e.EgressIP() != "" && (err != nil || ip.Zone() != "" || ip.IsUnspecified()) {
				t.Fatalf("%q is no address (%q)", e.EgressIP(), e.Message)
			}
			if !utf8.ValidString(e.Error()) || strings.ContainsFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("%q is not for one line", e.Error())
			}
			if secrettest.Find(err.Error(), sentBy[name]...) != "" {
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

// FuzzWire gives any bytes as the whole answer, head and all: net/http quotes some of what it
// cannot read, and the answer may repeat what was sent, or hold half a value.
func FuzzWire(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: application/json; encoding=utf-8\r\n\r\n" + `{"access_token":"97_x","expires_in":7200}`,
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + `{"access_token":"` + issuedCanary, "HTTP/1.1 412 Precondition Failed\r\n\r\n", "HTTP/1.1 200 OK\r\n" + issuedCanary + " x\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://[" + issuedCanary + "\r\n\r\n", "HTTP/1.1 307 x\r\nLocation: /cgi-bin/token?secret=" + secretCanary + "\r\n\r\n", issuedCanary + "\r\n\r\n", "HTTP/1.1 " + issuedCanary + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + issuedCanary + "\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + issuedCanary + "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: " + issuedCanary + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + issuedCanary, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 " + issuedCanary + "\r\nUpgrade: x\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 1000 x\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat(" ", 70<<10),
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				if r, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = theirs.Write(answer)
				}
			}()
			return ours, nil
		}}
		for _, call := range []func(*wechat.Client) (wechat.Credential, error){callToken, callStable} {
			cred, err := call(&wechat.Client{BaseURL: "http://wechat.test", HTTP: &http.Client{Transport: transport}})
			if err == nil {
				checkCredential(t, cred)
				continue
			}
			e, ok := errors.AsType[*wechat.Error](err)
			if !ok || !e.Sent || cred != (wechat.Credential{}) {
				t.Fatalf("%#v", err)
			}
			// What WeChat says in an errmsg is passed on, and so is all that it may hold but what
			// was sent.
			hidden := []string{secretCanary, "secret="}
			if e.Code == 0 {
				hidden = append(hidden, issuedCanary)
			}
			if form := secrettest.Find(err.Error(), hidden...); form != "" {
				t.Fatalf("%v shows %s", err, form)
			}
		}
	})
}
