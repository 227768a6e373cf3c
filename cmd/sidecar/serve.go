package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"os/signal"
	"syscall"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/build"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
)

const serveUsage = "[serve] [flags]"

const serveAbout = `Keeps the tokens and tickets of the configured apps, and hands them out to the programs of
this pod until a signal stops it (SIGTERM, SIGINT, SIGQUIT). SIGHUP reads the configuration again at once,
which happens every 5 s by itself.

Flags go over the environment, and that over the file. One app needs only the environment:
  WECHAT_APPID, WECHAT_SECRET (or WECHAT_SECRET_FILE), REDIS_URL
  WECHAT_ENDPOINT       stable_token (the default) or token
  WECHAT_TICKETS        tickets to fetch before they are asked for: jsapi,wx_card
  WECHAT_API_BASE       default ` + config.DefaultWeChatBase + `

examples:
  sidecar --config /etc/wxtoken/wxtoken.yaml

exit status:
  0  stopped by a signal
  1  it cannot run: an address is taken, say
  2  wrong flags or a wrong configuration
`

// startDev starts what --dev adds. It is nil in a program that was built without the tag dev, such
// as the image's: dev.go sets it.
var startDev func(o config.Overrides, getenv func(string) string) (devMode, error)

// devMode is a running [dev.Mode], which only dev.go may link.
type devMode interface {
	Getenv(user func(string) string) func(string) string
	Greet(ctx context.Context, w io.Writer, cfg *config.Config, values, ops string) error
	Stop()
}

const noDev = "this program was built without --dev. In a checkout, try: make run. Elsewhere: " + cli.TryDev

func runServe(ctx context.Context, c *cli.Invocation) int {
	var o config.Overrides
	set := c.Flags()
	cli.AllFlags(set, &o)
	wantDev := set.Bool("dev", false, "embed a Redis, and simulate WeChat, where none is configured; only in a program built with -tags dev")
	showVersion := set.Bool("version", false, "print the version and exit")
	if _, status, done := c.Parse(set, 0); done {
		return status
	}
	if *showVersion {
		fmt.Fprintln(c.Stdout, "sidecar", build.Version())
		return cli.Done
	}

	// A terminal that is closed and a reader of the log that has ended stop nothing. Later, SIGHUP
	// reads the configuration again.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)

	getenv := c.Getenv
	var d devMode
	if *wantDev {
		if startDev == nil {
			return c.Misused(errors.New(noDev))
		}
		var err error
		if d, err = startDev(o, c.Getenv); err != nil {
			fmt.Fprintf(c.Stderr, "sidecar: %v\n", err)
			return cli.Failed
		}
		defer d.Stop()
		getenv = d.Getenv(c.Getenv)
	}
	load := config.Remember(func() (*config.Config, error) { return config.Load(o, getenv) })
	cfg, err := load()
	if err != nil {
		fmt.Fprintln(c.Stderr, err)
		return cli.Misuse
	}
	log := newLogger(cfg.Log, c.Stderr)
	stdlog.SetOutput(newLibraryLog(log).Writer())
	redisclient.Log(log, cfg.Redis.Secrets())

	up := func(ctx context.Context, values, ops string) {
		if d != nil {
			_ = d.Greet(ctx, c.Stdout, cfg, values, ops) // without a reader of stdout, nothing is lost
		}
	}
	if err := run(ctx, cfg, load, log, up); err != nil {
		fmt.Fprintf(c.Stderr, "sidecar: %v\n", err)
		return cli.Failed
	}
	return cli.Done
}
