package tokencache

import (
	"strconv"

	"github.com/redis/go-redis/v9"
)

// What the user of a cache must be permitted on Redis, as rules of an ACL without their plus.
// Besides, it needs the keys "namespace:*" and the channel that [EventChannel] returns. Redis 6.2
// takes them as well, but for the subcommand. Everything that lists rights is made of these, or
// tested against them.
var (
	// RedisCommands are what a cache runs on every Redis.
	RedisCommands = [...]string{
		"get", "set", "del", "pttl", "pexpire", "pexpireat", "hmget", "hset", "hdel", "xadd", "time",
		"publish", "subscribe", "unsubscribe", "ping", "eval", "evalsha", "getrange",
	}
	// RedisStatusCommands are for [Cache.Journal], which says less without them. By the last one a
	// replica counts the others, too, for the budget of the slow re-read.
	RedisStatusCommands = [...]string{"xrevrange", "pubsub|numsub"}
	// RedisClusterCommands are, besides, what the client of a Redis Cluster finds its way with.
	RedisClusterCommands = [...]string{"cluster|slots", "command"}
)

// EventChannel returns the channel on which the replicas of a namespace announce what they did. A
// channel reaches all databases of a Redis, unlike a key. So each database but 0 has one of its
// own, and the subscriptions to it are those of the replicas that share its keys.
func EventChannel(rdb redis.UniversalClient, namespace string) string {
	channel := namespace + ":events"
	if c, ok := rdb.(*redis.Client); ok && c.Options().DB != 0 {
		channel += ":" + strconv.Itoa(c.Options().DB)
	}
	return channel
}
