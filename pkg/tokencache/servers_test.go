package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// The same table on the server of most tests and on a real one: they must not differ.
func TestScriptsBehaveAlikeOnMiniredisAndOnRedis(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) { tokencache.ScriptsBehave(t, patient(t, miniredis.RunT(t).Addr())) })
	t.Run("redis-server", func(t *testing.T) { tokencache.ScriptsBehave(t, patient(t, tokencachetest.RedisServer(t))) })
}

// overruns counts what a busy machine does to caches on a real Redis: they get no answer within the
// second that they give it. Each may cost two fetches more.
type overruns struct {
	t *testing.T
	n int
}

// insist repeats a call until it succeeds. An error that is no overrun ends the test.
func (o *overruns) insist(call func() (tokencache.Token, error)) tokencache.Token {
	t := o.t
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		token, err := call()
		if err == nil && !token.Stale {
			return token
		}
		o.n++
		late := errors.Is(err, context.DeadlineExceeded) || err == nil
		if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
			late = s.Class() == tokencache.StoreTimeout
		}
		if !late || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", token, err)
		}
	}
}

func (o *overruns) wantFetches(u *upstream, want int) {
	o.t.Helper()
	if got := len(u.Fetches()); got < want || got > want+2*o.n {
		o.t.Errorf("%d fetches, want %d (with %d overruns)", got, want, o.n)
	}
}

func dialed(t *testing.T, addr string) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// patient is dialed without a bound of a second for each operation: a busy machine fails no test of
// what the scripts do.
func patient(t *testing.T, addr string) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: 5 * time.Minute})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// The whole of it on a real server, in real time.
func TestACacheWorksOnRedis(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	u := &upstream{Latency: 20 * time.Millisecond}
	var caches []*tokencache.Cache
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for i := range 3 {
		c := tokencache.New(dialed(t, addr), tokencache.Options{Reread: time.Hour}) // so that it takes events
		err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: u.Source(fmt.Sprint(i)), Probe: u.Probe, Overlap: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- c.Run(ctx) }()
		caches = append(caches, c)
	}
	busy := overruns{t: t}
	var first tokencache.Token
	for _, c := range caches {
		first = busy.insist(func() (tokencache.Token, error) { return c.Get(t.Context(), tokencachetest.Key) })
	}
	u.Kill()
	second := busy.insist(func() (tokencache.Token, error) {
		return caches[0].Report(t.Context(), tokencachetest.Key, first.Value)
	})
	if second.Version <= first.Version {
		t.Fatalf("%+v", second)
	}
	busy.wantFetches(u, 2)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if token, _ := caches[2].Get(t.Context(), tokencachetest.Key); token.Version == second.Version {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the event did not arrive")
		}
	}
	stop()
	for _, c := range caches {
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A script that fails half way leaves what it did: a value that is cut and that nothing replaces.
// What is for people, events and the journal, must fail no script.
func TestARefreshNeedsNoRightToPublishAndNoJournal(t *testing.T) {
	t.Parallel()
	journal := "wxtoken:{" + tokencachetest.Key.App + "}:journal"
	for name, trouble := range map[string][][]any{
		"no right to publish":         {{"ACL", "SETUSER", "default", "resetchannels"}},
		"no right to the journal":     {{"ACL", "SETUSER", "default", "-xadd"}},
		"the journal is another type": {{"DEL", journal}, {"SET", journal, "text"}},
		"an entry of the far future":  {{"XADD", journal, "18446744073709551615-18446744073709551615", "kind", "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			rdb := dialed(t, tokencachetest.RedisServer(t))
			u := &upstream{}
			c := tokencache.New(rdb, tokencache.Options{})
			defer c.Close()
			err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: u.Source("one"), Probe: u.Probe, Overlap: 5 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			busy := overruns{t: t}
			first := busy.insist(func() (tokencache.Token, error) { return c.Get(t.Context(), tokencachetest.Key) })
			for _, command := range trouble {
				if err := rdb.Do(t.Context(), command...).Err(); err != nil {
					t.Fatal(command, err)
				}
			}
			u.Kill()
			second := busy.insist(func() (tokencache.Token, error) {
				return c.Report(t.Context(), tokencachetest.Key, first.Value)
			})
			if second.Version <= first.Version {
				t.Errorf("%+v", second)
			}
			busy.wantFetches(u, 2)
			if name == "the journal is another type" && rdb.XLen(t.Context(), journal).Val() == 0 {
				t.Error("the journal is not replaced")
			}
		})
	}
}

// I7: nothing that leaves the cache, except the value's own key and the Token, holds a value.
func TestNoSecretAndNoValueLeavesInErrorsEventsJournalOrDumps(t *testing.T) {
	u := &upstream{Mode: repeating, Fault: func(n int, _ string) fault {
		return []fault{{}, {LoseReply: true}, failing(tokencache.ClassTransient, -1), {}}[n%4]
	}}
	bubble(t, 2, u, func(t *testing.T, c *cluster) {
		var said strings.Builder
		c.Start()
		for i := range 60 {
			r := c.Replicas[i%2]
			token, err := get(t.Context(), r)
			_, rerr := report(token.Value.Reveal())(t.Context(), r)
			fmt.Fprintf(&said, "%v %+v %#v %v %#v %+v %#v\n", token, token, token, err, rerr, r.Cache.Status(), r.Credential)
			if i%10 == 5 {
				r.Link.Reset()
			}
			if i%7 == 0 {
				c.Upstream.Kill()
			}
			time.Sleep(40 * time.Second)
		}
		for _, r := range c.Replicas {
			fmt.Fprintf(&said, "%+v %#v", r.Events(), r.Events())
			for _, e := range r.Events() {
				for err := e.Err; err != nil; err = errors.Unwrap(err) {
					fmt.Fprintf(&said, "%v %+v %#v\n", err, err, err)
				}
			}
		}
		for _, key := range c.Redis.Keys() {
			if key != c.ValueKey() {
				fields, _ := c.Redis.HKeys(key)
				for _, f := range fields {
					said.WriteString(c.Redis.HGet(key, f))
				}
				entries, _ := c.Redis.Stream(key)
				fmt.Fprintln(&said, key, entries)
			}
		}
		if i := strings.Index(said.String(), "TOKEN-"); i >= 0 {
			t.Errorf("a value leaked: %q", said.String()[max(0, i-200):i+20])
		}
	})
}

// The hot path: no allocation.
func TestAFreshGetAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencachetest.New(t, 1, &upstream{})
		warm(t, c)
		ctx := t.Context()
		allocs := testing.AllocsPerRun(100, func() { _, _ = get(ctx, c.Replicas[0]) })
		if allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	})
}

func TestWhatACredentialTakesOfRedis(t *testing.T) {
	t.Parallel()
	tokencache.CredentialInRedis(t, patient(t, tokencachetest.RedisServer(t)))
}

// A hit asks for the time once, so most of what it costs is the clock of the machine: the benchmark
// measures that by turns with it. ns/above is what the cache adds. Each is that of the best turn, in
// which nothing else had the processor.
func BenchmarkGetHit(b *testing.B) {
	m := miniredis.RunT(b)
	rdb := redis.NewClient(&redis.Options{Addr: m.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()
	c := tokencache.New(rdb, tokencache.Options{})
	defer c.Close()
	u := &upstream{Latency: time.Millisecond}
	if err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: u.Source("b")}); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	if _, err := c.Get(ctx, tokencachetest.Key); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	hit, clock := time.Hour, time.Hour
	for b.Loop() {
		h, c := hitsAndClock(ctx, c)
		hit, clock = min(hit, h), min(clock, c)
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / hitTurn }
	b.ReportMetric(each(hit), "ns/op")
	b.ReportMetric(each(clock), "ns/time.Now")
	b.ReportMetric(each(hit-clock), "ns/above")
}

const hitTurn = 100

// hitsAndClock times as many hits, and as many looks at the clock. In the loop of a benchmark itself
// each result would be copied, so that it stays alive.
func hitsAndClock(ctx context.Context, c *tokencache.Cache) (hits, clock time.Duration) {
	start := time.Now()
	for range hitTurn {
		_, _ = c.Get(ctx, tokencachetest.Key)
	}
	middle := time.Now()
	for range hitTurn {
		_ = time.Now()
	}
	return middle.Sub(start), time.Since(middle)
}

// What a pipeline cannot even be sent for is what Redis said, and not a reply that is not
// understood.
func TestARefusedConnectionSaysWhy(t *testing.T) {
	t.Parallel()
	addr := tokencachetest.RedisServer(t)
	for name, o := range map[string]redis.Options{
		"a missing database": {DB: 99},
		"a wrong password":   {Username: "stranger", Password: "wrong"},
	} {
		o.Addr, o.ContextTimeoutEnabled, o.DisableIdentity, o.MaxRetries = addr, true, true, -1
		rdb := redis.NewClient(&o)
		c := tokencache.New(rdb, tokencache.Options{})
		if err := c.Set(tokencache.Credential{Key: tokencachetest.Key, Source: (&upstream{}).Source("x"), Overlap: time.Minute}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Journal(t.Context(), 5)
		failed, ok := errors.AsType[*tokencache.StoreError](err)
		if !ok || failed.Class() == tokencache.StoreReply || strings.Contains(err.Error(), "another version") {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
		_ = rdb.Close()
	}
}
