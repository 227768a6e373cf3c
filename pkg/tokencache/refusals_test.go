package tokencache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A real Redis words its refusals in scripts in its own way.
func TestWhatARealRedisRefusesHasItsClass(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	admin := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	defer admin.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	do := func(args ...any) {
		t.Helper()
		if err := admin.Do(ctx, args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	// try fetches a first value as a user, and returns the classes of what failed.
	try := func(user string) map[tokencache.StoreClass]bool {
		rdb := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: "p", ContextTimeoutEnabled: true, MaxRetries: -1})
		defer rdb.Close()
		seen := map[tokencache.StoreClass]bool{}
		c := tokencache.New(rdb, tokencache.Options{Namespace: user, Observe: func(e tokencache.Event) {
			if s, ok := errors.AsType[*tokencache.StoreError](e.Err); ok && e.Reason == "" {
				seen[s.Class()] = true
			}
		}})
		defer c.Close()
		u := &upstream{Latency: time.Millisecond}
		if err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: u.Source("r"), Overlap: time.Minute}); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Get(ctx, tokencachetest.Key)
		return seen
	}
	// inTime is try without what only a busy machine does: that Redis does not answer within 1 s.
	inTime := func(user string) map[tokencache.StoreClass]bool {
		for {
			if seen := try(user); !seen[tokencache.StoreTimeout] || ctx.Err() != nil {
				return seen
			}
		}
	}
	only := func(user string, want tokencache.StoreClass) {
		t.Helper()
		if got := inTime(user); len(got) != 1 || !got[want] {
			t.Errorf("%s: got %v, want %s", user, got, want)
		}
	}
	everything := []any{"on", ">p", "~*", "&*", "+@all"}
	do(append([]any{"ACL", "SETUSER", "all"}, everything...)...)
	do(append(append([]any{"ACL", "SETUSER", "unwriting"}, everything...), "-hset")...)
	do("ACL", "SETUSER", "scriptless", "on", ">p", "~*", "&*", "+hello", "+set")
	do("ACL", "SETUSER", "keyless", "on", ">p", "~other*", "&*", "+@all")
	if got := inTime("all"); len(got) != 0 {
		t.Errorf("with all rights: %v", got)
	}
	only("unwriting", tokencache.StoreNoPerm)
	only("scriptless", tokencache.StoreNoPerm)
	only("keyless", tokencache.StoreNoPerm)
	only("unknown", tokencache.StoreNoAuth)
	do("ACL", "SETUSER", "full", "on", ">p", "~*", "&*", "+@all")
	do("CONFIG", "SET", "maxmemory", "1")
	only("full", tokencache.StoreOOM)
	do("CONFIG", "SET", "maxmemory", "0")
	do("ACL", "SETUSER", "replica", "on", ">p", "~*", "&*", "+@all")
	do("REPLICAOF", "127.0.0.1", "1")
	only("replica", tokencache.StoreReadOnly)
}

// A pipeline that go-redis has no connection for leaves its commands without a reply and without an
// error: that must not pass for an answer.
func TestAWrongPasswordIsNotAnAnswerOfAnotherVersion(t *testing.T) {
	addr := tokencachetest.RedisServer(t, "--requirepass", "right")
	for password, want := range map[string]string{"wrong": "WRONGPASS", "": "NOAUTH"} {
		rdb := redis.NewClient(&redis.Options{Addr: addr, Password: password, DisableIdentity: true, ContextTimeoutEnabled: true})
		defer rdb.Close()
		seen := make(chan tokencache.StoreClass, 100)
		c := tokencache.New(rdb, tokencache.Options{Reread: 20 * time.Millisecond, Observe: func(e tokencache.Event) {
			if s, ok := errors.AsType[*tokencache.StoreError](e.Err); ok && s.Op == "load" {
				select {
				case seen <- s.Class():
				default:
				}
			}
		}})
		defer c.Close()
		if err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: (&upstream{}).Source("r"), Overlap: time.Minute}); err != nil {
			t.Fatal(err)
		}
		journal, err := c.Journal(t.Context(), 1)
		if s, ok := errors.AsType[*tokencache.StoreError](err); !ok || s.Class() != tokencache.StoreNoAuth || !journal.Reachable || !strings.Contains(err.Error(), want) {
			t.Errorf("password %q, the journal: %+v, %v", password, journal, err)
		}
		go func() { _ = c.Run(t.Context()) }()
		for range 3 {
			select {
			case class := <-seen:
				if class != tokencache.StoreNoAuth && class != tokencache.StoreTimeout { // the latter on a busy machine
					t.Errorf("password %q, the re-read: %s", password, class)
				}
			case <-time.After(time.Minute):
				t.Fatal("nothing was read")
			}
		}
		if h := c.Health(); h.RedisUp || !h.RedisAnswered.IsZero() {
			t.Errorf("password %q: %+v", password, h)
		}
	}
}
