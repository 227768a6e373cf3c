package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
)

const redisNamed = "REDIS_URL (or redis.url, redis.url_file)"

// redis looks at the way to Redis, and then at Redis.
func (e *examination) redis(ctx context.Context) {
	rdb, err := e.opts.Connect(e.cfg.Redis)
	if err != nil {
		e.fail("redis", err.Error(), "correct "+redisNamed)
		return
	}
	targets := e.redisTargets(rdb)
	if !e.reachAny(ctx, targets) || !e.login(ctx, rdb) {
		_ = rdb.Close()
		e.skipped("redis", "the rest was not looked at: Redis cannot be asked")
		return
	}
	e.rdb = rdb
	nodes := e.nodes(ctx)
	e.servers(ctx, nodes)
	e.permissions(ctx)
	e.writes(ctx)
	e.clock(ctx)
	e.memory(ctx, nodes)
}

// redisTargets returns the addresses that the client dials first, and notes the credentials that it
// sends.
func (e *examination) redisTargets(rdb redis.UniversalClient) []target {
	var network string
	var addresses []string
	var tlsConfig *tls.Config
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		o := c.Options()
		network, addresses, tlsConfig = "tcp", o.Addrs, o.TLSConfig
		e.credentials(o.Username, o.Password)
	case *redis.Client:
		o := c.Options()
		network, addresses, tlsConfig = o.Network, []string{o.Addr}, o.TLSConfig
		e.credentials(o.Username, o.Password)
	}
	if e.cfg.Redis.Form == config.RedisSentinel {
		if o, err := redis.ParseFailoverURL(e.cfg.Redis.URL.Reveal()); err == nil {
			network, addresses = "tcp", o.SentinelAddrs
			e.secrets = append(e.secrets, secret.New(o.SentinelPassword))
		}
	}
	side := redisclient.Servers
	if e.cfg.Redis.Form == config.RedisSentinel {
		side = redisclient.Sentinels
	}
	e.secure = redisclient.TLS(tlsConfig, e.cfg.Redis)
	targets := make([]target, len(addresses))
	for i, a := range addresses {
		targets[i] = e.target(side, network, a)
	}
	return targets
}

// target is one server or Sentinel as the client dials it.
func (e *examination) target(side redisclient.Side, network, address string) target {
	t := target{who: "Redis", network: network, address: address, tls: e.secure(side, address), named: redisNamed,
		plain:   "write redis:// for rediss:// in " + redisNamed + ", or make Redis speak TLS",
		secured: "write rediss:// for redis:// in " + redisNamed}
	if e.cfg.Redis.Form == config.RedisSentinel {
		other := map[redisclient.Side]string{redisclient.Servers: config.TLSSentinels, redisclient.Sentinels: config.TLSServers}[side]
		t.plain += "; where only one side speaks TLS, add the option tls_only=" + other
		if e.cfg.Redis.TLS.Only != "" {
			t.secured = "take tls_only out of " + redisNamed
		}
	}
	return t
}

func (e *examination) credentials(username, password string) {
	e.secrets = append(e.secrets, secret.New(password))
	if e.username = username; username == "" {
		e.username = "default"
	}
}

// reachAny reports whether one of several can be reached; then what is wrong with the others is no
// more than a warning.
func (e *examination) reachAny(ctx context.Context, targets []target) bool {
	var findings []Finding
	report := e.report
	e.report = func(f Finding) { findings = append(findings, f) }
	reached := false
	for _, t := range targets {
		if conn := e.reach(ctx, "redis", t); conn != nil {
			reached = e.speaksRedis(conn, t) || reached
			_ = conn.Close()
		}
	}
	e.report = report
	for _, f := range findings {
		if f.State == Fail && reached {
			f.State = Warn
		}
		report(f)
	}
	return reached
}

// speaksRedis says PING, and looks who answers.
func (e *examination) speaksRedis(conn net.Conn, t target) bool {
	const check = "redis connection"
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err := conn.Write([]byte("*1\r\n$4\r\nPING\r\n"))
	line := make([]byte, 256)
	n := 0
	if err == nil {
		n, err = conn.Read(line)
	}
	answer := text.OneLine(strings.ToValidUTF8(string(line[:n]), "?"))
	switch {
	case n > 0 && line[0] == 0x15 && t.tls == nil, n == 0 && t.tls == nil && !isTimeout(err) && speaksTLS(t):
		e.fail("redis TLS", t.address+" does not answer without TLS", t.secured)
	case n == 0 && t.tls == nil && !isTimeout(err):
		e.fail(check, t.address+" accepts connections, and closes them before the first answer; it speaks no TLS either",
			"look at Redis' log, and at a proxy, a service mesh or a NetworkPolicy before it: something ends the connection")
	case n == 0 && t.tls != nil && conn.(*secured).askedForCertificate && !isTimeout(err):
		if e.cfg.Redis.TLS.CertFile != "" {
			e.fail("redis TLS", t.address+" refuses the certificate in tls_cert_file", "let its CA be in Redis' tls-ca-cert-file, and look whether it has expired")
			break
		}
		e.fail("redis TLS", t.address+" demands a certificate of its clients", "name one in "+redisNamed+": ?tls_cert_file=/path&tls_key_file=/path; or set tls-auth-clients no (or optional) in Redis")
	case n == 0:
		e.fail(check, t.address+" accepts connections but does not answer", "is this Redis? Look at its log, and correct "+redisNamed)
	case strings.HasPrefix(answer, "-DENIED"):
		e.fail(check, t.address+" is in protected mode, which lets only its own host in", "give Redis a password (requirepass, or ACL users) and the URL the same, or set protected-mode no")
	case strings.HasPrefix(answer, "-ERR max number of clients"):
		e.fail(check, t.address+" has as many clients as it takes", "raise maxclients in Redis")
	case line[0] != '+' && line[0] != '-':
		e.fail(check, t.address+" answers, but is no Redis", "correct "+redisNamed)
	default:
		return true
	}
	return false
}

// speaksTLS reports whether the peer answers a TLS handshake, with whatever certificate. Nothing
// secret is sent.
func speaksTLS(t target) bool {
	d := &net.Dialer{Timeout: patience}
	conn, err := tls.DialWithDialer(d, t.network, t.address, &tls.Config{InsecureSkipVerify: true}) // only to see whether it does
	if err == nil {
		_ = conn.Close()
		return true
	}
	_, alert := errors.AsType[tls.AlertError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	return alert || isOp && op.Op == "remote error"
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// login asks the first question that needs user and password.
func (e *examination) login(ctx context.Context, rdb redis.UniversalClient) bool {
	const check = "redis login"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked := time.Now()
	err := rdb.Ping(ctx).Err()
	took := time.Since(asked)
	said := text.OneLine(fmt.Sprint(err))
	if err != nil && e.cfg.Redis.Form == config.RedisSentinel && e.sentinelsRefuse(ctx, check) {
		return false
	}
	switch {
	case err == nil, redis.IsPermissionError(err) && strings.Contains(said, "ping"), lacksPing(said):
		e.ok(check, fmt.Sprintf("user %s is let in, the answer took %v", e.username, took.Round(100*time.Microsecond)))
		return true
	case strings.Contains(said, "WRONGPASS"), strings.Contains(said, "invalid password"):
		e.fail(check, "Redis refuses user "+e.username+" with this password (WRONGPASS)",
			"correct both in "+redisNamed+": "+e.wherePassword()+", each percent-encoded; a user that is left out is default")
	case strings.Contains(said, "NOAUTH"):
		e.fail(check, "Redis demands a password, and the URL has none (NOAUTH)", "put user and password into "+redisNamed+": "+e.wherePassword())
	case strings.Contains(said, "without any password configured"):
		e.fail(check, "the URL has a password, and Redis wants none", "take it out of "+redisNamed+" ("+e.wherePassword()+"), or set one in Redis")
	case strings.Contains(said, "DB index is out of range"):
		e.fail(check, "Redis has no database of this number", "correct the number at the end of "+redisNamed+", for example to /0")
	case redis.IsPermissionError(err) && strings.Contains(said, "select"):
		e.fail(check, "user "+e.username+" may not choose a database: "+said, "use database 0, or ACL SETUSER "+e.username+" +select")
	case redis.IsPermissionError(err) && e.cfg.Redis.Form == config.RedisCluster:
		e.mayNot(check, acl.ClusterCommands[:1], said)
	case isTLS(err):
		e.uncertified(err)
	case !isAnswer(err) && e.worksWithoutHello(ctx):
		e.fail(check, "Redis, or a proxy before it, answers commands, but not HELLO: "+said, "add the option protocol=2 to "+redisNamed+": then the sidecar sends no HELLO")
	case strings.Contains(said, "cluster support disabled"):
		e.fail(check, "this Redis is no cluster", "take the option addr out of "+redisNamed)
	case strings.Contains(said, "LOADING"):
		e.fail(check, "Redis is still loading its data", "wait, and try again")
	case e.cfg.Redis.Form == config.RedisSentinel:
		e.fail(check, "the Sentinels know no reachable master: "+said, "look at the Sentinels' log, and let this pod reach the master, too")
	default:
		e.fail(check, said, "look at Redis' log")
	}
	return false
}

// lacksPing reports whether it is only PING that a proxy does not know.
func lacksPing(text string) bool {
	command := unknown.FindStringSubmatch(text)
	return command != nil && strings.EqualFold(command[1], "ping")
}

// isAnswer reports whether Redis itself said it.
func isAnswer(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

func isTLS(err error) bool { return (&tokencache.StoreError{Err: err}).Class() == tokencache.StoreTLS }

// uncertified reports a server with which there is no TLS, although one that the URL names passed.
func (e *examination) uncertified(err error) {
	t := target{who: "Redis", address: "a node that Redis announces", named: redisNamed}
	if h, ok := errors.AsType[x509.HostnameError](err); ok {
		t.address = net.JoinHostPort(h.Host, "")
		text, fix := unsecured(t, err)
		e.fail("redis TLS", strings.Replace(text, t.address, h.Host+", which Redis announces,", 1), fix)
		return
	}
	text, fix := unsecured(t, err)
	e.fail("redis TLS", text, fix)
}

// worksWithoutHello reports whether a client that sends no HELLO is let in.
func (e *examination) worksWithoutHello(ctx context.Context) bool {
	cfg := e.cfg.Redis
	raw := cfg.URL.Reveal()
	if strings.Contains(raw, "protocol=2") {
		return false
	}
	separator := "?"
	if strings.Contains(raw, "?") {
		separator = "&"
	}
	cfg.URL = secret.New(raw + separator + "protocol=2")
	rdb, err := e.opts.Connect(cfg)
	if err != nil {
		return false
	}
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err = rdb.Ping(ctx).Err()
	return err == nil || isAnswer(err)
}

// wherePassword shows where the URL has the user and the password of Redis itself.
func (e *examination) wherePassword() string {
	if e.cfg.Redis.Form == config.RedisSentinel {
		return "with Sentinels those of Redis are the options ?username=...&password=..., and what is before the @ is the Sentinels'"
	}
	return "redis://user:password@host"
}

// sentinelsRefuse finds out which side of a URL with Sentinels does not let the client in. It
// reports whether that was said.
func (e *examination) sentinelsRefuse(ctx context.Context, check string) bool {
	o, err := redis.ParseFailoverURL(e.cfg.Redis.URL.Reveal())
	if err != nil {
		return false
	}
	for _, address := range o.SentinelAddrs {
		master, err := e.askSentinel(ctx, address)
		said := text.OneLine(fmt.Sprint(err))
		const where = "before the @ of " + redisNamed + ": that login is for the Sentinels; the login for Redis goes into the options username and password"
		switch {
		case err == nil:
			return e.masterCannotBeReached(ctx, address, master)
		case errors.Is(err, redis.Nil):
			e.fail(check, "the Sentinel "+address+" knows no master of the name "+o.MasterName, "correct master_name in "+redisNamed+" (SENTINEL MASTERS lists the names)")
		case strings.Contains(said, "WRONGPASS"), strings.Contains(said, "invalid password"):
			e.fail(check, "the Sentinel "+address+" refuses the login (WRONGPASS)", "correct user and password "+where)
		case strings.Contains(said, "NOAUTH"):
			e.fail(check, "the Sentinel "+address+" demands a password, and the URL has none for it (NOAUTH)", "put it "+where)
		case strings.Contains(said, "without any password configured"):
			e.fail(check, "the URL has a password for the Sentinels, and the Sentinel "+address+" wants none", "take it out "+where)
		case redis.IsPermissionError(err):
			e.fail(check, "the Sentinel "+address+" lets the client in, but does not say which server is the master: "+said,
				"on the Sentinels: ACL SETUSER "+cmp.Or(o.SentinelUsername, "default")+" +sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe &*")
		default:
			continue
		}
		return true
	}
	return false
}

// askSentinel returns the address of the master.
func (e *examination) askSentinel(ctx context.Context, address string) (string, error) {
	s, name, err := redisclient.Sentinel(e.cfg.Redis, address)
	if err != nil {
		return "", err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // the login may have used its time up
	defer cancel()
	master, err := s.GetMasterAddrByName(ctx, name).Result()
	if err != nil || len(master) != 2 {
		return "", err
	}
	return net.JoinHostPort(master[0], master[1]), nil
}

// masterCannotBeReached dials the server that a Sentinel calls the master, and reports whether it
// found what is wrong.
func (e *examination) masterCannotBeReached(ctx context.Context, sentinel, master string) bool {
	t := e.target(redisclient.Servers, "tcp", master)
	t.named = "the address of the master, which the Sentinel " + sentinel + " announces,"
	found := false
	report := e.report
	e.report = func(f Finding) {
		if f.State == Fail {
			found = true
			report(f)
		}
	}
	if conn := e.reach(context.WithoutCancel(ctx), "redis", t); conn != nil {
		_ = e.speaksRedis(conn, t)
		_ = conn.Close()
	}
	e.report = report
	return found
}

// node is one server of Redis that takes writes.
type node struct {
	*redis.Client
	address string
}

// nodes returns the masters.
func (e *examination) nodes(ctx context.Context) []node {
	switch c := e.rdb.(type) {
	case *redis.ClusterClient:
		var mu sync.Mutex
		var all []node
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		err := c.ForEachMaster(ctx, func(_ context.Context, m *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, node{m, m.Options().Addr})
			return nil
		})
		if err != nil {
			e.fail("redis cluster", "the nodes cannot be listed: "+text.OneLine(err.Error()), "ACL SETUSER "+e.username+" +cluster")
		}
		slices.SortFunc(all, func(a, b node) int { return strings.Compare(a.address, b.address) })
		return all
	case *redis.Client:
		return []node{{c, c.Options().Addr}}
	}
	return nil
}
