package tokencachetest

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The cluster's Redis uses database 0. Database 1 is the secondary, as far behind as the last
// Replicate; time passes in both. Each script is one step for all clients.
const (
	replicateLua = `
redis.call('SELECT', 1)
redis.call('FLUSHDB')
redis.call('SELECT', 0)
for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', '1') end
`
	promoteLua = `redis.call('SWAPDB', '0', '1')` + replicateLua
)

// Replicate brings the Redis that [Cluster.Failover] would promote up to date.
func (c *Cluster) Replicate() { c.administer(replicateLua) }

// Failover loses every write since the last [Cluster.Replicate], all of them if there was none, and
// every connection.
func (c *Cluster) Failover() {
	c.administer(promoteLua)
	for _, r := range c.Replicas {
		r.Link.Reset()
	}
}

// administer runs a script on a connection of its own.
func (c *Cluster) administer(script string) {
	rdb := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:6379", PoolSize: 1,
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return c.Redis.Dial() },
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	defer rdb.Close()
	if err := rdb.Eval(context.Background(), script, nil).Err(); err != nil && err != redis.Nil {
		c.t.Error(err)
	}
}
