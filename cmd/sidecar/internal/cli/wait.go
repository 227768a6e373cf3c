package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// Wait is the command wait.
var Wait = Command{Name: "wait", Summary: "wait until a running sidecar hands out tokens, then perhaps start a program", Usage: waitUsage, About: waitAbout, Run: runWait}

const waitUsage = "wait [flags] [-- program arguments...]"

const waitAbout = `Waits until a running sidecar hands out the access token of every app, or of those that --app names.
With a program after -- it then becomes that program, so that an image can begin with it.

It finds the addresses (and the bearer token, if one is demanded) as serve does, and nothing else of
the configuration has to be right.

examples:
  sidecar wait --timeout 30s                   in a postStart hook of the sidecar's container
  sidecar wait --app shop -- /myapp --port 80  as the command of the app's container

exit status:
  0  every token is there; with a program, what that returns
  1  not in time: what is missing is on stderr; or the program cannot be started
  2  wrong usage
`

const (
	waitPause = 200 * time.Millisecond // between two looks
	// One look may wait for a refresh, for which the sidecar takes 10 s.
	waitLook = 12 * time.Second
)

// appNames is a flag that can be given more than once.
type appNames []string

func (n *appNames) String() string { return strings.Join(*n, ", ") }

func (n *appNames) Set(s string) error {
	if s == "" || s != url.PathEscape(s) {
		return errors.New("neither an id nor an alias")
	}
	*n = append(*n, s)
	return nil
}

var _ flag.Value = (*appNames)(nil)

func runWait(ctx context.Context, c *Invocation) int {
	var o config.Overrides
	var apps appNames
	var program []string
	if i := slices.Index(c.args, "--"); i >= 0 {
		c.args, program = c.args[:i], c.args[i+1:]
	}
	set := c.Flags()
	configFlag(set, &o)
	listenFlag(set, &o)
	opsListenFlag(set, &o)
	set.Var(&apps, "app", "wait for this `app` only, an id or an alias; may be given more than once")
	timeout := set.Duration("timeout", time.Minute, "`duration` to wait; 0 is for ever (default 1m)")
	if _, status, done := c.Parse(set, 0); done {
		return status
	}
	if *timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *timeout)
		defer cancel()
	}
	if missing := c.await(ctx, o, apps); missing != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return c.Failed("interrupted: %v", missing)
		}
		return c.Failed("not within %v: %v", *timeout, missing)
	}
	if len(program) == 0 {
		return Done
	}
	return c.become(program)
}

// await returns nil when every token can be had, or what was missing when ctx ended. The
// configuration is read at each look: its volume may be mounted later than this begins.
func (c *Invocation) await(ctx context.Context, o config.Overrides, apps []string) error {
	var said error
	for {
		missing := client{config.LoadListeners(o, c.Getenv)}.missing(ctx, apps)
		if missing == nil {
			return nil
		}
		if ctx.Err() == nil {
			if withoutCountdown(missing) != withoutCountdown(said) {
				fmt.Fprintf(c.Stderr, "waiting: %v\n", missing)
			}
			said = missing
		}
		select {
		case <-ctx.Done():
			if said != nil {
				return said // the look that the end broke off knows less
			}
			return missing
		case <-time.After(waitPause):
		}
	}
}

// withoutCountdown is what is missing without the time that is left, which each look finds shorter.
// A failed hook's output becomes a part of the pod's status, so a line a second is too much.
func withoutCountdown(missing error) string {
	if missing == nil {
		return ""
	}
	text, _, _ := strings.Cut(missing.Error(), comeBack)
	return text
}

// missing says which token cannot be had and why; nil if all can.
func (c client) missing(ctx context.Context, apps []string) error {
	ctx, cancel := context.WithTimeout(ctx, waitLook)
	defer cancel()
	if len(apps) == 0 {
		s, _, err := c.status(ctx)
		if err != nil {
			return err
		}
		for _, app := range s.Apps {
			apps = append(apps, app.ID)
		}
	}
	for _, app := range apps {
		r, err := c.values(ctx, "/v1/apps/"+app+"/token")
		if err != nil {
			return err
		}
		if r.status != http.StatusOK {
			return fmt.Errorf("app %s: %w", app, r.refusal())
		}
	}
	return nil
}

// become replaces this process by a program, which gets its standard streams, environment and
// signals.
func (c *Invocation) become(program []string) int {
	path, err := exec.LookPath(program[0])
	if err == nil {
		err = syscall.Exec(path, program, os.Environ())
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err // without the name, which may be an assignment like those before a command in a shell
	}
	return c.Failed("the program after -- cannot be started: %v", err)
}
