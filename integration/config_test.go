package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// acl returns the line of docs/redis.md that says what Redis must allow a user, so that the test
// runs with exactly that.
func acl(t *testing.T, user string) string {
	t.Helper()
	readme, err := os.ReadFile("../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(readme)) {
		if strings.HasPrefix(line, "user "+user+" on ") && !(strings.Contains(line, "%R~") && tokencachetest.IsRedis6(t)) {
			return line
		}
	}
	t.Fatalf("docs/redis.md has no ACL for %s", user)
	return ""
}

// I5: a wrong secret costs what the backoff allows, and the right one heals it without a restart.
func TestAWrongSecretIsTriedRarelyAndTheRightOneHealsWithoutARestart(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "not-"+appSecret)
	c := newCluster(t, server, "WECHAT_SECRET=", "WECHAT_SECRET_FILE="+secret)
	all := c.Add(4)
	for range 20 {
		for _, p := range all {
			err := c.insist(func() error {
				if _, err := p.Token(); err == nil || !strings.Contains(err.Error(), "40125") {
					return fmt.Errorf("got %w, want 40125", err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	c.want("fetches with the wrong secret", c.Upstream.Calls(appID).Fetches()+c.Upstream.Calls("").Fetches(), 1)
	write(t, secret, appSecret+"\n")
	eventually(t, "every sidecar has a token", func() bool {
		for _, p := range all {
			if _, err := p.Token(); err != nil {
				return false
			}
		}
		return true
	})
	eventually(t, "each process has read its configuration again", func() bool {
		return c.Metric("wxtoken_config_reloads_total", `result="ok"`) >= 4
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheLeastACLIsEnoughForTheSidecarAndForDirectReaders(t *testing.T) {
	t.Parallel()
	users := filepath.Join(t.TempDir(), "users.acl")
	write(t, users, "user default off\nuser admin on >admin-password ~* &* +@all\n"+acl(t, "wxtoken")+acl(t, "app"))
	server := rig.StartRedis(t, "--aclfile", users)
	c := newCluster(t, rig.At(t, "redis://wxtoken:sidecar-password@"+server.Addr))
	denied := func() any {
		return rig.At(t, "redis://admin:admin-password@"+server.Addr).Client().Do(t.Context(), "ACL", "LOG").Val()
	}
	all := c.Add(2)
	first := c.everywhere(all, 2, (*rig.Sidecar).Token)
	c.Upstream.KillTokens(appID)
	c.wantAllWork(c.everywhere(all, 2, func(p *rig.Sidecar) (rig.Answer, error) { return p.Report(first[0].AccessToken) }))
	c.wantFetches(2)
	if got, ok := denied().([]any); !ok || len(got) > 0 {
		t.Errorf("with the ACL of docs/redis.md, Redis denied %v", got)
	}

	app := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "app", Password: "app-password", DisableIdentity: true})
	defer app.Close()
	if v, err := app.Get(t.Context(), valueKey).Result(); err != nil || !c.Upstream.Works(v) {
		t.Errorf("a direct reader got %v", err)
	}
	for name, err := range map[string]error{
		"write the value": app.Set(t.Context(), valueKey, "x", 0).Err(),
		"read the lock":   app.Get(t.Context(), valueKey+":lock").Err(),
	} {
		if err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("a direct reader could %s: %v", name, err)
		}
	}
}

func TestAWrongConfigurationIsExplainedAndNothingStarts(t *testing.T) {
	for _, test := range []struct {
		env  []string
		want string
	}{
		{nil, "WECHAT_APPID"},
		{[]string{"WECHAT_APPID=" + appID, "REDIS_URL=redis://127.0.0.1:1"}, "WECHAT_SECRET"},
		{[]string{"WECHAT_APPID=" + appID, "WECHAT_SECRET=" + appSecret}, "REDIS_URL"},
		{[]string{"WECHAT_APPID=" + appID, "WECHAT_SECRET=" + appSecret, "REDIS_URL=redis://127.0.0.1:1", "WXTOKEN_LISTEN=0.0.0.0:7200"}, "allow_remote"},
	} {
		out, code := rig.Tell(t, test.env)
		if code != 2 || !strings.Contains(out, test.want) {
			t.Errorf("with %d settings: exit status %d and\n%s\nwant 2 and a word about %s", len(test.env), code, out, test.want)
		}
		if strings.Contains(out, appSecret) {
			t.Error("the message holds the secret")
		}
	}
}
