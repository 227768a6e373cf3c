package faults

import (
	"context"
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
			old, _ := b.stands()
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
			old, _ := b.stands()
			b.lostAll(func() { b.store.Client().FlushAll(context.Background()) }, old)
		},
	},
	{
		name: "no events", promise: "subscriptions break while commands work: every replica has a new version within 15 s",
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="watch"`}},
		run: func(b *bench) {
			for _, p := range b.All {
				p.Link.Deafen()
			}
			old, version := b.stands()
			b.provokeUnheard()
			b.within(reread+5*time.Second, "somebody looks and refreshes", func() bool { _, v := b.stands(); return v > version })
			b.note("everywhere after %v", round(b.refreshed(reread+time.Second, b.All, old)))
		},
	},
	{
		name: "connections cut every second", promise: "each refresh is done within the lease + 1 s",
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="watch"`}},
		run: func(b *bench) {
			for _, p := range b.All {
				p.Link.CutEvery(time.Second)
			}
			var slowest time.Duration
			for range 5 {
				b.hold(1300 * time.Millisecond) // out of step with the cuts
				old, _ := b.stands()
				b.provoke()
				// Half of the replicas hear nothing at a time: the slow look is for them.
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
	old, _ := b.stands()
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
