package main

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// How long go-redis tries before it lets the cache decide. The cache bounds an operation by 1 s, so
// a reply that is lost leaves time for one more try.
const (
	redisDialTimeout = 500 * time.Millisecond
	redisIOTimeout   = 400 * time.Millisecond
	// A dead master is left out once the Cluster has another: go-redis learns that by no error of a connection, but
	// only when it looks again, by default after a minute. It looks only when there is something to ask.
	redisClusterLook = time.Second
)

// connect returns a client for any of the forms of Redis. It does no I/O.
func connect(cfg config.Redis) (redis.UniversalClient, error) {
	url := cfg.URL.Reveal()
	// Without its own deadline go-redis would keep a caller who asked for 100 ms waiting for 5 s.
	// Client names and maintenance notifications are more commands that an ACL would have to allow.
	switch cfg.Form {
	case config.RedisCluster:
		o, err := redis.ParseClusterURL(url)
		if err != nil {
			return nil, errRedisURL
		}
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = redisDialTimeout, redisIOTimeout, redisIOTimeout
		o.DialerRetries, o.ClusterStateReloadInterval = 1, redisClusterLook
		o.MaintNotificationsConfig = noMaintNotifications()
		return redis.NewClusterClient(o), nil
	case config.RedisSentinel:
		o, err := redis.ParseFailoverURL(url)
		if err != nil {
			return nil, errRedisURL
		}
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = redisDialTimeout, redisIOTimeout, redisIOTimeout
		o.DialerRetries = 1
		return redis.NewFailoverClient(o), nil
	default:
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, errRedisURL
		}
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = redisDialTimeout, redisIOTimeout, redisIOTimeout
		o.DialerRetries = 1
		o.MaintNotificationsConfig = noMaintNotifications()
		return redis.NewClient(o), nil
	}
}

// errRedisURL stands for go-redis' own error, which may quote the URL and so its password. The
// configuration was checked, so it is not expected.
var errRedisURL = fmt.Errorf("the Redis URL cannot be used")

func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// redisLog gives go-redis' own messages a place: at debug level, because the cache tells what matters.
type redisLog struct {
	log     *zap.SugaredLogger
	secrets []secret.String // that no message may hold
}

func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	if l.log.Level().Enabled(zap.DebugLevel) {
		l.log.Debug(tokencache.ScrubRedis(fmt.Sprintf(format, v...), l.secrets...))
	}
}
