// Command sidecar keeps the WeChat credentials of one pod's apps: in memory, in Redis for the other
// pods, and refreshed once for all of them.
//
//	sidecar [serve] [flags]
//
// Other commands ask a running one, or look for what is wrong: see sidecar help.
//
// Exit status: 0 if it did what it was asked to (serve: after a signal), 1 if it could not, 2 for wrong
// flags or, of serve, a wrong configuration.
package main

import (
	"context"
	"fmt"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

func main() {
	// What libraries write there may quote a peer; serve keeps what is safe of it.
	stdlog.SetOutput(io.Discard)
	// A second signal changes nothing: stopping is already as fast as is safe. SIGQUIT is what some
	// runtimes stop a container with; Go's dump of all goroutines would end it without a drain.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// The exit status of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// subcommand is what sidecar can be told to do.
type subcommand struct {
	name    string
	summary string // one line, for the list
	usage   string // what follows "sidecar"
	about   string // what it does, with examples and its exit status
	run     func(ctx context.Context, c *invocation) int
}

func subcommands() []subcommand {
	return []subcommand{
		{"serve", "keep the tokens and hand them out; the command if none is named", serveUsage, serveAbout, runServe},
		{"wait", "wait until a running sidecar hands out tokens, then perhaps start a program", waitUsage, waitAbout, runWait},
		{"get", "print a token or a ticket of a running sidecar", getUsage, getAbout, runGet},
		{"status", "show what a running sidecar keeps, without values", statusUsage, statusAbout, runStatus},
		{"healthcheck", "ask whether a running sidecar serves, for probes", healthUsage, healthAbout, runHealthcheck},
		{"doctor", "look for what is wrong with the configuration, Redis and WeChat", doctorUsage, doctorAbout, runDoctor},
		{"version", "print the version", versionUsage, versionAbout, runVersion},
		{"help", "print this, or the help of a command", helpUsage, helpAbout, runHelp},
	}
}

func findSubcommand(name string) (subcommand, bool) {
	for _, s := range subcommands() {
		if s.name == name {
			return s, true
		}
	}
	return subcommand{}, false
}

// command runs the program and returns its exit status.
func command(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	c := &invocation{getenv: config.Trimmed(getenv), stdout: stdout, stderr: stderr}
	name := "serve"
	if len(args) > 0 {
		switch first := args[0]; {
		case isHelp(first):
			printHelp(stdout)
			return exitDone
		case !strings.HasPrefix(first, "-"):
			name, args = first, args[1:]
		}
	}
	s, ok := findSubcommand(name)
	if !ok {
		return c.unknown(name)
	}
	c.name, c.usage, c.about, c.args = s.name, s.usage, s.about, args
	return s.run(ctx, c)
}

// unknown refuses a command that does not exist.
func (c *invocation) unknown(name string) int {
	var names []string
	for _, s := range subcommands() {
		names = append(names, s.name)
	}
	fmt.Fprintf(c.stderr, "sidecar: unknown command%s\nsee: sidecar help\n", mistyped("", name, names))
	return exitUsage
}
