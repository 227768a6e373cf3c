package wechat_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEgressIPIsFoundInEveryKnownMessage(t *testing.T) {
	for _, tt := range []struct {
		code    int
		message string
		want    string
	}{
		{40164, "invalid ip 58.213.199.30 ipv6 ::ffff:58.213.199.30, not in whitelist rid: 64d1e675-2ca73ab3-2e56ca44", "58.213.199.30"},
		{40164, "invalid ip 58.213.199.30 ipv6 ::ffff:58.213.199.30, not in whitelist hint: [Zhnd8cQNe-4P2DPA]", "58.213.199.30"},
		{40164, "invalid ip 119.33.28.152, not in whitelist hint: [g_G8404063055]", "119.33.28.152"},
		{40164, "invalid ip ::ffff:58.213.199.30, not in whitelist", "58.213.199.30"},
		{40164, "invalid ip 2408:8207::abcd, not in whitelist", "2408:8207::abcd"},
		{61004, "access clientip is not registered requestIP: 47.107.99.226 rid: 64d1e675-2ca73ab3-2e56ca44", "47.107.99.226"},
		{60020, "not allow to access from your ip, hint: [1704941403120931704370802], from ip: 139.227.136.148, more info at https://open.work.weixin.qq.com/devtool/query?e=60020", "139.227.136.148"},
		{45035, "access clientip is not registered, not in ip-white-list", ""},
		{40164, "invalid ip 999.1.1.1, not in whitelist", ""},
		{40164, "invalid ip 0.0.0.0 or ::, not in whitelist", ""},
		{40164, "", ""},
		{40013, "invalid appid 1.2.3.4", ""},
	} {
		if got := (&wechat.Error{Code: tt.code, Message: tt.message}).EgressIP(); got != tt.want {
			t.Errorf("%d %q: EgressIP = %q, want %q", tt.code, tt.message, got, tt.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for code, want := range map[int]time.Duration{
		45011: time.Minute, 89501: 5 * time.Minute, 89503: 5 * time.Minute, 89507: time.Hour, 89506: 24 * time.Hour,
		0: 0, -1: 0, 40001: 0, 40164: 0, 45009: 0,
	} {
		if got := (&wechat.Error{Code: code}).RetryAfter(); got != want {
			t.Errorf("%d: RetryAfter = %v, want %v", code, got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  wechat.Error
		want string
	}{
		{wechat.Error{Endpoint: "/cgi-bin/token", Code: 40013, Message: "invalid appid", Status: 200},
			"wechat: calling /cgi-bin/token: errcode 40013: invalid appid"},
		{wechat.Error{Endpoint: "/cgi-bin/token", Status: 502}, "wechat: calling /cgi-bin/token: HTTP status 502"},
		{wechat.Error{Endpoint: "/cgi-bin/token", Code: -1, Status: 500}, "wechat: calling /cgi-bin/token: HTTP status 500: errcode -1"},
		{wechat.Error{Endpoint: "/x"}, "wechat: calling /x"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() = %q, want %q", got, tt.want)
		}
	}
	_, err := callToken(answering(200, "", "<html>"))
	if got, want := err.Error(), "wechat: calling /cgi-bin/token: the answer is not a JSON object"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

// TestMessageIsBoundedPrintableAndScrubbed: whatever the errmsg is, it fits into one line of a log.
func TestMessageIsBoundedPrintableAndScrubbed(t *testing.T) {
	for name, errmsg := range map[string]string{
		"long":            strings.Repeat("长", 1000),
		"line breaks":     "one\\ntwo\\r\\u0000three\\u2028four\\u001b[31mfive",
		"echoed secret":   "bad secret " + secretCanary + " in ?secret=" + secretCanary + "&x",
		"echo at the cut": strings.Repeat("x", 190) + secretCanary,
		"invalid UTF-8":   "\xff\xfe" + strings.Repeat("\xe9", 300),
		"not a text":      `"},"errmsg":{"a":"b`,
	} {
		_, err := callToken(answering(200, "", `{"errcode":40125,"errmsg":"`+errmsg+`"}`))
		e, ok := errors.AsType[*wechat.Error](err)
		if !ok || len(e.Message) > 200 || !utf8.ValidString(e.Message) {
			t.Errorf("%s: %v: message of %d bytes", name, err, len(e.Message))
		}
		text := fmt.Sprintf("%v %+v %#v %s", e, e, e, e.Message)
		if strings.ContainsFunc(e.Message, func(r rune) bool { return r < ' ' || r == '\u2028' }) {
			t.Errorf("%s: message %q is not printable", name, e.Message)
		}
		if strings.Contains(text, secretCanary[:10]) {
			t.Errorf("%s: %s shows the secret", name, text)
		}
	}
}

func TestErrcodeOfAnAnswer(t *testing.T) {
	for body, want := range map[string]struct {
		code int
		ok   bool
	}{
		`{"errcode":42001,"errmsg":"x"}`:  {42001, true},
		`{"errcode":"40001"}`:             {40001, true},
		`{"menu":{}}`:                     {0, true},
		"\xef\xbb\xbf {\"errcode\":-1}\n": {-1, true},
		`{"errcode":42001`:                {0, false},
		`[42001]`:                         {0, false},
		``:                                {0, false},
		"\xff\xd8\xff\xe0":                {0, false},
		`{"errcode":1e300}`:               {0, false},
	} {
		if code, ok := wechat.Errcode([]byte(body)); code != want.code || ok != want.ok {
			t.Errorf("Errcode(%q) = %d, %v; want %d, %v", body, code, ok, want.code, want.ok)
		}
	}
}
