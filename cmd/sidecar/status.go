package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

const statusUsage = "status [flags]"

const statusAbout = `Shows every credential that a running sidecar keeps: its state, the life that is left, when this
replica would renew it, its version, and why the last refresh failed. Never a value.

States: fresh; stale (handed out, but not good for sure); missing. "in doubt" says that WeChat may
have replaced the value without anybody knowing the new one, "rejected" that WeChat refuses it.

examples:
  sidecar status
  sidecar status --json

exit status:
  0  shown, whatever it says
  1  there is no sidecar
  2  wrong usage
`

func runStatus(ctx context.Context, c *invocation) int {
	var o config.Overrides
	set := c.flags()
	configFlag(set, &o)
	opsListenFlag(set, &o)
	asJSON := set.Bool("json", false, "print the answer of /status as it is")
	timeout := set.Duration("timeout", 5*time.Second, "`duration` to wait for the answer (default 5s)")
	if _, status, done := c.parse(set, 0); done {
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	s, body, err := client{config.LoadListeners(o, c.getenv)}.status(ctx)
	if err != nil {
		return c.failed("%v", err)
	}
	if *asJSON {
		_, err = c.stdout.Write(body)
	} else {
		err = s.print(c.stdout)
	}
	if err != nil {
		return c.failed("it cannot be printed: %v", plain(err))
	}
	return exitDone
}

func (s sidecarStatus) print(w io.Writer) error {
	fmt.Fprintf(w, "sidecar %s, up %v\n", s.Version, seconds(s.Uptime))
	if !s.Started {
		fmt.Fprintf(w, "not started: %s\n", s.Missing)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "APP\tKIND\tSTATE\tLIFE LEFT\tRENEWS IN\tVERSION\tLAST ERROR")
	for _, app := range s.Apps {
		name := app.ID
		if app.Alias != "" {
			name = app.Alias + " (" + app.ID + ")"
		}
		for _, k := range app.Credentials {
			state := []string{k.State}
			for _, note := range []struct {
				is   bool
				text string
			}{{k.InDoubt, "in doubt"}, {k.Rejected, "rejected"}, {k.ForeignRefresher, "somebody else refreshes it"}} {
				if note.is {
					state = append(state, note.text)
				}
			}
			failure := oneLine(k.Error)
			if k.Backoff > 0 {
				failure = fmt.Sprintf("%s; WeChat is asked again in %v", failure, seconds(k.Backoff))
			}
			version := "-"
			if k.Version > 0 {
				version = fmt.Sprint(k.Version)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, k.Kind, strings.Join(state, ", "),
				orDash(k.ExpiresIn), orDash(k.RenewIn), version, strings.TrimPrefix(failure, "; "))
		}
	}
	return table.Flush()
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func orDash(n int64) string {
	if n <= 0 {
		return "-"
	}
	return seconds(n).String()
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
