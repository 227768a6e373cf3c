package faults

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// onceEach is how many dead values a cluster's load may meet when the token is ended from outside:
// each caller that is given one (there are two such kinds, and a direct reader, for each of 3
// sidecars) reports it before it asks again. The proxy's callers meet none.
const onceEach = 3 * 3

// What others do to the token, and what callers say of it.
var foreignRows = []row{
	{
		name: "token replaced by a foreign refresher", promise: "dead at once: each caller meets it once at most, the proxy's none; all reports together cost one refresh",
		limits:  limits{dead: onceEach, missingFor: time.Second},
		reveals: reveal{name: "wxtoken_reports_total", labels: []string{`outcome="committed"`}},
		run: func(b *bench) {
			b.foreign(15 * time.Second)
			if n := b.Metric("wxtoken_proxy_calls_total", `retried="yes"`); n > 3 {
				b.t.Errorf("%v calls of the proxy were repeated, want one for each caller at most", n)
			}
			b.hold(3 * time.Second)
			b.checkLife()
		},
	},
	{
		name: "token replaced by a foreign refresher again and again", promise: "20 refreshes, then one in 8 minutes; until then no fetch: `/v1` hands the token out as stale, the drop-in answers 45009 and the proxy -1, all at once",
		limits:  limits{dead: 20 * onceEach, missingFor: time.Second},
		reveals: reveal{name: "wxtoken_foreign_refresher_suspected", by: 3},
		run: func(b *bench) {
			for range 20 { // as many as may follow each other
				b.foreign(10 * time.Second)
			}
			// What comes now is not served well, and is not meant to be: each side would end the
			// other's token.
			b.load.Stop()
			late := b.startLoad()
			issued := b.Upstream.Calls(rig.AppID).Fetches()
			for range 3 {
				b.endToken()
				b.hold(10 * time.Second)
			}
			seen := late.Stop()
			b.note("afterwards %d calls, %d failed, %d stale, key missing for %v", seen.Calls, seen.Failed, seen.Stale, round(seen.MissingFor))
			if n := b.Upstream.Calls(rig.AppID).Fetches() - issued; n > 0 {
				b.t.Errorf("%d fetches in 30 s after the allowance was spent, want none", n)
			}
			// An SDK would take a dead token for a good one: it is told that there is none.
			b.onlyRefused(seen, "drop-in says errcode 45009$|through the proxy, errcode -1$")
			if seen.Failed == 0 || seen.Stale == 0 || seen.Worst > b.row.limits.longest() {
				b.t.Errorf("after the allowance was spent: %+v; want stale answers, refusals, and all at once", seen)
			}
		},
	},
	{
		name: "token killed, 500 reports of it", promise: "from all replicas at once: one refresh, and all callers get the same new token",
		limits:  limits{dead: onceEach, missingFor: time.Second},
		reveals: reveal{name: "wxtoken_reports_total", labels: []string{`outcome="committed"`}},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.KillTokens(rig.AppID)
			b.expect(1)
			told := map[string]int{}
			for _, a := range b.report(func(int) string { return old }) {
				told[fmt.Sprint(a.AccessToken == old, a.Stale, a.Version)]++
			}
			if len(told) != 1 {
				b.t.Errorf("the reporters were told (the old one, stale, version): %v, want one answer", told)
			}
			b.refreshed(10*time.Second, b.All, old)
			b.checkLife()
		},
	},
	{
		name: "500 reports of an old token", promise: "no call of WeChat at all",
		reveals: reveal{name: "wxtoken_reports_total", labels: []string{`outcome="not_current"`}, by: 500},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.provoke()
			b.refreshed(10*time.Second, b.All, old)
			b.wantProbes(0, func() { b.report(func(int) string { return old }) })
		},
	},
	{
		name: "500 reports of garbage", promise: "no call of WeChat at all",
		reveals: reveal{name: "wxtoken_reports_total", labels: []string{`outcome="not_current"`}, by: 500},
		run: func(b *bench) {
			b.wantProbes(0, func() { b.report(func(i int) string { return fmt.Sprintf("garbage-%d", i) }) })
		},
	},
	{
		name: "500 reports of a token that works", promise: "10 probes at most, and no fetch",
		reveals: reveal{name: "wxtoken_reports_total", labels: []string{`outcome="accepted"`}},
		run: func(b *bench) {
			value, version := b.inRedis()
			b.wantProbes(10, func() { b.report(func(int) string { return value }) })
			if _, now := b.inRedis(); now != version {
				b.t.Errorf("Redis has version %s, want %s", now, version)
			}
		},
	},
	{
		name: "key deleted", promise: "all replicas notice it at the same time; one refresh",
		limits:  limits{missingFor: time.Second},
		reveals: reveal{name: "wxtoken_refreshes_total", labels: []string{`result="(committed|unchanged)"`}},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.provoke()
			b.store.Client().Del(b.t.Context(), rig.ValueKey)
			b.refreshed(10*time.Second, b.All, old)
			b.checkLife()
		},
	},
}

// endToken lets another program fetch a token, which invalidates the present one at once. (The
// classic endpoint would let it live for another 5 minutes.)
func (b *bench) endToken() {
	if b.endpoint == stable {
		b.Upstream.ForeignRefresh(rig.AppID, wechattest.FetchForced)
		return
	}
	overlap := b.Upstream.Knobs().Overlap
	b.Upstream.Tune(func(k *wechattest.Knobs) { k.Overlap = 0 })
	b.Upstream.ForeignRefresh(rig.AppID, wechattest.FetchClassic)
	b.Upstream.Tune(func(k *wechattest.Knobs) { k.Overlap = overlap })
}

// foreign ends the token and waits until the callers' reports have healed that.
func (b *bench) foreign(limit time.Duration) {
	b.t.Helper()
	old, _ := b.inRedis()
	b.expect(1)
	b.endToken()
	b.note("healed after %v", b.refreshed(limit, b.All, old).Round(time.Millisecond))
}

// report sends 500 reports, to all replicas at once, of values that depend on their number.
func (b *bench) report(value func(i int) string) []rig.Answer {
	b.t.Helper()
	var i atomic.Int64
	answers := rig.Everywhere(b.t, b.All, 500/len(b.All)+1, func(p *rig.Sidecar) (rig.Answer, error) {
		return p.Report(value(int(i.Add(1))))
	})
	if len(answers) < 500 {
		b.t.Errorf("%d answers, want 500 at least", len(answers))
	}
	return answers
}

// wantProbes checks that do costs no more than most probes.
func (b *bench) wantProbes(most int, do func()) {
	b.t.Helper()
	before := b.Upstream.Calls(rig.AppID).Probes
	do()
	probes := b.Upstream.Calls(rig.AppID).Probes - before
	b.note("%d probes", probes)
	if probes > most {
		b.t.Errorf("%d probes, want at most %d", probes, most)
	}
}
