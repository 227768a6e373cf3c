package doctor_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	callbackToken = "CANARYcallbackToken"
	aesKey        = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	olderKey      = "CANARYghijklmnopqrstuvwxyz0123456789ABCDEFG"
	provider      = "wwprovider"
)

// platformPatient is a patient with a platform and no app: as it is when a sidecar has run for a
// while.
type platformPatient struct {
	*patient
	id, kind string
	client   *wechat.Client
	vault    *vault.Vault
}

func newPlatformPatient(t *testing.T, kind string, redisArgs ...string) *platformPatient {
	t.Helper()
	p := &platformPatient{patient: newPatient(t, redisArgs...), id: "wxplatform", kind: kind}
	simulated := wechattest.Platform{ID: p.id, Secret: canarySecret, Token: callbackToken, AESKey: aesKey, CorpID: provider, Kind: wechattest.OpenPlatform}
	switch kind {
	case "wecom_suite":
		simulated.Kind = wechattest.Suite
	case "wecom_provider":
		simulated.Kind = wechattest.Provider
	}
	p.sim.AddPlatform(simulated)
	p.client = &wechat.Client{BaseURL: p.env["WECHAT_API_BASE"]}
	p.vault = vault.New(vault.NewRedis(p.admin(t), "wxtoken"), vaulttest.Keys(t, vaulttest.Key))
	p.file(t, "token", callbackToken+"\n", 0o400)
	p.file(t, "aes", "# of this year\n"+aesKey+"\n"+olderKey+"\n", 0o400)
	p.file(t, "vault-key", vaulttest.Key+"\n", 0o400)
	p.write(t, "")
	for _, name := range []string{"WECHAT_APPID", "WECHAT_SECRET_FILE"} {
		delete(p.env, name)
	}
	p.sim.PushTicket(p.id)
	p.save(t, vault.Record{State: vault.StateReceived, Secret: secret.New(p.sim.Ticket(p.id)), Order: 1})
	return p
}

// write writes the configuration; more belongs to the vault.
func (p *platformPatient) write(t *testing.T, more string) {
	corp := ""
	if p.kind != "open_platform" {
		corp = ", corpid: " + provider
	}
	p.env["WXTOKEN_CONFIG"] = p.file(t, "c.yaml", fmt.Sprintf("vault: {key_file: %[1]s/vault-key%[4]s}\nplatforms:\n- {id: %[2]s, kind: %[3]s, alias: shops, api_base: %[5]q, secret_file: %[1]s/secret, token_file: %[1]s/token, aes_key_file: %[1]s/aes%[6]s}\n",
		p.dir, p.id, p.kind, more, p.env["WECHAT_API_BASE"], corp), 0o600)
	delete(p.env, "WECHAT_API_BASE")
}

func (p *platformPatient) save(t *testing.T, r vault.Record) {
	t.Helper()
	r.Platform = p.id
	if old, err := p.vault.Load(t.Context(), p.id, r.ID); err == nil {
		r.Rev = old.Rev
	}
	if _, err := p.vault.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// rewrite replaces a file, which may be one that this user may only read.
func (p *platformPatient) rewrite(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	_ = os.Remove(path) // else it is written over
	p.file(t, name, content, mode)
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// authorized has an account authorise the platform, and stores what a sidecar stores.
func (p *platformPatient) authorized(t *testing.T, account string) {
	t.Helper()
	token, err := p.client.ComponentToken(t.Context(), p.id, secret.New(canarySecret), secret.New(p.sim.Ticket(p.id)))
	if err != nil {
		t.Fatal(err)
	}
	p.do(t, "SET", "wxtoken:{"+p.id+"}:component_access_token", token.Value.Reveal())
	auth, err := p.client.QueryAuth(t.Context(), token.Value, p.id, secret.New(p.sim.Authorize(p.id, account)))
	if err != nil {
		t.Fatal(err)
	}
	p.save(t, vault.Record{ID: account, State: vault.StateActive, Secret: auth.Secret})
	own, _, err := p.client.AuthorizerToken(t.Context(), token.Value, p.id, account, auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	p.stand(t, p.id+":"+account, own.Value.Reveal())
}

// ages makes the ticket in the vault older: what says when it was stored is not sealed.
func (p *platformPatient) ages(t *testing.T, by time.Duration) {
	t.Helper()
	const hash = "wxtoken:{wxplatform}:vault"
	row, err := p.admin(t).HGet(t.Context(), hash, vault.Ticket).Result()
	fields := strings.Fields(row)
	if err != nil || len(fields) != 5 {
		t.Fatalf("%q, %v", row, err)
	}
	stored, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	fields[3] = fmt.Sprint(stored - by.Milliseconds())
	p.do(t, "HSET", hash, vault.Ticket, strings.Join(fields, " "))
}

// answering starts a callback that opens what is pushed, and answers as f says.
func (p *platformPatient) answering(t *testing.T, f func(w http.ResponseWriter, opened error, text string)) string {
	t.Helper()
	open, err := wechat.NewEnvelope(secret.New(callbackToken), p.id, secret.New(aesKey))
	if err != nil {
		t.Fatal(err)
	}
	echo, err := wechat.NewEnvelope(secret.New(callbackToken), provider, secret.New(aesKey))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/callback/"+p.id {
			http.NotFound(w, r)
			return
		}
		if r.Method == http.MethodGet {
			text, err := echo.Echo(r.URL.Query())
			f(w, err, string(text))
			return
		}
		body, _ := io.ReadAll(r.Body)
		opened, err := open.Open(r.URL.Query(), body)
		if push, bad := wechat.ParsePush(opened.Message); err == nil && (bad != nil || push.Platform != p.id || opened.Sender != p.id) {
			err = wechat.ErrReceiver
		}
		f(w, err, "success")
	}))
	t.Cleanup(s.Close)
	return s.URL + "/callback/{platform}"
}

// well answers as a sidecar does.
func well(w http.ResponseWriter, opened error, text string) {
	if opened != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, _ = io.WriteString(w, text)
}

func TestDoctorFindsNothingWrongWithAHealthyPlatform(t *testing.T) {
	t.Parallel()
	p := newPlatformPatient(t, "open_platform")
	p.authorized(t, "wxshop1")
	before := p.sim.Calls(p.id).Issued
	port := "WeChat pushes to the ports 80 (http) and 443 (https) only" // a test has another one
	p.until(t, func(findings []doctor.Finding, text string, code int) (objections []string) {
		for _, f := range findings {
			if f.State != doctor.OK && !strings.Contains(f.Text, port) {
				objections = append(objections, fmt.Sprintf("%+v", f))
			}
		}
		for _, part := range []string{"config: valid: 0 apps and 1 platform", "/aes has mode 0400", "/vault-key has mode", "redis permissions", "each of the 2 EncodingAESKeys opens",
			"shops vault: it opens", "shops ticket: the newest one was stored", "/callback/wxplatform takes a push, and answered right", "shops start push: WeChat accepts id, secret",
			"shops token: WeChat accepts it", "1 active, 0 refused and 0 withdrawn; WeChat lists as many", "shops account: WeChat accepts the token of wxshop1"} {
			if !strings.Contains(text, part) {
				objections = append(objections, fmt.Sprintf("no word about %q", part))
			}
		}
		return objections
	}, "--start-push", "--callback", p.answering(t, well))
	if n := p.sim.Calls(p.id).Issued; n != before {
		t.Errorf("the doctor fetched %d tokens of a platform that has one", n-before)
	}
}

func TestDoctorNamesTheFaultOfAPlatformAndTheFix(t *testing.T) {
	t.Parallel()
	const fail, warn, skipped = doctor.Fail, doctor.Warn, doctor.Skipped
	for name, c := range map[string]struct {
		kind  string
		args  []string // of Redis
		stage func(*testing.T, *platformPatient) (args []string)
		want  want
	}{
		"no token": {"", nil, nil, want{"platform shops token", skipped, "Redis has none", ""}},
		"no ticket": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.do(t, "DEL", "wxtoken:{wxplatform}:vault")
			return nil
		},
			want{"platform shops ticket", warn, "there is none yet", "--callback"}},
		"an address that is not registered": {"", nil, func(_ *testing.T, p *platformPatient) []string {
			p.sim.SetWhitelist(p.id, "198.51.100.1")
			return []string{"--fetch"}
		}, want{"platform shops token", fail, "no calls from this host's egress address, 127.0.0.1", "put 127.0.0.1 on the platform's IP whitelist"}},
		"a wrong secret": {"", nil, func(_ *testing.T, p *platformPatient) []string {
			p.sim.SetSecret(p.id, "another")
			return []string{"--start-push"}
		}, want{"platform shops start push", fail, "errcode 40125", ""}},
		"a token that another program replaced": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.authorized(t, "wxshop1")
			p.do(t, "SET", "wxtoken:{wxplatform}:component_access_token", "CANARY-old")
			return nil
		}, want{"platform shops token", fail, "WeChat rejects the token in Redis", "second environment"}},
		"an account that the vault lacks": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.authorized(t, "wxshop1")
			p.sim.Authorize(p.id, "wxshop2")
			return nil
		}, want{"platform shops accounts", warn, "1 active, 0 refused and 0 withdrawn; WeChat lists 2", "compare the two once a day"}},
		"another vault key": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.rewrite(t, "vault-key", vaulttest.OtherKey, 0o400)
			return nil
		}, want{"platform shops vault", fail, "no key opens the record", "put the key back"}},
		"a Redis that forgets": {"", []string{"--appendonly", "no", "--save", "3600 1"}, nil, want{"platform shops vault", warn, "no append-only file", "WeChat's list has filled the vault again"}},
		"a suite on it":        {"wecom_suite", []string{"--appendonly", "no", "--save", "3600 1"}, nil, want{"platform shops vault", fail, "no append-only file", "a permanent code only once"}},
		"a key file that others may change": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.rewrite(t, "vault-key", vaulttest.Key, 0o620)
			return nil
		}, want{"secret file", warn, "/vault-key has mode 0620", "chmod go-w"}},
		"a vault in a database": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.env["WECHAT_API_BASE"] = p.client.BaseURL
			p.write(t, ", url_file: "+p.file(t, "url", "postgres://user:CANARY@127.0.0.1:1/db\n", 0o400))
			return nil
		}, want{"vault", fail, "-tags sql", "vault.url_file"}},
		"a suite on one that may": {"wecom_suite", []string{"--appendonly", "no", "--save", "3600 1"}, func(t *testing.T, p *platformPatient) []string {
			p.env["WECHAT_API_BASE"] = p.client.BaseURL
			p.write(t, ", volatile: true")
			return nil
		}, want{"platform shops vault", warn, "no append-only file", ""}},
		"another key for the time of the last comparison": {"", nil, func(t *testing.T, p *platformPatient) []string {
			other := vault.New(vault.NewRedis(p.admin(t), "wxtoken"), vaulttest.Keys(t, vaulttest.OtherKey))
			if _, err := other.Save(t.Context(), vault.Record{Platform: p.id, ID: vault.Marker, State: vault.StateActive, Secret: secret.New("x")}); err != nil {
				t.Fatal(err)
			}
			return nil
		}, want{"platform shops vault", fail, "no key opens the record", "put the key back"}},
		"an old ticket": {"", nil, func(t *testing.T, p *platformPatient) []string { p.ages(t, 31*time.Minute); return nil },
			want{"platform shops ticket", warn, "stored 31m", "--callback"}},
		"a dead ticket": {"", nil, func(t *testing.T, p *platformPatient) []string { p.ages(t, 13*time.Hour); return nil },
			want{"platform shops ticket", fail, "can be used for 12h0m0s", "--callback"}},
		"a suite's old ticket": {"wecom_suite", nil, func(t *testing.T, p *platformPatient) []string { p.ages(t, 16*time.Minute); return nil },
			want{"platform shops ticket", warn, "stored 16m", "--callback"}},
		"a suite's dead ticket": {"wecom_suite", nil, func(t *testing.T, p *platformPatient) []string { p.ages(t, time.Hour); return nil },
			want{"platform shops ticket", fail, "can be used for 30m0s", "--callback"}},
		"a suite that fetches": {"wecom_suite", nil, func(*testing.T, *platformPatient) []string { return []string{"--fetch"} },
			want{"platform shops token", doctor.OK, "WeCom accepts id, secret, ticket and address", ""}},
		"a suite's address": {"wecom_suite", nil, func(_ *testing.T, p *platformPatient) []string {
			p.sim.SetWhitelist(p.id, "198.51.100.1")
			return []string{"--fetch"}
		}, want{"platform shops token", fail, "no calls from this host's egress address, 127.0.0.1", "trusted addresses"}},
		"an account whose token is dead": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.authorized(t, "wxshop1")
			p.sim.KillTokens(p.id + ":wxshop1")
			return nil
		}, want{"platform shops account", fail, "errcode 40001", ""}},
		"something else in the vault": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.do(t, "HSET", "wxtoken:{wxplatform}:vault", vault.Ticket, "CANARY")
			return nil
		}, want{"platform shops vault", fail, "was not written by wxtoken", "docs/platforms.md"}},
		"no start push": {"wecom_suite", nil, func(*testing.T, *platformPatient) []string { return []string{"--start-push"} },
			want{"platform shops start push", skipped, "WeCom has no such call", ""}},
		"no right to the vault": {"", nil, func(t *testing.T, p *platformPatient) []string {
			p.do(t, "ACL", "SETUSER", "default", "-zadd")
			return nil
		}, want{"redis permissions", fail, "user default may not use zadd", "ACL SETUSER default +zadd"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := c.kind
			if kind == "" {
				kind = "open_platform"
			}
			p := newPlatformPatient(t, kind, c.args...)
			var args []string
			if c.stage != nil {
				args = c.stage(t, p)
			}
			p.check(t, c.want, args...)
		})
	}
}

func TestDoctorTriesTheCallbackFromOutside(t *testing.T) {
	t.Parallel()
	p, suite := newPlatformPatient(t, "open_platform"), newPlatformPatient(t, "wecom_suite")
	elsewhere := func(status int) func(http.ResponseWriter, error, string) {
		return func(w http.ResponseWriter, _ error, _ string) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
		}
	}
	repeats := func(what string) func(http.ResponseWriter, error, string) {
		return func(w http.ResponseWriter, _ error, _ string) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "the key is "+what)
		}
	}
	quoted := func(w http.ResponseWriter, _ error, text string) { fmt.Fprintf(w, "%q\n", text) }
	for name, c := range map[string]struct {
		p    *platformPatient
		at   string
		want want
	}{
		"well":             {p, p.answering(t, well), want{"platform shops callback", doctor.OK, "takes a push", ""}},
		"a suite's":        {suite, suite.answering(t, well), want{"platform shops echo", doctor.OK, "answered right", ""}},
		"a suite's, wrong": {suite, suite.answering(t, quoted), want{"platform shops echo", doctor.Fail, "WeChat wants the decrypted echostr to the byte", "as it is"}},
		"quotes":           {p, p.answering(t, quoted), want{"platform shops callback", doctor.Fail, `answers "\"success\"`, "no quotes, no newline"}},
		"another key": {p, p.answering(t, func(w http.ResponseWriter, _ error, _ string) { well(w, wechat.ErrDecrypt, "") }),
			want{"platform shops callback", doctor.Fail, "refuses the push (403)", "compare token_file and aes_key_file"}},
		"a redirect":      {p, p.answering(t, elsewhere(302)), want{"platform shops callback", doctor.Fail, "a redirect (302), which WeChat does not follow", "enter the address"}},
		"repeats a key":   {p, p.answering(t, repeats(olderKey)), want{"platform shops callback", doctor.Fail, "answers 500", "what is on the way"}},
		"repeats a token": {p, p.answering(t, repeats(callbackToken)), want{"platform shops callback", doctor.Fail, "answers 500", "what is on the way"}},
		"says too much": {p, p.answering(t, func(w http.ResponseWriter, _ error, _ string) {
			_, _ = io.WriteString(w, strings.Repeat("<html>", 10<<10))
		}),
			want{"platform shops callback", doctor.Fail, "<html><html>", "as it is"}},
		"no vault": {p, p.answering(t, elsewhere(503)), want{"platform shops callback", doctor.Fail, "cannot store what is pushed", "the vault"}},
		"no path":  {p, strings.Replace(p.answering(t, well), "/callback/", "/other/", 1), want{"platform shops callback", doctor.Fail, "knows no such path (404)", ""}},
		"nothing":  {p, "http://127.0.0.1:1/x?secret=CANARY", want{"platform shops callback", doctor.Fail, "cannot be reached from here", "load balancer"}},
		"no URL":   {p, "api.example.com", want{"platform shops callback", doctor.Fail, "is no URL", "as it is in the console"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.p.checkAmong(t, c.want, "--callback", c.at)
		})
	}
}
