package tokencache

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/secret"
)

func TestScrubRedisKeepsTheReasonAndDropsWhatIsRepeated(t *testing.T) {
	const password = "HUSH+redis/password"
	for text, want := range map[string]string{
		"NOPERM User w has no permissions to run the 'xadd' command":                                    "",
		"dial tcp 10.0.0.1:6379: connect: connection refused":                                           "",
		"x509: certificate is valid for redis, not redis.shop":                                          "",
		"ERR unknown command 'AUTH', with args beginning with: 'w' 'HUSH":                               "ERR unknown command 'AUTH', with args beginning with: [redacted]",
		"redis: all sentinels: ERR unknown command `AUTH`, with args beginning with: `w`, `HUSH`,\nEOF": "redis: all sentinels: ERR unknown command `AUTH`, with args beginning with: [redacted]\nEOF",
		`redis: can't parse "93_TOKEN\"x\r"`:                                                            `redis: can't parse "[redacted]"`,
		`redis: can't parse reply="93_TOK`:                                                              `redis: can't parse reply="[redacted]"`,
		`strconv.ParseInt: parsing "93_TOKEN": invalid syntax`:                                          `strconv.ParseInt: parsing "[redacted]": invalid syntax`,
		"ERR wrong password " + password:                                                                "ERR wrong password [redacted]",
		"ERR wrong password " + password[:len(password)-2] + "...":                                      "ERR wrong password [redacted]...",
		fmt.Sprintf("ERR wrong password %x", password):                                                  "ERR wrong password [redacted]",
	} {
		if want == "" {
			want = text
		}
		if got := ScrubRedis(text, secret.New(password)); got != want {
			t.Errorf("ScrubRedis(%q) = %q, want %q", text, got, want)
		}
	}
}

// The text changes, and not what kind of failure it is.
func TestAScrubbedErrorKeepsItsClass(t *testing.T) {
	s := newStore(nil, "ns", "me", secret.New("HUSH-password"))
	failed := s.failed(Key{}, opLoad, answer("NOPERM for HUSH-password"))
	if strings.Contains(failed.Error()+fmt.Sprintf("%+v", failed.Err), "HUSH") {
		t.Errorf("the text is %v", failed)
	}
	var reply redis.Error
	if failed.Class() != StoreNoPerm || !errors.As(failed, &reply) {
		t.Errorf("class %s, want %s", failed.Class(), StoreNoPerm)
	}
}
