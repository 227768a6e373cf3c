package config_test

import (
	"io/fs"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

func sample() *config.Config {
	return &config.Config{
		Listen: ":1", OpsListen: ":2", AllowRemote: true, Bearer: secret.New("b"), BearerTokenFile: "/b",
		Namespace: "n", Redis: config.Redis{URL: secret.New("redis://r"), Form: "single"}, Log: config.Log{Level: "info", Format: "auto"},
		Apps: []config.App{
			{ID: "a", Alias: "x", Secret: secret.New("s"), Tickets: []string{"jsapi", "wx_card"}},
			{ID: "b", Secret: secret.New("s")},
		},
		Platforms: []config.ThirdParty{{ID: "p", Kind: config.KindOpenPlatform, Secret: secret.New("s")}},
		Warnings:  []string{"w"},
	}
}

func TestEqualIgnoresOrderAndOrigin(t *testing.T) {
	a, b := sample(), sample()
	slices.Reverse(b.Apps)
	slices.Reverse(b.Apps[1].Tickets)
	b.Apps[0].SecretFile, b.BearerTokenFile, b.Warnings = "/moved", "/moved", nil
	if !a.Equal(b) || !b.Equal(a) {
		t.Error("order or origin made a difference")
	}
}

// Every field that changes what the program does must make a difference, also those added later.
func TestEqualSeesEveryField(t *testing.T) {
	noDifference := []string{"BearerTokenFile", "SecretFile", "TokenFile", "AESKeyFile", "KeysFile", "URLFile", "Warnings"}
	for _, part := range []func(*config.Config) any{
		func(c *config.Config) any { return c },
		func(c *config.Config) any { return &c.Redis },
		func(c *config.Config) any { return &c.Redis.TLS },
		func(c *config.Config) any { return &c.TLS },
		func(c *config.Config) any { return &c.Log },
		func(c *config.Config) any { return &c.Drain },
		func(c *config.Config) any { return &c.Apps[0] },
		func(c *config.Config) any { return &c.Platforms[0] },
		func(c *config.Config) any { return &c.Vault },
	} {
		for i := range reflect.ValueOf(part(sample())).Elem().NumField() {
			c := sample()
			v := reflect.ValueOf(part(c)).Elem()
			name := v.Type().Field(i).Name
			if !v.Type().Field(i).IsExported() {
				continue // what a look remembers, and no setting
			}
			switch p := v.Field(i).Addr().Interface().(type) {
			case *string:
				*p += "x"
			case *bool:
				*p = !*p
			case *int:
				*p++
			case *fs.FileMode:
				*p ^= 6
			case *time.Duration:
				*p++
			case *secret.String:
				*p = secret.New("x")
			case *[]string:
				*p = append(*p, "x")
			case *[]config.App:
				*p = (*p)[1:]
			case *[]config.ThirdParty:
				*p = (*p)[1:]
			case *vault.Keys: // Equal compares what they were made of
				continue
			case **wechat.Envelope: // the same
				continue
			case *config.Redis, *config.RedisTLS, *config.TLS, *config.Log, *config.Drain, *config.Vault: // have parts of their own
				continue
			default:
				t.Fatalf("no idea how to change %s", name)
			}
			if got, want := sample().Equal(c), slices.Contains(noDifference, name); got != want {
				t.Errorf("%s changed: Equal = %v, want %v", name, got, want)
			}
		}
	}
}

func TestReloadKeepsWhatNeedsARestart(t *testing.T) {
	old, next := sample(), sample()
	next.Listen, next.OpsListen, next.Namespace = "127.0.0.1:1", ":3", "m"
	next.Redis = config.Redis{URL: secret.New("redis://other"), Form: "single"}
	next.AllowRemote, next.Bearer, next.BearerTokenFile = false, secret.String{}, ""
	next.Drain.Max, next.Quit = time.Minute, true
	next.TLS.Listen, next.CallbackListen = "127.0.0.1:443", ":7202"
	next.Log.Level, next.Apps, next.Warnings = "debug", next.Apps[:1], nil

	got, restart := old.Reload(next)
	if diff := cmp.Diff([]string{"listen", "ops_listen", "callback_listen", "tls_listen", "namespace", "log", "drain", "quit", "redis"}, restart); diff != "" {
		t.Errorf("restart (-want +got):\n%s", diff)
	}
	// The listener that others reach is still open, so its bearer stays.
	want := sample()
	want.Apps, want.Warnings = want.Apps[:1], nil
	if diff := cmp.Diff(want, got, equalSecrets); diff != "" {
		t.Errorf("effective (-want +got):\n%s", diff)
	}

	// A new bearer takes effect at once, and so does the end of one that loopback did not need.
	next.Bearer = secret.New("new")
	if got, _ := old.Reload(next); got.Bearer.Reveal() != "new" {
		t.Error("the new bearer was not taken over")
	}
	next.Listen, next.TLS, next.Bearer = old.Listen, old.TLS, secret.String{}
	if got, _ := old.Reload(next); !got.Bearer.Empty() {
		t.Error("the old bearer stayed")
	}
}
