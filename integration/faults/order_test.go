package faults

import (
	"context"
	"strconv"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// WeChat's answers, and what it does, in another order than the requests; and lives that are not 2
// h.
var orderRows = []row{
	outOfOrder("replies out of order, WeChat acted at once", true),
	outOfOrder("replies out of order, WeChat acted late", false),
	{
		name: "WeChat acts after the lease of a frozen holder", promise: "on a request sent before: what another one committed meanwhile is cut, and replaced",
		endpoints: []endpoint{classic}, limits: limits{fetches: 2},
		reveals: reveal{name: "wxtoken_leases_lost_total"},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, Delay: takeUp + 4*time.Second})
			next := b.Upstream.NextFetch()
			b.provoke()
			holder := b.ByName(await(b, next, "WeChat is asked"))
			holder.Freeze()
			b.note("others after %v", round(b.refreshed(takeUp+3*time.Second, b.Others(holder), old)))
			second, _ := b.inRedis()
			b.within(10*time.Second, "WeChat invalidates the token in Redis", func() bool { return b.Upstream.Status(rig.AppID, second) == wechattest.Previous })
			holder.Thaw()
			b.note("healed %v later", round(b.refreshed(15*time.Second, b.All, second)))
			b.checkLife()
		},
	},
	{
		name: "WeChat acts after its caller hung up", promise: "on a request that was given up, when the next has been committed: this cannot be noticed; the first report heals it",
		endpoints: []endpoint{classic}, limits: limits{fetches: 1, dead: onceEach, missingFor: time.Second},
		reveals: reveal{name: "wxtoken_reports_total", labels: []string{`outcome="committed"`}},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, Effect: wechattest.EffectHang})
			b.provoke()
			b.refreshed(30*time.Second, b.All, old)
			b.foreign(10 * time.Second) // that is what it looks like from here
			b.checkLife()
		},
	},
	shortLife(time.Minute, 70*time.Second, 3),
	shortLife(10*time.Second, 40*time.Second, 6),
	{
		name: "expires_in of 1 s", promise: "a positive TTL, and served, while the allowance of fetches lasts: 50, then one in 3 minutes; the drop-in may say that no value lasts for 2 s",
		// A tenth of such a life is left for a refresh when the key leaves Redis.
		limits:  limits{fetches: 49, missingFor: time.Second, failed: 3 * 4 * 25}, // all calls of the drop-in
		reveals: reveal{name: "wxtoken_upstream_fetches_total", labels: []string{`result="ok"`}},
		run: func(b *bench) {
			b.live(time.Second)
			b.hold(4 * time.Second)
			seen := b.load.Stop() // so much can be promised
			b.onlyRefused(seen, "drop-in says errcode -1$")
			used := b.Upstream.Calls(rig.AppID).Fetches()
			b.note("%d fetches in 4 s for %d calls", used-1, seen.Calls)
			late := b.startLoad()
			b.hold(45 * time.Second)
			after := late.Stop()
			b.note("then %d in 45 s, %d of %d calls failed", b.Upstream.Calls(rig.AppID).Fetches()-used, after.Failed, after.Calls)
			if after.Dead > 3 { // a proxied call can reach WeChat after the end of so short a life
				b.t.Errorf("%d dead values were handed out", after.Dead)
			}
		},
	},
}

// outOfOrder is a row in which the first of two requests that are under way is answered last.
// WeChat acts on it first, or last.
func outOfOrder(name string, atOnce bool) row {
	return row{
		name: name, promise: "the first holder has lost its lease and the second has committed: the late value replaces nothing, and the value in Redis outlives its key",
		limits:  limits{fetches: 2},
		reveals: reveal{name: "wxtoken_leases_lost_total"},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, After: atOnce, Delay: 4 * time.Second})
			next := b.Upstream.NextFetch()
			b.provoke()
			first := b.ByName(await(b, next, "WeChat is asked"))
			if n := b.store.Client().Del(context.Background(), rig.ValueKey+":lock").Val(); n != 1 {
				b.t.Fatal("no lease is held")
			}
			// A replica that looked while the lease was held does so again only at its end, unless
			// there is news.
			b.store.Client().Publish(context.Background(), rig.Namespace+":events", `{"app":"`+rig.AppID+`","kind":"access_token"}`)
			b.within(3*time.Second, "another one commits", func() bool { value, _ := b.inRedis(); return value != old && value != "" })
			if n := b.Upstream.FetchesAtOnce(); n != 2 {
				b.t.Errorf("%d fetches at once, want 2", n)
			}
			second, version := b.inRedis()
			b.within(10*time.Second, "the late value is refused", func() bool { return first.Metric("wxtoken_leases_lost_total") > 0 })
			b.refreshed(15*time.Second, b.All, old)
			value, now := b.inRedis()
			if before, after := number(version), number(now); after < before || after == before && value != second {
				b.t.Errorf("Redis has version %s after %s", now, version)
			}
			b.checkLife()
		},
	}
}

func number(version string) int64 {
	n, _ := strconv.ParseInt(version, 10, 64) // 0 is older than any
	return n
}

// shortLife is a row with tokens of such a life, for so long, in which there may be so many
// fetches.
func shortLife(life, during time.Duration, fetches int) row {
	return row{
		name: "expires_in of " + strconv.Itoa(int(life/time.Second)) + " s", promise: "the key always has a TTL, and nothing is fetched before half of a life is over",
		// SDKs subtract more than such a life, so callers of the drop-in wait for the next one: 5 s
		// for its moment, and refresh_wait.
		limits:  limits{fetches: fetches, wait: 7500 * time.Millisecond},
		reveals: reveal{name: "wxtoken_upstream_fetches_total", labels: []string{`result="ok"`}, by: 2},
		run: func(b *bench) {
			b.live(life)
			fetches := b.fetches()
			for end := time.Now().Add(during); time.Now().Before(end); b.hold(250 * time.Millisecond) {
				left := b.store.Client().PTTL(context.Background(), rig.ValueKey).Val()
				if left <= 0 || left > life {
					b.t.Fatalf("the key's TTL is %v", left)
				}
				b.checkLife()
			}
			all := fetches()
			for i := range all[1:] {
				if gap := all[i+1].Sub(all[i]); gap < life/2 {
					b.t.Errorf("two fetches %v apart", gap)
				}
			}
			b.note("%d fetches in %v", len(all), during)
		},
	}
}

// live lets WeChat's tokens live for so long from now on, and waits for the first of them.
func (b *bench) live(life time.Duration) {
	b.t.Helper()
	old, _ := b.inRedis()
	b.Upstream.Tune(func(k *wechattest.Knobs) { k.ExpiresIn = life })
	b.provoke()
	b.within(10*time.Second, "a token lives that long", func() bool { value, _ := b.inRedis(); return value != "" && value != old })
}
