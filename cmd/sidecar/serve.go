package main

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

const serveUsage = "[serve] [flags]"

const serveAbout = `Keeps the tokens and tickets of the configured apps, and hands them out to the programs of
this pod until it is told to stop (SIGTERM, SIGINT).

Flags go over the environment, and that over the file. One app needs only the environment:
  WECHAT_APPID, WECHAT_SECRET (or WECHAT_SECRET_FILE), REDIS_URL
  WECHAT_ENDPOINT       stable_token (the default) or token
  WECHAT_API_BASE       default ` + config.DefaultWeChatBase + `

examples:
  sidecar --dev                             without a WeChat account and without a Redis
  sidecar --config /etc/wxtoken/wxtoken.yaml

exit status:
  0  stopped by a signal
  1  it cannot run: an address is taken, say
  2  wrong flags or a wrong configuration
`

func runServe(ctx context.Context, c *invocation) int {
	var o config.Overrides
	set := c.flags()
	allFlags(set, &o)
	devMode := set.Bool("dev", false, "embed a Redis, and simulate WeChat, where none is configured")
	showVersion := set.Bool("version", false, "print the version and exit")
	if _, status, done := c.parse(set, 0); done {
		return status
	}
	if *showVersion {
		fmt.Fprintln(c.stdout, "sidecar", build.Version())
		return exitDone
	}

	d := &dev{}
	if *devMode {
		var err error
		if d, err = startDev(o, c.getenv); err != nil {
			fmt.Fprintf(c.stderr, "sidecar: %v\n", err)
			return exitFailed
		}
		defer d.stop()
	}
	load := func() (*config.Config, error) { return config.Load(o, d.getenv(c.getenv)) }
	cfg, err := load()
	if err != nil {
		fmt.Fprintln(c.stderr, err)
		return exitUsage
	}
	log := newLogger(cfg.Log, c.stderr)
	redis.SetLogger(redisLog{log.Named("redis").Sugar()})

	up := func(values, ops string) {
		if *devMode {
			_ = d.greet(c.stdout, cfg, values, ops) // nobody reads it: nothing is lost
		}
	}
	if err := run(ctx, cfg, load, log, up); err != nil {
		fmt.Fprintf(c.stderr, "sidecar: %v\n", err)
		return exitFailed
	}
	return exitDone
}
