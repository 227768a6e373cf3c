package faults

import (
	"context"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// What happens to many replicas at once.
var fleetRows = []row{
	{
		name: "half of the replicas cut off", promise: "from Redis, by refusals and by silence, while the others refresh; they serve what they have, and replace nothing",
		replicas: 4,
		reveals:  reveal{name: "wxtoken_redis_errors_total", by: 2},
		run: func(b *bench) {
			for _, broken := range []func(*rig.Link){(*rig.Link).Refuse, (*rig.Link).BlackHole} {
				old, _ := b.inRedis()
				cutOff, rest := b.All[:2], b.All[2:]
				for _, p := range cutOff {
					broken(p.Link)
				}
				b.provoke()
				b.note("others after %v", round(b.refreshed(takeUp, rest, old)))
				b.hold(5 * time.Second)
				for _, p := range cutOff {
					if a, err := p.Token(); err != nil || a.Stale || a.AccessToken != old {
						b.t.Errorf("%s does not hand out what it has: %v, stale %v", p.Name, err, a.Stale)
					}
				}
				b.rejoin()
			}
		},
	},
	{
		name: "half of the replicas cut off for 5 minutes", promise: "by their clock: what they have is marked stale, because another may stand",
		replicas: 4, build: rig.Clocked,
		limits:  limits{stale: true},
		reveals: reveal{name: "wxtoken_reads_total", labels: []string{`outcome="stale"`}, by: 2},
		run: func(b *bench) {
			old, _ := b.inRedis()
			cutOff, rest := b.All[:2], b.All[2:]
			for _, p := range cutOff {
				p.Link.Refuse()
			}
			b.provoke()
			b.refreshed(takeUp, rest, old)
			for _, p := range cutOff {
				p.Clock.Step(5 * time.Minute)
			}
			for _, p := range cutOff {
				if a, err := p.Token(); err != nil || !a.Stale || a.AccessToken != old {
					b.t.Errorf("%s: %v, stale %v, want what it has, marked so", p.Name, err, a.Stale)
				}
			}
			b.hold(3 * time.Second)
			b.rejoin()
		},
	},
	{
		name: "suspended for 10 minutes", promise: "a frozen process whose wall clock goes on, while the others refresh and the old value dies: it hands out none",
		build:   rig.Clocked,
		reveals: reveal{name: "wxtoken_clock_steps_total", labels: []string{`direction="forward"`}},
		run: func(b *bench) {
			b.Upstream.Tune(func(k *wechattest.Knobs) { k.Overlap = 2 * time.Second })
			old, _ := b.inRedis()
			p := b.All[0]
			p.Freeze()
			b.provoke()
			b.refreshed(takeUp, b.Others(p), old)
			b.within(10*time.Second, "the old value is dead", func() bool { return !b.Upstream.Works(old) })
			p.Clock.Step(10 * time.Minute)
			p.Thaw()
			if a, err := p.Token(); err != nil || a.Stale || a.AccessToken == old {
				b.t.Errorf("awake again: %v, stale %v, the old value %v", err, a.Stale, a.AccessToken == old)
			}
			b.note("everywhere after %v", round(b.refreshed(2*time.Second, b.All, old)))
			b.stepSeen(p)
		},
	},
	{
		name: "clocks of sidecars wrong and stepped", promise: "10 minutes ahead and behind, stepped by an hour and, forward, past the value's end: costs looks at Redis",
		build:   rig.Clocked,
		reveals: reveal{name: "wxtoken_clock_steps_total", by: 2},
		run: func(b *bench) {
			ahead, behind := b.All[0], b.All[1]
			for _, d := range []time.Duration{10 * time.Minute, time.Hour, -time.Hour, 130 * time.Minute, -130 * time.Minute} {
				ahead.Clock.Step(d)
				behind.Clock.Step(-d)
				b.hold(time.Second)
				old, _ := b.inRedis()
				b.provoke()
				b.refreshed(takeUp, b.All, old)
			}
			b.stepSeen(ahead)
			b.stepSeen(behind)
		},
	},
	{
		name: "clock of Redis wrong and stepped", promise: "10 minutes ahead and behind, and stepped by an hour there and back, between refreshes and during one",
		// An hour forward ends the lease and, on the classic endpoint, the key, whose life is cut
		// to minutes at that moment: it is missing until the refresh is done.
		limits: limits{fetches: 1, missingFor: 2 * time.Second},
		store: func(b *bench) rig.Store {
			server, clock := rig.StartRedisWithClock(b.t)
			b.redisClock = clock
			return server
		},
		run: func(b *bench) {
			var slowest, off time.Duration
			for _, d := range []time.Duration{10 * time.Minute, -20 * time.Minute, time.Hour, -time.Hour} {
				b.redisClock.Step(d)
				off += d
				b.ahead(off)
				old, _ := b.inRedis()
				b.provoke()
				slowest = max(slowest, b.refreshed(takeUp, b.All, old))
			}
			old, _ := b.inRedis()
			b.issuing(time.Second)
			b.redisClock.Step(time.Hour)
			b.note("slowest %v, stepped in the midst of a refresh %v", round(slowest), round(b.refreshed(takeUp+reread, b.All, old)))
			b.redisClock.Step(-time.Hour)
			old, _ = b.inRedis()
			b.provoke()
			b.refreshed(takeUp, b.All, old)
		},
	},
	{
		name: "clock of Redis stepped back, to the end of the value", promise: "an hour, and WeChat gives no other: no sidecar and no direct reader has the value longer because of it",
		// When it has ended, there is none. A call that is on its way to WeChat at that moment
		// comes too late.
		limits:  limits{fetches: 10, dead: 3, failed: 1 << 20, stale: true, missingFor: 2 * time.Minute, wait: 20 * time.Second},
		reveals: reveal{name: "wxtoken_upstream_fetch_failures_total"},
		store: func(b *bench) rig.Store {
			server, clock := rig.StartRedisWithClock(b.t)
			b.redisClock = clock
			return server
		},
		run: func(b *bench) {
			const life = 40 * time.Second
			b.live(life)
			old, _ := b.inRedis()
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Effect: wechattest.EffectErrcode, Code: -1})
			b.redisClock.Step(-time.Hour)
			b.ahead(-time.Hour)
			b.note("the key ended after %v", round(b.within(life+reread, "the value leaves Redis", func() bool { v, _ := b.inRedis(); return v != old })))
			b.within(life, "no sidecar hands the value out", func() bool {
				for _, p := range b.All {
					if a, err := p.Token(); err == nil && a.AccessToken == old {
						return false
					}
				}
				return true
			})
			b.Upstream.ClearFaults()
			b.expect(1)
			b.redisClock.Step(time.Hour)
			b.note("everywhere after %v", round(b.refreshed(3*reread, b.All, old)))
		},
	},
	{
		name: "100 sidecars started at once", promise: "cold, on an empty Redis: one fetch, and all have the token within 20 s of the first start",
		replicas: 1, build: rig.Plain,
		limits: limits{missingFor: 20 * time.Second},
		run: func(b *bench) {
			b.hold(time.Second) // for some calls of the load
			b.All[0].Kill()
			b.store.Client().FlushAll(context.Background())
			b.expect(1)
			begun := time.Now()
			all := b.Add(100)
			b.note("listening after %v", round(time.Since(begun)))
			b.refreshed(20*time.Second, all, "")
			took := time.Since(begun)
			b.note("token everywhere after %v", round(took))
			if took > 20*time.Second {
				b.t.Errorf("the token was everywhere after %v, want 20s", took)
			}
			for _, p := range all[:3] {
				b.load.Join(p)
			}
			b.hold(2 * time.Second)
		},
	},
	{
		name: "rolling restart", promise: "each gets SIGTERM while its app still calls for 1 s, a new one before or after it; all exit with 0",
		replicas: 4, env: []string{"WXTOKEN_DRAIN=20s"},
		run: func(b *bench) {
			var slowest time.Duration
			for i, p := range b.All[:4] {
				first := i%2 == 0
				if first {
					b.replacement()
				}
				p.Stop()
				if i > 1 { // some of them have something to refresh meanwhile
					b.provoke()
				}
				b.hold(time.Second)
				slowest = max(slowest, b.leave(p))
				if !first {
					b.replacement()
				}
			}
			b.note("exits ≤ %v after the app", round(slowest))
			b.refreshed(5*time.Second, b.Others(nil), "")
		},
	},
	{
		name: "SIGTERM while the app still calls", promise: "served, with each new token, until the app is gone; then exit with 0",
		env: []string{"WXTOKEN_DRAIN=20s"},
		run: func(b *bench) {
			p := b.All[0]
			p.Stop()
			for range 3 {
				old, _ := b.inRedis()
				b.provoke()
				b.note("it, too, after %v", round(b.refreshed(5*time.Second, b.All, old)))
				b.hold(time.Second)
			}
			b.note("exit %v after the app", round(b.leave(p)))
		},
	},
}

// ahead checks that Redis' clock is ahead of this host's by so much.
func (b *bench) ahead(off time.Duration) {
	b.t.Helper()
	at, err := b.store.Client().Time(context.Background()).Result()
	if err != nil || (time.Until(at)-off).Abs() > 2*time.Second {
		b.t.Fatalf("Redis' clock is %v ahead, want %v: %v", time.Until(at), off, err)
	}
}

// rejoin heals the links, and waits until the sidecars that were cut off have the token of the
// others, which was not replaced.
func (b *bench) rejoin() {
	b.t.Helper()
	value, version := b.inRedis()
	b.heal()
	b.note("one value after %v", round(b.refreshed(reread+5*time.Second, b.All, "")))
	if v, n := b.inRedis(); v != value || n != version {
		b.t.Errorf("version %s was replaced by %s", version, n)
	}
}

// stepSeen waits until a sidecar's metric tells of a step of its clock, which it notices at a slow
// look.
func (b *bench) stepSeen(p *rig.Sidecar) {
	b.t.Helper()
	b.within(2*reread, "the step is noticed", func() bool { return p.Metric("wxtoken_clock_steps_total") > 0 })
}

// replacement adds a sidecar that is ready, and its callers.
func (b *bench) replacement() {
	b.t.Helper()
	p := b.Add(1)[0]
	b.within(10*time.Second, "the new one is ready", func() bool { _, err := p.Show("/readyz"); return err == nil })
	b.load.Join(p)
}

// leave ends the app of a sidecar that was told to end, and returns how long that then takes.
func (b *bench) leave(p *rig.Sidecar) time.Duration {
	b.t.Helper()
	const limit = 5 * time.Second
	if _, err := p.Show("/healthz"); err != nil {
		b.t.Errorf("%s is gone before its app: %v", p.Name, err)
	}
	begun := time.Now()
	b.load.Leave(p)
	await(b, p.Exited(), p.Name+" exits")
	if code := p.ExitCode(); code != 0 {
		b.t.Errorf("%s: exit status %d, want 0", p.Name, code)
	}
	took := time.Since(begun)
	if took > limit {
		b.t.Errorf("%s was there for %v after its app, want at most %v", p.Name, took, limit)
	}
	return took
}
