package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// Sentinel is a master and a replica under one Sentinel, which takes a master that is silent for a
// second for dead.
type Sentinel struct {
	Master, Replica *Redis
	Addr            string // of the Sentinel

	client redis.UniversalClient
}

const masterName = "wxtoken"

// StartSentinel starts the three and returns when the replica follows.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	s := &Sentinel{Master: StartRedis(t)}
	host, port, _ := net.SplitHostPort(s.Master.Addr)
	s.Replica = StartRedis(t, "--replicaof", host, port, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
	Eventually(t, "the replica follows", func() bool {
		n, err := s.Replica.Client().(*redis.Client).Do(context.Background(), "ROLE").Slice()
		return err == nil && len(n) > 3 && n[3] == "connected"
	})
	s.Addr = FreeAddr(t)
	_, sentinelPort, _ := net.SplitHostPort(s.Addr)
	file := filepath.Join(t.TempDir(), "sentinel.conf") // which Sentinel writes to
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor %s %s %s 1\nsentinel down-after-milliseconds %[2]s 1000\nsentinel failover-timeout %[2]s 10000\n",
		sentinelPort, masterName, host, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	proc, err := start(exec.Command(tokencachetest.NeedRedis(t), file, "--sentinel"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proc.kill)
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: s.Addr})
	defer sentinel.Close()
	Eventually(t, "Sentinel knows the replica", func() bool {
		replicas, err := sentinel.Replicas(context.Background(), masterName).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["flags"] == "slave" && replicas[0]["master-link-status"] == "ok"
	})
	s.client = redis.NewFailoverClient(&redis.FailoverOptions{MasterName: masterName, SentinelAddrs: []string{s.Addr}})
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

// URL implements [Store].
func (s *Sentinel) URL() string {
	return "redis://" + s.Addr + "/0?master_name=" + masterName
}

// Client implements [Store].
func (s *Sentinel) Client() redis.UniversalClient { return s.client }
