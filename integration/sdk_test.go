package integration

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The SDKs as users install them, in programs as users write them (sdk/), with nothing changed but
// the one setting of docs/sdks.md, or nothing at all. They hold no secret, keep what they are given
// in caches of their own, and are not told when WeChat ends a token.

// kinds are the apps, one of each kind.
var kinds = map[string]wechattest.App{
	"oa":   {ID: appID, Secret: appSecret, Menu: sdkMenu},
	"mini": {ID: "wx00000000000000f2", Secret: "CANARY+secret/of=the-mini-program", Kind: wechattest.MiniProgram},
	"work": {ID: "ww00000000000000f3", Secret: "CANARY+secret/of=the-agent", Kind: wechattest.Corp, Agent: "1000002"},
}

// https is how a program calls that pins WeChat's names: nothing is set in it at all.
const https = "https"

// variant is a way to use an SDK: a row of docs/sdks.md.
type variant struct {
	program
	name  string
	kind  string // of app: see kinds
	how   string // the setting, where an SDK has several
	path  string // of the base URL
	calls string // what it can do
	// broken are calls that the SDK itself breaks, without a sidecar, too, or that the setting does
	// not reach: with what their error says.
	broken map[string]string
}

// sdks are the variants by SDK. A ticket goes first: it comes from the sidecar's cache, so that the
// kill before it is found by the call after it.
var sdks = map[string][]variant{
	"co-wechat-api": of(nodeProgram("co-wechat-api.mjs"),
		variant{name: "official account", kind: "oa", calls: "sign call send upload download"},
		variant{name: "mini program", kind: "mini", calls: "send download login"},
		variant{name: "mini program, https face", kind: "mini", how: https, calls: "send download login"},
	),
	"node-easywechat": of(nodeProgram("node-easywechat.mjs"),
		variant{name: "official account", kind: "oa", calls: "sign call send upload download"},
		variant{name: "stable_token", kind: "oa", how: "stable", calls: "sign call send upload download"},
		variant{name: "/proxy/{app}", kind: "oa", path: "proxy/shop/", calls: "sign call send upload download"},
		variant{name: "mini program", kind: "mini", calls: "call send upload download login"},
		variant{name: "Work", kind: "work", calls: "sign agentsign call send upload download",
			broken: map[string]string{"agentsign": "signed with a ticket that is not the agent_config ticket"}},
		variant{name: "Work, https face", kind: "work", how: https, calls: "sign call send upload download"},
	),
	"wechat-api": of(nodeProgram("wechat-api.mjs"),
		variant{name: "official account", kind: "oa", calls: "sign call send upload"},
		variant{name: "official account, https face", kind: "oa", how: https, calls: "sign call send upload"},
	),
	"wechat-enterprise-api": of(nodeProgram("wechat-enterprise-api.mjs"),
		variant{name: "WeCom", kind: "work", calls: "sign call send upload download"},
		variant{name: "WeCom, https face", kind: "work", how: https, calls: "sign call send upload download"},
	),
	"nest-wechat": of(nodeProgram("nest-wechat.mjs"),
		variant{name: "official account, https face", kind: "oa", how: https, calls: "sign send"},
		variant{name: "mini program, https face", kind: "mini", how: https, calls: "call send download login"},
		variant{name: "mini program, preload", kind: "mini", how: "preload", calls: "call send download login"},
	),
	"fetch": of(nodeProgram("fetch.mjs"),
		variant{name: "preload", kind: "mini", how: "preload", calls: "call send download"},
		variant{name: "https face", kind: "mini", how: https, calls: "call send download"},
	),
	"silenceper-wechat": of(goProgram,
		variant{name: "official account", kind: "oa", how: "transport", calls: "sign call send upload"},
		variant{name: "mini program", kind: "mini", how: "transport", calls: "call send download login"},
		variant{name: "WeCom", kind: "work", how: "transport", calls: "sign agentsign call send upload download"},
		variant{name: "official account, DialTLSContext", kind: "oa", how: "dial", calls: "sign call send upload"},
		variant{name: "mini program, https face", kind: "mini", how: https, calls: "call send download login"},
		variant{name: "WeCom, https face", kind: "work", how: https, calls: "sign agentsign call send upload download"},
	),
	"WxJava": of(javaProgram,
		variant{name: "mp", kind: "oa", calls: "sign call send upload download"},
		variant{name: "miniapp", kind: "mini", calls: "call send upload download login"},
		variant{name: "cp", kind: "work", calls: "sign agentsign call send upload download"},
	),
	"wechatpy": of(pythonProgram,
		variant{name: "official account", kind: "oa", how: "adapter", calls: "sign call send upload download"},
		variant{name: "mini program", kind: "mini", how: "adapter", calls: "call send download login"},
		variant{name: "WeCom", kind: "work", how: "adapter", calls: "sign agentsign call send upload download",
			broken: map[string]string{"download": "ProxyError"}}, // it asks for the file past its own session
		variant{name: "WeCom, https face", kind: "work", how: https, calls: "sign agentsign call send upload download"},
	),
}

func of(p program, variants ...variant) []variant {
	for i := range variants {
		variants[i].program = p
	}
	return variants
}

// sdkCluster has the apps that the SDKs use: with allowances for a test that kills more tokens in a
// minute than WeChat does in a year.
type sdkCluster struct {
	*cluster
	trusted map[*rig.Sidecar]string // where each has written what its apps have to trust
}

func newSDKCluster(t *testing.T) *sdkCluster {
	t.Helper()
	var store rig.Store
	if _, err := tokencachetest.FindRedis(); err == nil {
		store = rig.StartRedis(t)
	} else {
		store = startMiniredis(t)
	}
	file := filepath.Join(t.TempDir(), "wxtoken.yaml")
	c := &sdkCluster{cluster: newCluster(t, store, "WXTOKEN_CONFIG="+file, "WECHAT_APPID=", "WECHAT_ENDPOINT=", "WECHAT_API_BASE=",
		"MINI_SECRET="+kinds["mini"].Secret, "WORK_SECRET="+kinds["work"].Secret), trusted: map[*rig.Sidecar]string{}}
	c.Upstream.Server = wechattest.New(kinds["oa"], kinds["mini"], kinds["work"])
	write(t, file, fmt.Sprintf(`
allow_upstream_host: true
tls_listen: 127.0.0.1:0
apps:
  - {id: %[1]s, alias: shop, secret_env: WECHAT_SECRET, endpoint: token, tickets: [jsapi], %[4]s}
  - {id: %[2]s, alias: mini, secret_env: MINI_SECRET, endpoint: token, %[4]s}
  - {id: %[3]s, alias: work, secret_env: WORK_SECRET, platform: wecom, agent: "1000002", tickets: [jsapi, agent_config], %[4]s}
`, kinds["oa"].ID, kinds["mini"].ID, kinds["work"].ID,
		"api_base: "+c.Upstream.URL+"/sdk, fetches_per_day: 200000, reports_per_day: 200000"))
	return c
}

// add starts n sidecars.
func (c *sdkCluster) add(n int) {
	c.t.Helper()
	for range n {
		dir := c.t.TempDir()
		c.trusted[c.Add(1, "WXTOKEN_TLS_TRUST_DIR="+dir)[0]] = dir
	}
}

// reach returns the environment of a program that is to call only the sidecar. With the https face
// it has what the component for Kubernetes sets, and in place of the pod's hosts file a proxy that
// leads WeChat's names to the face. Otherwise that refuses: what asks for it has missed the setting.
func (c *sdkCluster) reach(t *testing.T, p *rig.Sidecar, face bool) []string {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !face || r.Method != http.MethodConnect || !strings.HasSuffix(r.Host, ".weixin.qq.com:443") {
			http.Error(w, "not here", http.StatusForbidden)
			return
		}
		lead(w, p.TLS)
	}))
	t.Cleanup(func() {
		proxy.CloseClientConnections()
		proxy.Close()
	})
	env := []string{"HTTPS_PROXY=" + proxy.URL, "NO_PROXY=127.0.0.1"}
	if !face {
		return append(env, "WXTOKEN_TLS_PORT=1")
	}
	_, port, _ := net.SplitHostPort(p.TLS)
	trusted := c.trusted[p]
	return append(env, "WXTOKEN_TLS_PORT="+port, "SSL_CERT_FILE="+trusted+"/bundle.pem",
		"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore="+trusted+"/truststore.p12 -Djavax.net.ssl.trustStorePassword=changeit",
		"NODE_EXTRA_CA_CERTS="+trusted+"/ca.pem", "REQUESTS_CA_BUNDLE="+trusted+"/bundle.pem")
}

// lead answers a CONNECT by a tunnel to an address, and returns when that ends.
func lead(w http.ResponseWriter, addr string) {
	there, err := net.Dial("tcp", addr)
	if err != nil {
		http.Error(w, "no connection", http.StatusBadGateway)
		return
	}
	defer there.Close()
	w.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	go func() {
		_, _ = io.Copy(there, buffered)
		_ = there.Close()
	}()
	_, _ = io.Copy(here, there)
}

// kill ends all tokens of an app and returns how many fetches there have been until then.
func (c *sdkCluster) kill(app wechattest.App, code int) int {
	c.Upstream.Tune(func(k *wechattest.Knobs) { k.KilledCode = code })
	before := c.fetches(app)
	c.Upstream.KillTokens(app.Name())
	return before
}

func (c *sdkCluster) fetches(app wechattest.App) int { return c.Upstream.Calls(app.Name()).Fetches() }

// issued returns how many tokens there have been, of all apps.
func (c *sdkCluster) issued() (n int) {
	for _, app := range kinds {
		n += c.Upstream.Calls(app.Name()).Issued
	}
	return n
}

// Each does all it can with one token. Then the token in its own cache dies, which it does not know,
// before each kind of call.
func TestEachSDKWorksAndSeesNoKilledToken(t *testing.T) {
	for name, variants := range sdks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			variants[0].tools.need(t)
			c := newSDKCluster(t)
			c.add(1)
			for _, v := range variants {
				t.Run(v.name, func(t *testing.T) { c.exercise(t, v) })
			}
		})
	}
}

func (c *sdkCluster) exercise(t *testing.T, v variant) {
	s := c.start(t, v, c.All[0])
	app := kinds[v.kind]
	first := c.fetches(app) == 0
	calls := strings.Fields(v.calls)
	for _, call := range calls {
		err := s.do(call)
		if text, broken := v.broken[call]; broken {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v; this was broken with %q: is it mended?", call, err, text)
			}
		} else if err != nil {
			t.Error(err)
		}
	}
	if first {
		c.want("fetches of "+v.kind, c.fetches(app), 1)
	}
	var cached, still string
	if err := c.insist(func() error { return s.call(&cached, "token") }); err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{40001, 42001} { // WeCom says 40014 for the first
		for _, call := range calls {
			if v.broken[call] != "" || call == "login" {
				continue
			}
			before := c.kill(app, code)
			if err := s.do(call); err != nil {
				t.Errorf("after the token was killed with %d: %v", code, err)
			}
			// A ticket that the sidecar has needs no token, so none of WeChat's refusals tells of
			// the kill.
			if got := c.fetches(app) - before; got != 0 || !strings.HasSuffix(call, "sign") {
				c.want("fetches for one killed token, by "+call, got, 1)
			}
		}
	}
	if err := s.call(&still, "token"); err != nil || still != cached && c.overruns() == 0 {
		t.Errorf("the SDK has another token by now (%v): its cache was not part of the game", err)
	}
}

// I1 as users see it: 8 programs on 3 sidecars begin at once, and a token is killed in the middle.
// They are of all SDKs together, and, where make sdks asks for it, of each SDK by itself.
func TestEightProcessesFetchOnceAndOnceMoreForAKilledToken(t *testing.T) {
	var mixed []variant
	for _, name := range slices.Sorted(maps.Keys(sdks)) {
		if name != "fetch" { // which is no SDK
			mixed = append(mixed, sdks[name][0])
		}
	}
	t.Run("mixed", func(t *testing.T) { crowd(t, mixed) })
	if os.Getenv("WXTOKEN_SDK_CROWDS") != "1" {
		return
	}
	for name, variants := range sdks {
		t.Run(name, func(t *testing.T) { crowd(t, variants) })
	}
}

func crowd(t *testing.T, variants []variant) {
	if os.Getenv("WXTOKEN_REQUIRE_SDK") != "1" {
		installed := slices.DeleteFunc(slices.Clone(variants), func(v variant) bool { _, err := v.tools.dir(); return err != nil })
		if len(installed) > 0 {
			variants = installed
		}
	}
	c := newSDKCluster(t)
	// The tokens that all of them wait for come when they are there.
	ready := make(chan struct{})
	c.Upstream.OnCall(func(_ string, r *http.Request) {
		if rig.IsFetch(r) {
			select {
			case <-ready:
			case <-time.After(5 * time.Second): // the sidecar waits for 8
			}
		}
	})
	c.add(3)
	var all []*sdk
	for i := range 8 {
		v := variants[i%len(variants)]
		v.name = fmt.Sprintf("%d: %s", i, v.name)
		all = append(all, c.start(t, v, c.All[i%len(c.All)]))
	}
	for _, s := range all {
		var pong string
		if err := s.call(&pong, "ping"); err != nil {
			t.Fatal(err)
		}
	}
	early := c.issued() == 0
	var rounds, failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() {
			for n := i; ; n++ { // each with another call
				select {
				case <-stop:
					return
				default:
				}
				if err := s.do(s.calls[n%len(s.calls)]); err != nil {
					t.Error(err)
					failed.Add(1)
					return
				}
				rounds.Add(1)
			}
		})
	}
	close(ready)
	more := func(n int64) {
		t.Helper()
		from := rounds.Load()
		eventually(t, "the programs make calls", func() bool { return failed.Load() > 0 || rounds.Load() >= from+n })
	}
	wantFetches := func(want int) {
		t.Helper()
		for kind, app := range kinds {
			if got := c.fetches(app); slices.ContainsFunc(all, func(s *sdk) bool { return s.kind == kind }) {
				c.want("fetches of "+kind, got, want)
			} else {
				c.want("fetches of "+kind+", ahead of any call", got, 1)
			}
		}
	}
	more(200)
	wantFetches(1)
	for _, app := range kinds {
		c.kill(app, 40001)
	}
	more(400)
	close(stop)
	wg.Wait()
	wantFetches(2)
	t.Logf("8 programs, ready before there was a token: %t; %d calls, 1 killed token of each app", early, rounds.Load())
}
