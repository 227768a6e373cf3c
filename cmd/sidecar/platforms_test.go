package main

import (
	"bytes"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dev"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// The ticket of a platform comes by way of the app, so the app must not wait for the platform's
// token.
func TestReadinessDoesNotDependOnTickets(t *testing.T) {
	p, err := platform.New(platform.Options{ID: "wx1", Kind: platform.OpenPlatform})
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{platforms: []*platform.Platform{p}}
	if ok, why := s.started([]tokencache.Status{{Key: p.TokenKey()}}); !ok {
		t.Errorf("not ready: %s", why)
	}
	if ok, _ := s.started([]tokencache.Status{{Key: tokencache.Key{App: "wx2", Kind: "access_token"}}}); ok {
		t.Error("ready before an app's token was looked for")
	}
}

// The documents name each right of Redis that a platform needs and an app does not.
func TestTheRightsOfAVaultAreDocumented(t *testing.T) {
	for _, page := range []string{"docs/platforms.md", "docs/platforms.zh-CN.md"} {
		text := readRoot(t, page)
		for _, c := range append(vault.RedisCommands[:], "incr") { // incr counts the ids that WeChat is asked about
			if !slices.Contains(acl.Commands[:], c) && !strings.Contains(text, "+"+c+" ") && !strings.Contains(text, "+"+c+"`") {
				t.Errorf("%s does not name +%s", page, c)
			}
		}
	}
}

// The whole way of a platform, on real sockets: WeChat pushes a ticket and a code, and the
// account's token is there for callers, for the proxy and for pages.
func TestAPlatformAndAnAccountThatAuthorisesIt(t *testing.T) {
	p := start(t, map[string]string{"WXTOKEN_OPS_LISTEN": "127.0.0.1:0"})
	account := "platform:" + dev.Shop
	waitFor(t, "the account has a token", func() bool {
		status, _, _ := ask(t, "GET", p.values+"/v1/apps/"+account+"/token", "")
		return status == http.StatusOK
	})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/apps/platform/token", "", 200, `"access_token":"`},
		{"GET", "/v1/apps/" + dev.Platform.ID + ":" + dev.Shop + "/token", "", 200, `"access_token":"`},
		{"GET", "/v1/apps/" + dev.Shop + "/token", "", 200, `"access_token":"`}, // there is one platform
		{"GET", "/v1/apps/" + account + "/tickets/jsapi", "", 200, `"ticket":"`},
		{"POST", "/v1/apps/" + account + "/jssdk", `{"url":"https://shop.example.com/"}`, 200, `"appId":"` + dev.Shop + `"`},
		{"GET", "/v1/apps/platform/authorizers", "", 200, `[{"authorizer":"` + dev.Shop + `","state":"active"`},
		{"GET", "/v1/apps/platform/authorizers?limit=0", "", 400, "limit"},
		{"POST", "/v1/apps/platform/authorizations", `{}`, 400, "code is missing"},
		{"POST", "/v1/apps/platform/authorizations", `{"code":"queryauthcode@@@nonsense"}`, 410, "code-spent"},
		{"POST", "/v1/apps/platform/callback?msg_signature=x", "<xml></xml>", 403, ""},
		{"GET", "/v1/apps/platform/callback?msg_signature=x&echostr=y", "", 403, ""},
		{"POST", "/v1/apps/" + dev.App.ID + "/callback", "<xml></xml>", 404, "unknown-app"},
		{"GET", "/v1/apps/platform:wx0000000000000bad/token", "", 404, "not-authorized"},
		{"GET", "/proxy/" + account + "/cgi-bin/getcallbackip", "", 200, `"ip_list":`},
		{"GET", "/proxy/" + account + "/cgi-bin/token?grant_type=client_credential&appid=" + dev.Shop, "", 200, `"access_token":"`},
		{"POST", "/proxy/platform/cgi-bin/component/api_get_authorizer_list", `{"component_appid":"` + dev.Platform.ID + `","offset":0,"count":10}`, 200, `"total_count":1`},
		{"POST", "/proxy/platform/cgi-bin/component/api_get_authorizer_list", `{"component_appid":"` + dev.Platform.ID + `","offset":0,"count":10}`, 200, `"refresh_token":"wxtoken"`},
		{"POST", "/cgi-bin/component/api_get_authorizer_info?component_access_token=x", `{"component_appid":"` + dev.Platform.ID + `","authorizer_appid":"` + dev.Shop + `"}`, 200, `"authorizer_refresh_token":"wxtoken"`},
		{"POST", "/cgi-bin/component/api_create_preauthcode?access_token=x", `{"component_appid":"` + dev.Platform.ID + `"}`, 200, `"pre_auth_code":"`},
		{"GET", "/sns/component/jscode2session?component_access_token=x&appid=" + dev.Shop + "&component_appid=" + dev.Platform.ID, "", 200, `"openid":"sim"`},
		{"POST", "/cgi-bin/component/api_component_token", `{"component_appid":"` + dev.Platform.ID + `"}`, 200, `{"component_access_token":"`},
		{"POST", "//CGI-BIN/component/api_authorizer_token/", `{"component_appid":"` + dev.Platform.ID + `","authorizer_appid":"` + dev.Shop + `","authorizer_refresh_token":"x"}`, 200, `"authorizer_refresh_token":"x"}`},
		{"POST", "/proxy/platform/cgi-bin/component/api_authorizer_token", `{"authorizer_appid":"` + dev.Shop + `"}`, 200, `"authorizer_refresh_token":"wxtoken"}`},
		{"POST", "/proxy/platform/cgi-bin/component/api_query_auth", `{"authorization_code":"queryauthcode@@@nonsense"}`, 200, `"errcode":61009`},
		{"POST", "/cgi-bin/component/api_component_token", `{"component_appid":"wx0000000000000bad"}`, 200, `"errcode":40013`},
		{"POST", "/cgi-bin/service/get_suite_token", `{"suite_id":"x"}`, 200, `"errcode":40083`},
		{"GET", "/cgi-bin/component/api_component_token", "", 200, `"errcode":43002`},
		{"GET", "/proxy/platform/cgi-bin/token?grant_type=client_credential&appid=" + dev.Platform.ID, "", 200, `"errcode":61024`},
		{"GET", "/proxy/platform:wx0000000000000bad/cgi-bin/getcallbackip", "", 200, `"errcode":61003`},
	} {
		status, _, body := ask(t, c.method, p.values+c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %.300s, want %d %s", c.method, c.path, status, body, c.status, c.want)
		}
		if strings.Contains(body, dev.Platform.Secret) || strings.Contains(body, dev.Platform.AESKey) {
			t.Errorf("%s %s: a secret", c.method, c.path)
		}
	}
	ask(t, "GET", p.values+"/v1/apps/"+dev.App.ID+"/tickets/wx_card", "")
	_, _, metrics := ask(t, "GET", p.ops+"/metrics", "")
	if !strings.Contains(metrics, `app="`+dev.App.ID+`",kind="wx_card_ticket"`) || strings.Contains(metrics, dev.Shop) {
		t.Error("a ticket that is kept on demand has series, and an account of a platform has none")
	}
	for _, want := range []string{`wxtoken_platform_callbacks_total{door="relayed",platform="` + dev.Platform.ID + `",result="forged"} 2`, `wxtoken_platform_exchanges_total{platform="` + dev.Platform.ID + `",result="done",via="push"} 1`, "wxtoken_platform_pushes_total{",
		`wxtoken_platform_ticket_age_seconds{kind="open_platform",platform="`, `wxtoken_vault_duration_seconds_count{op="save"}`, `{app="` + dev.Platform.ID + `:*",kind="access_token"`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string {
		return map[string]string{"WXTOKEN_OPS_LISTEN": strings.TrimPrefix(p.ops, "http://")}[name]
	}
	if code := command(t.Context(), []string{"status"}, getenv, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "\nplatform platform: ticket of ") {
		t.Errorf("status: %d %s%s", code, &stdout, &stderr)
	}
}

// network is a TCP proxy whose traffic can stop.
type network struct {
	net.Listener
	to    string
	stops atomic.Bool
}

func (n *network) run() {
	for {
		in, err := n.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", n.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				defer way[0].Close()
				defer way[1].Close()
				for buf := make([]byte, 32<<10); ; {
					read, err := way[0].Read(buf)
					for n.stops.Load() {
						time.Sleep(time.Millisecond)
					}
					if _, failed := way[1].Write(buf[:read]); err != nil || failed != nil {
						return
					}
				}
			}()
		}
	}
}

// WeChat reaches a listener of its own, on real sockets. What it pushes while Redis hangs is answered
// by 503, and stored when it comes again. The listener has nothing else, and holds up no drain.
func TestWeChatReachesTheListenerOfTheCallback(t *testing.T) {
	t.Parallel() // it waits for what hangs
	redis := &network{to: miniredis.RunT(t).Addr()}
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := door.Addr().String()
	_ = door.Close() // for the sidecar, which must know the port before it starts
	if redis.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redis.Close() })
	go redis.run()
	p := start(t, map[string]string{"REDIS_URL": "redis://" + redis.Addr().String(), "WXTOKEN_CALLBACK_LISTEN": address,
		"WXTOKEN_LOG_LEVEL": "debug", "WXTOKEN_DRAIN": "1h", "WXTOKEN_DRAIN_QUIET": "1ms"})
	state := func(want string) func() bool {
		return func() bool {
			_, _, list := ask(t, "GET", p.values+"/v1/apps/platform/authorizers", "")
			return strings.Contains(list, `"state":"`+want+`"`)
		}
	}
	waitFor(t, "the account is there", state("active"))
	var sim string
	waitFor(t, "it says where WeChat is", func() bool {
		sim = regexp.MustCompile(`http://\S+/sim/platforms/\w+/`).FindString(p.stdout.String())
		return sim != ""
	})
	for n, c := range [][2]string{{"GET", "/v1/apps/platform/token"}, {"GET", "/metrics"}, {"GET", "/callback/other"}, {"PUT", "/callback/platform"}, {"POST", "/callback/platform"}} {
		status, header, body := ask(t, c[0], "http://"+address+c[1], "")
		if want := []int{404, 404, 404, 405, 403}[n]; status != want || body != "" || header.Get("Content-Type") != "" {
			t.Errorf("%s %s: %d %v %q, want %d and nothing", c[0], c[1], status, header, body, want)
		}
	}

	began := time.Now().Unix()
	waitFor(t, "WeChat's time, which has whole seconds, is later", func() bool { return time.Now().Unix() > began })
	ask(t, "POST", sim+"knobs", `{"repeats":100000,"repeat_after":50000000}`)
	redis.stops.Store(true)
	ask(t, "POST", sim+"withdraw", `{"authorizer":"`+dev.Shop+`"}`)
	waitFor(t, "a withdrawal is answered by 503", func() bool {
		_, _, pushed := ask(t, "GET", sim+"pushed", "")
		return regexp.MustCompile(`"unauthorized"[^{}]*"status":\s*503`).MatchString(pushed)
	})
	redis.stops.Store(false)
	waitFor(t, "the withdrawal is stored", state("withdrawn"))

	_, _, metrics := ask(t, "GET", p.ops+"/metrics", "")
	for _, want := range []string{`door="public",platform="` + dev.Platform.ID + `",result="stored"`, `result="unstored"`, `result="forged"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	held, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	http.DefaultClient.CloseIdleConnections() // those of the pod's apps would
	p.stop()
	p.wantExit()
	if form := secrettest.Find(p.stderr.String(), dev.Platform.Secret, dev.Platform.Token, dev.Platform.AESKey, "ticket@@@", "queryauthcode@@@"); form != "" {
		t.Errorf("the log holds a secret: %s", form)
	}
}
