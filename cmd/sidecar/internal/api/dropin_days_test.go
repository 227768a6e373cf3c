package api_test

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// SDKs subtract a reserve from expires_in and break when nothing is left. For two days, every
// second, the drop-in answers leave them something, and every token works. A call makes up for a
// refresh ahead that does not come.
func TestDropInLeavesSDKsALifeEverySecondOfTwoDays(t *testing.T) {
	span := 7 * time.Hour // a few lives of a token
	if os.Getenv("WXTOKEN_LONG") == "1" {
		span = 48 * time.Hour
	}
	for _, test := range []struct {
		name, method, target, body string
		app                        config.App
		above                      int64
		cycle                      time.Duration // between two fetches
	}{
		{"token", "GET", "/cgi-bin/token?grant_type=client_credential&appid=" + classic.ID + "&secret=x", "", classic, 1500, 90 * time.Minute},
		{"stable_token", "POST", "/cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"shop","secret":"x"}`, plain, 300, 115 * time.Minute},
		{"gettoken", "GET", "/cgi-bin/gettoken?corpid=" + lone.ID + "&corpsecret=x", "", lone, 1500, 90 * time.Minute},
	} {
		for ahead, span := range map[string]time.Duration{"ahead": span, "on demand": 5 * time.Hour} {
			t.Run(test.name+" "+ahead, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					app := test.app
					app.Tickets = nil
					s := newStack(t, api.Options{}, nil, app)
					// While WeCom repeats a token, no fetch brings a longer life.
					s.WeChat.Tune(func(k *wechattest.Knobs) { k.CorpRenews = true })
					if ahead == "ahead" {
						s.Replica.Start()
					}
					least, start := int64(7200), time.Now()
					for time.Since(start) < span {
						w := s.call(test.method, test.target, test.body)
						var a answer
						if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.ExpiresIn <= test.above {
							t.Fatalf("after %v: %s", time.Since(start), w.Body)
						}
						if !s.WeChat.Valid(app.CredentialID(), a.AccessToken) {
							t.Fatalf("after %v: a dead token", time.Since(start))
						}
						least = min(least, a.ExpiresIn)
						time.Sleep(time.Second)
					}
					if n, most := s.Fetches(app), 1+int(span/test.cycle); n > most {
						t.Errorf("%d fetches, want at most %d", n, most)
					}
					t.Logf("expires_in is at least %d", least)
				})
			})
		}
	}
}
