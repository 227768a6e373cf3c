// Package acl says what the Redis user of a cache must be permitted: the commands listed here, the
// keys "namespace:*", and the channel that [Channel] returns. Redis 6.2 takes the same rules, but
// for those with a subcommand. Everything that lists rights is made of these, or tested against
// them.
package acl

import (
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Rules of an ACL, without their plus.
var (
	// Commands are what a cache runs on every Redis.
	Commands = [...]string{
		"get", "set", "del", "pttl", "pexpire", "pexpireat", "hmget", "hset", "hdel", "xadd", "xlen", "copy", "time",
		"publish", "subscribe", "unsubscribe", "ping", "eval", "evalsha", "getrange",
	}
	// StatusCommands are for the journal of a cache, which says less without them. By the last one a
	// replica counts the others, too, for the budget of the slow re-read.
	StatusCommands = [...]string{"xrevrange", "pubsub|numsub"}
	// ClusterCommands are, besides, what the client of a Redis Cluster finds its way with.
	ClusterCommands = [...]string{"cluster|slots", "command"}
)

// Channel returns the channel on which the replicas of a namespace announce what they did. A
// channel reaches all databases of a Redis, unlike a key. So each database but 0 has one of its
// own, and the subscriptions to it are those of the replicas that share its keys.
func Channel(rdb redis.UniversalClient, namespace string) string {
	channel := namespace + ":events"
	if c, ok := rdb.(*redis.Client); ok && c.Options().DB != 0 {
		channel += ":" + strconv.Itoa(c.Options().DB)
	}
	return channel
}
