// Package cli runs the commands of the program, and has those that ask a running sidecar: get,
// status, wait and healthcheck, besides version and help.
package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// The exit status of every command.
const (
	Done   = 0 // it did what it was asked to
	Failed = 1 // it could not, and stderr says why
	Misuse = 2 // wrong flags or arguments; of serve and doctor, a wrong configuration, too
)

// Command is one command of a program.
type Command struct {
	Name    string
	Summary string // one line, for the list of commands
	Usage   string // what follows the program's name on the command line
	About   string // what it does, with examples and its exit status
	Run     func(ctx context.Context, c *Invocation) int
}

// Run runs the command that args name, the first of commands if they name none, and returns the
// exit status.
func Run(ctx context.Context, commands []Command, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	c := &Invocation{commands: commands, Getenv: config.Trimmed(getenv), Stdout: stdout, Stderr: stderr}
	name := commands[0].Name
	if len(args) > 0 {
		switch first := args[0]; {
		case isHelp(first):
			c.printCommands()
			return Done
		case !strings.HasPrefix(first, "-"):
			name, args = first, args[1:]
		}
	}
	return c.run(ctx, name, args)
}

// run runs one command.
func (c *Invocation) run(ctx context.Context, name string, args []string) int {
	command, ok := c.find(name)
	if !ok {
		return c.unknown(name)
	}
	next := *c
	next.command, next.args = command, args
	return command.Run(ctx, &next)
}

func (c *Invocation) find(name string) (Command, bool) {
	for _, one := range c.commands {
		if one.Name == name {
			return one, true
		}
	}
	return Command{}, false
}

// unknown refuses a command that does not exist.
func (c *Invocation) unknown(name string) int {
	var names []string
	for _, one := range c.commands {
		names = append(names, one.Name)
	}
	fmt.Fprintf(c.Stderr, "sidecar: unknown command%s\nsee: sidecar help\n", mistyped("", name, names))
	return Misuse
}
