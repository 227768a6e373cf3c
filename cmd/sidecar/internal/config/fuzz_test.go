package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

// FuzzRedisURL: a URL is one that go-redis takes in its form, or a mistake that repeats nothing
// secret of it. SECRET is replaced by a password, or a part of one that was not percent-encoded.
func FuzzRedisURL(f *testing.F) {
	for _, url := range []string{
		"redis://redis:6379/3", "rediss://u:SECRET@[::1]:6379/0?dial_timeout=3s&pool_size=5", "unix://user:SECRET@/run/redis.sock?db=1",
		"redis://s1:26379/0?master_name=m&addr=s2:26379&username=u&password=SECRET", "redis://c1:6379?addr=c2:6379&route_randomly=true",
		"redis://:SECRET/x@redis", "redis://:SECRET?x@redis", "redis://redis:SECRET", "redis://redis/SECRET", "redis://redis?SECRET=1", "redis://redis?db=SECRET&pool_size=SECRET",
		"redis://:%zzSECRET@redis", "http://SECRET", "redis://redis?addr=SECRET%00&master_name=", "redis://h:1:2?addr=:SECRET", "SECRET", "", "redis://\x00SECRET", "redis://redis?protocol=9&db=-1",
	} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if strings.Contains(url, "HUSH") {
			return
		}
		url = strings.ReplaceAll(url, "SECRET", canary)
		got, err := loadRedis(url)
		if err != nil {
			if secrettest.Find(err.Error(), canary) != "" || !strings.Contains(err.Error(), "REDIS_URL") || len(err.Error()) > 1000 {
				t.Errorf("%q: %v", url, err)
			}
			return
		}
		// The parser that the form names takes it.
		switch given := got.URL.Reveal(); got.Form {
		case config.RedisSingle:
			_, err = redis.ParseURL(given)
		case config.RedisSentinel:
			_, err = redis.ParseFailoverURL(given)
		case config.RedisCluster:
			_, err = redis.ParseClusterURL(given)
		default:
			t.Errorf("%q: form %q", url, got.Form)
		}
		if err != nil {
			t.Errorf("%q is accepted, and go-redis says %v", url, err)
		}
	})
}

// FuzzSecretFile: a file holds a secret and at most white space and a byte order mark around it, or
// it is a mistake that repeats nothing of it.
func FuzzSecretFile(f *testing.F) {
	for _, content := range []string{
		"SECRET", "SECRET\n", "SECRET\r\n", "SECRET\n\n", " SECRET", "SECRET x", "SECRET\x00", "\xef\xbb\xbfSECRET", "", "\n", "é", "\r", strings.Repeat("SECRET", 200), strings.Repeat("x", 4096), strings.Repeat("x", 4097),
	} {
		f.Add([]byte(content))
	}
	path := f.TempDir() + "/secret"
	env := getenv(map[string]string{"REDIS_URL": "redis://r", "WECHAT_APPID": "wx01", "WECHAT_SECRET_FILE": path})
	f.Fuzz(func(t *testing.T, content []byte) {
		text := strings.ReplaceAll(string(content), "SECRET", canary)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Overrides{}, env)
		if err != nil {
			if secrettest.Find(err.Error(), canary) != "" || !strings.Contains(err.Error(), "WECHAT_SECRET_FILE") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		got := c.Apps[0].Secret.Reveal()
		around := strings.TrimPrefix(strings.TrimSpace(text), "\ufeff")
		if got == "" || len(got) > 4096 || strings.TrimSpace(around) != got || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is read as %q", text, got)
		}
	})
}
