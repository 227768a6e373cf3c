package cli

import (
	"context"
	"flag"
	"fmt"
)

// TryDev is the whole command, for readers who have only Go.
const TryDev = "go run -tags dev github.com/wxtoken/sidecar/cmd/sidecar@latest --dev"

// Help is the command help.
var Help = Command{Name: "help", Summary: "print this, or the help of a command", Usage: helpUsage, About: helpAbout, Run: runHelp}

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
sidecar help COMMAND explains each, with its flags.

One app needs no file, only the environment:
  WECHAT_APPID, WECHAT_SECRET (or WECHAT_SECRET_FILE), REDIS_URL
Without a WeChat account and without a Redis, try:
  ` + TryDev + `
If something does not work, try: sidecar doctor

exit status of every command:
  0  done
  1  not done: it says why
  2  wrong usage; of serve, a wrong configuration, too
`

func (c *Invocation) printCommands() {
	fmt.Fprint(c.Stdout, overview)
	for _, one := range c.commands {
		fmt.Fprintf(c.Stdout, "  %-12s %s\n", one.Name, one.Summary)
	}
	fmt.Fprint(c.Stdout, more)
}

// printHelp prints how the command is used.
func (c *Invocation) printHelp(set *flag.FlagSet) {
	fmt.Fprintf(c.Stdout, "usage: sidecar %s\n\n%s", c.command.Usage, c.command.About)
	title := "\nflags:\n"
	set.VisitAll(func(f *flag.Flag) {
		fmt.Fprint(c.Stdout, title)
		title = ""
		name, text := flag.UnquoteUsage(f)
		if name != "" {
			name = " " + name
		}
		fmt.Fprintf(c.Stdout, "  --%s%s\n        %s\n", f.Name, name, text)
	})
}

func runHelp(ctx context.Context, c *Invocation) int {
	rest, status, done := c.Parse(c.Flags(), 1)
	switch {
	case done:
		return status
	case len(rest) == 0:
		c.printCommands()
		return Done
	case rest[0] == c.command.Name:
		c.printHelp(c.Flags())
		return Done
	}
	return c.run(ctx, rest[0], []string{"--help"}) // a command has its own flags
}
