package tokencache

// What the user of a cache must be permitted on Redis, as rules of an ACL without their plus.
// Besides, it needs the keys "namespace:*" and the channel "namespace:events". Redis 6.2 takes them
// as well. Everything that lists rights is made of these, or tested against them.
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
