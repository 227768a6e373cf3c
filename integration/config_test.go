package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/integration/rig"
)

// acl returns the line of docs/redis.md that says what Redis must allow the sidecar, so that the
// test runs with exactly that.
func acl(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "user wxtoken on ") {
			return line
		}
	}
	t.Fatal("docs/redis.md has no ACL for the sidecar")
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

func TestTheLeastACLIsEnoughForTheSidecar(t *testing.T) {
	t.Parallel()
	users := filepath.Join(t.TempDir(), "users.acl")
	write(t, users, "user default off\nuser admin on >admin-password ~* &* +@all\n"+acl(t))
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
}
