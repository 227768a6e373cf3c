package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// leastACL returns what docs/redis.md says that the sidecar's user needs.
func leastACL(t *testing.T) []any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "redis.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^user wxtoken (.*)$`).FindStringSubmatch(string(text))
	if line == nil {
		t.Fatal("docs/redis.md has no ACL")
	}
	rules := []any{"ACL", "SETUSER", "wxtoken"}
	for _, r := range strings.Fields(line[1]) {
		rules = append(rules, r)
	}
	return rules
}

// aclRig is a Redis with the user of docs/redis.md, and an admin that may change it.
type aclRig struct {
	admin *redis.Client
	e     *examination
	found []Finding
}

func newACLRig(t *testing.T) *aclRig {
	addr := tokencachetest.RedisServer(t)
	open := func(user, password string) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: password, DisableIdentity: true, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	r := &aclRig{admin: open("", "")}
	r.set(t, leastACL(t)...)
	app := config.App{ID: "wx1", Secret: secret.New("s")}
	r.e = &examination{
		rdb: open("wxtoken", "sidecar-password"), username: "wxtoken",
		cfg:    &config.Config{Namespace: "wxtoken", Apps: []config.App{app, {ID: "ww1", Agent: "2"}}},
		report: func(f Finding) { r.found = append(r.found, f) },
	}
	return r
}

func (r *aclRig) set(t *testing.T, command ...any) {
	t.Helper()
	if err := r.admin.Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
	}
}

// permissions returns what is found.
func (r *aclRig) permissions(t *testing.T) []Finding {
	r.found = nil
	r.e.permissions(t.Context())
	return r.found
}

func TestTheLeastACLIsEnoughAndEachPartOfItIsMissed(t *testing.T) {
	t.Parallel()
	r := newACLRig(t)
	if got := r.permissions(t); len(got) != 1 || got[0].State != OK {
		t.Fatalf("with the ACL of the README: %+v", got)
	}
	tried := 0
	for _, rule := range leastACL(t) {
		name, ok := strings.CutPrefix(rule.(string), "+")
		if !ok {
			continue
		}
		tried++
		r.set(t, "ACL", "SETUSER", "wxtoken", "-"+name)
		got := r.permissions(t)
		r.set(t, "ACL", "SETUSER", "wxtoken", "+"+name)
		if name == "xrevrange" || name == "pubsub|numsub" { // for /status only, which can do without
			if len(got) != 1 || got[0].State != OK {
				t.Errorf("without %s, which no refresh needs: %+v", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].State != Fail || !strings.Contains(got[0].Text, name) || !strings.HasPrefix(got[0].Fix, "ACL SETUSER wxtoken +") || !strings.Contains(got[0].Fix, "+"+name) {
			t.Errorf("without %s: %+v", name, got)
		}
		if name == "eval" || name == "ping" { // the one takes the means to look, the other is asked at the login, too
			continue
		}
		if want := "user wxtoken may not use " + name; len(got) == 1 && got[0].Text != want {
			t.Errorf("without %s: %q", name, got[0].Text)
		}
	}
	if tried < 15 {
		t.Errorf("only %d commands were tried", tried)
	}
}

// The ACL of the README is the list of what the cache runs.
func TestTheREADMEListsTheCommandsOfTheCache(t *testing.T) {
	var got []string
	for _, rule := range leastACL(t) {
		if name, ok := strings.CutPrefix(rule.(string), "+"); ok {
			got = append(got, name)
		}
	}
	want := append(slices.Clone(tokencache.RedisCommands[:]), tokencache.RedisStatusCommands[:]...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/redis.md has %q, want %q", got, want)
	}
	for _, readme := range []string{"docs/redis.md", "docs/redis.zh-CN.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", readme))
		if err != nil {
			t.Fatal(err)
		}
		if more := "`+" + strings.Join(tokencache.RedisClusterCommands[:], " +") + "`"; !strings.Contains(string(text), more) {
			t.Errorf("%s does not say that a Cluster takes %s", readme, more)
		}
	}
}

// On a Redis Cluster the client needs more, and without it nothing works at all.
func TestTheLeastACLOfAClusterIsEnoughAndEachPartOfItIsMissed(t *testing.T) {
	t.Parallel()
	c := rig.StartRedisCluster(t)
	user := func(rules ...any) {
		for _, n := range append(c.Rest, c.Owner, c.Replica) {
			if err := n.Client().(*redis.Client).Do(t.Context(), append([]any{"ACL", "SETUSER", "wxtoken"}, rules...)...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	user(leastACL(t)[3:]...)
	for _, name := range tokencache.RedisClusterCommands {
		user("+" + name)
	}
	examine := func() (found []Finding) {
		rdb := redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: []string{c.Rest[0].Addr, c.Rest[1].Addr, c.Owner.Addr}, Username: "wxtoken", Password: "sidecar-password",
			DisableIdentity: true, ContextTimeoutEnabled: true,
		})
		defer rdb.Close()
		e := &examination{
			rdb: rdb, username: "wxtoken", report: func(f Finding) { found = append(found, f) },
			cfg: &config.Config{Namespace: "wxtoken", Redis: config.Redis{Form: config.RedisCluster}, Apps: []config.App{{ID: "wx1", Secret: secret.New("s")}}},
		}
		if e.login(t.Context(), rdb) {
			e.permissions(t.Context())
		}
		return found
	}
	if got := examine(); len(got) != 2 || got[1].State != OK {
		t.Fatalf("with the ACL of the README: %+v", got)
	}
	for _, name := range tokencache.RedisClusterCommands {
		user("-" + name)
		got := examine()
		user("+" + name)
		last := got[len(got)-1]
		if last.State != Fail || !strings.Contains(last.Text, name) || !strings.HasPrefix(last.Fix, "ACL SETUSER wxtoken +") || !strings.Contains(last.Fix, "+"+name) {
			t.Errorf("without %s: %+v", name, got)
		}
	}
}

func TestMissingKeysAndChannelsAreNamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rules []any
		want  Finding
	}{
		{[]any{"resetchannels"}, Finding{"redis permissions", Fail,
			"user wxtoken may not use the channel wxtoken:events, on which replicas tell each other of new tokens", "ACL SETUSER wxtoken &wxtoken:events"}},
		{[]any{"resetkeys", "~other:*"}, Finding{"redis permissions", Fail,
			"user wxtoken may not read and write the keys of app wx1, such as wxtoken:{wx1}:access_token", "ACL SETUSER wxtoken ~wxtoken:*"}},
		{[]any{"resetkeys", "~wxtoken:{wx1}:*"}, Finding{"redis permissions", Fail,
			"user wxtoken may not read and write the keys of app ww1:2, such as wxtoken:{ww1:2}:access_token", "ACL SETUSER wxtoken ~wxtoken:*"}},
		{[]any{"resetkeys", "%R~wxtoken:*"}, Finding{"redis permissions", Fail,
			"user wxtoken may not read and write the keys of app wx1, such as wxtoken:{wx1}:access_token", "ACL SETUSER wxtoken ~wxtoken:*"}},
	} {
		r := newACLRig(t)
		r.set(t, append([]any{"ACL", "SETUSER", "wxtoken"}, test.rules...)...)
		if got := r.permissions(t); len(got) != 1 || got[0] != test.want {
			t.Errorf("%v: %+v", test.rules, got)
		}
	}
}

// An ACL that names each key, and nothing else, is enough: no other key is needed.
func TestAnACLOfTheExactKeysIsEnough(t *testing.T) {
	t.Parallel()
	r := newACLRig(t)
	rules := []any{"ACL", "SETUSER", "wxtoken", "resetkeys"}
	for _, app := range r.e.cfg.Apps {
		for _, key := range r.e.keys(app, r.e.valueKey(app)) {
			rules = append(rules, "~"+key)
		}
	}
	r.set(t, rules...)
	if got := r.permissions(t); len(got) != 1 || got[0].State != OK {
		t.Errorf("%+v", got)
	}
	r.found = nil
	r.e.writes(t.Context())
	if len(r.found) != 1 || r.found[0].State != Skipped {
		t.Errorf("%+v", r.found)
	}
}

// Before Redis 7 permissions cannot be looked up in a script, so the commands are run, on other
// keys.
func TestWithoutLookingUpTheCommandsAreTriedOut(t *testing.T) {
	t.Parallel()
	r := newACLRig(t)
	app := r.e.cfg.Apps[0]
	try := func() []string {
		names, ok, err := r.e.ask(t.Context(), "do", r.e.keys(app, r.e.scratch(app)), "wxtoken:events")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return names
	}
	if got := try(); len(got) != 0 {
		t.Errorf("with the ACL of the README: %q", got)
	}
	for _, name := range []string{"set", "get", "getrange", "del", "pttl", "pexpire", "pexpireat", "hmget", "hset", "hdel", "xadd", "time", "publish"} {
		r.set(t, "ACL", "SETUSER", "wxtoken", "-"+name)
		if got := try(); !slices.Equal(got, []string{name}) {
			t.Errorf("without %s: %q", name, got)
		}
		r.set(t, "ACL", "SETUSER", "wxtoken", "+"+name)
	}
	if got := try(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	keys, err := r.admin.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		left, err := r.admin.PTTL(t.Context(), k).Result()
		if err != nil || !strings.HasPrefix(k, "wxtoken:{wx1}:doctor-") || left <= 0 && r.admin.Exists(t.Context(), k).Val() == 1 {
			t.Errorf("it left %s, for %v", k, left)
		}
	}
}

func TestOlder(t *testing.T) {
	for version, want := range map[string]bool{"6.0.16": true, "5.0.7": true, "6.2.0": false, "7.0.15": false, "10.1": false, "255.255.255": false, "unknown": false} {
		if got := older(version, 6, 2); got != want {
			t.Errorf("%s: %t", version, got)
		}
	}
}
