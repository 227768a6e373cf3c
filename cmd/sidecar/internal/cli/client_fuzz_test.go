package cli

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzAnswers: whatever answers at the address of a sidecar, the commands print as many lines as
// there is to say, of what a terminal shows as it is.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		`{"started":true,"missing":"","version":"v1.2.3","uptime":3661,"apps":[{"id":"wx1","alias":"shop","credentials":[{"kind":"access_token","state":"fresh","version":1700000000500,"expires_in":7000,"renew_in":5200,"in_doubt":false,"rejected":false,"foreign_refresher":true,"backoff":0,"error":""}]}]}`,
		`{"started":false,"missing":"a token of wx1","apps":[{"id":"wx1","credentials":[{"kind":"access_token","state":"missing","backoff":60,"error":"upstream error 40125:\\n invalid appsecret"}]}]}`,
		`{"version":"\\u001b[2J\\n","missing":"\\u2028","apps":[{"id":"\\n\\r","credentials":[{"kind":"\\t","state":"\\u202e","uptime":9223372036854775807,"expires_in":9223372036854775807,"renew_in":-9223372036854775808,"backoff":9223372036854775807}]}]}`,
		`{"type":"urn:wxtoken:problem:unavailable","title":"No value now","status":503,"detail":"WeChat says: system error","errcode":-1,"retry_after":3}`,
		`{"title":"\\u001b]0;x\\u0007","detail":"\\n","retry_after":9223372036854775807}`, `{"apps":{}}`, `{"apps":[null,{"credentials":[null]}]}`, `null`, ``, `[`, "not started:\nwx1", "<html>\x1b[0m",
		`{"uptime":1e400}`, `{"apps":[{"id":1}]}`,
	} {
		f.Add([]byte(strings.ReplaceAll(body, `\\`, `\`)), 200)
		f.Add([]byte(strings.ReplaceAll(body, `\\`, `\`)), 503)
	}
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		check := func(text string, lines int) {
			t.Helper()
			if n := strings.Count(text, "\n"); n != lines || !utf8.ValidString(text) ||
				strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%d lines, want %d: %q", n, lines, text)
			}
		}
		if text := (reply{status, body}).refusal().Error(); text == "" {
			t.Error("a refusal without a word")
		} else {
			check(text, 0)
		}
		s, err := decodeStatus(body)
		if err != nil {
			return
		}
		var out strings.Builder
		if err := printStatus(&out, s); err != nil {
			t.Fatal(err)
		}
		lines := 2
		if !s.Started {
			lines++
		}
		for _, app := range s.Apps {
			lines += len(app.Credentials)
		}
		check(out.String(), lines)
		if len(names(s)) != len(s.Apps) {
			t.Error("not every app has a name")
		}
	})
}
