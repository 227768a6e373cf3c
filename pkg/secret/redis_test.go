package secret_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

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
		if got := secret.ScrubRedis(text, secret.New(password)); got != want {
			t.Errorf("ScrubRedis(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestAScrubbedErrorKeepsWhatItWraps(t *testing.T) {
	inside := fmt.Errorf("ERR wrong password HUSH-redis-password: %w", fs.ErrNotExist)
	err := secret.ScrubRedisError(inside, secret.New("HUSH-redis-password"))
	if err.Error() != "ERR wrong password [redacted]: file does not exist" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := secret.ScrubRedisError(fs.ErrNotExist); err != fs.ErrNotExist {
		t.Errorf("a clean error became %#v", err)
	}
	if secret.ScrubRedisError(nil) != nil {
		t.Error("no error became one")
	}
}
