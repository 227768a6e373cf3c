package redisclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func TestMain(m *testing.M) {
	Silence()
	os.Exit(m.Run())
}

// connect returns a client as the sidecar makes it from a URL, which may need a percent-encoded CA.
func connect(t *testing.T, raw string) redis.UniversalClient {
	t.Helper()
	cfg, err := config.Load(config.Overrides{RedisURL: raw}, func(name string) string {
		return map[string]string{"WECHAT_APPID": "wx1", "WECHAT_SECRET": "s"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	rdb, err := Connect(cfg.Redis)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// works reports whether the client writes and reads a key within the patience of a busy machine. It
// gives up at once where a certificate is refused.
func works(t *testing.T, rdb redis.UniversalClient, keys ...string) error {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		var err error
		for _, key := range keys {
			err = errors.Join(err, rdb.Set(t.Context(), key, "v", time.Minute).Err())
		}
		_, refused := errors.AsType[x509.HostnameError](err)
		if err == nil || refused || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tlsServer starts a server with TLS and returns the port of each kind.
func tlsServer(t *testing.T, args ...string) (secure, plain string) {
	t.Helper()
	secure = tokencachetest.FreePort(t)
	addr := tokencachetest.RedisServer(t, append([]string{"--tls-port", secure}, args...)...)
	_, plain, _ = net.SplitHostPort(addr)
	return secure, plain
}

// tlsCluster starts two nodes, each with a certificate for its own names, and with more arguments,
// and returns their ports.
func tlsCluster(t *testing.T, ca *rig.Authority, names [2][]string, more func(node int) []string) (ports [2]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var admin [2]*redis.Client
	for i := range admin {
		args := append(ca.Sign(names[i]...), "--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-replication", "yes")
		if more != nil {
			args = append(args, more(i)...)
		}
		secure, plain := tlsServer(t, args...)
		ports[i] = secure
		admin[i] = redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + plain, ContextTimeoutEnabled: true, ReadTimeout: time.Minute})
		defer admin[i].Close()
		slots := make([]int, 8192)
		for s := range slots {
			slots[s] = i*8192 + s
		}
		if err := admin[i].Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		if err := admin[i].ClusterAddSlots(ctx, slots...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := admin[0].ClusterMeet(ctx, "127.0.0.1", ports[1]).Err(); err != nil {
		t.Fatal(err)
	}
	for _, a := range admin {
		rig.Eventually(t, "the cluster is whole, and knows the names", func() bool {
			//lint:ignore SA1019 Redis 6.2 has no CLUSTER SHARDS
			slots, err := a.ClusterSlots(ctx).Result()
			whole := err == nil && len(slots) == 2 && strings.Contains(a.ClusterInfo(ctx).Val(), "cluster_state:ok")
			nodes := a.ClusterNodes(ctx).Val()
			return whole && (more == nil || strings.Contains(nodes, names[0][0]) && strings.Contains(nodes, names[1][0]))
		})
	}
	return ports
}

// Two keys, one in the slots of each node.
var bothNodes = []string{"b", "a"} // slots 3300 and 15495

func TestAClusterWithACertificateForEachName(t *testing.T) {
	ca := rig.NewAuthority(t)
	rig.Resolve(t, "node-0.test", "node-1.test")
	names := [2][]string{{"node-0.test"}, {"node-1.test"}}
	query := "&tls_ca_file=" + url.QueryEscape(ca.CAFile)
	t.Run("that the nodes announce", func(t *testing.T) {
		if tokencachetest.IsRedis6(t) {
			t.Skip("this server announces addresses only")
		}
		ports := tlsCluster(t, ca, names, func(node int) []string {
			return []string{"--cluster-announce-hostname", names[node][0], "--cluster-preferred-endpoint-type", "hostname"}
		})
		first := "rediss://node-0.test:" + ports[0] + "?addr=node-0.test:" + ports[0] + query
		if err := works(t, connect(t, first), bothNodes...); err != nil {
			t.Error(err)
		}
	})
	t.Run("while the nodes announce addresses", func(t *testing.T) {
		ports := tlsCluster(t, ca, names, nil)
		// go-redis replaces an announced 127.0.0.1 by the name of the node that said it, so the one
		// that answers first must have none.
		first := "rediss://127.0.0.1:" + ports[0] + "?addr=node-0.test:1" + query
		if err := works(t, connect(t, first+"&addr=node-1.test:1"), bothNodes...); err != nil {
			t.Error(err)
		}
		if err := works(t, connect(t, first), bothNodes...); err == nil {
			t.Error("a certificate for a name that is not in the URL is accepted")
		}
	})
}

// sentinel starts a Sentinel of the server at host:port as mine, with TLS or without, and returns
// its port.
func sentinel(t *testing.T, host, port string, tlsArgs []string, secure bool) string {
	t.Helper()
	own := tokencachetest.FreePort(t)
	dir := t.TempDir()
	listens := "port " + own
	if secure {
		listens = "port 0\ntls-port " + own
	}
	conf := fmt.Sprintf("%s\nbind 127.0.0.1\ndir %s\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel monitor mine %s %s 1\n", listens, dir, host, port)
	if tlsArgs != nil {
		conf += "tls-replication yes\n"
	}
	for i := 0; i+1 < len(tlsArgs); i += 2 {
		conf += strings.TrimPrefix(tlsArgs[i], "--") + " " + tlsArgs[i+1] + "\n"
	}
	file := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var log rig.Buffer
	cmd := exec.Command(tokencachetest.NeedRedis(t), file, "--sentinel")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	rig.Eventually(t, "the Sentinel starts", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+own)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return own
}

func TestSentinelsWithACertificateForEachName(t *testing.T) {
	ca := rig.NewAuthority(t)
	rig.Resolve(t, "sentinel.test")
	query := "&tls_ca_file=" + url.QueryEscape(ca.CAFile)
	server := ca.Sign("localhost") // a name that a Sentinel can look up, too
	secure, plain := tlsServer(t, server...)
	for name, test := range map[string]struct {
		monitored, port   string
		secure            bool // the Sentinel
		certificate       []string
		more, wrong       string // options of the URL: those that work, and others that do not
		tlsForReplication bool
	}{
		"both, and the master is announced by its name":   {"localhost", secure, true, []string{"sentinel.test"}, "", "&tls_only=servers", true},
		"both, and the master's name is one of the URL's": {"127.0.0.1", secure, true, []string{"sentinel.test"}, "&addr=localhost:1", "", true},
		"only the servers":   {"localhost", secure, false, []string{"sentinel.test"}, "&tls_only=servers", "", true},
		"only the Sentinels": {"localhost", plain, true, []string{"sentinel.test"}, "&tls_only=sentinels", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			args := ca.Sign(test.certificate...)
			if !test.tlsForReplication {
				args = append(args, "--tls-replication", "no")
			}
			own := sentinel(t, test.monitored, test.port, args, test.secure)
			base := "rediss://sentinel.test:" + own + "?master_name=mine" + query
			if err := works(t, connect(t, base+test.more), "k"); err != nil {
				t.Error(err)
			}
			if err := connect(t, base+test.wrong).Set(t.Context(), "k", "v", time.Minute).Err(); err == nil {
				t.Errorf("it works with %q as well", test.wrong)
			}
		})
	}
}

// An address may show the name of another host in the URL, a name may not.
func TestEachConnectionVerifiesTheNameThatItDials(t *testing.T) {
	ca := rig.NewAuthority(t)
	rig.Resolve(t, "one.test", "two.test")
	secure, _ := tlsServer(t, ca.Sign("one.test")...)
	pem, err := os.ReadFile(ca.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	cfg := config.Redis{Form: config.RedisCluster}
	dial := func(hosts, address string, base *tls.Config) error {
		cfg.URL = secret.New(hosts)
		d := dialer{timeout: 10 * time.Second, secure: TLS(base, cfg)}
		conn, err := d.dial(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	const both = "rediss://two.test?addr=one.test:1"
	base := &tls.Config{ServerName: "two.test", RootCAs: roots}
	for _, c := range []struct {
		hosts, address string
		base           *tls.Config
		ok             bool
	}{
		{both, "one.test:" + secure, base, true},
		{both, "two.test:" + secure, base, false},
		{both, "127.0.0.1:" + secure, base, true},
		{"rediss://two.test?addr=three.test:1", "127.0.0.1:" + secure, base, false},
		{both, "127.0.0.1:" + secure, &tls.Config{ServerName: "two.test"}, false}, // of an unknown CA
		{both, "two.test:" + secure, &tls.Config{InsecureSkipVerify: true}, true},
		{both, "127.0.0.1:" + secure, &tls.Config{InsecureSkipVerify: true}, true},
	} {
		if err := dial(c.hosts, c.address, c.base); (err == nil) != c.ok {
			t.Errorf("%s at %s: %v", c.hosts, c.address, err)
		}
	}
}
