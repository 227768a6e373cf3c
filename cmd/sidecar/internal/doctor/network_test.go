package doctor_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// A network between this pod and Redis that drops what is sent, holds it, or carries no events.
func TestDoctorNamesTheFaultOfTheNetwork(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		strike func(*rig.Link)
		want   want
	}{
		"BlackHole": {(*rig.Link).BlackHole, want{"redis connection", doctor.Fail, "accepts connections but does not answer", "is this Redis?"}},
		"Deafen":    {(*rig.Link).Deafen, want{"redis permissions", doctor.Warn, "events do not arrive", "take SUBSCRIBE wxtoken:events"}},
		"Delay":     {func(l *rig.Link) { l.Delay(50 * time.Millisecond) }, want{"redis writes", doctor.OK, "a key can be written", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			link := rig.NewLink(t, p.redis)
			p.env["REDIS_URL"] = strings.Replace(p.env["REDIS_URL"], p.redis, link.Addr, 1)
			test.strike(link)
			p.check(t, test.want)
			link.Heal()
			p.check(t, want{"redis writes", doctor.OK, "a key can be written", ""})
		})
	}
}

// Something before Redis resets each connection. That says nothing about TLS.
func TestDoctorTakesAResetForAReset(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1))    // the question
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not an end
			_ = conn.Close()
		}
	}()
	p.env["REDIS_URL"] = "redis://" + l.Addr().String()
	p.check(t, want{"redis connection", doctor.Fail, "closes them before the first answer; it speaks no TLS either", "something ends the connection"})
	p.env["REDIS_URL"] = "rediss://" + l.Addr().String()
	p.check(t, want{"redis TLS", doctor.Fail, "closes the connection in the TLS handshake", "if it speaks without TLS, write redis://"})
}

// What a Redis in trouble answers, word for word.
func TestDoctorNamesTheTroubleThatRedisAnswersWith(t *testing.T) {
	t.Parallel()
	const fail, warn = doctor.Fail, doctor.Warn
	for name, test := range map[string]struct {
		command, answer string // begins with $: a text, else an error
		want            want
	}{
		"protected mode": {"PING", "DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the default user.",
			want{"redis connection", fail, "is in protected mode, which lets only its own host in", "requirepass"}},
		"full of clients": {"PING", "ERR max number of clients reached", want{"redis connection", fail, "has as many clients as it takes", "raise maxclients"}},
		"it loads":        {"PING", "LOADING Redis is loading the dataset in memory", want{"redis login", fail, "still loading its data", "wait, and try again"}},
		"it is no cluster": {"PING", "ERR This instance has cluster support disabled",
			want{"redis login", fail, "this Redis is no cluster", "take the option addr out of REDIS_URL"}},
		"its disk is full": {"SET", "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
			want{"redis writes", fail, "it cannot save to its disk (MISCONF)", "look at Redis' log and its disk"}},
		"it could not save": {"INFO", "$maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:err\r\n",
			want{"redis persistence", warn, "could not save to its disk the last time", "it may refuse writes soon (MISCONF)"}},
		"no word about snapshots": {"INFO", "$maxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:0\r\n",
			want{"redis persistence", doctor.Skipped, "whether it takes snapshots it does not tell this user", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.proxied(t, func(c *server.Peer, cmd string) bool {
				if !strings.EqualFold(cmd, test.command) {
					return false
				}
				if text, ok := strings.CutPrefix(test.answer, "$"); ok {
					c.WriteBulk(text)
				} else {
					c.WriteError(test.answer)
				}
				return true
			})
			if test.command == "SET" { // the scripts write, too
				p.checkAmong(t, test.want)
				return
			}
			p.check(t, test.want)
		})
	}
}

// The clock of this host judges certificates, so one that is wrong matters. The sidecar itself
// compares it with nothing.
func TestDoctorSeesAClockThatIsWrong(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.proxied(t, func(c *server.Peer, cmd string) bool {
		if strings.EqualFold(cmd, "TIME") {
			c.WriteStrings([]string{fmt.Sprint(time.Now().Add(-10 * time.Minute).Unix()), "0"})
		}
		return strings.EqualFold(cmd, "TIME")
	})
	p.check(t, want{"clock", doctor.Warn, "differ by 10m", "set both by NTP"})
}

// The report calls apps by the names that people gave them, and says of a token that cannot be
// tried out why not.
func TestDoctorExaminesEveryApp(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.env["WXTOKEN_CONFIG"] = p.file(t, "c.yaml", fmt.Sprintf(`apps:
  - {id: wx1, alias: shop, endpoint: token, secret_file: %[1]s, api_base: %[2]s}
  - {id: ww1, agent: 2, platform: wecom, secret_file: %[1]s, api_base: %[2]s}
`, p.env["WECHAT_SECRET_FILE"], p.env["WECHAT_API_BASE"]), 0o600)
	for _, name := range []string{"WECHAT_APPID", "WECHAT_SECRET_FILE", "WECHAT_API_BASE"} {
		delete(p.env, name)
	}
	p.stand(t, "wx1", p.sim.ForeignRefresh("wx1", wechattest.FetchClassic).Value)
	p.check(t, want{"config", doctor.OK, "valid: 2 apps", ""})
	p.check(t, want{"app ww1:2", doctor.Skipped, "Redis has no token", ""})
	p.sim.AddFault(wechattest.Fault{App: "wx1", Effect: wechattest.EffectErrcode, Code: -1})
	p.check(t, want{"app shop", doctor.Warn, "WeChat is busy", "it passes"})
}
