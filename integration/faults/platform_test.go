package faults

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// pushAnswered is within what a push is answered, whatever hangs: a second is the promise, and the
// rest is for a machine that is busy with other things.
const pushAnswered = time.Second + handOff

// pushAnsweredMostly is within what 99 of 100 pushes are answered while WeChat hangs: no answer waits
// for WeChat.
const pushAnsweredMostly = 100 * time.Millisecond

// What happens to a third-party platform, whose vault is in Redis. The app has its load beside it.
var platformRows = onPlatform(
	row{
		name: "WeChat hangs while 200 pushes a second come", promise: "for 10 s at all replicas, WeChat hangs for 30 s: 99 of 100 pushes are answered within 100 ms, each within 1 s, and all are acknowledged while WeChat hangs",
		alone:   true,
		reveals: reveal{name: "wxtoken_platform_codes_waiting", by: 100},
		run:     pushesWhileWeChatHangs,
	},
	row{
		name: "Redis with the vault hangs", alone: true, promise: "each push is answered by 503 within 1 s, none is acknowledged, and what WeChat repeats is stored",
		reveals: reveal{name: "wxtoken_vault_errors_total", by: 10},
		run:     pushesWhileTheVaultHangs,
	},
	row{
		name: "replica killed while it exchanges a code", promise: "when WeChat has spent it: another one ends the exchange within its lease and two looks; the account authorises once",
		reveals: reveal{name: "wxtoken_platform_exchanges_total", labels: []string{`result="recovered"`}},
		run:     killedDuringAnExchange,
	},
	row{
		name: "Redis flushed, and the vault with it", promise: "no account authorises again: WeChat's list fills the vault, each account that is used costs one fetch, and no caller misses a token meanwhile",
		limits:  limits{missingFor: reread + time.Second},
		store:   appendOnly,
		reveals: reveal{name: "wxtoken_platform_recoveries_total", labels: []string{`result="added"`}, by: listed},
		run:     vaultFlushed,
	},
	row{
		name: "Redis flushed, and all replicas killed", promise: "with the vault in it: the next ticket brings a token, and WeChat's list the vault; no account authorises again",
		limits:  limits{missingFor: reread + time.Second},
		store:   appendOnly,
		reveals: reveal{name: "wxtoken_platform_recoveries_total", labels: []string{`result="added"`}, by: listed},
		run:     vaultFlushedCold,
	},
	row{
		name: "an account withdraws, and two replicas hear no events", promise: "the third hands out its token for 250 ms at most, the deaf ones until they read Redis again; nothing of it is in Redis",
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`op="watch"`}},
		run:     withdrawnUnheard,
	},
	row{
		name: "10000 forged pushes and 1000 ids of no account", promise: "no write to the vault, and no call of WeChat but 10 in a minute about ids",
		reveals: reveal{name: "wxtoken_platform_pushes_total", labels: []string{`result="signature"`}, by: 10000},
		run:     forgedPushes,
	},
)

// appendOnly is a Redis as a vault needs it.
func appendOnly(b *bench) rig.Store { return rig.StartRedis(b.t, "--appendonly", "yes") }

// onPlatform completes rows of a platform. The endpoint of the app makes no difference to them.
func onPlatform(all ...row) []row {
	for i := range all {
		all[i].endpoints = []endpoint{classic}
		all[i].settings = func(b *bench) []string {
			b.shops = b.AddPlatform()
			return nil
		}
	}
	return all
}

const (
	component = "/cgi-bin/component/"
	queryAuth = component + "api_query_auth"
	list      = component + "api_get_authorizer_list"
)

// shop is the id of an account.
func shop(i int) string { return fmt.Sprintf("wx%016d", i) }

// opened lets WeChat push, and n accounts authorise. It returns when all are in the vault.
func (b *bench) opened(n int) {
	b.t.Helper()
	b.shops.StartPushes()
	b.within(rig.Patience, "the platform has a token", func() bool {
		_, err := b.All[0].TokenOf(rig.PlatformAlias)
		return err == nil
	})
	for i := range n {
		b.Upstream.Authorize(rig.PlatformID, shop(i))
	}
	b.within(rig.Patience, "all accounts are in the vault", func() bool { return b.accounts("active") == n })
}

// accounts returns how many accounts the vault has in a state.
func (b *bench) accounts(state string) (n int) {
	b.t.Helper()
	for after := ""; ; {
		var page []struct{ Authorizer, State string }
		if err := b.Others(nil)[0].Ask("v1/apps/"+rig.PlatformAlias+"/authorizers?limit=500&after="+after, &page); err != nil {
			return -1
		}
		for _, a := range page {
			if a.State == state {
				n++
			}
		}
		if len(page) < 500 {
			return n
		}
		after = page[len(page)-1].Authorizer
	}
}

// served waits until all of these sidecars hand out a token of an account that works, and returns
// the last one.
func (b *bench) served(limit time.Duration, all []*rig.Sidecar, id string) (token string) {
	b.t.Helper()
	b.within(limit, "every sidecar has a token of the account", func() bool {
		for _, p := range all {
			a, err := p.TokenOf(rig.AccountName(id))
			if err != nil || a.Stale || !b.Upstream.Valid(rig.AccountName(id), a.AccessToken) {
				return false
			}
			token = a.AccessToken
		}
		return true
	})
	return token
}

// later waits until WeChat's time, which has whole seconds, is another one: of two events of one
// second, either may have come first.
func (b *bench) later() {
	b.t.Helper()
	now := time.Now().Unix()
	b.within(5*time.Second, "the next second", func() bool { return time.Now().Unix() > now })
}

// compared waits until the vault has been compared with WeChat's list, which is done once a day and
// brings accounts, too.
func (b *bench) compared() {
	b.t.Helper()
	b.within(rig.Patience, "the vault is compared with WeChat's list", func() bool {
		return b.store.Client().HExists(context.Background(), vaultKey, vault.Marker).Val()
	})
}

// repeats has WeChat repeat a push that was not acknowledged every second.
func (b *bench) repeats() {
	k := b.Upstream.PlatformKnobs(rig.PlatformID)
	k.Repeats, k.RepeatAfter = 20, time.Second
	b.Upstream.SetPlatformKnobs(rig.PlatformID, k)
}

// acknowledged returns how many different pushes have been acknowledged.
func (b *bench) acknowledged() int {
	done := map[wechattest.Push]bool{}
	for _, p := range b.Upstream.Pushed(rig.PlatformID) {
		if p.OK {
			done[p.Push] = true
		}
	}
	return len(done)
}

// quantiles notes how long answers took, fails the test if one took too long, and returns the 99th
// percentile.
func (b *bench) quantiles(answers []rig.PushAnswer) (p99 time.Duration) {
	b.t.Helper()
	slices.SortFunc(answers, func(x, y rig.PushAnswer) int { return int(x.Took - y.Took) })
	at := func(percent int) time.Duration {
		return answers[(len(answers)-1)*percent/100].Took.Round(time.Millisecond)
	}
	b.note("%d answers, p50 %v, p99 %v, longest %v", len(answers), at(50), at(99), at(100))
	if worst := answers[len(answers)-1]; worst.Took > pushAnswered {
		b.t.Errorf("%s answered a push by %d after %v, want at most 1 s and what a busy machine adds", worst.Sidecar, worst.Status, worst.Took)
	}
	return at(99)
}

// pushesWhileWeChatHangs pushes a mix of events. The load is without callers of the proxy, whose
// calls hang as well.
func pushesWhileWeChatHangs(b *bench) {
	const perSecond, seconds = 200, 10
	b.withoutProxied()
	b.opened(3)
	b.repeats()
	b.Upstream.AddFault(wechattest.Fault{Delay: 30 * time.Second})
	first, before := len(b.shops.Answers()), b.acknowledged()
	every := time.NewTicker(time.Second / perSecond)
	defer every.Stop()
	for i := range perSecond * seconds {
		switch id := shop(100 + i); i % 10 {
		case 7:
			b.Upstream.Withdraw(rig.PlatformID, shop(100+i-1))
		case 8:
			b.Upstream.PushEvent(rig.PlatformID, wechattest.Push{InfoType: "notify_third_fasteregister", Authorizer: id})
		case 9:
			b.Upstream.PushTicket(rig.PlatformID)
		default:
			b.Upstream.Authorize(rig.PlatformID, id)
		}
		<-every.C
	}
	took := b.within(10*time.Second, "all pushes are acknowledged while WeChat hangs", func() bool {
		return b.acknowledged() >= before+perSecond*seconds
	})
	answers := b.shops.Answers()[first:]
	b.note("all acknowledged %v after the last", round(took))
	if p99 := b.quantiles(answers); p99 > pushAnsweredMostly {
		b.t.Errorf("one of 100 pushes took %v or longer, want %v at most", p99, pushAnsweredMostly)
	}
	again := 0
	for _, a := range answers {
		if a.Status != http.StatusOK {
			again++
		}
	}
	b.note("%d repeated", again)
	b.within(30*time.Second, "the codes that wait are counted", func() bool { return b.watch.grew() >= b.row.reveals.least() })
}

// pushesWhileTheVaultHangs pushes to all replicas while Redis is frozen.
func pushesWhileTheVaultHangs(b *bench) {
	const codes, tickets = 20, 9
	b.opened(3)
	b.repeats()
	b.later()
	first, before := len(b.shops.Answers()), b.acknowledged()
	b.redis().Freeze()
	for i := range codes {
		b.Upstream.Authorize(rig.PlatformID, shop(100+i))
	}
	for range tickets {
		b.Upstream.PushTicket(rig.PlatformID)
	}
	b.Upstream.Withdraw(rig.PlatformID, shop(0))
	b.within(rig.Patience, "each push is answered twice", func() bool { return len(b.shops.Answers()) >= first+2*(codes+tickets+1) })
	answers := b.shops.Answers()[first:]
	b.redis().Thaw()
	for _, a := range answers {
		if a.Status != http.StatusServiceUnavailable {
			b.t.Errorf("%s answered a push by %d while the vault hung", a.Sidecar, a.Status)
		}
	}
	b.quantiles(answers)
	b.note("all acknowledged %v after its end", round(b.within(rig.Patience, "all pushes are acknowledged", func() bool {
		return b.acknowledged() >= before+codes+tickets+1
	})))
	b.within(rig.Patience, "all of them are stored", func() bool { return b.accounts("active") == 2+codes && b.accounts("withdrawn") == 1 })
}

// exchangeTakeUp is until another replica has ended the exchange of a dead one: the lease, a look of
// the replicas under the lease and one after it, and the calls.
const exchangeTakeUp = 30*time.Second + 2*reread + 5*time.Second

func killedDuringAnExchange(b *bench) {
	b.opened(1)
	b.compared()
	id := shop(7)
	b.Upstream.AddFault(wechattest.Fault{Path: queryAuth, Count: 1, After: true, Delay: time.Minute})
	next := b.Upstream.NextCallOf(queryAuth)
	b.Upstream.Authorize(rig.PlatformID, id)
	holder := b.ByName(await(b, next, "a code is exchanged"))
	exchanges := func() int { return b.Upstream.Ledger(rig.PlatformID).Authorizers[id].Exchanges }
	b.within(5*time.Second, "WeChat has spent the code", func() bool { return exchanges() == 1 })
	holder.Kill()
	dead := time.Now()
	// No caller asks for the account: for one that does, WeChat is asked whether it has authorised.
	b.within(exchangeTakeUp, "another replica ends the exchange", func() bool { return b.accounts("active") == 2 })
	b.note("in the vault %v after the kill", round(time.Since(dead)))
	b.served(10*time.Second, b.Others(holder), id)
	if n := exchanges(); n != 1 {
		b.t.Errorf("%d exchanges, want 1", n)
	}
}

// listed is how many accounts WeChat's list has: one page of it.
const listed = 500

// fillUsed lets the accounts authorise, uses some of them at each replica, and returns what says how
// often they were fetched since.
func (b *bench) fillUsed() (used []string, fetched func(id string) int) {
	b.t.Helper()
	ctx := context.Background()
	b.mustRedis(b.store.Client().ConfigSet(ctx, "appendfsync", "always").Err()) // else each exchange waits a second for the disk
	b.opened(listed)
	b.mustRedis(b.store.Client().ConfigSet(ctx, "appendfsync", "everysec").Err())
	for i := range 6 {
		used = append(used, shop(i*listed/6))
		b.served(rig.Patience, b.All, used[i])
	}
	before := b.Upstream.Ledger(rig.PlatformID).Authorizers
	return used, func(id string) int {
		return b.Upstream.Ledger(rig.PlatformID).Authorizers[id].Fetches - before[id].Fetches
	}
}

// vaultFlushed empties Redis while callers ask for the tokens of accounts.
func vaultFlushed(b *bench) {
	used, fetched := b.fillUsed()
	old, _ := b.inRedis()
	lists := b.Upstream.Calls(rig.PlatformID).Paths[list]
	var asked, failed int
	var failures []string
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	var callers sync.WaitGroup
	callers.Go(func() {
		for ; ctx.Err() == nil; b.hold(20 * time.Millisecond) {
			for i, id := range used {
				p := b.All[(asked+i)%len(b.All)]
				_, err := p.TokenOf(rig.AccountName(id))
				if asked++; err != nil {
					failed++
					failures = append(failures, time.Now().Format("05.000 ")+err.Error())
				}
			}
		}
	})
	b.expect(1)
	b.mustRedis(b.store.Client().FlushAll(context.Background()).Err())
	b.note("whole again after %v", round(b.within(rig.Patience, "the vault is whole", func() bool { return b.accounts("active") == listed })))
	b.refreshed(2*reread, b.All, old)
	for _, id := range used {
		b.within(2*reread, "Redis has the token again", func() bool { return fetched(id) > 0 })
		b.served(2*reread, b.All, id)
	}
	cancel()
	callers.Wait()
	b.note("%d of %d calls for accounts failed", failed, asked)
	if failed > 0 {
		b.t.Errorf("%d of %d calls for accounts failed: %q", failed, asked, failures[:min(5, len(failures))])
	}
	b.onlyListed(lists, used, fetched)
}

// vaultFlushedCold empties Redis, and lets no replica remember anything.
func vaultFlushedCold(b *bench) {
	used, fetched := b.fillUsed()
	lists := b.Upstream.Calls(rig.PlatformID).Paths[list]
	for _, p := range b.All {
		p.Kill()
	}
	b.expect(1)
	b.mustRedis(b.store.Client().FlushAll(context.Background()).Err())
	fresh := b.Add(3)
	b.Upstream.PushTicket(rig.PlatformID)
	b.note("whole again %v after the ticket", round(b.within(rig.Patience, "the vault is whole", func() bool { return b.accounts("active") == listed })))
	b.refreshed(2*reread, fresh, "")
	for _, id := range used {
		b.served(2*reread, fresh, id)
	}
	b.onlyListed(lists, used, fetched)
}

// onlyListed checks that the vault came from WeChat's list, and what the accounts that are used cost.
func (b *bench) onlyListed(lists int, used []string, fetched func(string) int) {
	b.t.Helper()
	if n := b.Upstream.Calls(rig.PlatformID).Paths[list] - lists; n != 1 {
		b.t.Errorf("%d calls for the list, want 1", n)
	}
	for _, id := range used {
		if n := fetched(id); n != 1 {
			b.t.Errorf("%d fetches for %s, want 1", n, id)
		}
	}
	for id, a := range b.Upstream.Ledger(rig.PlatformID).Authorizers {
		if a.Exchanges != 1 {
			b.t.Errorf("%s has authorised %d times", id, a.Exchanges)
		}
	}
}

// withdrawnUnheard lets a deaf replica store the withdrawal.
func withdrawnUnheard(b *bench) {
	b.opened(1)
	id := shop(0)
	token := b.served(rig.Patience, b.All, id)
	hears, stores := b.All[0], b.All[1]
	for _, p := range b.All[1:] {
		p.Link.Deafen()
	}
	b.later()
	kept := b.shops.KeepNext()
	b.Upstream.Withdraw(rig.PlatformID, id)
	push := await(b, kept, "WeChat pushes the withdrawal")
	status, err := push.Push(context.Background(), stores)
	if err != nil || status != http.StatusOK {
		b.t.Fatalf("the withdrawal was answered by %d, %v", status, err)
	}
	end := time.Now()
	value := rig.Namespace + ":{" + rig.AccountName(id) + "}:access_token"
	inRedis := func() bool { return b.store.Client().Exists(context.Background(), value).Val() > 0 }
	if inRedis() {
		b.t.Error("the account's token is in Redis after its withdrawal was acknowledged")
	}
	last := map[*rig.Sidecar]time.Duration{}
	refused := map[*rig.Sidecar]bool{}
	look := func() bool {
		for _, p := range b.All {
			asked := time.Since(end)
			switch a, err := p.TokenOf(rig.AccountName(id)); {
			case err == nil && a.AccessToken == token && !a.Stale:
				last[p], refused[p] = asked, false
			case err != nil && strings.Contains(err.Error(), "409"):
				refused[p] = true
			}
		}
		return refused[b.All[0]] && refused[b.All[1]] && refused[b.All[2]]
	}
	b.within(2*reread, "no sidecar has a token of the account", look)
	for again := time.Now(); time.Since(again) < 2*time.Second; {
		look()
	}
	b.note("handed out until %v by who hears, %v by who stored it, %v by who is deaf", round(last[hears]), round(last[stores]), round(last[b.All[2]]))
	for p, bound := range map[*rig.Sidecar]time.Duration{hears: handOff, stores: 0, b.All[2]: reread + time.Second} {
		if last[p] > bound {
			b.t.Errorf("%s handed out the token %v after the withdrawal was acknowledged, want at most %v", p.Name, last[p], bound)
		}
	}
	if inRedis() {
		b.t.Error("the account's token is in Redis again")
	}
}

// forgedPushes sends a withdrawal as WeChat would, under another signature.
func forgedPushes(b *bench) {
	const forged, garbage = 10000, 1000
	b.opened(1)
	b.compared()
	k := b.Upstream.PlatformKnobs(rig.PlatformID)
	k.Repeats = 0
	b.Upstream.SetPlatformKnobs(rig.PlatformID, k)
	kept := b.shops.KeepNext()
	b.Upstream.PushEvent(rig.PlatformID, wechattest.Push{InfoType: "unauthorized", Authorizer: shop(0), Order: time.Now().Add(time.Minute).Unix()})
	push := await(b, kept, "WeChat pushes a withdrawal")
	push.Query.Set("msg_signature", strings.Repeat("0", 40))

	vaultBefore, calls := b.vaultRecords(), b.platformCalls()
	begun := time.Now()
	b.inParallel(garbage, "an id of no account", func(i int, p *rig.Sidecar) string {
		id := fmt.Sprintf("wxno%d", i)
		if i%2 == 0 {
			id = fmt.Sprintf("no%%20account-%d", i)
		}
		_, err := p.TokenOf(rig.PlatformAlias + ":" + id)
		for again := 0; err != nil && strings.Contains(err.Error(), "503") && again < 3; again++ { // Redis did not answer in time
			_, err = p.TokenOf(rig.PlatformAlias + ":" + id)
		}
		if err == nil || !strings.Contains(err.Error(), "404") {
			return fmt.Sprintf("%v, want 404", err)
		}
		return ""
	})
	asked := b.platformCalls() - calls
	b.note("%d calls about %d ids in %v", asked, garbage, round(time.Since(begun)))
	if most := 10 * (1 + int(time.Since(begun)/time.Minute)); asked > most {
		b.t.Errorf("%d calls of WeChat about ids of no account, want at most %d", asked, most)
	}
	calls, begun = b.platformCalls(), time.Now()
	b.inParallel(forged, "a forged push", func(_ int, p *rig.Sidecar) string {
		if status, err := push.Push(context.Background(), p); err != nil || status != http.StatusForbidden {
			return fmt.Sprintf("%d, %v, want 403", status, err)
		}
		return ""
	})
	b.note("%d forged pushes in %v", forged, round(time.Since(begun)))
	if n := b.platformCalls() - calls; n != 0 {
		b.t.Errorf("%d calls of WeChat because of forged pushes", n)
	}
	if after := b.vaultRecords(); !maps.Equal(vaultBefore, after) {
		b.t.Error("the vault was written to")
	}
}

// inParallel calls f n times, for each sidecar in turn, from a few callers. f returns what was wrong;
// the first of that fails the test.
func (b *bench) inParallel(n int, what string, f func(i int, p *rig.Sidecar) string) {
	b.t.Helper()
	var callers errgroup.Group
	callers.SetLimit(16)
	for i := range n {
		p := b.All[i%len(b.All)]
		callers.Go(func() error {
			if wrong := f(i, p); wrong != "" {
				return fmt.Errorf("%s: %s: %s", p.Name, what, wrong)
			}
			return nil
		})
	}
	if err := callers.Wait(); err != nil {
		b.t.Error(err)
	}
}

// vaultKey is the key of the vault's records but for codes, which have keys of their own below it.
const vaultKey = rig.Namespace + ":{" + rig.PlatformID + "}:vault"

// vaultRecords returns what the vault has. Each record has a number that grows with each write.
func (b *bench) vaultRecords() map[string]string {
	ctx, client := context.Background(), b.store.Client()
	all := client.HGetAll(ctx, vaultKey).Val()
	for _, key := range client.Keys(ctx, vaultKey+":*").Val() {
		if vault.IsCode(strings.TrimPrefix(key, vaultKey+":")) {
			all[key] = client.Get(ctx, key).Val()
		}
	}
	return all
}

// platformCalls returns how many calls WeChat had for the platform.
func (b *bench) platformCalls() (n int) {
	for _, calls := range b.Upstream.Calls(rig.PlatformID).Paths {
		n += calls
	}
	return n
}
