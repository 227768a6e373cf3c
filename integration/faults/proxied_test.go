package faults

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const customSend = "/cgi-bin/message/custom/send"

// What happens to the calls that the proxy passes on.
var proxiedRows = []row{
	{
		name: "WeChat breaks the calls and not the fetches", promise: "a caller of the proxy gets the failure at once, and no call is sent twice; no report of the token; all others go on",
		reveals: reveal{name: "wxtoken_proxy_calls_total", labels: []string{`outcome="broken"`}, by: 30},
		run: func(b *bench) {
			b.withoutProxied()
			b.Upstream.AddFault(wechattest.Fault{Path: customSend, Effect: wechattest.EffectReset, After: true})
			old, _ := b.inRedis()
			b.provoke()
			b.refreshed(10*time.Second, b.All, old)
			before := b.Upstream.Calls(rig.AppID).Paths[customSend]
			b.wantProxied(10, http.StatusBadGateway, "broken")
			if sent := b.Upstream.Calls(rig.AppID).Paths[customSend] - before; sent != 10*len(b.All) {
				b.t.Errorf("WeChat saw %d calls, want %d", sent, 10*len(b.All))
			}
			b.Upstream.ClearFaults()
			b.wantProxied(1, http.StatusOK, "")
		},
	},
	{
		name: "WeChat refuses connections for 6 s", promise: "nothing was sent: the cut is undone; a caller of the proxy gets that at once; all others go on",
		reveals: reveal{name: "wxtoken_proxy_calls_total", labels: []string{`outcome="unreachable"`}, by: 30},
		run: func(b *bench) {
			b.withoutProxied()
			old, _ := b.inRedis()
			b.Upstream.Refuse()
			b.provoke()
			b.within(10*time.Second, "two fetches fail", func() bool { return b.failures() >= 2 })
			b.checkCut(sure)
			b.wantProxied(10, http.StatusOK, "unreachable")
			b.hold(3 * time.Second)
			b.Upstream.Heal(b.t)
			b.note("healed %v after its end", round(b.refreshed(20*time.Second, b.All, old)))
			b.wantProxied(1, http.StatusOK, "")
			b.checkLife()
		},
	},
	{
		name: "1100 proxied calls hang at WeChat", promise: "more than one sidecar lets wait: the rest is refused, and what is in memory is handed out to all others",
		reveals: reveal{name: "wxtoken_http_problems_total", labels: []string{`type="overloaded"`}},
		run: func(b *bench) {
			b.withoutProxied()
			end := b.hang(1100, "")
			defer end()
			b.within(rig.Patience, "calls are refused", func() bool {
				return b.All[0].Metric("wxtoken_http_problems_total", `type="overloaded"`) > 0
			})
			for range 200 {
				if a, err := b.All[0].Token(); err != nil || a.Stale {
					b.t.Fatalf("a read from memory: %+v, %v", a, err)
				}
			}
			b.hold(3 * time.Second) // the load goes on meanwhile
		},
	},
	{
		name: "60 photos of 0.9 MB wait for WeChat", promise: "the bodies that are kept have a budget: the sidecar stays below its container's 64 MiB",
		replicas: 1, build: rig.Plain,
		reveals: reveal{name: "process_resident_memory_bytes", by: 1 << 20},
		run: func(b *bench) {
			b.withoutProxied()
			end := b.hang(60, strings.Repeat("x", 900<<10))
			defer end()
			b.within(rig.Patience, "all of them have arrived", func() bool { return b.Upstream.Calls(rig.AppID).Paths[hanging] >= 60 })
			resident := b.All[0].Metric("process_resident_memory_bytes")
			if b.note("%.0f MiB", resident/(1<<20)); resident > 64<<20 {
				b.t.Errorf("the sidecar has %.0f MiB", resident/(1<<20))
			}
		},
	},
}

// hanging is a path of WeChat on which calls hang in these rows.
const hanging = "/cgi-bin/user/get"

// hang sends n calls through the first sidecar's proxy, which WeChat does not answer, and returns
// what ends them.
func (b *bench) hang(n int, body string) (end func()) {
	b.t.Helper()
	b.Upstream.AddFault(wechattest.Fault{Path: hanging, Delay: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.All[0].Base()+"proxy/"+rig.AppID+hanging, strings.NewReader(body))
			if err != nil {
				return
			}
			if response, err := client.Do(request); err == nil {
				_ = response.Body.Close()
			}
		})
	}
	return func() {
		cancel()
		calls.Wait()
		b.Upstream.ClearFaults()
	}
}

// withoutProxied replaces the load by one without callers of the proxy, who are not to be served.
func (b *bench) withoutProxied() {
	if seen := b.load.Stop(); seen.Failed > 0 {
		b.t.Errorf("%d calls failed before there was a fault", seen.Failed)
	}
	b.load = b.StartLoad(rig.LoadOptions{Stable: b.endpoint == stable, NoProxy: true})
}

// wantProxied makes calls through each sidecar's proxy, and checks that each is answered at once,
// as an SDK can read it, with that status and that X-Wxtoken-Error.
func (b *bench) wantProxied(times, status int, failure string) {
	b.t.Helper()
	for range times {
		for _, p := range b.All {
			begun := time.Now()
			r, err := rig.HTTP.Post(p.Base()+"proxy/"+rig.AppID+customSend, "application/json", strings.NewReader(`{"touser":"o"}`))
			if err != nil {
				b.t.Errorf("%s: %v", p.Name, err)
				continue
			}
			body, _ := io.ReadAll(r.Body)
			_ = r.Body.Close()
			var answer struct{ Errcode *int }
			_ = json.Unmarshal(body, &answer)
			took := time.Since(begun)
			switch {
			case r.StatusCode != status, r.Header.Get("X-Wxtoken-Error") != failure:
				b.t.Errorf("%s: %s, X-Wxtoken-Error %q; want %d, %q", p.Name, r.Status, r.Header.Get("X-Wxtoken-Error"), status, failure)
			case answer.Errcode == nil, (*answer.Errcode == 0) != (failure == ""):
				b.t.Errorf("%s: %s", p.Name, body)
			case took > b.row.limits.longest():
				b.t.Errorf("%s: after %v", p.Name, took)
			}
		}
	}
}
