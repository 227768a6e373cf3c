package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
)

// Status is the command status.
var Status = Command{Name: "status", Summary: "show what a running sidecar keeps, without values", Usage: statusUsage, About: statusAbout, Run: runStatus}

const statusUsage = "status [flags]"

const statusAbout = `Shows every credential that a running sidecar keeps: its state, the life that is left, when this
replica would renew it, its version, and why the last refresh failed. Never a value.

States: fresh; stale (handed out, but not good for sure); missing. "in doubt" says that WeChat may
have replaced the value by one that no replica has, "rejected" that WeChat refuses it.

examples:
  sidecar status
  sidecar status --json

exit status:
  0  shown, whatever it says
  1  there is no sidecar
  2  wrong usage
`

func runStatus(ctx context.Context, c *Invocation) int {
	var o config.Overrides
	set := c.Flags()
	configFlag(set, &o)
	opsListenFlag(set, &o)
	asJSON := set.Bool("json", false, "print the answer of /status as it is")
	timeout := set.Duration("timeout", 5*time.Second, "`duration` to wait for the answer (default 5s)")
	if _, status, done := c.Parse(set, 0); done {
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	s, body, err := client{config.LoadListeners(o, c.Getenv)}.status(ctx)
	if err != nil {
		return c.Failed("%v", err)
	}
	if *asJSON {
		_, err = c.Stdout.Write(body)
	} else {
		err = printStatus(c.Stdout, s)
	}
	if err != nil {
		return c.Failed("it cannot be printed: %v", plain(err))
	}
	return Done
}

// printStatus prints a status as a table.
func printStatus(w io.Writer, s statuspage.Status) error {
	fmt.Fprintf(w, "sidecar %s, up %v\n", text.OneLine(s.Version), seconds(s.Uptime))
	if !s.Started {
		fmt.Fprintf(w, "not started: %s\n", text.OneLine(s.Missing))
	}
	for _, p := range s.Platforms {
		fmt.Fprintf(w, "platform %s: %s\n", text.OneLine(cmp.Or(p.Alias, p.ID)), platformLine(p))
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
			}{{k.InDoubt, "in doubt"}, {k.Rejected, "rejected"}, {k.ForeignRefresher, "foreign refresher suspected"}} {
				if note.is {
					state = append(state, note.text)
				}
			}
			failure := text.OneLine(k.Error)
			if k.Backoff > 0 {
				failure = fmt.Sprintf("%s; WeChat is asked again in %v", failure, seconds(k.Backoff))
			}
			version := "-"
			if k.Version > 0 {
				version = fmt.Sprint(k.Version)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", text.OneLine(name), text.OneLine(k.Kind), text.OneLine(strings.Join(state, ", ")),
				orDash(k.ExpiresIn), orDash(k.RenewIn), version, strings.TrimPrefix(failure, "; "))
		}
	}
	return table.Flush()
}

// platformLine says how a platform is.
func platformLine(p statuspage.Platform) string {
	var parts []string
	switch {
	case p.Ticket != nil && p.Ticket.None:
		parts = append(parts, "no ticket yet")
	case p.Ticket != nil:
		parts = append(parts, fmt.Sprintf("ticket of %v ago", seconds(p.Ticket.Age)))
	}
	for _, state := range slices.Sorted(maps.Keys(p.Accounts)) {
		parts = append(parts, fmt.Sprintf("%d %s", p.Accounts[state], text.OneLine(state)))
	}
	if p.VaultError != "" {
		parts = append(parts, "the vault does not answer: "+text.OneLine(p.VaultError))
	}
	return strings.Join(parts, ", ")
}

// seconds is a duration that an answer states, which may be any number.
func seconds(n int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Second)
	return time.Duration(max(0, min(n, most))) * time.Second
}

func orDash(n int64) string {
	if n <= 0 {
		return "-"
	}
	return seconds(n).String()
}
