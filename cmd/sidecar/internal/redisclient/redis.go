// Package redisclient makes go-redis clients as the cache needs them: with short timeouts, bounded
// replies, and the certificates of the configuration.
package redisclient

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// How long go-redis tries before it lets the cache decide. The cache bounds an operation by 1 s, so
// a reply that is lost leaves time for one more try.
const (
	redisDialTimeout = 500 * time.Millisecond
	IOTimeout        = 400 * time.Millisecond
	// A dead master is left out once the Cluster has another: go-redis learns that by no error of a
	// connection, but only when it looks again, by default after a minute. It looks only when there
	// is something to ask.
	redisClusterLook = time.Second
)

// bufferSize is what a connection to Redis has room for in each direction: what goes over it is a
// token and what is known of it. go-redis would take 32 KiB.
const bufferSize = 4 << 10

// noPoolOfPipelines: a pipeline takes a connection as any command does. go-redis would keep others
// for them, with 256 KiB each.
const noPoolOfPipelines = -1

// Connect returns a client for any of the forms of Redis. It does no I/O but to read certificates.
func Connect(cfg config.Redis) (redis.UniversalClient, error) {
	raw := cfg.URL.Reveal()
	// Without its own deadline go-redis would keep a caller who asked for 100 ms waiting for 5 s.
	// Client names and maintenance notifications are more commands that an ACL would have to allow.
	switch cfg.Form {
	case config.RedisCluster:
		o, err := redis.ParseClusterURL(raw)
		if err != nil {
			return nil, errRedisURL
		}
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		redisTimes(raw, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout)
		o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
		o.DialerRetries, o.ClusterStateReloadInterval = 1, redisClusterLook
		o.MaintNotificationsConfig = noMaintNotifications()
		if err := useFiles(o.TLSConfig, cfg.TLS); err != nil {
			return nil, err
		}
		o.Dialer = dialer{timeout: o.DialTimeout, secure: TLS(o.TLSConfig, cfg), resp2: o.Protocol == 2}.dial
		return redis.NewClusterClient(o), nil
	case config.RedisSentinel:
		o, err := failoverOptions(cfg)
		if err != nil {
			return nil, err
		}
		rdb := redis.NewFailoverClient(o)
		rdb.AddHook(markServers{})
		return rdb, nil
	default:
		o, err := redis.ParseURL(raw)
		if err != nil {
			return nil, errRedisURL
		}
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		redisTimes(raw, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout)
		o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
		o.DialerRetries, o.PipelinePoolSize = 1, noPoolOfPipelines
		o.MaintNotificationsConfig = noMaintNotifications()
		if err := useFiles(o.TLSConfig, cfg.TLS); err != nil {
			return nil, err
		}
		o.Dialer = dialer{timeout: o.DialTimeout, secure: TLS(o.TLSConfig, cfg), resp2: o.Protocol == 2}.dial
		return redis.NewClient(o), nil
	}
}

func failoverOptions(cfg config.Redis) (*redis.FailoverOptions, error) {
	raw := cfg.URL.Reveal()
	o, err := redis.ParseFailoverURL(raw)
	if err != nil {
		return nil, errRedisURL
	}
	o.ContextTimeoutEnabled, o.DisableIdentity = true, true
	redisTimes(raw, &o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout)
	o.ReadBufferSize, o.WriteBufferSize = bufferSize, bufferSize
	o.DialerRetries, o.PipelinePoolSize = 1, noPoolOfPipelines
	if err := useFiles(o.TLSConfig, cfg.TLS); err != nil {
		return nil, err
	}
	o.Dialer = dialer{timeout: o.DialTimeout, secure: TLS(o.TLSConfig, cfg), resp2: o.Protocol == 2, sentinels: true}.dial
	return o, nil
}

// Sentinel returns a client for one of the Sentinels of a URL, as the client of [Connect] makes it,
// and the name of the master that the URL is about. It does no I/O but to read certificates.
func Sentinel(cfg config.Redis, address string) (_ *redis.SentinelClient, master string, _ error) {
	o, err := failoverOptions(cfg)
	if err != nil {
		return nil, "", err
	}
	return redis.NewSentinelClient(&redis.Options{
		Addr: address, Username: o.SentinelUsername, Password: o.SentinelPassword, Dialer: o.Dialer, DialerRetries: 1, MaxRetries: -1,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, ContextTimeoutEnabled: true, DisableIdentity: true,
	}), o.MasterName, nil
}

// redisTimes sets the timeouts that the URL does not.
func redisTimes(raw string, dial, read, write *time.Duration) {
	u, err := url.Parse(raw)
	if err != nil {
		return // the configuration was checked
	}
	options := u.Query()
	for _, t := range []struct {
		option   string
		to       *time.Duration
		standard time.Duration
	}{{"dial_timeout", dial, redisDialTimeout}, {"read_timeout", read, IOTimeout}, {"write_timeout", write, IOTimeout}} {
		if options.Get(t.option) == "" {
			*t.to = t.standard
		}
	}
}

// errRedisURL replaces go-redis' own error, which may quote the URL and so its password. The
// configuration was checked, so it is not expected.
var errRedisURL = fmt.Errorf("the Redis URL cannot be used")

func noMaintNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// Log passes go-redis' own messages to log at debug level, because the cache reports what matters
// as events. No message holds one of the secrets.
func Log(log *zap.Logger, secrets []secret.String) {
	redis.SetLogger(&logger{log.Named("redis").Sugar(), secrets})
}

// Silence drops go-redis' own messages.
func Silence() { redis.SetLogger(&logger{zap.NewNop().Sugar(), nil}) }

type logger struct {
	log     *zap.SugaredLogger
	secrets []secret.String
}

func (l *logger) Printf(_ context.Context, format string, v ...any) {
	if l.log.Level().Enabled(zap.DebugLevel) {
		l.log.Debug(secret.ScrubRedis(fmt.Sprintf(format, v...), l.secrets...))
	}
}
