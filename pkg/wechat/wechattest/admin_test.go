package wechattest_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

func TestAdmin(t *testing.T) {
	sim := wechattest.New(official, agentA)
	admin := sim.Admin()
	do := func(method, target, body string, wantStatus int) string {
		t.Helper()
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
		if w.Code != wantStatus {
			t.Errorf("%s %s: %d %s, want %d", method, target, w.Code, w.Body, wantStatus)
		}
		return w.Body.String()
	}
	token := issue(sim, "wx1")
	status := func() string { return do("GET", "/sim/apps/wx1/status?token="+token, "", 200) }

	if got := status(); !strings.Contains(got, `"current"`) {
		t.Errorf("status: %s", got)
	}
	if got := do("POST", "/sim/apps/wx1/foreign", "", 200); strings.Contains(got, "97_") {
		t.Errorf("foreign answers with a token: %s", got)
	}
	if got := status(); !strings.Contains(got, `"previous"`) {
		t.Errorf("status after foreign: %s", got)
	}
	do("POST", "/sim/apps/wx1/foreign", `{"how":"by force"}`, 400)
	do("POST", "/sim/apps/wx1/kill", "", 200)
	if got := status(); !strings.Contains(got, `"killed"`) {
		t.Errorf("status after kill: %s", got)
	}

	do("POST", "/sim/knobs", `{"expires_in":"90s","per_day":{"/cgi-bin/token":7}}`, 200)
	if k := sim.Knobs(); k.ExpiresIn != 90*time.Second || k.Overlap != 5*time.Minute || k.PerDay["/cgi-bin/token"] != 7 || k.PerDay["/cgi-bin/stable_token"] != 500_000 {
		t.Errorf("knobs: %+v", k)
	}
	do("POST", "/sim/knobs", `{"expires_in":"soon"}`, 400)
	do("POST", "/sim/knobs", `{"expire_in":"90s"}`, 400)
	var k wechattest.Knobs
	if err := json.Unmarshal([]byte(do("GET", "/sim/knobs", "", 200)), &k); err != nil || k.ExpiresIn != 90*time.Second {
		t.Errorf("GET knobs: %v, %v", k.ExpiresIn, err)
	}

	const fetch = "/cgi-bin/token?grant_type=client_credential&appid=wx1&secret="
	do("POST", "/sim/faults", `{"path":"/cgi-bin/token","effect":"errcode","code":-1,"delay":"1ms"}`, 200)
	if got := ask(sim, "GET", fetch+"s1", "").Body.String(); !strings.Contains(got, "system error") {
		t.Errorf("fault: %s", got)
	}
	do("DELETE", "/sim/faults", "", 200)
	do("POST", "/sim/apps/wx1/secret", `{"secret":"new"}`, 200)
	do("POST", "/sim/apps/wx1/deny", `{"code":50002}`, 200)
	if got := ask(sim, "GET", fetch+"new", "").Body.String(); !strings.Contains(got, "50002") {
		t.Errorf("refused: %s", got)
	}
	do("POST", "/sim/apps/wx1/deny", `{"code":0}`, 200)
	do("POST", "/sim/apps/wx1/whitelist", `{"addrs":["192.0.2.1"]}`, 200)
	if got := ask(sim, "GET", fetch+"new", "").Body.String(); !strings.Contains(got, "40164") {
		t.Errorf("not in the whitelist: %s", got)
	}
	var calls wechattest.Calls
	if err := json.Unmarshal([]byte(do("GET", "/sim/apps/wx1/stats", "", 200)), &calls); err != nil || calls.Classic != 3 {
		t.Errorf("stats: %+v, %v", calls, err)
	}

	do("GET", "/sim/apps/ww1:A/stats", "", 200)
	do("GET", "/sim/apps/unknown/stats", "", 404)
	do("POST", "/sim/apps/wx1/secret", `{`, 400)
	if w := ask(sim, "GET", "/sim/apps/wx1/stats", ""); strings.Contains(w.Body.String(), "classic") {
		t.Error("the simulated WeChat serves the admin calls")
	}
}

func TestAdminOfPlatforms(t *testing.T) {
	sim := wechattest.New(official)
	admin := sim.Admin()
	do := func(target, body string, wantStatus int) string {
		t.Helper()
		method := "POST"
		if body == "" {
			method = "GET"
		}
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(method, "/sim/platforms"+target, strings.NewReader(body)))
		if w.Code != wantStatus {
			t.Errorf("%s: %d %s, want %d", target, w.Code, w.Body, wantStatus)
		}
		return w.Body.String()
	}
	do("", `{"id":"wxp","secret":"ps","token":"tk","aes_key":"`+key1+`"}`, 200)
	do("", `{"id":"wxp","secret":"ps"}`, 400)
	do("", `{"id":"wx1","secret":"ps"}`, 400)
	var code struct{ Code string }
	if err := json.Unmarshal([]byte(do("/wxp/authorize", `{"authorizer":"wxa"}`, 200)), &code); err != nil || code.Code == "" {
		t.Errorf("authorize: %v", err)
	}
	var ledger wechattest.Ledger
	if err := json.Unmarshal([]byte(do("/wxp/ledger", "", 200)), &ledger); err != nil || len(ledger.Codes) != 1 || ledger.Codes[0].Code != code.Code || !ledger.Authorizers["wxa"].Authorized {
		t.Errorf("ledger: %+v, %v", ledger, err)
	}
	do("/wxp/update", `{"authorizer":"wxa"}`, 200)
	do("/wxp/reset", `{"authorizer":"wxa"}`, 200)
	do("/wxp/withdraw", `{"authorizer":"wxa"}`, 200)
	do("/wxp/withdraw", `{"authorizer":"wxunknown"}`, 400)
	do("/wxp/authorize", `{}`, 400)
	if sim.Ledger("wxp").Authorizers["wxa"].Authorized {
		t.Error("withdraw did nothing")
	}
	do("/wxp/knobs", `{"overlap":"-1ns","refresh":"rotates","code_life":"1m"}`, 200)
	if k := sim.PlatformKnobs("wxp"); k.Overlap != wechattest.Forever || k.Refresh != wechattest.RefreshRotates || k.CodeLife != time.Minute || k.Repeats != 2 {
		t.Errorf("knobs: %+v", k)
	}
	for _, what := range []string{"push", "stop", "start"} {
		do("/wxp/tickets", `{"do":"`+what+`"}`, 200)
	}
	do("/wxp/tickets", `{"do":"burn"}`, 400)
	do("/wxp/callback", `{"url":"http://127.0.0.1:1/"}`, 200)
	do("/wxp/pushed", "", 200)
	do("/wxother/ledger", "", 404)
}

func TestMisuseIsAPanic(t *testing.T) {
	sim := wechattest.New(official)
	for name, f := range map[string]func(){
		"two apps of one name": func() { wechattest.New(official, official) },
		"app without an ID":    func() { wechattest.New(wechattest.App{}) },
		"unknown app":          func() { sim.KillTokens("unknown") },
		"unknown platform":     func() { sim.Withdraw("unknown", "wxa") },
		"platform like an app": func() { sim.AddPlatform(wechattest.Platform{ID: "wx1"}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	sim.Calls("") // after a panic the simulator is not locked up
}
