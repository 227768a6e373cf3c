package rig

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisCluster is a Redis Cluster of three masters, of which the one that has the app's keys has a
// replica. A master that is silent for 2 seconds is taken for dead.
type RedisCluster struct {
	Owner   *Redis // the master of the app's keys, until it is lost
	Replica *Redis // of it
	Rest    []*Redis

	client redis.UniversalClient
}

// StartRedisCluster starts the four, with more arguments as redis-server takes them, and returns
// when they agree.
func StartRedisCluster(t testing.TB, args ...string) *RedisCluster {
	t.Helper()
	ctx := context.Background()
	var nodes []*Redis
	for range 4 {
		nodes = append(nodes, StartRedis(t, append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"}, args...)...))
	}
	one := func(s *Redis) *redis.Client { return s.Client().(*redis.Client) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const third = 16384 / 3
	for i, s := range nodes[:3] {
		must(one(s).Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		last := (i+1)*third - 1
		if i == 2 {
			last = 16383
		}
		var slots []int // a range at once only since Redis 7
		for slot := i * third; slot <= last; slot++ {
			slots = append(slots, slot)
		}
		must(one(s).ClusterAddSlots(ctx, slots...).Err())
	}
	for _, s := range nodes[1:] {
		host, port, _ := net.SplitHostPort(s.Addr)
		must(one(nodes[0]).ClusterMeet(ctx, host, port).Err())
	}
	slot := int(one(nodes[0]).ClusterKeySlot(ctx, ValueKey).Val())
	c := &RedisCluster{Owner: nodes[min(2, slot/third)], Replica: nodes[3]}
	c.Rest = slices.DeleteFunc(slices.Clone(nodes[:3]), func(s *Redis) bool { return s == c.Owner })
	id := one(c.Owner).Do(ctx, "CLUSTER", "MYID").Val()
	Eventually(t, "the replica knows its master", func() bool {
		return one(c.Replica).ClusterReplicate(ctx, fmt.Sprint(id)).Err() == nil
	})
	Eventually(t, "the Cluster is whole", func() bool {
		for _, s := range nodes {
			//lint:ignore SA1019 Redis 6.2 has no CLUSTER SHARDS
			ranges, err := one(s).ClusterSlots(ctx).Result()
			if err != nil || len(ranges) != 3 || !slices.ContainsFunc(ranges, func(r redis.ClusterSlot) bool { return len(r.Nodes) == 2 }) {
				return false
			}
			if info, err := one(s).ClusterInfo(ctx).Result(); err != nil || len(info) < 16 || info[:16] != "cluster_state:ok" {
				return false
			}
		}
		return true
	})
	c.client = redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                      []string{c.Rest[0].Addr, c.Rest[1].Addr, c.Owner.Addr},
		ClusterStateReloadInterval: 500 * time.Millisecond, // by default it follows a failover after a minute
	})
	t.Cleanup(func() { _ = c.client.Close() })
	return c
}

// URL implements [Store].
func (c *RedisCluster) URL() string {
	return "redis://" + c.Rest[0].Addr + "?addr=" + c.Rest[1].Addr + "&addr=" + c.Owner.Addr
}

// Client implements [Store].
func (c *RedisCluster) Client() redis.UniversalClient { return c.client }
