package faults

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// Facts of the program that the promises are made of.
const (
	localWait    = 2 * time.Second  // until another pod has a token that WeChat refused to this one
	reconfigured = 10 * time.Second // until a changed file is believed: two looks, 5 s apart
	refusedAgain = 30 * time.Second // the least time between two fetches with a wrong secret
)

// WeChat answers, and says no.
var refusalRows = []row{
	{
		name: "WeChat's daily quota is spent", promise: "45009: one fetch, then none for at least 150 s, whatever is due; the token serves on",
		reveals: reveal{name: "wxtoken_token_backoff_info", labels: []string{`class="quota"`, `errcode="45009"`}, by: 3},
		run: func(b *bench) {
			used := b.Upstream.Calls(rig.AppID).Paths[b.path()]
			b.Upstream.Tune(func(k *wechattest.Knobs) { k.PerDay = map[string]int{b.path(): used} })
			b.provoke()
			b.within(10*time.Second, "WeChat says no", func() bool { return b.failures() == 1 })
			b.checkCut(sure)
			for range 3 {
				b.hold(4 * time.Second)
				b.MakeDue() // which provokes nothing
			}
			left := b.Metric("wxtoken_token_backoff_seconds") / float64(len(b.All))
			b.note("backoff of %.0f s left after 12 s", left)
			if left < 150-20 || left > 300 {
				b.t.Errorf("the backoff ends in %.0f s, want it to be 150 to 300 s long", left)
			}
		},
	},
	{
		name: "WeChat's quota of a minute is spent", promise: "45011: the next fetch comes a minute later, and heals it",
		limits:  limits{fetches: 1},
		reveals: reveal{name: "wxtoken_upstream_errcodes_total", labels: []string{`errcode="45011"`}},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.AddFault(wechattest.Fault{Path: b.path(), Count: 1, Effect: wechattest.EffectErrcode, Code: 45011})
			fetches := b.fetches()
			b.provoke()
			b.within(10*time.Second, "WeChat says no", func() bool { return b.failures() == 1 })
			b.checkCut(sure)
			b.note("healed after %v", round(b.refreshed(75*time.Second, b.All, old)))
			if at := fetches(); at[1].Sub(at[0]) < time.Minute {
				b.t.Errorf("asked again after %v, want a minute", at[1].Sub(at[0]))
			}
			b.checkLife()
		},
	},
	refusedAddress("WeChat refuses the address of one pod", 1),
	refusedAddress("WeChat refuses the addresses of all pods but one", 2),
	{
		name: "wrong secret, cold", promise: "of all pods together one call in 30 s at most; the right one heals all, 10 s and a moment after it is in the file",
		cold:    true,
		limits:  limits{fetches: 1}, // the first, and the one that the row expects
		reveals: reveal{name: "wxtoken_token_backoff_info", labels: []string{`class="permanent"`, `errcode="40125"`}, by: 3},
		settings: func(b *bench) []string {
			return b.secretFile("not-" + rig.AppSecret)
		},
		run: func(b *bench) {
			fetches := b.fetches() // the first one may have been
			b.hold(20 * time.Second)
			if n := b.Upstream.Calls(rig.AppID).Fetches(); n != 1 {
				b.t.Errorf("%d fetches in 20 s, want 1", n)
			}
			for _, p := range b.All {
				if _, err := p.Token(); err == nil || !strings.Contains(err.Error(), "40125") {
					b.t.Errorf("%s says %v, want 40125", p.Name, err)
				}
			}
			b.expect(1)
			b.note("healed after %v", round(b.newSecret(rig.AppSecret, "")))
			// Those were all that the fault may cost; from here on the load is to be served.
			cold := b.load.Stop()
			b.note("%d of %d calls failed until then, each within %v", cold.Failed, cold.Calls, cold.Worst.Round(time.Millisecond))
			if cold.Dead > 0 || cold.Stale > 0 || cold.Worst > b.row.limits.longest() {
				b.t.Errorf("%+v", cold)
			}
			b.load = b.startLoad()
			b.hold(2 * time.Second)
			if n := len(fetches()); n > 2 {
				b.t.Errorf("%d fetches, want at most 2", n)
			}
		},
	},
	{
		name: "secret changed at WeChat, warm", promise: "the token serves on; the new secret heals it, 10 s and a moment after it is in the file",
		limits:   limits{fetches: 1},
		reveals:  reveal{name: "wxtoken_token_backoff_info", labels: []string{`class="permanent"`, `errcode="40125"`}, by: 3},
		settings: func(b *bench) []string { return b.secretFile(rig.AppSecret) },
		run: func(b *bench) {
			const rotated = "ROTATED+secret/of=the-app"
			old, _ := b.inRedis()
			b.Upstream.SetSecret(rig.AppID, rotated)
			b.provoke()
			b.within(10*time.Second, "WeChat says no", func() bool { return b.failures() == 1 })
			b.checkCut(sure)
			b.hold(5 * time.Second)
			b.MakeDue() // which provokes nothing
			b.hold(3 * time.Second)
			if n := b.failures(); n != 1 {
				b.t.Errorf("%d fetches with the old secret, want 1", n)
			}
			b.note("healed after %v", round(b.newSecret(rotated, old)))
			b.checkLife()
		},
	},
}

// refusedAddress is a row in which the first n pods that ask are refused for their address.
func refusedAddress(name string, n int) row {
	return row{
		name: name, promise: "40164: another pod asks, and all have its token within 2 s of the last refusal; the refused one does not ask again soon",
		limits:  limits{fetches: n},
		reveals: reveal{name: "wxtoken_upstream_fetch_failures_total", labels: []string{`class="local"`}, by: float64(n)},
		run: func(b *bench) {
			old, _ := b.inRedis()
			b.Upstream.SetWhitelist(rig.AppID, "127.0.0.1", "::1")
			var mu sync.Mutex
			refused := map[string]int{}
			var since time.Time
			b.Upstream.OnCall(func(sidecar string, r *http.Request) {
				if !rig.IsFetch(r) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if _, known := refused[sidecar]; known || len(refused) < n {
					if !known {
						since = time.Now()
					}
					refused[sidecar]++
					r.Header.Set("X-Forwarded-For", "198.51.100.7")
				}
			})
			b.provoke()
			b.refreshed(15*time.Second, b.All, old)
			took := time.Since(since)
			b.note("everywhere %v after the last refusal", round(took))
			if took > localWait {
				b.t.Errorf("everywhere %v after the last refusal, want at most %v", took, localWait)
			}
			for range 3 { // these cost no more than one each
				old, _ = b.inRedis()
				b.provoke()
				b.refreshed(localWait+5*time.Second, b.All, old)
			}
			mu.Lock()
			defer mu.Unlock()
			for name, times := range refused {
				if times != 1 {
					b.t.Errorf("%s asked %d times, want 1", name, times)
				}
			}
			b.checkLife()
		},
	}
}

// secretFile mounts a secret as Kubernetes does, and returns the settings that name it.
func (b *bench) secretFile(secret string) []string {
	b.volume = b.t.TempDir()
	b.mount("..first", secret)
	b.link("..data/secret", filepath.Join(b.volume, "secret"))
	return []string{"WECHAT_SECRET=", "WECHAT_SECRET_FILE=" + filepath.Join(b.volume, "secret")}
}

// newSecret puts another secret into the volume, and returns how long it takes until every sidecar
// has a token other than old.
func (b *bench) newSecret(secret, old string) time.Duration {
	b.t.Helper()
	b.mount("..second", secret)
	took := b.refreshed(reconfigured+10*time.Second, b.All, old)
	if took > reconfigured+3*time.Second { // two looks, WeChat, and what a busy machine adds
		b.t.Errorf("healed after %v, want at most %v and a moment", took, reconfigured)
	}
	return took
}

// mount makes a directory with the secret in the volume and swaps ..data for a link to it, in one
// step.
func (b *bench) mount(version, secret string) {
	b.t.Helper()
	dir := filepath.Join(b.volume, version)
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.link(version, filepath.Join(b.volume, "..data_tmp"))
	if err := os.Rename(filepath.Join(b.volume, "..data_tmp"), filepath.Join(b.volume, "..data")); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) link(target, name string) {
	b.t.Helper()
	if err := os.Symlink(target, name); err != nil {
		b.t.Fatal(err)
	}
}
