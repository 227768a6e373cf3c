package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

const canary = "CANARY+redis/password"

// FuzzFindings: whatever Redis or WeChat says of itself, a finding is one line that a terminal
// shows as it is, and repeats no secret that the peer repeats (SECRET is replaced by one).
func FuzzFindings(f *testing.F) {
	f.Add("# Memory\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\nrdb_last_bgsave_status:ok\r\n", "7.0.15", "master", "standalone", "go-redis\n")
	f.Add("used_memory:99\nmaxmemory:100\nmaxmemory_policy:allkeys-lru\naof_enabled:1\n", "6.2", "slave", "cluster", "NOPERM this user has no permissions to run the 'evalsha' command")
	f.Add("maxmemory:9223372036854775807\nused_memory:-9223372036854775808\nmaxmemory_policy:volatile-ttl\naof_last_write_status:err\n", "6", "SECRET", "\x1b[2J", "ERR what is SECRET\x1b]0;x\a")
	f.Add("maxmemory:-1\nmaxmemory_policy:\x00\u202e\xffSECRET\naof_enabled:1", "-1.99999999999999999999.x", "", "", "WRONGPASS\u2028x")
	f.Add(":::\n:\naof_enabled:1", "", "\r", "\n", strings.Repeat("x", 10000))
	f.Fuzz(func(t *testing.T, info, version, role, mode, said string) {
		reply := []any{"server", "redis", "version", version, "role", role, "mode", mode, "modules", []any{said}, int64(3), nil, "odd"}
		hello := helloFacts(reply)
		if hello["version"] != version || hello["role"] != role && role != "" {
			t.Errorf("got %q", hello)
		}
		asMap := map[any]any{}
		for i := 0; i+1 < len(reply); i += 2 {
			asMap[reply[i]] = reply[i+1]
		}
		if got := helloFacts(asMap); got["version"] != hello["version"] || got["mode"] != hello["mode"] {
			t.Errorf("as a map %q, as a list %q", got, hello)
		}
		for _, other := range []any{nil, said, int64(1), []any{}, []any{nil}} {
			if got := helloFacts(other); len(got) != 0 {
				t.Errorf("%v says %q", other, got)
			}
		}
		_ = older(version, 6, 2)

		e := &examination{cfg: &config.Config{Namespace: "wxtoken"}, username: "u", secrets: []secret.String{secret.New(canary)}}
		e.report = func(got Finding) {
			text := got.Text + got.Fix
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is not for one line", text)
			}
			if form := secrettest.Find(text, canary); form != "" {
				t.Errorf("%q holds %s", text, form)
			}
		}
		reveal := func(s string) string { return strings.ReplaceAll(s, "SECRET", canary) }
		e.eviction(node{address: "127.0.0.1:6379"}, infoFacts(reveal(info)))
		e.ok("redis server", reveal("127.0.0.1:6379 is Redis "+version+", "+mode+" "+role))
		e.fail("redis login", text.OneLine(reveal(said)), "ACL SETUSER u +"+strings.Join(namesOf([]any{reveal(said), int64(1)}), " +"))
		e.fail("redis login", fmt.Sprint(reveal(said)), "")
	})
}

func TestOlder(t *testing.T) {
	for version, want := range map[string]bool{"6.0.16": true, "5.0.7": true, "6.2.0": false, "7.0.15": false, "10.1": false, "255.255.255": false, "unknown": false} {
		if got := older(version, 6, 2); got != want {
			t.Errorf("%s: %t", version, got)
		}
	}
}

// A node of a Cluster that none of the first questions went to.
func TestACertificateOfAnotherNodeIsNamed(t *testing.T) {
	var got []Finding
	e := &examination{report: func(f Finding) { got = append(got, f) }}
	e.uncertified(&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"node-1.example"}}, Host: "10.0.0.2"}})
	if len(got) != 1 || got[0].Check != "redis TLS" || !strings.Contains(got[0].Text, "10.0.0.2, which Redis announces, is for other names: node-1.example") ||
		!strings.Contains(got[0].Fix, "name one of these") {
		t.Errorf("%+v", got)
	}
}
