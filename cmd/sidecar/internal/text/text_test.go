package text_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

func TestASpanHasAtMostTwoUnits(t *testing.T) {
	for seconds, want := range map[int64][2]string{
		-5: {"0 s", "just now"}, 0: {"0 s", "just now"}, 59: {"59 s", "59 s ago"}, 60: {"1 min", "1 min ago"},
		61: {"1 min 1 s", "1 min ago"}, 599: {"9 min 59 s", "9 min ago"}, 601: {"10 min", "10 min ago"},
		3600: {"1 h", "1 h ago"}, 6120: {"1 h 42 min", "1 h ago"}, 48*3600 - 1: {"47 h 59 min", "47 h ago"}, 48 * 3600: {"2 days", "2 days ago"},
	} {
		if span, ago := text.Span(seconds), text.Ago(seconds); span != want[0] || ago != want[1] {
			t.Errorf("%d s: %q and %q, want %q", seconds, span, ago, want)
		}
	}
	if got := text.Took(0) + "|" + text.Took(999) + "|" + text.Took(1234); got != "|999 ms|1.2 s" {
		t.Errorf("how long something took: %q", got)
	}
	if got := text.Count(1, "app") + ", " + text.Count(0, "app"); got != "1 app, 0 apps" {
		t.Errorf("counts: %q", got)
	}
}

type answer string

func (a answer) Error() string { return string(a) }
func (answer) RedisError()     {}

// Each class of failure has a title and a sentence that says what to mend.
func TestEachFailureOfRedisHasWords(t *testing.T) {
	for _, c := range []struct {
		err             error
		title, sentence string
	}{
		{&net.DNSError{Name: "redis"}, "", "its name does not resolve"},
		{syscall.ECONNREFUSED, "Redis cannot be reached", "its address refuses connections"},
		{syscall.ETIMEDOUT, "Redis cannot be reached", "does not answer in time"},
		{answer("NOAUTH Authentication required."), "Redis refuses the login", "user or password are wrong"},
		{answer("NOPERM no right to xadd"), "Redis refuses a command", "It says: NOPERM no right to xadd"},
		{answer("READONLY You can't write"), "Redis takes no writes", "it is a replica"},
		{answer("OOM command not allowed"), "Redis takes no writes", "maxmemory"},
		{answer("LOADING Redis is loading"), "Redis is not ready", "it reads its data"},
		{answer("CLUSTERDOWN Hash slot not served"), "Redis is not ready", "It says: CLUSTERDOWN"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, "There is no TLS with Redis", "bad certificate"},
		{errors.New("redis: something new"), "Redis answers with an error", "Redis: something new"},
	} {
		if got := text.Redis(c.err); !strings.Contains(got, c.sentence) {
			t.Errorf("%v: %q, want %q", c.err, got, c.sentence)
		}
		if got := text.RedisTitle((&tokencache.StoreError{Err: c.err}).Class()); c.title != "" && got != c.title {
			t.Errorf("%v: %q, want %q", c.err, got, c.title)
		}
	}
}

func TestForeignTextIsOnePrintableLine(t *testing.T) {
	const foreign = "  ERR\tno\r\nsuch \x1b[31mthing\xff\u202e 令牌\n"
	if got, want := text.OneLine(foreign), "ERR no such [31mthing 令牌"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
