package faults

import (
	"fmt"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// lostReplyRows: each script of the cache and of the lease is applied, and its reply is lost. Once,
// which go-redis repeats; and as often as makes the whole operation fail. By a connection that
// breaks, and by silence.
func lostReplyRows() []row {
	refreshes := []row{
		{name: "load", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="load"`}}},
		{name: "obtain", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="lease"`}}},
		{name: "begin", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="begin"`}}},
		{name: "commit", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="commit"`}}},
	}
	var all []row
	for _, r := range refreshes {
		r.run = lost(r.name, (*bench).provoke)
		all = append(all, r)
	}
	all = append(all, row{
		name: "release", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="begin"`}},
		run: lost("release", func(b *bench) { // of a lease that begin could not use
			b.lose("begin", 4, rig.Broken)
			b.provoke()
		}),
	}, row{
		name: "finish", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="finish"`}},
		run: lost("finish", func(b *bench) {
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, Effect: wechattest.EffectErrcode, Code: -1})
			b.expect(1)
			b.provoke()
		}),
	}, row{
		name: "cut", reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="cut"`}},
		endpoints: []endpoint{classic}, limits: limits{fetches: 2}, // what another fetched meanwhile, and what replaces it
		run: func(b *bench) {
			old, _ := b.inRedis()
			who := b.lose("cut", 5, rig.Broken)
			b.takeLease(2 * time.Second)
			who()
			b.within(15*time.Second, "all that can be lost is", func() bool { return b.losses() == 5 })
			b.refreshed(20*time.Second, b.All, old)
		},
	})
	for i := range all {
		name := all[i].name
		all[i].name = "reply of " + name + " lost"
		all[i].promise = fmt.Sprintf("the script is applied, its reply is lost: no deadlock, a new token within %v, and no fetch twice", limitOf(name))
	}
	return all
}

// limitOf is how long a new token may take while replies to a script are lost. A look that an event
// caused and that fails is made up for by the slow one; everything else by the end of a lease. That
// is obtained only after all the silent losses of obtain, if it was another's that was lost before.
func limitOf(script string) time.Duration {
	switch script {
	case "load":
		return reread + time.Second
	case "obtain":
		return takeUp + 3*time.Second
	}
	return takeUp
}

// lost provokes refreshes while replies to a script are lost in every way.
func lost(script string, provoke func(*bench)) func(*bench) {
	return func(b *bench) {
		limit := limitOf(script)
		var slowest time.Duration
		for _, round := range []struct {
			n   int
			how rig.How
		}{{1, rig.Broken}, {5, rig.Broken}, {1, rig.Silent}, {3, rig.Silent}} {
			old, _ := b.inRedis()
			ended := b.ended()
			n := round.n
			if n > 1 && (script == "load" || script == "obtain") {
				n *= len(b.All) // which all of them run at the same time
			}
			b.lose(script, n, round.how)
			provoke(b)
			slowest = max(slowest, b.refreshed(limit+5*time.Second, b.All, old))
			if b.losses() == 0 {
				b.t.Errorf("no reply to %s was lost: the fault did not happen", script)
			}
			// The others have the token by an event, while its holder still asks what became of its
			// commit.
			b.within(lease+5*time.Second, "the holder knows, too", func() bool { return b.ended() > ended })
			b.heal()
		}
		b.note("slowest %v", slowest.Round(10*time.Millisecond))
		if slowest > limit {
			b.t.Errorf("a new token after %v, want at most %v", slowest, limit)
		}
	}
}

// ended returns how many refreshes brought a value, as far as their holders know.
func (b *bench) ended() float64 {
	return b.Metric("wxtoken_refreshes_total", `result="(committed|unchanged|refused|orphaned)"`)
}

// losses returns how many replies were lost since the last heal.
func (b *bench) losses() (n int) {
	for _, p := range b.All {
		n += p.Link.Lost()
	}
	return n
}
