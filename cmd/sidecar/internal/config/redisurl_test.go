package config_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// loadRedis loads a configuration with the URL in the environment.
func loadRedis(url string) (config.Redis, error) {
	c, err := config.Load(config.Overrides{}, getenv(map[string]string{"REDIS_URL": url, "WECHAT_APPID": "wx01", "WECHAT_SECRET": "s"}))
	if err != nil {
		return config.Redis{}, err
	}
	return c.Redis, nil
}

func TestFormsOfRedisURLs(t *testing.T) {
	for _, c := range []struct{ url, form string }{
		{"redis://redis", config.RedisSingle},
		{"redis://redis:6379/3", config.RedisSingle},
		{"redis://user:p%40ss@[::1]:6379/0?dial_timeout=3s&pool_size=5", config.RedisSingle},
		{"rediss://redis:6380/?skip_verify=true", config.RedisSingle},
		{"unix://user:pw@/run/redis.sock?db=1", config.RedisSingle},
		{"unix:///run/redis.sock", config.RedisSingle},
		{"redis://s1:26379/0?master_name=m&addr=s2:26379&addr=s3:26379&username=u&password=p%26w", config.RedisSentinel},
		{"rediss://:sentinel@s1?master_name=m", config.RedisSentinel},
		{"redis://c1:6379?addr=c2:6379&addr=c3:6379", config.RedisCluster},
		{"rediss://u:p@c1:6379/0?addr=c1:6379&route_randomly=true", config.RedisCluster},
	} {
		got, err := loadRedis(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if got.Form != c.form || got.URL.Reveal() != c.url {
			t.Errorf("%s: form %s, want %s", c.url, got.Form, c.form)
		}
		// The parser that the form names understands the URL.
		switch got.Form {
		case config.RedisSingle:
			_, err = redis.ParseURL(c.url)
		case config.RedisSentinel:
			_, err = redis.ParseFailoverURL(c.url)
		case config.RedisCluster:
			_, err = redis.ParseClusterURL(c.url)
		}
		if err != nil {
			t.Errorf("%s: form %s: %v", c.url, got.Form, err)
		}
	}
}

func TestBadRedisURLsAreExplainedWithoutTheirPasswords(t *testing.T) {
	const encode = "has an @ or # after its host: in user, password and options write / ? # and @ as %2F %3F %23 and %40"
	for _, c := range []struct{ url, want string }{
		{"redis://s1?master_name=m&replica_only=true", "has the option replica_only, but the sidecar reads and writes at the master: remove it"},
		{"redis://s1?master_name=m&route_by_latency=true", "has the option route_by_latency, but the sidecar reads and writes at the master: remove it"},
		{"redis://s1?master_name=m&dialer_retries=9", "has the option dialer_retries, which the sidecar sets itself: remove it"},
		{"redis://s1?master_name=m&context_timeout_enabled=false", "has the option context_timeout_enabled, which the sidecar sets itself: remove it"},
		{"redis://redis?tls_cert_file=/c&tls_key_file=/k", "has options that begin with tls_, which need rediss://"},
		{"rediss://redis?tls_cert_file=/c", "needs tls_cert_file and tls_key_file together"},
		{"rediss://redis?tls_ca_file=ca.pem", "needs, as its one option tls_ca_file, the absolute path of a PEM file, percent-encoded"},
		{"rediss://redis?tls_ca_file=/a&tls_ca_file=/b", "needs, as its one option tls_ca_file, the absolute path of a PEM file, percent-encoded"},
		{"rediss://s?master_name=m&tls_only=yes", "needs, as its one option tls_only, servers or sentinels"},
		{"rediss://redis?tls_only=servers", "has the option tls_only, which is for Sentinels: add master_name, or remove it"},
		{"redis://s?master_name=m&tls_only=servers", "has options that begin with tls_, which need rediss://"},
		{"redis://redis?protocol=1", "has a value that does not fit its option protocol"},
		{"redis:6379", "must start with redis://, rediss:// or unix://"},
		{"http://:HUSH@redis", "must start with redis://, rediss:// or unix://"},
		{"redis://:HUSH/x@redis", encode},
		{"redis://:HUSH?x@redis", encode},
		{"redis://:HUSH#x@redis", encode},
		{"redis://HUSH:12/34@redis:6379/0", encode},
		{"redis://redis/0#HUSH", encode},
		{"redis://s?master_name=m&password=x@HUSH", encode},
		{"redis://:%HUSH@redis", "is not a valid URL: the user and the password must be percent-encoded"},
		{"redis://redis:HUSH", "is not a valid URL: the user and the password must be percent-encoded"},
		{"redis://redis?db=%HUSH", "has options that are not percent-encoded"},
		{"redis://redis/HUSH", "must end in the number of a database, such as /0"},
		{"redis://redis/0/1", "must end in the number of a database, such as /0"},
		{"redis://redis?db=HUSH", "has a value that does not fit its option db"},
		{"redis://redis?dial_timeout=1s&pool_size=HUSH", "has a value that does not fit its option pool_size"},
		{"redis://redis?dial_timeout=1s&HUSH=1", "has an unknown option, number 2 after the ?, for the form single"},
		{"redis://redis?skip_verify=true", "has an unknown option, number 1 after the ?, for the form single"},
		{"redis://s?master_name=", "has an empty master_name"},
		{"redis://s?master_name=m&password=pass&HUSH", "has an unknown option, number 3 after the ?, for the form sentinel"},
		{"redis://s?master_name=m&addr=HUSH", "has a value that does not fit its option addr"},
		{"redis://c/1?addr=c:1", "has a database other than 0, the only one of a cluster"},
		{"redis://c?addr=c:1&db=0", "has an unknown option, number 2 after the ?, for the form cluster"},
		{"unix:///sock?addr=c:1", "with unix:// is for one server: remove the options master_name and addr"},
		{"unix://", "is not one that go-redis takes"},
	} {
		_, err := loadRedis(c.url)
		if want := "config: REDIS_URL: the URL " + c.want; err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", c.url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "HUSH") {
			t.Errorf("%s: the error repeats it: %v", c.url, err)
		}
	}
}
