package source

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// SDKs subtract a reserve from expires_in and break when nothing is left. For two days, every
// second, the drop-in answers leave them something, and every token works. It is here and not with
// the faces because the renewal that makes it true is decided here.
func TestDropInLeavesSDKsALifeEverySecondOfTwoDays(t *testing.T) {
	span := span()
	agent := config.App{ID: "ww1", Agent: "100", Platform: config.PlatformWeCom, Secret: secret.New("a")}
	for _, test := range []struct {
		name, method, target, body string
		app                        config.App
		account                    wechattest.App
		above                      int
		cycle                      time.Duration // between two fetches
	}{
		{
			name: "token", method: "GET", target: "/cgi-bin/token?grant_type=client_credential&appid=" + id + "&secret=x",
			app: app(config.EndpointClassic), account: wechattest.App{ID: id, Secret: "s1"}, above: 1500, cycle: 90 * time.Minute,
		},
		{
			name: "stable_token", method: "POST", target: "/cgi-bin/stable_token",
			body: `{"grant_type":"client_credential","appid":"` + id + `","secret":"x"}`,
			app:  app(config.EndpointStable), account: wechattest.App{ID: id, Secret: "s1"}, above: 300, cycle: 115 * time.Minute,
		},
		{
			name: "gettoken", method: "GET", target: "/cgi-bin/gettoken?corpid=ww1&corpsecret=x",
			app: agent, account: wechattest.App{ID: "ww1", Agent: "100", Secret: "a", Kind: wechattest.Corp}, above: 1500, cycle: 90 * time.Minute,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				test.app.Tickets = nil
				sim := wechattest.New(test.account)
				k := sim.Knobs()
				k.CorpRenews = true // while WeCom repeats a token, no fetch brings a longer life
				sim.SetKnobs(k)
				transport := sim.Transport()
				defer transport.Close()
				cluster := tokencachetest.New(t, 1, &tokencachetest.Upstream{}, tokencachetest.Options(tokencache.Options{Reread: 5 * time.Minute}))
				cache := cluster.Replicas[0].Cache
				if err := cache.Set(credentials(test.app, &wechat.Client{HTTP: &http.Client{Transport: transport}}, cache)...); err != nil {
					t.Fatal(err)
				}
				cluster.Start()
				faces := apps.New("", face(test.app))
				h := api.New(cache, faces.Lookup, api.Options{Apps: func() *apps.Set { return faces }})
				least, start := 7200, time.Now()
				for time.Since(start) < span {
					r := httptest.NewRequest(test.method, test.target, strings.NewReader(test.body))
					r.Host = "localhost"
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					var a struct {
						AccessToken string `json:"access_token"`
						ExpiresIn   int    `json:"expires_in"`
					}
					if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.ExpiresIn <= test.above {
						t.Fatalf("after %v: %s", time.Since(start), w.Body)
					}
					if !sim.Valid(test.app.CredentialID(), a.AccessToken) {
						t.Fatalf("after %v: a dead token", time.Since(start))
					}
					least = min(least, a.ExpiresIn)
					time.Sleep(time.Second)
				}
				if n, most := sim.Calls(test.app.CredentialID()).Fetches(), 1+int(span/test.cycle); n > most {
					t.Errorf("%d fetches, want at most %d", n, most)
				}
				t.Logf("expires_in is at least %d", least)
			})
		})
	}
}

// face is what the handler knows of an app.
func face(a config.App) apps.App {
	f := apps.App{Key: Key(a), ID: a.ID, Secret: a.Secret}
	if a.Platform == config.PlatformWeCom {
		f.Platform = apps.WeCom
	}
	return f
}
