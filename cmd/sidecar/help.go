package main

import (
	"context"
	"flag"
	"fmt"
	"io"
)

const helpUsage = "help [command]"

const helpAbout = `Prints the list of commands, or how to use one of them.

exit status:
  0  printed
  2  there is no such command
`

const overview = `sidecar keeps WeChat access tokens for the apps of a pod.

usage: sidecar [command] [flags]

commands:
`

const more = `
sidecar help COMMAND tells more of each, and which flags it takes.

One app needs no file, only the environment:
  WECHAT_APPID, WECHAT_SECRET (or WECHAT_SECRET_FILE), REDIS_URL
Without a WeChat account and without a Redis, try:
  ` + tryDev + `
If something does not work, try: sidecar doctor

exit status of every command:
  0  done
  1  not done: it says why
  2  wrong usage; of serve, a wrong configuration, too
`

func printHelp(w io.Writer) {
	fmt.Fprint(w, overview)
	for _, s := range subcommands() {
		fmt.Fprintf(w, "  %-12s %s\n", s.name, s.summary)
	}
	fmt.Fprint(w, more)
}

// printHelp tells how the command is used.
func (c *invocation) printHelp(set *flag.FlagSet) {
	fmt.Fprintf(c.stdout, "usage: sidecar %s\n\n%s", c.usage, c.about)
	title := "\nflags:\n"
	set.VisitAll(func(f *flag.Flag) {
		fmt.Fprint(c.stdout, title)
		title = ""
		name, text := flag.UnquoteUsage(f)
		if name != "" {
			name = " " + name
		}
		fmt.Fprintf(c.stdout, "  --%s%s\n        %s\n", f.Name, name, text)
	})
}

func runHelp(ctx context.Context, c *invocation) int {
	rest, status, done := c.parse(c.flags(), 1)
	switch {
	case done:
		return status
	case len(rest) == 0:
		printHelp(c.stdout)
		return exitDone
	}
	s, ok := findSubcommand(rest[0])
	if !ok {
		return c.unknown(rest[0])
	}
	if s.name == c.name {
		c.printHelp(c.flags())
		return exitDone
	}
	// A command knows its own flags.
	return command(ctx, []string{s.name, "--help"}, c.getenv, c.stdout, c.stderr)
}
