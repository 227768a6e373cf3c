package redisclient

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// What the URL says of times and of connections holds, and what it does not say is this program's
// own. Connections are small, and none is kept for pipelines.
func TestOptionsOfTheRedisURLAreHonoured(t *testing.T) {
	load := func(url string) redis.UniversalClient {
		t.Helper()
		cfg, err := config.Load(config.Overrides{RedisURL: url}, func(name string) string {
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
	const options = "dial_timeout=3s&read_timeout=700ms&write_timeout=2&pool_size=7&max_retries=1"
	for _, form := range []string{"", "&master_name=m", "&addr=127.0.0.1:2"} {
		type settings struct {
			dial, readTime, writeTime time.Duration
			read, write               int // the buffers
		}
		got := func(options string) (s settings, pool, retries int) {
			switch c := load("redis://127.0.0.1:1?" + options + form).(type) {
			case *redis.ClusterClient:
				o := c.Options()
				return settings{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.ReadBufferSize, o.WriteBufferSize}, o.PoolSize, o.MaxRetries
			case *redis.Client:
				o := c.Options()
				if o.PipelinePoolSize >= 0 {
					t.Errorf("form %q: %d connections for pipelines", form, o.PipelinePoolSize)
				}
				return settings{o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.ReadBufferSize, o.WriteBufferSize}, o.PoolSize, o.MaxRetries
			}
			return settings{}, 0, 0
		}
		if set, pool, retries := got(options); set != (settings{3 * time.Second, 700 * time.Millisecond, 2 * time.Second, bufferSize, bufferSize}) || pool != 7 || retries > 1 {
			t.Errorf("form %q: %v, pool %d, retries %d", form, set, pool, retries)
		}
		if own, _, _ := got("read_timeout="); own != (settings{redisDialTimeout, IOTimeout, IOTimeout, bufferSize, bufferSize}) {
			t.Errorf("form %q without options: %v", form, own)
		}
	}
}
