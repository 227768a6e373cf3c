package tokencache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func TestTheJournalIsReadAlikeFromMiniredisAndFromRedis(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) { tokencache.JournalIsRead(t, patient(t, miniredis.RunT(t).Addr())) })
	t.Run("redis-server", func(t *testing.T) { tokencache.JournalIsRead(t, patient(t, tokencachetest.RedisServer(t))) })
}

func TestClusterTellsWhoListensAndWhoDidWhat(t *testing.T) {
	bubble(t, 3, &upstream{}, func(t *testing.T, c *cluster) {
		look := func(i int) tokencache.Journal {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			seen, err := c.Replicas[i].Cache.Journal(ctx, 5)
			if err != nil {
				t.Error(err)
			}
			return seen
		}
		if before := look(0); c.Replicas[0].Cache.Health().Subscribed || before.Listeners != 0 || !before.Reachable {
			t.Errorf("before the start: %+v", before)
		}
		c.Start()
		c.Replicas[1].MustGet(t)
		time.Sleep(time.Minute)
		seen := look(0)
		if !c.Replicas[0].Cache.Health().Subscribed || seen.Listeners != 3 || seen.Replica != "replica-0" || len(seen.Entries) != 1 {
			t.Fatalf("got %+v", seen)
		}
		if e := seen.Entries[0]; e.Result != tokencache.ResultCommitted || e.Key != tokencachetest.Key || e.Age < 59*time.Second || e.Age > time.Minute {
			t.Errorf("the entry: %+v", e)
		}
		c.Replicas[2].Stop()
		time.Sleep(time.Second) // the server has to notice
		if n := look(0).Listeners; n != 2 {
			t.Errorf("%d listen after one has stopped, want 2", n)
		}

		c.Replicas[0].Link.Refuse()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		seen, err := c.Replicas[0].Cache.Journal(ctx, 5)
		if _, ok := errors.AsType[*tokencache.StoreError](err); !ok || seen.Reachable || time.Since(start) > 300*time.Millisecond {
			t.Errorf("without Redis: %+v, %v after %v", seen, err, time.Since(start))
		}
		c.Replicas[0].Link.Heal()
		time.Sleep(5 * time.Second)
	})
}

func TestWithoutThePermissionTheJournalIsDeniedAndTheRestIsTold(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	admin := patient(t, addr)
	become := func(more ...any) { // 6.2 takes no subcommand away, so the user begins anew
		t.Helper()
		acl := []any{"acl", "setuser", "w", "reset", "on", ">p", "~wxtoken:*", "resetchannels", "&wxtoken:events", "-@all", "+time", "+eval", "+evalsha"}
		if err := admin.Do(t.Context(), append(acl, more...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	become("+pubsub|numsub")
	rdb := redis.NewClient(&redis.Options{Addr: addr, Username: "w", Password: "p", DisableIdentity: true})
	defer rdb.Close()
	c := tokencache.New(rdb, tokencache.Options{})
	if err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: (&upstream{}).Source("x")}); err != nil {
		t.Fatal(err)
	}
	seen, err := c.Journal(t.Context(), 5)
	if !errors.Is(err, tokencache.ErrJournalDenied) || !seen.Reachable || seen.Listeners != 0 {
		t.Errorf("without +xrevrange: %+v, %v", seen, err)
	}
	become("+xrevrange")
	seen, err = c.Journal(t.Context(), 5)
	if err != nil || !seen.Reachable || seen.Listeners != -1 {
		t.Errorf("with +xrevrange and without +pubsub|numsub: %+v, %v", seen, err)
	}
}
