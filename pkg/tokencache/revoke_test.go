package tokencache_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// After a revocation no replica hands the value out, as soon as the event has arrived.
func TestARevokedValueIsGoneEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{Mode: superseding}
		c := tokencachetest.New(t, 5, u)
		c.Start()
		old := c.Replicas[0].MustGet(t).Value
		synctest.Wait()
		u.Latency = 3 * time.Second // a new value takes a while
		c.Replicas[0].Cache.Close() // and the one that revokes does not fetch it
		if err := c.Replicas[0].Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
			t.Fatal(err)
		}
		if got := c.Value(); got == old.Reveal() {
			t.Error("the value is still in Redis")
		}
		time.Sleep(250 * time.Millisecond)
		for _, r := range c.Replicas {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if got, err := r.Cache.Get(ctx, tokencachetest.Key); err == nil {
				t.Errorf("%s still hands it out: %+v", r.Name, got)
			}
			cancel()
		}
		for _, r := range c.Replicas[1:] {
			if got := r.MustGet(t); got.Value.Equal(old) || got.Stale {
				t.Errorf("%s: %+v", r.Name, got)
			}
		}
		if n := len(c.Upstream.Fetches()); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// Without events, the next look at Redis finds out.
func TestARevokedValueIsGoneWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencachetest.New(t, 2, &upstream{Mode: superseding}, tokencachetest.Options(tokencache.Options{Reread: 10 * time.Second}))
		c.Start()
		old := c.Replicas[1].MustGet(t).Value
		synctest.Wait()
		c.Replicas[1].Link.Deafen()
		if err := c.Replicas[0].Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if got := c.Replicas[1].MustGet(t); got.Value.Equal(old) {
			t.Error("it is handed out after the bound")
		}
	})
}

// A fetch that began before the revocation does not bring the value back, wherever it is.
func TestAFetchAcrossARevocationDoesNotLand(t *testing.T) {
	for name, f := range map[string]fault{
		"before upstream acts": {Delay: 3 * time.Second},
		"after upstream acted": {DelayReply: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{Mode: superseding, Fault: func(n int, _ string) fault {
					if n == 1 {
						return f
					}
					return fault{}
				}}
				c := tokencachetest.New(t, 2, u)
				c.Start()
				time.Sleep(time.Second) // the first fetch is under way
				if err := c.Replicas[1].Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
					t.Fatal(err)
				}
				revoked := time.Now()
				for time.Since(revoked) < 20*time.Second {
					time.Sleep(50 * time.Millisecond)
					first := u.Fetches()[0].Issued // before the revocation
					if got := c.Value(); got != "" && got == first {
						t.Fatalf("after %v it is in Redis", time.Since(revoked))
					}
					for _, r := range c.Replicas {
						if got := r.Cache.Peek(tokencachetest.Key).Value; got != "" && got == first {
							t.Fatalf("after %v %s has it", time.Since(revoked), r.Name)
						}
					}
				}
				if got := c.Replicas[0].MustGet(t); got.Stale {
					t.Errorf("no good value afterwards: %+v", got)
				}
			})
		})
	}
}

// endedSource refuses for good while it is ended.
type endedSource struct {
	tokencache.Source
	ended atomic.Bool
}

func (s *endedSource) Fetch(ctx context.Context, r tokencache.Request) (tokencache.Value, error) {
	if s.ended.Load() {
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassEnded, Message: "withdrawn"}
	}
	return s.Source.Fetch(ctx, r)
}

// What the Source says for good ends the value, even a fresh one and without any event: when the
// event of a revocation was lost and Redis has forgotten it.
func TestAnEndedCredentialHandsOutNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []*endedSource
		c := tokencachetest.New(t, 3, &upstream{Mode: superseding}, tokencachetest.Configure(func(_ string, spec *tokencache.Credential) {
			s := &endedSource{Source: spec.Source}
			ended = append(ended, s)
			spec.Source = s
		}))
		c.Start()
		old := c.Replicas[0].MustGet(t)
		for _, s := range ended {
			s.ended.Store(true)
		}
		time.Sleep(old.ExpiresIn - 20*time.Minute) // it is due, and lives
		synctest.Wait()
		for _, r := range c.Replicas {
			got, err := r.Cache.Get(t.Context(), tokencachetest.Key)
			f, ok := errors.AsType[*tokencache.FetchError](err)
			if !ok || f.Class != tokencache.ClassEnded || f.Message != "withdrawn" {
				t.Errorf("%s: %+v, %v", r.Name, got, err)
			}
			if got := r.Cache.Peek(tokencachetest.Key); got.Value != "" {
				t.Errorf("%s keeps %q", r.Name, got.Value)
			}
		}
		if c.Value() != "" {
			t.Error("the value is still in Redis")
		}
		mark := c.Meta("revoked")
		time.Sleep(time.Hour) // and further refreshes, which are no news
		if got := c.Meta("revoked"); got != mark || mark == "" {
			t.Errorf("the mark was %s and is %s", mark, got)
		}
		// It was authorised again: no caller waits for the backoff.
		for _, s := range ended {
			s.ended.Store(false)
		}
		if err := c.Replicas[1].Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
			t.Fatal(err)
		}
		if got := c.Replicas[2].MustGet(t); got.Stale || got.Value.Equal(old.Value) {
			t.Errorf("afterwards: %+v", got)
		}
	})
}

// A value that only this replica has, because Redis was away, ends as well: while Redis is away,
// and after it is back, whose mark is no news.
func TestAnEndedCredentialHandsOutNothingThatRedisDoesNotHave(t *testing.T) {
	for _, back := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &endedSource{}
			c := tokencachetest.New(t, 1, &upstream{Mode: repeating}, tokencachetest.Configure(func(_ string, spec *tokencache.Credential) {
				s.Source = spec.Source
				spec.Source = s
			}))
			r := c.Replicas[0]
			if err := r.Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
				t.Fatal(err)
			}
			r.Link.Refuse()
			if got := r.MustGet(t); got.Value.Empty() {
				t.Fatal("no value without Redis")
			}
			s.ended.Store(true)
			if back {
				r.Link.Heal()
			}
			time.Sleep(119*time.Minute + 30*time.Second) // it lives, and is due even without Redis
			if got, err := r.Cache.Get(t.Context(), tokencachetest.Key); err == nil {
				t.Errorf("Redis is back: %v: %+v", back, got)
			}
		})
	}
}

func TestRetryEndsABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quota := tokencache.FetchError{Class: tokencache.ClassQuota, Code: 45009, Message: "quota"}
		u := &upstream{Mode: superseding, Fault: func(n int, _ string) fault {
			if n == 1 {
				return fault{Err: &quota}
			}
			return fault{}
		}}
		c := tokencachetest.New(t, 3, u)
		c.Start()
		if _, err := c.Replicas[0].Cache.Get(t.Context(), tokencachetest.Key); err == nil {
			t.Fatal("no error of a spent quota")
		}
		c.Replicas[2].Cache.Close() // so that it is the event alone by which the others know
		if err := c.Replicas[2].Cache.Retry(t.Context(), tokencachetest.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // without a caller
		for _, r := range c.Replicas[:2] {
			if got := r.Cache.Peek(tokencachetest.Key); !got.Good {
				t.Errorf("%s: %+v", r.Name, got)
			}
		}
	})
}

// A key that this replica does not keep can be revoked, and one that cannot be is refused.
func TestRevokeOfWhatIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencachetest.New(t, 1, &upstream{})
		if err := c.Replicas[0].Cache.Revoke(t.Context(), tokencache.Key{App: "wx9:wx8", Kind: "access_token"}); err != nil {
			t.Error(err)
		}
		if c.Redis.HGet("wxtoken:{wx9:wx8}:access_token:meta", "revoked") == "" {
			t.Error("no mark")
		}
		if err := c.Replicas[0].Cache.Revoke(t.Context(), tokencache.Key{App: "a b", Kind: "access_token"}); err == nil {
			t.Error("no error")
		}
		c.Replicas[0].Link.Refuse()
		err := c.Replicas[0].Cache.Retry(t.Context(), tokencachetest.Key)
		if _, ok := errors.AsType[*tokencache.StoreError](err); !ok {
			t.Errorf("without Redis: %v", err)
		}
	})
}

// Redis lost what it knew of the value, and so of its version: an end takes the value away all the
// same.
func TestAnEndTakesAwayAValueWithoutMeta(t *testing.T) {
	bothModes(t, func(t *testing.T, mode tokencachetest.Mode) {
		s := &endedSource{}
		bubble(t, 1, &upstream{Mode: mode}, func(t *testing.T, c *cluster) {
			r := c.Replicas[0]
			r.MustGet(t)
			s.ended.Store(true)
			c.Redis.Del(c.ValueKey() + ":meta")
			r.Start() // which looks, and finds that data was lost
			time.Sleep(5 * time.Second)
			if got := c.Value(); got != "" {
				t.Errorf("%q is still in Redis", got)
			}
			if got := r.Cache.Peek(tokencachetest.Key); got.Value != "" {
				t.Errorf("the replica keeps %q", got.Value)
			}
		}, tokencachetest.Configure(func(_ string, spec *tokencache.Credential) {
			s.Source = spec.Source
			spec.Source = s
		}))
	})
}

// A fetch whose lease a revocation ended says late that the right has ended. That was another
// right: the value that came of the next one stays in memory.
func TestALateEndForgetsNoLaterValue(t *testing.T) {
	u := &upstream{Mode: superseding, Fault: func(n int, _ string) fault {
		if n == 1 {
			return fault{Delay: 12 * time.Second, Detached: true, Err: &endedError}
		}
		return fault{}
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		slow, other := c.Replicas[0], c.Replicas[1]
		slow.Start()
		time.Sleep(time.Second) // its fetch is under way
		other.Start()
		if err := other.Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
			t.Fatal(err)
		}
		later := other.MustGet(t).Value
		time.Sleep(time.Second)
		slow.Link.Refuse() // memory is all it has
		time.Sleep(20 * time.Second)
		if got := slow.Cache.Peek(tokencachetest.Key); !later.Equal(secret.New(got.Value)) {
			t.Errorf("it has %q in memory, want the later value", got.Value)
		}
	})
}

// Without Redis, a replica remembers for itself that the right has ended. A revocation ends that,
// too: the secret is another one.
func TestARevocationEndsABackoffOfOneReplica(t *testing.T) {
	s := &endedSource{}
	bubble(t, 1, &upstream{Mode: repeating}, func(t *testing.T, c *cluster) {
		r := c.Replicas[0]
		s.ended.Store(true)
		r.Link.Refuse()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Cache.Get(ctx, tokencachetest.Key)
		if f, ok := errors.AsType[*tokencache.FetchError](err); !ok || f.Class != tokencache.ClassEnded {
			t.Fatalf("without Redis: %v", err)
		}
		s.ended.Store(false)
		r.Link.Heal()
		if err := r.Cache.Revoke(t.Context(), tokencachetest.Key); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Cache.Get(t.Context(), tokencachetest.Key); err != nil || got.Stale {
			t.Errorf("%+v, %v", got, err)
		}
	}, tokencachetest.Configure(func(_ string, spec *tokencache.Credential) {
		s.Source = spec.Source
		spec.Source = s
	}))
}
