package redisclient

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// always is a Source that always gives the same value.
type always string

func (a always) Fetch(context.Context, tokencache.Request) (tokencache.Value, error) {
	return tokencache.Value{Value: secret.New(string(a)), Life: 2 * time.Hour, RenewLeft: 5 * time.Minute}, nil
}

// Garbage that is longer than [maxRedisReply] must not end the connection at every look at a
// credential: no look would ever find out that it is garbage.
func TestHugeGarbageInRedisIsReplaced(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("g", 2<<20)
	until := time.Now().Add(time.Hour).UnixMilli()
	for name, fields := range map[string][]any{
		"wxtoken:{app}:access_token":         nil,
		"wxtoken:{app}:access_token:meta":    {"version", 1, "digest", huge, "granted", huge},
		"wxtoken:{app}:access_token:backoff": {"*:until", until, "*:wait", 3600000, "*:note", huge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, err := Connect(config.Redis{URL: secret.New("redis://" + tokencachetest.RedisServer(t)), Form: config.RedisSingle})
			if err != nil {
				t.Fatal(err)
			}
			defer rdb.Close()
			if fields == nil {
				err = rdb.Set(t.Context(), name, huge, time.Hour).Err()
			} else {
				err = rdb.HSet(t.Context(), name, fields...).Err()
			}
			if err != nil {
				t.Fatal(err)
			}
			c := tokencache.New(rdb, tokencache.Options{Namespace: "wxtoken"})
			defer c.Close()
			k := tokencache.Key{App: "app", Kind: "access_token"}
			if err := c.Set(tokencache.Credential{Key: k, Source: always("good"), Overlap: 5 * time.Minute}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			token, err := c.Get(ctx, k)
			if !c.Health().RedisUp {
				t.Error("Redis counts as away")
			}
			if strings.HasSuffix(name, ":backoff") {
				if unavailable, _ := errors.AsType[*tokencache.UnavailableError](err); unavailable == nil || unavailable.RetryAfter < 30*time.Minute {
					t.Errorf("got %v, want that the backoff holds", err)
				}
				return
			}
			if err != nil || token.Value.Reveal() != "good" || rdb.(*redis.Client).Get(t.Context(), "wxtoken:{app}:access_token").Val() != "good" {
				t.Errorf("got %v", err)
			}
		})
	}
}
