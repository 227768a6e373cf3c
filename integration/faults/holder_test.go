package faults

import (
	"context"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// Facts of the program that the promises are made of.
const (
	lease   = 10 * time.Second
	takeUp  = lease + time.Second // until another replica goes on where a holder died
	reread  = 15 * time.Second    // until a replica that receives no events knows what it missed
	handOff = 500 * time.Millisecond
)

// What happens to the replica that refreshes.
var holderRows = []row{
	killed("before it asks WeChat", 0, func(b *bench) *rig.Sidecar {
		who := b.lose("begin", 1, rig.Silent)
		b.provoke()
		return who()
	}),
	killed("while WeChat has its request", 1, func(b *bench) *rig.Sidecar {
		b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, Delay: time.Minute})
		next := b.Upstream.NextFetch()
		b.provoke()
		return b.ByName(await(b, next, "WeChat is asked"))
	}),
	killed("after WeChat issued a token", 1, func(b *bench) *rig.Sidecar {
		return b.issuing(time.Minute)
	}),
	killed("before its commit", 1, func(b *bench) *rig.Sidecar {
		who := b.lose("commit", 1, rig.Unsent)
		b.provoke()
		return who()
	}),
	{
		name: "holder killed after its commit", promise: "the others have its token at once",
		run: func(b *bench) {
			old, _ := b.inRedis()
			who := b.lose("commit", 1, rig.Silent)
			b.provoke()
			holder := who()
			holder.Kill()
			b.note("everywhere after %v", round(b.refreshed(5*time.Second, b.Others(holder), old)))
		},
	},
	{
		name: "holder frozen past its lease", promise: "another takes over; what the holder then does replaces nothing",
		limits:  limits{fetches: 2},
		reveals: reveal{name: "wxtoken_refreshes_total", labels: []string{`result="(refused|orphaned|failed)"`}},
		run: func(b *bench) {
			old, _ := b.inRedis()
			holder := b.issuing(2 * time.Second)
			holder.Freeze()
			b.note("others after %v", round(b.refreshed(lease+10*time.Second, b.Others(holder), old)))
			_, version := b.inRedis()
			holder.Thaw()
			b.within(10*time.Second, "the holder's work ends in vain", func() bool {
				return holder.Metric("wxtoken_refreshes_total", `result="(refused|orphaned|failed)"`) > 0
			})
			b.refreshed(15*time.Second, b.All, old)
			if _, now := b.inRedis(); now < version {
				b.t.Errorf("Redis has version %s after %s", now, version)
			}
		},
	},
	{
		name: "lease taken away", promise: "the late commit is refused, and what it may have superseded is replaced",
		limits:  limits{fetches: 2},
		reveals: reveal{name: "wxtoken_leases_lost_total"},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.takeLease(3 * time.Second)
			b.refreshed(15*time.Second, b.All, old)
		},
	},
	{
		name: "holder terminated", promise: "its lease is free within 200 ms, it exits with 0, another takes over",
		limits: limits{fetches: 1},
		run: func(b *bench) {
			old, _ := b.inRedis()
			holder := b.issuing(7 * time.Second)
			held := b.lock()
			if held == "" {
				b.t.Fatal("no lease is held")
			}
			holder.Terminate()
			free := b.within(5*time.Second, "the lease is free", func() bool { return b.lock() != held })
			b.note("lease free after %v", round(free))
			if free > handOff {
				b.t.Errorf("the lease was free after %v, want 200 ms and what a busy machine adds", free)
			}
			await(b, holder.Exited(), "the holder exits")
			if code := holder.ExitCode(); code != 0 {
				b.t.Errorf("exit status %d, want 0", code)
			}
			b.note("others after %v", round(b.refreshed(10*time.Second, b.Others(holder), old)))
		},
	},
	{
		name: "WeChat slower than the lease", promise: "never two requests at once, and the next try is 8 s and a backoff later",
		limits:  limits{fetches: 2},
		reveals: reveal{name: "wxtoken_upstream_fetch_failures_total", labels: []string{`class="transient"`}, by: 2},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 2, Effect: wechattest.EffectHang})
			b.provoke()
			b.note("healed after %v", round(b.refreshed(45*time.Second, b.All, old)))
			if n := b.Upstream.FetchesAtOnce(); n != 1 {
				b.t.Errorf("%d fetches at once, want 1", n)
			}
		},
	},
}

// killed is a row in which the holder is killed at a moment that reach brings about, and another
// one has to find out.
func killed(when string, fetches int, reach func(*bench) *rig.Sidecar) row {
	return row{
		name: "holder killed " + when, promise: "the next one asks WeChat within the lease + 1 s",
		limits:  limits{fetches: fetches},
		reveals: reveal{name: "wxtoken_token_in_doubt", on: classic},
		run: func(b *bench) {
			old, _ := b.inRedis()
			holder := reach(b)
			holder.Kill()
			dead := time.Now()
			b.heal()
			await(b, b.Upstream.NextFetch(), "another asks WeChat")
			took := time.Since(dead)
			b.note("taken up after %v", round(took))
			if took > takeUp {
				b.t.Errorf("taken up %v after the kill, want at most %v", took, takeUp)
			}
			b.refreshed(10*time.Second, b.Others(holder), old)
		},
	}
}

// issuing provokes a refresh, returns its holder when WeChat has issued a token, and keeps the
// answer for d.
func (b *bench) issuing(d time.Duration) *rig.Sidecar {
	b.t.Helper()
	issued := b.Upstream.Calls(rig.AppID).Issued
	b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, After: true, Delay: d})
	next := b.Upstream.NextFetch()
	b.provoke()
	holder := b.ByName(await(b, next, "WeChat is asked"))
	b.within(5*time.Second, "WeChat has issued a token", func() bool { return b.Upstream.Calls(rig.AppID).Issued > issued })
	return holder
}

// takeLease lets the holder lose its lease, as by a failover, while WeChat takes d to answer.
func (b *bench) takeLease(d time.Duration) *rig.Sidecar {
	b.t.Helper()
	holder := b.issuing(d)
	if n := b.store.Client().Del(context.Background(), rig.ValueKey+":lock").Val(); n != 1 {
		b.t.Fatal("no lease is held")
	}
	b.within(d+10*time.Second, "the holder's commit is refused", func() bool { return holder.Metric("wxtoken_leases_lost_total") > 0 })
	return holder
}

// lock returns the lease that is held, empty for none.
func (b *bench) lock() string {
	return b.store.Client().Get(context.Background(), rig.ValueKey+":lock").Val()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
