package lock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// onBoth runs f on the server of most tests and on a real one.
func onBoth(t *testing.T, f func(t *testing.T, rdb *redis.Client)) {
	for name, addr := range map[string]func(t *testing.T) string{
		"miniredis":    func(t *testing.T) string { return miniredis.RunT(t).Addr() },
		"redis-server": func(t *testing.T) string { return tokencachetest.RedisServer(t) },
	} {
		t.Run(name, func(t *testing.T) {
			rdb := redis.NewClient(&redis.Options{Addr: addr(t), ContextTimeoutEnabled: true})
			defer rdb.Close()
			f(t, rdb)
		})
	}
}

func TestOneLeaseStandsAtATime(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		a, b := lock.New(rdb, "k", time.Hour), lock.New(rdb, "k", time.Hour)
		before := time.Now()
		lease, err := a.Obtain(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := rdb.Get(ctx, "k").Val(); got != lease.Value() || got == "" {
			t.Errorf("the key holds %q, the lease says %q", got, lease.Value())
		}
		if d := lease.Deadline(); d.Before(before.Add(time.Hour)) || d.After(time.Now().Add(time.Hour)) {
			t.Errorf("deadline %v", d)
		}
		for _, l := range []*lock.Lock{a, b} {
			if _, err := l.Obtain(ctx); !errors.Is(err, lock.ErrHeld) {
				t.Errorf("a second Obtain says %v", err)
			}
		}
		if err := lease.Release(ctx); err != nil {
			t.Error(err)
		}
		other, err := b.Obtain(ctx)
		if err != nil || other.Value() == lease.Value() {
			t.Fatalf("after the release: %v", err)
		}
		if err := lease.Release(ctx); err != nil { // another process holds it now
			t.Error(err)
		}
		if rdb.Get(ctx, "k").Val() != other.Value() {
			t.Error("a late release ended another's lease")
		}
	})
}

func TestReleaseWorksAfterTheCallerHasGone(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := lock.New(rdb, "k", time.Hour).Obtain(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := lease.Release(ctx); err != nil {
			t.Error(err)
		}
		if rdb.Exists(context.Background(), "k").Val() != 0 {
			t.Error("the lease is still held")
		}
	})
}

// lossy loses the replies of obtaining, after Redis has acted.
type lossy struct {
	*redis.Client
	losing *bool
}

func (l lossy) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := l.Client.EvalSha(ctx, sha, keys, args...)
	if *l.losing {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			return cmd
		}
		cmd.SetErr(errors.New("lost"))
	}
	return cmd
}

func (l lossy) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	cmd := l.Client.Eval(ctx, script, keys, args...)
	if *l.losing {
		cmd.SetErr(errors.New("lost"))
	}
	return cmd
}

func TestALeaseOfAnUnclearObtainIsTakenOverOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		losing := true
		l := lock.New(lossy{rdb, &losing}, "k", time.Hour)
		if _, err := l.Obtain(t.Context()); err == nil || errors.Is(err, lock.ErrHeld) {
			t.Fatalf("got %v", err)
		}
		if !l.Unclear() || rdb.Exists(t.Context(), "k").Val() != 1 {
			t.Fatal("there is nothing to take over")
		}
		losing = false
		lease, err := l.Obtain(t.Context())
		if err != nil || l.Unclear() {
			t.Fatalf("not taken over: %v", err)
		}
		if _, err := l.Obtain(t.Context()); !errors.Is(err, lock.ErrHeld) {
			t.Errorf("taken over twice: %v", err)
		}
		_ = lease.Release(t.Context())
	})
}

func TestARefusedConnectionIsNotALease(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer rdb.Close()
	if _, err := lock.New(rdb, "k", time.Hour).Obtain(t.Context()); err == nil || errors.Is(err, lock.ErrHeld) {
		t.Errorf("got %v", err)
	}
}
