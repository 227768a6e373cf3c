// Command sidecar keeps the WeChat credentials of one pod's apps: in memory, in Redis for the other
// pods, and refreshed once for all of them.
//
//	sidecar [serve] [flags]
//
// Exit status: 0 after a signal, 1 if it cannot run, 2 for wrong flags or a wrong configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

func main() {
	// A second signal changes nothing: stopping is already as fast as is safe.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

const usage = `sidecar keeps WeChat access tokens for the apps of a pod.

usage: sidecar [serve] [flags]

One app needs no file, only the environment:
  WECHAT_APPID, WECHAT_SECRET (or WECHAT_SECRET_FILE), REDIS_URL
Without a WeChat account and without a Redis, try: sidecar --dev

flags, over the environment, over the file:
`

// command runs the program and returns its exit status.
func command(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var o config.Overrides
	flags := flag.NewFlagSet("sidecar", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.Config, "config", "", "YAML `file` with many apps (WXTOKEN_CONFIG)")
	flags.StringVar(&o.Listen, "listen", "", "`address` that hands out values: a loopback host:port or unix:/path (WXTOKEN_LISTEN, default "+config.DefaultListen+")")
	flags.StringVar(&o.OpsListen, "ops-listen", "", "`address` of health and metrics (WXTOKEN_OPS_LISTEN, default "+config.DefaultOpsListen+")")
	flags.StringVar(&o.Namespace, "namespace", "", "first `part` of every Redis key (WXTOKEN_NAMESPACE, default "+config.DefaultNamespace+")")
	flags.StringVar(&o.RedisURL, "redis-url", "", "`URL` of Redis, without a password: the environment hides that better (REDIS_URL)")
	flags.StringVar(&o.LogLevel, "log-level", "", "debug, info, warn or error (WXTOKEN_LOG_LEVEL, default "+config.DefaultLogLevel+")")
	flags.StringVar(&o.LogFormat, "log-format", "", "json, console or auto (WXTOKEN_LOG_FORMAT, default "+config.DefaultLogFormat+")")
	devMode := flags.Bool("dev", false, "embed a Redis, and simulate WeChat, where none is configured")
	showVersion := flags.Bool("version", false, "print the version and exit")

	if len(args) > 0 && args[0] == "serve" {
		args = args[1:]
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // flag has said what is wrong
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "sidecar: unknown command %q; see sidecar --help\n", flags.Arg(0))
		return 2
	case *showVersion:
		fmt.Fprintln(stdout, "sidecar", buildVersion())
		return 0
	}

	d := &dev{}
	if *devMode {
		var err error
		if d, err = startDev(o, getenv); err != nil {
			fmt.Fprintf(stderr, "sidecar: %v\n", err)
			return 1
		}
		defer d.stop()
	}
	load := func() (*config.Config, error) { return config.Load(o, d.getenv(getenv)) }
	cfg, err := load()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	log := newLogger(cfg.Log, stderr)
	redis.SetLogger(redisLog{log.Named("redis").Sugar()})

	up := func(values, ops string) {
		if *devMode {
			_ = d.greet(stdout, cfg, values, ops) // nobody reads it: nothing is lost
		}
	}
	if err := run(ctx, cfg, load, log, up); err != nil {
		fmt.Fprintf(stderr, "sidecar: %v\n", err)
		return 1
	}
	return 0
}
