package doctor_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

func TestDoctorFindsNothingWrongWithAHealthyPatient(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.until(t, func(findings []doctor.Finding, text string, code int) (objections []string) {
		for _, f := range findings {
			if f.State != doctor.OK {
				objections = append(objections, fmt.Sprintf("%+v", f))
			}
		}
		if code != 0 {
			objections = append(objections, fmt.Sprintf("exit status %d", code))
		}
		for _, part := range []string{"config: valid: 1 app", "has mode 0400", "redis connection", "redis login", "standalone master", "redis permissions", "redis writes",
			"clock", "noeviction", "append-only", "wechat connection", "wechat answer", "app wx1: WeChat accepts id, secret and address; the token has 2h0m0s left"} {
			if !strings.Contains(text, part) {
				objections = append(objections, fmt.Sprintf("no word about %q", part))
			}
		}
		return objections
	})
	if calls := p.sim.Calls("wx1"); calls.StableForced+calls.Classic > 0 || len(p.sim.Issued("wx1")) != 1 {
		t.Errorf("two examinations cost %+v", calls)
	}
}

// Each fault is staged alone, so whatever else is found is false.
func TestDoctorNamesTheFaultOfRedisAndTheFix(t *testing.T) {
	t.Parallel()
	const named = "REDIS_URL"
	url := func(u string) func(*testing.T, *patient) {
		return func(_ *testing.T, p *patient) { p.env["REDIS_URL"] = strings.ReplaceAll(u, "ADDR", p.redis) }
	}
	set := func(commands ...[]any) func(*testing.T, *patient) {
		return func(t *testing.T, p *patient) {
			for _, c := range commands {
				p.do(t, c...)
			}
		}
	}
	const fail, warn = doctor.Fail, doctor.Warn
	for name, test := range map[string]struct {
		args  []string // of the server
		stage func(*testing.T, *patient)
		want  want
	}{
		"nothing listens": {nil, url("redis://127.0.0.1:1"), want{"redis connection", fail, "127.0.0.1:1 refuses connections", "start it, or correct host and port in " + named}},
		"no such name":    {nil, url("redis://redis.invalid:6379"), want{"redis name", fail, "redis.invalid", ""}},
		"no such socket":  {nil, url("unix:///nowhere/redis.sock"), want{"redis connection", fail, "/nowhere/redis.sock does not exist", "mount the directory of the socket"}},
		"no Redis": {nil, func(t *testing.T, p *patient) {
			p.env["REDIS_URL"] = strings.Replace(p.env["WECHAT_API_BASE"], "http", "redis", 1)
		}, want{"redis connection", fail, "answers, but is no Redis", "correct " + named}},

		"wrong password": {nil, url("redis://:CANARY-wrong@ADDR"), want{"redis login", fail, "refuses user default with this password", "correct both in " + named}},
		"wrong user":     {nil, url("redis://stranger:CANARY%2Bredis%2Fpassword@ADDR"), want{"redis login", fail, "refuses user stranger", "redis://user:password@host"}},
		"no password":    {nil, url("redis://ADDR"), want{"redis login", fail, "demands a password, and the URL has none", "put user and password into " + named}},
		"no database":    {nil, url("redis://:CANARY%2Bredis%2Fpassword@ADDR/99"), want{"redis login", fail, "no database of this number", "for example to /0"}},

		"a command is not permitted": {nil, set([]any{"ACL", "SETUSER", "default", "-hset", "-xadd"}),
			want{"redis permissions", fail, "user default may not use hset, xadd", "ACL SETUSER default +hset +xadd"}},
		"the channel is not permitted": {nil, set([]any{"ACL", "SETUSER", "default", "resetchannels"}),
			want{"redis permissions", warn, "may not use the channel wxtoken:events", "ACL SETUSER default &wxtoken:events"}},
		"the keys are not permitted": {nil, set([]any{"ACL", "SETUSER", "default", "resetkeys", "~cache:*"}),
			want{"redis permissions", fail, "may not read and write the keys of app wx1, such as wxtoken:{wx1}:access_token", "ACL SETUSER default ~wxtoken:*"}},

		"it evicts": {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, nil,
			want{"redis memory", fail, "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"}},
		"it evicts what has a TTL": {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"}, nil,
			want{"redis memory", warn, "all of them have a TTL", "CONFIG SET maxmemory-policy noeviction"}},
		"it would evict": {[]string{"--maxmemory-policy", "allkeys-lru"}, nil,
			want{"redis memory", warn, "harmless without maxmemory", "CONFIG SET maxmemory-policy noeviction"}},
		"it is nearly full": {[]string{"--maxmemory", "4mb"}, nil,
			want{"redis memory", warn, "when that is full Redis refuses writes", "raise maxmemory"}},
		"it stores nothing": {[]string{"--appendonly", "no"}, nil,
			want{"redis persistence", warn, "stores nothing on disk", "set appendonly yes"}},

		"it is a replica": {[]string{"--replicaof", "127.0.0.1", "1"}, nil, want{"redis server", fail, "is a read-only replica", "name the master in " + named}},

		"TLS without need": {nil, func(t *testing.T, p *patient) {
			p.env["REDIS_URL"] = strings.Replace(p.env["REDIS_URL"], "redis", "rediss", 1)
		}, want{"redis TLS", fail, "without TLS", "write redis:// for rediss://"}},
		"no TLS": {nil, func(t *testing.T, p *patient) { p.env["REDIS_URL"] = "redis://" + p.secure(t, "127.0.0.1") },
			want{"redis TLS", fail, "does not answer without TLS", "write rediss:// for redis://"}},
		"an unknown authority": {nil, func(t *testing.T, p *patient) { p.env["REDIS_URL"] = "rediss://" + p.secure(t, "127.0.0.1") },
			want{"redis TLS", fail, "an authority that this host does not know", "SSL_CERT_FILE"}},
		"another name": {nil, func(t *testing.T, p *patient) {
			p.env["REDIS_URL"] = "rediss://localhost:" + p.secure(t, "redis.example")[len("127.0.0.1:"):]
		}, want{"redis TLS", fail, "is for other names: redis.example", "a certificate for localhost"}},
		"a renamed command that can be missed": {[]string{"--rename-command", "XADD", "HIDDEN"}, nil,
			want{"redis permissions", warn, "no command xadd (rename-command?): the sidecar works", "rename-command"}},
		"a renamed command that every refresh needs": {[]string{"--rename-command", "HSET", "HIDDEN"}, nil,
			want{"redis permissions", fail, "no command hset", "rename-command"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, test.args...)
			if test.stage != nil {
				test.stage(t, p)
			}
			w := test.want
			if name == "it is a replica" {
				p.checkAmong(t, w)
				p.checkAmong(t, want{"redis writes", fail, "READONLY", "name the master in " + named})
				return
			}
			p.check(t, w)
		})
	}
}

// checkAmong is check for a fault that shows in more than one place.
func (p *patient) checkAmong(t *testing.T, w want, args ...string) {
	t.Helper()
	p.until(t, func(findings []doctor.Finding, _ string, code int) []string {
		for _, f := range findings {
			if f.Check == w.check && f.State == w.state && strings.Contains(f.Text, w.text) && strings.Contains(f.Fix, w.fix) && (code == 1 || w.state != doctor.Fail) {
				return nil
			}
		}
		return []string{fmt.Sprintf("exit status %d, and not found: %+v", code, w)}
	}, args...)
}

func TestDoctorFindsAFullRedis(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.do(t, "CONFIG", "SET", "maxmemory", "1")
	p.checkAmong(t, want{"redis writes", doctor.Fail, "no memory left", "raise maxmemory"})
}

func TestDoctorFindsARedisThatIsTooOldOrAnotherKind(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		version, mode, role string
		want                want
	}{
		{"6.0.16", "standalone", "master", want{"redis server", doctor.Fail, "is Redis 6.0.16", "use Redis 6.2 or later"}},
		{"7.0.0", "sentinel", "master", want{"redis server", doctor.Fail, "is a Sentinel", "master_name"}},
		{"7.0.0", "cluster", "master", want{"redis server", doctor.Fail, "one node of a Redis Cluster", "addr="}},
	} {
		p := newPatient(t)
		fake := miniredis.RunT(t)
		fake.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
			if strings.ToUpper(cmd) != "HELLO" || len(args) > 0 {
				return false
			}
			c.WriteStrings([]string{"server", "redis", "version", test.version, "mode", test.mode, "role", test.role})
			return true
		})
		p.env["REDIS_URL"] = "redis://" + fake.Addr()
		p.check(t, test.want)
		if keys := fake.Keys(); len(keys) > 0 {
			t.Errorf("it left %q", keys)
		}
	}
}

func TestDoctorNamesTheMistakeInTheConfiguration(t *testing.T) {
	t.Parallel()
	const fail, warn = doctor.Fail, doctor.Warn
	for name, test := range map[string]struct {
		stage func(*testing.T, *patient)
		want  want
	}{
		"no secret file": {func(_ *testing.T, p *patient) { p.env["WECHAT_SECRET_FILE"] = "/nowhere/secret" },
			want{"config", fail, "WECHAT_SECRET_FILE", "/nowhere/secret: no such file: create it or correct the path"}},
		"an empty secret file": {func(t *testing.T, p *patient) { p.env["WECHAT_SECRET_FILE"] = p.file(t, "empty", "\n", 0o400) },
			want{"config", fail, "WECHAT_SECRET_FILE", "empty"}},
		"a secret with a space": {func(t *testing.T, p *patient) { p.env["WECHAT_SECRET_FILE"] = p.file(t, "space", "CANARY x", 0o400) },
			want{"config", fail, "WECHAT_SECRET_FILE", "it must hold the secret and nothing else"}},
		"a secret that all users can read": {func(t *testing.T, p *patient) {
			if err := os.Chmod(p.env["WECHAT_SECRET_FILE"], 0o444); err != nil {
				t.Fatal(err)
			}
		}, want{"config", warn, "every user of this host may read it: chmod o-r", ""}},
		"a secret that others change": {func(t *testing.T, p *patient) {
			if err := os.Chmod(p.env["WECHAT_SECRET_FILE"], 0o460); err != nil {
				t.Fatal(err)
			}
		}, want{"secret file", warn, "others than its owner may change it", "chmod go-w"}},
		"an unknown key": {func(t *testing.T, p *patient) {
			p.env["WXTOKEN_CONFIG"] = p.file(t, "c.yaml", "redis: {urll: x}\n", 0o600)
		},
			want{"config", fail, "redis.urll", `did you mean "url"?`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			test.stage(t, p)
			p.check(t, test.want)
		})
	}
}

func TestDoctorNamesTheFaultOfWeChatAndTheFix(t *testing.T) {
	t.Parallel()
	const fail, warn, app = doctor.Fail, doctor.Warn, "app wx1"
	refuse := func(code int) func(*testing.T, *patient) {
		return func(_ *testing.T, p *patient) { p.sim.Deny("wx1", code) }
	}
	answering := func(code int, message string) func(*testing.T, *patient) {
		return func(_ *testing.T, p *patient) {
			p.sim.AddFault(wechattest.Fault{Path: "/cgi-bin/stable_token", Effect: wechattest.EffectErrcode, Code: code, Message: message})
		}
	}
	for name, test := range map[string]struct {
		stage func(*testing.T, *patient)
		want  want
	}{
		"40125": {func(_ *testing.T, p *patient) { p.sim.SetSecret("wx1", "another") },
			want{app, fail, "the AppSecret is wrong: mistyped, or reset", "configure the present AppSecret"}},
		"40125 that repeats the secret": {answering(40125, "invalid appsecret "+canarySecret),
			want{app, fail, "[redacted]", "我的业务 > 公众号/服务号 > 基础信息 > 开发密钥"}},
		"40001": {func(_ *testing.T, p *patient) {
			p.sim.SetSecret("wx1", "another")
			p.sim.Tune(func(k *wechattest.Knobs) { k.WrongSecretCode = 40001 })
		}, want{app, fail, "AppSecret is wrong or of another account", "configure the AppSecret of this appid"}},
		"40013": {func(_ *testing.T, p *patient) { p.env["WECHAT_APPID"] = "wx9" },
			want{"app wx9", fail, "the appid is wrong", "upper and lower case matter"}},
		"40164": {func(_ *testing.T, p *patient) {
			p.sim.SetWhitelist("wx1", "198.51.100.1")
			p.sim.Tune(func(k *wechattest.Knobs) { k.CallerIP = func(*http.Request) string { return "203.0.113.77" } })
		}, want{app, fail, "WeChat takes no calls from this host's egress address, 203.0.113.77", "put 203.0.113.77 on the IP whitelist"}},
		"40243": {refuse(40243), want{app, fail, "the AppSecret is frozen", "unfreeze it (解冻), which takes about 10 minutes"}},
		"89503": {refuse(89503), want{app, fail, "administrator has yet to confirm", "let the administrator confirm it in the message"}},
		"89506": {refuse(89506), want{app, fail, "blocks it for 24 hours", "IP whitelist"}},
		"89507": {refuse(89507), want{app, fail, "blocks it for 1 hour", "IP whitelist"}},
		"50002": {refuse(50002), want{app, fail, "frozen, punished, cancelled or migrated", "mp.weixin.qq.com"}},
		"45009": {answering(45009, ""), want{app, fail, "the quota of this call is used up", "接口权限与额度"}},
		"45011": {answering(45011, ""), want{app, warn, "too many calls in this minute", "it passes"}},
		"-1":    {answering(-1, ""), want{app, warn, "WeChat is busy", "it passes"}},

		"nothing listens": {func(_ *testing.T, p *patient) { p.env["WECHAT_API_BASE"] = "http://127.0.0.1:1" },
			want{"wechat connection", fail, "127.0.0.1:1 refuses connections", "start it, or correct host and port in WECHAT_API_BASE"}},
		"TLS without need": {func(_ *testing.T, p *patient) {
			p.env["WECHAT_API_BASE"] = strings.Replace(p.env["WECHAT_API_BASE"], "http", "https", 1)
		}, want{"wechat TLS", fail, "answers, but without TLS", "write http:// for https://"}},
		"an unknown authority": {func(t *testing.T, p *patient) {
			s := httptest.NewUnstartedServer(p.sim)
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // that a client does not trust it
			s.StartTLS()
			t.Cleanup(s.Close)
			p.env["WECHAT_API_BASE"] = s.URL
		}, want{"wechat TLS", fail, "an authority that this host does not know", "SSL_CERT_FILE"}},
		"a captive portal": {func(_ *testing.T, p *patient) { p.sim.AddFault(wechattest.Fault{Effect: wechattest.EffectHTML}) },
			want{"wechat answer", fail, "not as WeChat does", "captive portal"}},
		"a gateway's error": {func(_ *testing.T, p *patient) {
			p.sim.AddFault(wechattest.Fault{Effect: wechattest.EffectStatus, Status: 403})
		}, want{"wechat answer", fail, "HTTP status 403", "correct WECHAT_API_BASE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			test.stage(t, p)
			p.check(t, test.want)
		})
	}
}

// Where a fetch ends the token, none is made while there is one, nor without being told to.
func TestDoctorEndsNoToken(t *testing.T) {
	t.Parallel()
	corp := func(t *testing.T, p *patient) string {
		p.env["WXTOKEN_CONFIG"] = p.file(t, "c.yaml", fmt.Sprintf("apps: [{id: ww1, agent: 2, platform: wecom, secret_file: %s, api_base: %s}]\n",
			p.env["WECHAT_SECRET_FILE"], p.env["WECHAT_API_BASE"]), 0o600)
		for _, name := range []string{"WECHAT_APPID", "WECHAT_SECRET_FILE", "WECHAT_API_BASE"} {
			delete(p.env, name)
		}
		return "ww1:2"
	}
	classic := func(_ *testing.T, p *patient) string { p.classic(); return "wx1" }
	for name, stage := range map[string]func(*testing.T, *patient) string{"token": classic, "WeCom": corp} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			app := stage(t, p)
			check := "app " + app
			p.check(t, want{check, doctor.Skipped, "Redis has no token", ""})
			if n := p.sim.Calls(app).Fetches(); n != 0 {
				t.Fatalf("%d fetches", n)
			}
			how := wechattest.FetchClassic
			if app != "wx1" {
				how = wechattest.FetchCorp
			}
			p.stand(t, app, p.sim.ForeignRefresh(app, how).Value)
			p.check(t, want{check, doctor.OK, "WeChat accepts the token in Redis", ""}, "--fetch")

			p.sim.KillTokens(app)
			p.check(t, want{check, doctor.Fail, "WeChat rejects the token in Redis", "find out who else fetches tokens of this app"}, "--fetch")
			if n := p.sim.Calls(app).Fetches(); n != 0 {
				t.Fatalf("%d fetches", n)
			}

			p.do(t, "DEL", "wxtoken:{"+app+"}:access_token")
			p.check(t, want{check, doctor.OK, "WeChat accepts id, secret and address", ""}, "--fetch")
			p.sim.SetSecret(app, "another")
			p.check(t, want{check, doctor.Fail, "ecret is wrong", "configure the"}, "--fetch")

			p.env["REDIS_URL"] = "redis://127.0.0.1:1"
			fetches := p.sim.Calls(app).Fetches()
			p.check(t, want{"redis connection", doctor.Fail, "refuses", ""}, "--fetch")
			if n := p.sim.Calls(app).Fetches(); n != fetches {
				t.Error("a fetch although Redis may have a token")
			}
		})
	}
}

// What a peer says may repeat what it was sent.
func TestDoctorRepeatsNoSecretThatAPeerRepeats(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	fake := miniredis.RunT(t)
	fake.RequireAuth(canaryPassword)
	fake.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		if strings.ToUpper(cmd) == "PING" {
			c.WriteError("ERR what is " + canaryPassword)
		}
		return strings.ToUpper(cmd) == "PING"
	})
	p.env["REDIS_URL"] = "redis://:CANARY%2Bredis%2Fpassword@" + fake.Addr()
	p.check(t, want{"redis login", doctor.Fail, "ERR what is [redacted]", ""})
}

func TestDoctorExaminesACluster(t *testing.T) {
	t.Parallel()
	p := newPatient(t, "--cluster-enabled", "yes")
	p.checkAmong(t, want{"redis server", doctor.Fail, "is one node of a Redis Cluster", "?addr="})
	addSlots := []any{"CLUSTER", "ADDSLOTS"}
	for slot := range 16384 {
		addSlots = append(addSlots, slot)
	}
	p.do(t, addSlots...)
	waitFor(t, "the cluster gets well", func() bool {
		return strings.Contains(p.admin(t).ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	p.env["REDIS_URL"] += "?addr=" + p.redis
	p.check(t, want{"redis server", doctor.OK, "cluster master", ""})
	p.env["REDIS_URL"] += "&addr=127.0.0.1:1"
	p.check(t, want{"redis connection", doctor.Warn, "127.0.0.1:1 refuses connections", ""})
	p.do(t, "ACL", "SETUSER", "default", "-hset")
	p.checkAmong(t, want{"redis permissions", doctor.Fail, "may not use hset", "+hset"})
}

// sentinel starts a Sentinel that watches the patient's Redis as mine, with more lines of its
// configuration, and returns its port.
func (p *patient) sentinel(t *testing.T, more string) string {
	t.Helper()
	host, port, _ := strings.Cut(p.redis, ":")
	own := tokencachetest.FreePort(t)
	conf := p.file(t, "sentinel.conf", fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor mine %s %s 1\nsentinel auth-pass mine %s\n%s\n",
		own, p.dir, host, port, canaryPassword, more), 0o600)
	cmd := exec.Command(tokencachetest.NeedRedis(t), conf, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	waitFor(t, "the Sentinel starts", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+own)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return own
}

// With skip_verify nothing says whose certificate it is, so the doctor calls none good.
func TestDoctorCallsNoCertificateGoodThatNothingVerifies(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.env["REDIS_URL"] = "rediss://localhost:" + p.secure(t, "redis.example")[len("127.0.0.1:"):] + "?skip_verify=true"
	p.checkAmong(t, want{"redis TLS", doctor.Warn, "skip_verify=true: any server at this address is taken for Redis, and reads its password and the tokens; the certificate", "take skip_verify out"})
}

// Sentinels have users of their own: the doctor says which login is refused, and where the URL has
// it.
func TestDoctorTellsTheSentinelsLoginFromThatOfRedis(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	own := p.sentinel(t, "requirepass CANARY-of-the-sentinel")
	const good = "CANARY%2Bredis%2Fpassword"
	for _, test := range []struct{ url, text, fix string }{
		{"redis://127.0.0.1:" + own + "?master_name=mine&password=" + good, "demands a password, and the URL has none for it", "before the @"},
		{"redis://:CANARY-wrong@127.0.0.1:" + own + "?master_name=mine&password=" + good, "the Sentinel 127.0.0.1:" + own + " refuses the login", "before the @"},
		{"redis://:CANARY-of-the-sentinel@127.0.0.1:" + own + "?master_name=mine&password=CANARY-wrong", "Redis refuses user default with this password", "?username="},
		{"redis://:CANARY-of-the-sentinel@127.0.0.1:" + own + "?master_name=mine", "Redis demands a password", "?username="},
	} {
		p.env["REDIS_URL"] = test.url
		p.check(t, want{"redis login", doctor.Fail, test.text, test.fix})
	}
	p.env["REDIS_URL"] = "redis://:CANARY-of-the-sentinel@127.0.0.1:" + own + "?master_name=mine&password=" + good
	p.check(t, want{"redis server", doctor.OK, "standalone master", ""})
}

func TestDoctorExaminesASentinel(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	own := p.sentinel(t, "")
	p.env["REDIS_URL"] = "redis://127.0.0.1:" + own + "?master_name=mine&password=CANARY%2Bredis%2Fpassword"
	p.check(t, want{"redis server", doctor.OK, "standalone master", ""})
	p.env["REDIS_URL"] = strings.Replace(p.env["REDIS_URL"], "mine", "yours", 1)
	p.check(t, want{"redis login", doctor.Fail, "knows no master of the name yours", "correct master_name"})
	p.env["REDIS_URL"] = "redis://127.0.0.1:" + own
	p.checkAmong(t, want{"redis server", doctor.Fail, "is a Sentinel", "master_name"})
}
