package faults

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// What happens to Redis, and to the way there.
var redisRows = []row{
	{
		name: "Redis frozen for 5 s", promise: "in the midst of a refresh, whose value is committed afterwards",
		reveals: reveal{name: "wxtoken_redis_errors_total"},
		run: func(b *bench) {
			b.midRefresh(func() { b.redis().Freeze() }, 5*time.Second, func() { b.redis().Thaw() })
		},
	},
	{
		name: "Redis frozen for longer than the lease", promise: "in the midst of a refresh, whose value is lost; healed by one more",
		limits:  limits{fetches: 1},
		reveals: reveal{name: "wxtoken_refreshes_total", labels: []string{`result="(refused|orphaned)"`}},
		run: func(b *bench) {
			b.midRefresh(func() { b.redis().Freeze() }, lease+3*time.Second, func() { b.redis().Thaw() })
		},
	},
	{
		name: "Redis refuses connections for 5 s", promise: "in the midst of a refresh, whose value is committed afterwards",
		reveals: reveal{name: "wxtoken_redis_errors_total"},
		run: func(b *bench) {
			b.midRefresh(func() {
				for _, p := range b.All {
					p.Link.Refuse()
				}
			}, 5*time.Second, b.heal)
		},
	},
	{
		name: "Redis restarted empty", promise: "one fetch heals it",
		limits:  limits{missingFor: reread + time.Second},
		reveals: reveal{name: "wxtoken_redis_errors_total"},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.redis().Kill()
			b.hold(2 * time.Second)
			b.lostAll(func() { b.redis().Start() }, old)
		},
	},
	{
		name: "Redis flushed", promise: "noticed by the next look; one fetch heals it",
		limits:  limits{missingFor: reread + time.Second},
		reveals: reveal{name: "wxtoken_refreshes_total", labels: []string{`result="committed"`}},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.lostAll(func() { b.store.Client().FlushAll(context.Background()) }, old)
		},
	},
	{
		name: "a lock key without an expiry", promise: "that no replica wrote: named, and taken over after one lease",
		reveals: reveal{name: "wxtoken_locks_capped_total"},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.mustRedis(b.store.Client().Set(context.Background(), rig.ValueKey+":lock", "an operator", 0).Err())
			b.provoke()
			b.note("everywhere after %v", round(b.refreshed(lease+takeUp, b.All, old)))
		},
	},
	{
		name: "garbage in the meta", promise: "a version that is no number, one that ends all versions, a backoff of 300 years: replaced, one fetch each",
		reveals: reveal{name: "wxtoken_refreshes_total", labels: []string{`result="committed"`}},
		run: func(b *bench) {
			ctx := context.Background()
			for _, version := range []string{"nan", "9223372036854775807"} {
				b.expect(1)
				b.mustRedis(b.store.Client().HSet(ctx, rig.ValueKey+":backoff", "*:until", "11000000000000", "*:tries", "many").Err())
				b.mustRedis(b.store.Client().HSet(ctx, rig.ValueKey+":meta", "version", version).Err())
				b.within(2*reread, "Redis has a sound version", func() bool { _, v := b.inRedis(); return v != version })
				b.note("healed after %v", round(b.refreshed(2*reread, b.All, "")))
			}
		},
	},
	{
		name: "the journal is of another type", promise: "refreshes go on, and the journal is replaced",
		reveals: reveal{name: "wxtoken_refreshes_total", labels: []string{`result="committed"`}},
		run: func(b *bench) {
			ctx, journal := context.Background(), rig.ValueKey[:strings.Index(rig.ValueKey, "}")+1]+":journal"
			old, _ := b.inRedis()
			b.mustRedis(b.store.Client().Del(ctx, journal).Err())
			b.mustRedis(b.store.Client().Set(ctx, journal, "text", 0).Err())
			b.provoke()
			b.note("everywhere after %v", round(b.refreshed(takeUp, b.All, old)))
			if n := b.store.Client().XLen(ctx, journal).Val(); n == 0 {
				b.t.Error("the journal is not replaced")
			}
		},
	},
	{
		name: "5000 events at once", promise: "cost each replica a look in 10 ms at most, and hold up no refresh",
		reveals: reveal{name: "wxtoken_event_lag_seconds_count"},
		run: func(b *bench) {
			ctx, client := context.Background(), b.store.Client()
			old, _ := b.inRedis()
			looks := func() int {
				_, after, _ := strings.Cut(client.Info(ctx, "commandstats").Val(), "cmdstat_evalsha:calls=")
				calls, _, _ := strings.Cut(after, ",")
				n, err := strconv.Atoi(calls)
				b.mustRedis(err)
				return n
			}
			before, begun := looks(), time.Now()
			pipe := client.Pipeline()
			for range 5000 {
				pipe.Publish(ctx, "wxtoken:events", fmt.Sprintf(`{"app":%q,"kind":"access_token","version":1,"event":"doubt","at":1}`, rig.AppID))
			}
			_, err := pipe.Exec(ctx)
			b.mustRedis(err)
			b.provoke()
			b.refreshed(takeUp, b.All, old)
			seen := looks() - before
			b.note("%d scripts in %v", seen, round(time.Since(begun)))
			if most := len(b.All) * (200 + 200*int(1+time.Since(begun)/time.Second)); seen > most {
				b.t.Errorf("%d scripts, want at most %d", seen, most)
			}
		},
	},
	{
		name: "no events", promise: "subscriptions break while commands work: every replica has a new version within 15 s",
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="watch"`}},
		run: func(b *bench) {
			for _, p := range b.All {
				p.Link.Deafen()
			}
			old, version := b.inRedis()
			b.provokeUnheard()
			b.within(reread+5*time.Second, "a replica looks and refreshes", func() bool { _, v := b.inRedis(); return v > version })
			b.note("everywhere after %v", round(b.refreshed(reread+time.Second, b.All, old)))
		},
	},
	{
		name: "connections cut every second", promise: "each refresh is done within the lease + 1 s",
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="watch"`}},
		run: func(b *bench) {
			for _, p := range b.All {
				p.Link.ResetEvery(time.Second)
			}
			var slowest time.Duration
			for range 5 {
				b.hold(1300 * time.Millisecond) // out of step with the cuts
				old, _ := b.inRedis()
				b.provoke()
				// Half of the replicas receive no events at a time: the slow look is for them.
				slowest = max(slowest, b.refreshed(takeUp+reread, b.All, old))
			}
			b.note("slowest %v", round(slowest))
		},
	},
	{
		name: "Sentinel failover", promise: "the master dies in the midst of a refresh; at most one more",
		limits:  limits{fetches: 1},
		reveals: reveal{name: "wxtoken_redis_errors_total"},
		store:   func(b *bench) rig.Store { return rig.StartSentinel(b.t) },
		run: func(b *bench) {
			b.midRefresh(func() { b.store.(*rig.Sentinel).Master.Kill() }, 0, func() {})
		},
	},
	{
		name: "Cluster master lost", promise: "the app's own, with a replica that takes over, in the midst of a refresh; at most one more",
		limits:  limits{fetches: 1},
		reveals: reveal{name: "wxtoken_redis_errors_total"},
		store:   func(b *bench) rig.Store { return rig.StartRedisCluster(b.t) },
		run: func(b *bench) {
			cluster := b.store.(*rig.RedisCluster)
			b.midRefresh(cluster.Owner.Kill, 0, func() {
				promoted := b.within(lease+5*time.Second, "the replica is promoted", func() bool {
					role, err := cluster.Replica.Client().(*redis.Client).Do(context.Background(), "ROLE").Slice()
					return err == nil && role[0] == "master"
				})
				b.note("promoted after %v", round(promoted))
			})
		},
	},
}

// midRefresh breaks Redis while WeChat has a request, for d, and waits until all have a new token.
func (b *bench) midRefresh(broken func(), d time.Duration, heal func()) {
	b.t.Helper()
	old, _ := b.inRedis()
	b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, After: true, Delay: time.Second})
	next := b.Upstream.NextFetch()
	b.provoke()
	await(b, next, "WeChat is asked")
	broken()
	b.hold(d)
	heal()
	b.note("everywhere after %v", round(b.refreshed(lease+2*reread, b.All, old)))
}

// lostAll lets Redis lose its data, and waits until all have a new token.
func (b *bench) lostAll(lose func(), old string) {
	b.t.Helper()
	lose()
	b.expect(1)
	if b.endpoint == stable {
		old = "" // WeChat gives the same one again
	}
	b.note("healed after %v", round(b.refreshed(2*reread, b.All, old)))
}

// mustRedis ends the test if Redis does not do what the row does to it.
func (b *bench) mustRedis(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}
