package faults

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const customSend = "/cgi-bin/message/custom/send"

// What happens to the calls that the proxy passes on.
var proxiedRows = []row{
	{
		name: "WeChat breaks the calls and not the fetches", promise: "a caller of the proxy is told at once, and never twice sent; nobody reports the token; all others go on",
		reveals: reveal{name: "wxtoken_proxy_calls_total", labels: []string{`outcome="broken"`}, by: 30},
		run: func(b *bench) {
			b.withoutProxied()
			b.Upstream.AddFault(wechattest.Fault{Path: customSend, Effect: wechattest.EffectReset, After: true})
			old, _ := b.stands()
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
		name: "WeChat refuses connections for 6 s", promise: "nothing was sent: the cut is undone; a caller of the proxy is told so at once; all others go on",
		reveals: reveal{name: "wxtoken_proxy_calls_total", labels: []string{`outcome="unreachable"`}, by: 30},
		run: func(b *bench) {
			b.withoutProxied()
			old, _ := b.stands()
			b.Upstream.StopListening()
			b.provoke()
			b.within(10*time.Second, "two fetches fail", func() bool { return b.failures() >= 2 })
			b.checkCut(sure)
			b.wantProxied(10, http.StatusOK, "unreachable")
			b.hold(3 * time.Second)
			b.Upstream.Listen(b.t)
			b.note("healed %v after its end", round(b.refreshed(20*time.Second, b.All, old)))
			b.wantProxied(1, http.StatusOK, "")
			b.checkLife()
		},
	},
}

// withoutProxied replaces the load by one without callers of the proxy, who are not to be served.
func (b *bench) withoutProxied() {
	if seen := b.load.Stop(); seen.Failed > 0 {
		b.t.Errorf("%d calls failed before there was a fault", seen.Failed)
	}
	b.load = b.StartLoad(rig.LoadOptions{Stable: b.endpoint == stable, NoProxy: true})
}

// wantProxied makes calls through each sidecar's proxy, and checks that each is answered at once, as an SDK
// can read it, with that status and that X-Wxtoken-Error.
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
