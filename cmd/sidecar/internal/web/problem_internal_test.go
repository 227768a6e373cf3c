package web

import (
	"context"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// What Redis says reaches the app: that it cannot be reached is one of many things that it may be.
func TestAProblemSaysWhatRedisSays(t *testing.T) {
	for text, want := range map[string][2]string{
		"NOPERM this user has no permissions to run the 'evalsha' command": {"Redis refuses a command", "'evalsha'"},
		"WRONGPASS invalid username-password pair":                         {"Redis refuses the login", "password"},
		"OOM command not allowed when used memory > 'maxmemory'.":          {"Redis takes no writes", "maxmemory"},
		"READONLY You can't write against a read only replica.":            {"Redis takes no writes", "replica"},
		"NOREPLICAS Not enough good replicas to write.":                    {"Redis takes no writes", "replicas"},
		"BUSY Redis is busy running a script.":                             {"Redis is not ready", "running a script"},
		"MOVED 3999 127.0.0.1:6381":                                        {"Redis is not ready", "MOVED 3999"},
		"LOADING Redis is loading the dataset in memory":                   {"Redis is not ready", "starting"},
		"ERR DB index is out of range":                                     {"Redis answers with an error", "DB index is out of range"},
	} {
		p := ProblemOf(&tokencache.UnavailableError{Err: &tokencache.StoreError{Op: "load", Err: fromRedis(text)}})
		if p.Kind != "redis" || p.Status != 503 || p.Title != want[0] || !strings.Contains(p.Detail, want[1]) {
			t.Errorf("%s: %q, %q", text, p.Title, p.Detail)
		}
	}
	p := ProblemOf(&tokencache.StoreError{Op: "load", Err: context.DeadlineExceeded})
	if p.Title != "Redis cannot be reached" {
		t.Errorf("a timeout: %q", p.Title)
	}
}

// fromRedis is an answer of Redis.
type fromRedis string

func (e fromRedis) Error() string { return string(e) }
func (fromRedis) RedisError()     {}
