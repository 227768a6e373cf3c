// Package dev is the --dev of the program: a Redis and a WeChat inside its process, each only if
// none is configured. It is for trying things out, and 2.3 MB large, so only a build with the tag
// dev links it.
package dev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// App is the account that the simulator knows: an official account with a menu, so that what an SDK
// asks for is there.
var App = wechattest.App{ID: "wx00000000000000de", Secret: "development-only",
	Menu: `{"button":[{"type":"view","name":"wxtoken","url":"https://github.com/wxtoken/sidecar","sub_button":[]}]}`}

// Mode is what runs for --dev. Its settings reach the program by the environment, as a user's
// would, so that the wiring is the same.
type Mode struct {
	redis  *miniredis.Miniredis
	sim    *http.Server
	wechat *wechattest.Server
	dir    string // of the platform's files
	env    map[string]string
	ctx    context.Context // of WeChat's pushes
	stop   context.CancelFunc
}

// Start starts what neither o nor getenv names. The caller must call Stop.
func Start(o config.Overrides, getenv func(string) string) (*Mode, error) {
	d := &Mode{env: map[string]string{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if getenv("WXTOKEN_DRAIN") == "" {
		d.env["WXTOKEN_DRAIN"] = "0s" // Ctrl-C means now
	}
	if o.Config != "" || getenv("WXTOKEN_CONFIG") != "" {
		return d, nil // a file names its own apps and its own Redis
	}
	if o.RedisURL == "" && getenv("REDIS_URL") == "" {
		d.redis = miniredis.NewMiniRedis()
		d.redis.ClockTTL(true)
		if err := d.redis.StartAddr("127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("starting the embedded Redis: %w", err)
		}
		d.env["REDIS_URL"] = "redis://" + d.redis.Addr()
	}
	if getenv("WECHAT_APPID") == "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			d.Stop()
			return nil, fmt.Errorf("starting the WeChat simulator: %w", err)
		}
		d.wechat = wechattest.New(App)
		mux := http.NewServeMux()
		mux.Handle("/", d.wechat)
		mux.Handle("/sim/", d.wechat.Admin())
		d.sim = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = d.sim.Serve(listener) }()
		d.env["WECHAT_APPID"], d.env["WECHAT_SECRET"] = App.ID, App.Secret
		d.env["WECHAT_API_BASE"] = "http://" + listener.Addr().String()
		if getenv(noPlatform) == "false" {
			return d, nil
		}
		d.wechat.AddPlatform(Platform)
		if err := errors.Join(d.writePlatform(), d.keepTicket(cmp.Or(o.Namespace, getenv("WXTOKEN_NAMESPACE"), config.DefaultNamespace))); err != nil {
			d.Stop()
			return nil, err
		}
	}
	return d, nil
}

// noPlatform is the variable that leaves Platform out, if it is false: what is then there is what a
// user of one app has.
const noPlatform = "WXTOKEN_DEV_PLATFORM"

// Platform is the third-party platform that the simulator knows, and Shop an account that
// authorises it as soon as it runs.
var Platform = wechattest.Platform{ID: "wx00000000000000cc", Secret: "development-only-platform", Token: "development-only-token",
	AESKey: "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}

// Shop is an account that authorises Platform.
const Shop = "wx00000000000000f0"

// writePlatform writes the configuration of Platform, which has no form in the environment.
func (d *Mode) writePlatform() (err error) {
	if d.dir, err = os.MkdirTemp("", "wxtoken-dev-"); err != nil {
		return fmt.Errorf("writing the configuration of a platform: %w", err)
	}
	file := "vault: {key_file: " + d.dir + "/vault-key}\nplatforms:\n- id: " + Platform.ID + "\n  kind: open_platform\n  alias: platform\n  api_base: " + d.env["WECHAT_API_BASE"] +
		"\n  secret_file: " + d.dir + "/secret\n  token_file: " + d.dir + "/token\n  aes_key_file: " + d.dir + "/aes-key\n"
	for name, text := range map[string]string{
		"wxtoken.yaml": file, "secret": Platform.Secret, "token": Platform.Token, "aes-key": Platform.AESKey, "vault-key": devVaultKey,
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("writing the configuration of a platform: %w", err)
		}
	}
	d.env["WXTOKEN_CONFIG"] = filepath.Join(d.dir, "wxtoken.yaml")
	return nil
}

// keepTicket puts a ticket into the vault of an embedded Redis, as a platform has one that ran before:
// else there would be no token of the platform until the first push.
func (d *Mode) keepTicket(namespace string) error {
	if d.redis == nil {
		return nil
	}
	keys, err := vault.ParseKeys(secret.New(devVaultKey))
	if err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: d.redis.Addr()})
	defer rdb.Close()
	_, err = vault.New(vault.NewRedis(rdb, namespace), keys).Save(d.ctx, vault.Record{
		Platform: Platform.ID, ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New(d.wechat.Ticket(Platform.ID)), Order: time.Now().Unix(),
	})
	return err
}

// devVaultKey seals what a Redis in memory keeps.
const devVaultKey = "ZGV2ZWxvcG1lbnQtb25seS1kZXZlbG9wbWVudC1vbmw="

// push has WeChat push to a running sidecar, at the listener of its own if there is one, and an
// account authorise.
func (d *Mode) push(ctx context.Context, cfg *config.Config, values string) {
	to := "http://" + values + "/v1/apps/" + Platform.ID + "/callback"
	if host, port, err := net.SplitHostPort(cfg.CallbackListen); err == nil && port != "0" {
		to = "http://" + net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port) + "/callback/" + Platform.ID
	}
	d.wechat.SetCallback(Platform.ID, to)
	go d.wechat.RunPushes(d.ctx)
	// The commands that are printed next should work: an account authorises a platform that has its
	// ticket and its token.
	if eventually(ctx, func() bool { return d.wechat.Calls(Platform.ID).Issued > 0 }) {
		d.wechat.Authorize(Platform.ID, Shop)
		eventually(ctx, func() bool { return d.wechat.Ledger(Platform.ID).Authorizers[Shop].Exchanges > 0 })
	}
}

// eventually reports whether something came true within 10 s, and before ctx ended.
func eventually(ctx context.Context, is func() bool) bool {
	for began := time.Now(); time.Since(began) < 10*time.Second && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if is() {
			return true
		}
	}
	return false
}

// Getenv returns the environment of the program: what was started, and the rest from user.
func (d *Mode) Getenv(user func(string) string) func(string) string {
	return func(name string) string {
		if v, ok := d.env[name]; ok {
			return v
		}
		return user(name)
	}
}

// Stop stops what Start started.
func (d *Mode) Stop() {
	d.stop()
	if d.dir != "" {
		_ = os.RemoveAll(d.dir) // it is below the directory of temporary files
	}
	if d.redis != nil {
		d.redis.Close()
	}
	if d.sim != nil {
		_ = d.sim.Close()
	}
}

// Greet prints commands that work against cfg right now. The end of ctx ends its wait for what they need.
func (d *Mode) Greet(ctx context.Context, w io.Writer, cfg *config.Config, values, ops string) error {
	app := cfg.Apps[0].CredentialID()
	key := cfg.Namespace + ":{" + app + "}:access_token"
	lines := []string{
		"wxtoken is up. Try, in another terminal:", "",
		"  # the token, as JSON and bare",
		"  curl -s http://" + values + "/v1/apps/" + app + "/token",
		"  curl -s -H 'Accept: text/plain' http://" + values + "/v1/apps/" + app + "/token", "",
	}
	if d.redis != nil {
		lines = append(lines, "  # the same, read from (an embedded) Redis by any program that may",
			"  redis-cli -u "+d.env["REDIS_URL"]+" GET '"+key+"'", "")
	}
	if d.sim != nil {
		lines = append(lines, "  # invalidate every token at (a simulated) WeChat, report it, and get the new one",
			"  TOKEN=$(curl -s -H 'Accept: text/plain' http://"+values+"/v1/apps/"+app+"/token)",
			"  curl -s -X POST "+d.env["WECHAT_API_BASE"]+"/sim/apps/"+app+"/kill",
			`  curl -s -d "{\"access_token\":\"$TOKEN\",\"errcode\":40001}" http://`+values+"/v1/apps/"+app+"/token/report", "")
	}
	lines = append(lines, "  # a call of WeChat's API, without any token, and a token as an SDK asks for it",
		"  curl -s http://"+values+"/proxy/"+app+"/cgi-bin/getcallbackip",
		"  curl -s 'http://"+values+"/cgi-bin/token?grant_type=client_credential&appid="+app+"'", "",
		"  # a signature for wx.config, and a login without the AppSecret",
		"  curl -s -d '{\"url\":\"https://shop.example.com/\"}' http://"+values+"/v1/apps/"+app+"/jssdk",
		"  curl -s 'http://"+values+"/sns/jscode2session?grant_type=authorization_code&js_code=x&appid="+app+"'", "")
	if d.wechat != nil && len(cfg.Platforms) > 0 {
		d.push(ctx, cfg, values)
		lines = append(lines, "  # a third-party platform: the token of an account that has authorised it, a call for it, and another account",
			"  curl -s http://"+values+"/v1/apps/platform:"+Shop+"/token",
			"  curl -s http://"+values+"/proxy/platform:"+Shop+"/cgi-bin/getcallbackip",
			"  curl -s -d '{\"authorizer\":\"wx00000000000000f1\"}' "+d.env["WECHAT_API_BASE"]+"/sim/platforms/"+Platform.ID+"/authorize",
			"  curl -s http://"+values+"/v1/apps/platform/authorizers", "")
	}
	lines = append(lines, "  # health and metrics; in a browser, http://"+ops+"/status",
		"  curl -s http://"+ops+"/readyz", "  curl -s http://"+ops+"/metrics | grep ^wxtoken", "")
	var errs []error
	for _, line := range lines {
		_, err := fmt.Fprintln(w, line)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
