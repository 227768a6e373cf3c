package doctor_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
)

const permissions = "redis permissions"

// documentedACL returns the rules that docs/redis.md has for a user, one for each line.
func documentedACL(t *testing.T, user string) (lines [][]any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "redis.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^user `+user+` (.*)$`).FindAllStringSubmatch(string(text), -1) {
		var rules []any
		for _, r := range strings.Fields(line[1]) {
			rules = append(rules, r)
		}
		lines = append(lines, rules)
	}
	if len(lines) == 0 {
		t.Fatalf("docs/redis.md has no ACL of %s", user)
	}
	return lines
}

// leastACL returns what docs/redis.md says that the sidecar's user needs.
func leastACL(t *testing.T) []any { return documentedACL(t, "wxtoken")[0] }

// leastUser gives the patient the user of docs/redis.md.
func (p *patient) leastUser(t *testing.T) {
	t.Helper()
	p.rule(t, leastACL(t)...)
	p.env["REDIS_URL"] = "redis://wxtoken:sidecar-password@" + p.redis
}

// rule changes that user.
func (p *patient) rule(t *testing.T, rules ...any) {
	t.Helper()
	p.do(t, append([]any{"ACL", "SETUSER", "wxtoken"}, rules...)...)
}

// takes reports whether the patient's Redis knows a rule.
func (p *patient) takes(t *testing.T, rules ...any) bool {
	return p.admin(t).Do(t.Context(), append([]any{"ACL", "SETUSER", "trial"}, rules...)...).Err() == nil
}

// permitted wants exactly these findings about permissions; an empty text is any.
func (p *patient) permitted(t *testing.T, what string, wants ...doctor.Finding) {
	t.Helper()
	p.until(t, func(findings []doctor.Finding, _ string, _ int) (objections []string) {
		found := slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool { return f.Check != permissions })
		same := slices.EqualFunc(found, wants, func(f, w doctor.Finding) bool {
			return f.State == w.State && strings.Contains(f.Text, w.Text) && strings.Contains(f.Fix, w.Fix)
		})
		if !same {
			objections = append(objections, fmt.Sprintf("%s: %+v, want %+v", what, found, wants))
		}
		return objections
	})
}

func allowed(text string) doctor.Finding { return doctor.Finding{State: doctor.OK, Text: text} }

func TestTheLeastACLIsEnoughAndEachPartOfItIsMissed(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.leastUser(t)
	p.permitted(t, "with the ACL of docs/redis.md", allowed("user wxtoken may do all that the sidecar does"))
	tried := 0
	for _, rule := range leastACL(t) {
		name, ok := strings.CutPrefix(rule.(string), "+")
		if !ok || !p.takes(t, "-"+name) { // 6.2 cannot take a subcommand away
			continue
		}
		tried++
		p.rule(t, "-"+name)
		p.do(t, "SCRIPT", "FLUSH") // else EVAL is not needed
		switch name {
		case "xrevrange", "pubsub|numsub": // for /status only, which can do without
			p.permitted(t, "without "+name+", which no refresh needs", allowed(""))
		case "publish", "subscribe", "unsubscribe", "ping":
			p.permitted(t, "without "+name, doctor.Finding{State: doctor.Warn,
				Text: "user wxtoken may not use " + name + ": the sidecar works, but what one replica does, the others notice some seconds later", Fix: "ACL SETUSER wxtoken +" + name})
		case "xadd":
			p.permitted(t, "without "+name, doctor.Finding{State: doctor.Warn,
				Text: "user wxtoken may not use xadd: the sidecar works, but there is no journal", Fix: "ACL SETUSER wxtoken +xadd"})
		case "xlen", "copy":
			p.permitted(t, "without "+name, doctor.Finding{State: doctor.Warn,
				Text: "user wxtoken may not use " + name + ": the sidecar works, but each journal takes up to 4 KiB more of Redis", Fix: "ACL SETUSER wxtoken +" + name})
		default:
			p.permitted(t, "without "+name, doctor.Finding{State: doctor.Fail, Text: "user wxtoken may not use " + name, Fix: "ACL SETUSER wxtoken +" + name})
		}
		p.rule(t, "+"+name)
	}
	if tried < 15 {
		t.Errorf("only %d commands were tried", tried)
	}
	keys, err := p.admin(t).Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys { // without DEL or PEXPIRE something may stay for a while
		if !strings.HasPrefix(k, "wxtoken:{wx1}:doctor-") && !strings.HasPrefix(k, "wxtoken:{wx1}:rehearsal-") {
			t.Errorf("it left %s", k)
		}
	}
}

// The ACL of docs/redis.md is the list of what the cache runs.
func TestTheDocumentsListTheCommandsOfTheCache(t *testing.T) {
	var got []string
	for _, rule := range leastACL(t) {
		if name, ok := strings.CutPrefix(rule.(string), "+"); ok {
			got = append(got, name)
		}
	}
	want := append(slices.Clone(acl.Commands[:]), acl.StatusCommands[:]...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/redis.md has %q, want %q", got, want)
	}
	for _, page := range []string{"docs/redis.md", "docs/redis.zh-CN.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", page))
		if err != nil {
			t.Fatal(err)
		}
		if more := "`+" + strings.Join(acl.ClusterCommands[:], " +") + "`"; !strings.Contains(string(text), more) {
			t.Errorf("%s does not say that a Cluster takes %s", page, more)
		}
	}
}

// The form for Redis 6.2 works on every server, the other one on those that know it.
func TestTheDocumentedACLOfAReaderPermitsReadingOnly(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	key, tried := "wxtoken:{wx00000000000000f1}:access_token", 0
	p.do(t, "SET", key, "v")
	for _, rules := range documentedACL(t, "app") {
		if !p.takes(t, rules...) && slices.ContainsFunc(rules, func(r any) bool { return strings.HasPrefix(r.(string), "%R~") }) {
			continue
		}
		tried++
		p.do(t, append([]any{"ACL", "SETUSER", "app", "reset"}, rules...)...)
		app := redis.NewClient(&redis.Options{Addr: p.redis, Username: "app", Password: "app-password", DisableIdentity: true})
		if v, err := app.Get(t.Context(), key).Result(); v != "v" {
			t.Errorf("%v: %v", rules, err)
		}
		for what, err := range map[string]error{
			"write the value": app.Set(t.Context(), key, "x", 0).Err(), "read another value": app.Get(t.Context(), "wxtoken:{other}:access_token").Err(),
			"read the lock": app.Get(t.Context(), key+":lock").Err(),
		} {
			if err == nil || !strings.Contains(err.Error(), "NOPERM") {
				t.Errorf("%v permit to %s: %v", rules, what, err)
			}
		}
		_ = app.Close()
	}
	if tried == 0 {
		t.Error("no form works on this server")
	}
}

// On a Redis Cluster the client needs more, and without it nothing works at all.
func TestTheLeastACLOfAClusterIsEnoughAndEachPartOfItIsMissed(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	c := rig.StartRedisCluster(t)
	user := func(rules ...any) {
		for _, n := range append(c.Rest, c.Owner, c.Replica) {
			if err := n.Client().(*redis.Client).Do(t.Context(), append([]any{"ACL", "SETUSER", "wxtoken"}, rules...)...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	user(leastACL(t)...)
	for _, name := range acl.ClusterCommands {
		user("+" + name)
	}
	p.env["REDIS_URL"] = fmt.Sprintf("redis://wxtoken:sidecar-password@%s?addr=%s&addr=%s", c.Rest[0].Addr, c.Rest[1].Addr, c.Owner.Addr)
	p.permitted(t, "with the ACL of docs/redis.md", allowed("user wxtoken may do all"))
	for _, name := range acl.ClusterCommands {
		if !p.takes(t, "-"+name) {
			continue
		}
		user("-" + name)
		p.checkAmong(t, want{map[bool]string{true: permissions, false: "redis login"}[name == "command"], doctor.Fail, name, "+" + name})
		user("+" + name)
	}
}

func TestMissingKeysAndChannelsAreNamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rules []any
		want  doctor.Finding
	}{
		{[]any{"resetchannels"}, doctor.Finding{State: doctor.Warn,
			Text: "user wxtoken may not use the channel wxtoken:events: the sidecar works", Fix: "ACL SETUSER wxtoken &wxtoken:events"}},
		{[]any{"resetkeys", "~other:*"}, doctor.Finding{State: doctor.Fail,
			Text: "user wxtoken may not read and write the keys of app wx1, such as wxtoken:{wx1}:access_token", Fix: "ACL SETUSER wxtoken ~wxtoken:*"}},
		{[]any{"resetkeys", "%R~wxtoken:*"}, doctor.Finding{State: doctor.Fail,
			Text: "user wxtoken may not read and write the keys of app wx1, such as wxtoken:{wx1}:access_token", Fix: "ACL SETUSER wxtoken ~wxtoken:*"}},
	} {
		p := newPatient(t)
		p.leastUser(t)
		if p.takes(t, test.rules...) {
			p.rule(t, test.rules...)
			p.permitted(t, fmt.Sprint(test.rules), test.want)
		}
	}
}

// An ACL that names each key, and nothing else, is enough: no other key is needed.
func TestAnACLOfTheExactKeysIsEnough(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.leastUser(t)
	rules := []any{"resetkeys"}
	const key = "wxtoken:{wx1}:access_token"
	for _, name := range []string{key, key + ":meta", key + ":lock", key + ":backoff", "wxtoken:{wx1}:journal"} {
		rules = append(rules, "~"+name)
	}
	p.rule(t, rules...)
	p.check(t, want{permissions, doctor.OK, "may do all that the sidecar does", ""})
	p.check(t, want{"redis writes", doctor.Skipped, "permits no key but the sidecar's own", ""})
	p.rule(t, "-hset")
	p.permitted(t, "without hset", doctor.Finding{State: doctor.Fail, Text: "may not use hset", Fix: "+hset"})
	if keys := p.admin(t).Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("it left %q", keys)
	}
}

// What a proxy refuses matters only if the sidecar cannot work without it.
func TestDoctorJudgesAProxyByWhatTheSidecarNeeds(t *testing.T) {
	t.Parallel()
	const refused = "rename-command"
	for name, test := range map[string]want{
		"SUBSCRIBE": {permissions, doctor.Warn, "has no command subscribe (rename-command?): the sidecar works", refused},
		"PING":      {permissions, doctor.OK, "may do all that the sidecar does", ""},
		"EVALSHA":   {permissions, doctor.Fail, "no command evalsha (rename-command?), which every refresh needs", refused},
		"EVAL":      {permissions, doctor.Fail, "no command eval (rename-command?), which every refresh needs", refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.proxied(t, func(c *server.Peer, cmd string) bool {
				if !strings.EqualFold(cmd, name) {
					return false
				}
				c.WriteError("ERR unknown command '" + cmd + "'")
				return true
			})
			p.check(t, test)
		})
	}
	t.Run("HELLO", func(t *testing.T) {
		t.Parallel()
		p := newPatient(t)
		p.proxied(t, func(c *server.Peer, cmd string) bool {
			if !strings.EqualFold(cmd, "HELLO") {
				return false
			}
			c.Close()
			return true
		})
		p.check(t, want{"redis login", doctor.Fail, "answers commands, but not HELLO", "add the option protocol=2"})
		p.env["REDIS_URL"] += "?protocol=2"
		p.check(t, want{permissions, doctor.OK, "may do all that the sidecar does", ""})
	})
}

// proxied puts a Redis in the patient's way that does with some commands as hook does.
func (p *patient) proxied(t *testing.T, hook func(c *server.Peer, cmd string) bool) {
	m := miniredis.RunT(t)
	m.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool { return hook(c, cmd) })
	p.env["REDIS_URL"] = "redis://" + m.Addr()
}

// What every refresh needs fails where it is renamed, wherever it is used.
func TestDoctorMissesARenamedCommandThatIsNeeded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"EVALSHA", "TIME", "PTTL"} {
		p := newPatient(t, "--rename-command", name, "HIDDEN")
		p.checkAmong(t, want{permissions, doctor.Fail, "no command " + strings.ToLower(name), "rename-command"})
	}
}

// The Sentinel's user and Redis' own are two: the doctor says which one lacks a right.
func TestDoctorSaysThatASentinelRefusesAQuestion(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	own := p.sentinel(t, "user default on nopass ~* &* +@all\nuser asks on >CANARY-asks ~* &* -@all +ping +hello +auth")
	p.env["REDIS_URL"] = "redis://asks:CANARY-asks@127.0.0.1:" + own + "?master_name=mine&password=CANARY%2Bredis%2Fpassword"
	p.check(t, want{"redis login", doctor.Fail, "the Sentinel 127.0.0.1:" + own + " lets the client in, but does not say", "+sentinel|get-master-addr-by-name"})
	admin := redis.NewSentinelClient(&redis.Options{Addr: "127.0.0.1:" + own})
	defer admin.Close()
	rules := []any{"ACL", "SETUSER", "asks", "+sentinel|get-master-addr-by-name", "+sentinel|sentinels", "+subscribe"}
	if err := admin.Process(context.WithoutCancel(t.Context()), redis.NewStatusCmd(t.Context(), rules...)); err != nil {
		t.Fatal(err)
	}
	p.check(t, want{"redis server", doctor.OK, "standalone master", ""})
}

// One side of a URL with Sentinels may have no TLS, or a certificate for another name.
func TestDoctorSaysWhichSideOfSentinelsHasNoTLS(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	own := p.sentinel(t, "")
	base := "127.0.0.1:" + own + "?master_name=mine&password=CANARY%2Bredis%2Fpassword"
	p.env["REDIS_URL"] = "rediss://" + base
	p.check(t, want{"redis TLS", doctor.Fail, "127.0.0.1:" + own + " does not answer the TLS handshake", "add the option tls_only=servers"})
	p.env["REDIS_URL"] += "&tls_only=servers"
	p.check(t, want{"redis TLS", doctor.Fail, p.redis + " does not answer the TLS handshake", "write redis:// for rediss://"})
}

// A certificate for a name that is neither dialled nor in the URL.
func TestDoctorNamesTheCertificateOfAnAnnouncedAddress(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.redis = p.secure(t, "redis.example")
	own := p.sentinel(t, "")
	p.env["REDIS_URL"] = "rediss://127.0.0.1:" + own + "?master_name=mine&tls_only=servers&tls_ca_file=" + url.QueryEscape(p.ca)
	p.check(t, want{"redis TLS", doctor.Fail, "the certificate of " + p.redis + " is for other names: redis.example", "name one of these"})
	p.env["REDIS_URL"] += "&addr=redis.example:1"
	p.checkAmong(t, want{permissions, doctor.OK, "may do all that the sidecar does", ""})
}

func TestDoctorNamesTheProduct(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hello []string
		info  string
		want  want
	}{
		{[]string{"server", "valkey", "version", "8.1.1"}, "", want{"redis server", doctor.OK, "is Valkey 8.1.1", ""}},
		{[]string{"server", "redis", "version", "7.2.4"}, "redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n", want{"redis server", doctor.OK, "is Valkey 8.0.1", ""}},
		{[]string{"server", "redict", "version", "7.3.6"}, "", want{"redis server", doctor.OK, "is Redict 7.3.6", ""}},
		{[]string{"server", "redis", "version", "6.3.4"}, "redis_version:6.3.4\r\n# KeyDB\r\nmvcc_depth:0\r\n", want{"redis server", doctor.OK, "is KeyDB 6.3.4", ""}},
		{[]string{"server", "redis", "version", "6.3.4", "role", "active-replica"}, "", want{"redis server", doctor.Warn, "KeyDB with active replication", "set active-replica no"}},
		{[]string{"server", "redis", "version", "6.3.4"}, "role:active-replica\r\n", want{"redis server", doctor.Warn, "KeyDB with active replication", "set active-replica no"}},
	} {
		p := newPatient(t)
		fake := miniredis.RunT(t)
		fake.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
			switch cmd = strings.ToUpper(cmd); {
			case cmd == "HELLO" && len(args) == 0:
				c.WriteStrings(append(test.hello, "mode", "standalone"))
			case cmd == "INFO":
				c.WriteBulk(test.info)
			default:
				return false
			}
			return true
		})
		p.env["REDIS_URL"] = "redis://" + fake.Addr()
		p.check(t, test.want)
	}
}
