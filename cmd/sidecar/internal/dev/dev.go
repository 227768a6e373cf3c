// Package dev is the --dev of the program: a Redis and a WeChat inside its process, each only if
// none is configured. It is for trying things out, and 2.3 MB large, so only a build with the tag
// dev links it.
package dev

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// App is the account that the simulator knows: an official account with a menu, so that what an SDK
// asks for is there.
var App = wechattest.App{ID: "wx00000000000000de", Secret: "development-only",
	Menu: `{"button":[{"type":"view","name":"wxtoken","url":"https://github.com/wxtoken/sidecar","sub_button":[]}]}`}

// Mode is what runs for --dev. Its settings reach the program by the environment, as a user's
// would, so that the wiring is the same.
type Mode struct {
	redis *miniredis.Miniredis
	sim   *http.Server
	env   map[string]string
}

// Start starts what neither o nor getenv names. The caller must call Stop.
func Start(o config.Overrides, getenv func(string) string) (*Mode, error) {
	d := &Mode{env: map[string]string{}}
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
		sim := wechattest.New(App)
		mux := http.NewServeMux()
		mux.Handle("/", sim)
		mux.Handle("/sim/", sim.Admin())
		d.sim = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = d.sim.Serve(listener) }()
		d.env["WECHAT_APPID"], d.env["WECHAT_SECRET"] = App.ID, App.Secret
		d.env["WECHAT_API_BASE"] = "http://" + listener.Addr().String()
	}
	return d, nil
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
	if d.redis != nil {
		d.redis.Close()
	}
	if d.sim != nil {
		_ = d.sim.Close()
	}
}

// Greet prints commands that work against cfg right now.
func (d *Mode) Greet(w io.Writer, cfg *config.Config, values, ops string) error {
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
	lines = append(lines, "  # health and metrics; in a browser, http://"+ops+"/status",
		"  curl -s http://"+ops+"/readyz", "  curl -s http://"+ops+"/metrics | grep ^wxtoken", "")
	var errs []error
	for _, line := range lines {
		_, err := fmt.Fprintln(w, line)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
