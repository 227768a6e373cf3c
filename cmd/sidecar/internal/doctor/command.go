package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
)

// Command is the command doctor of the program.
var Command = cli.Command{
	Name: "doctor", Summary: "look for what is wrong with the configuration, Redis and WeChat",
	Usage: "doctor [flags]", About: about, Run: run,
}

const about = `Looks, in this order, at the configuration and its secret files, the way to Redis, what Redis permits,
how it keeps data, the way to WeChat, and what WeChat says to each app. Prints one line for each
check: ok, warn, FAIL or skipped, what was found, and how to fix it. Never a secret or a token.

Run it where the sidecar runs, with the same flags and environment; no sidecar has to be running, and
one that runs is not disturbed. In Redis it reads the tokens' keys, looks permissions up, and writes
keys of its own, for seconds. On stable_token it asks WeChat for the token, which stays the same.
On the endpoint token, and on WeCom, asking could end the token that is in use: there it tries out
the token in Redis, and fetches none.

Of third-party platforms it looks at the keys of the callback, the vault and its durability, the age
of the ticket, the platform's token, how many accounts WeChat lists, and the token of one account.

examples:
  sidecar doctor
  kubectl exec POD -c wxtoken -- /sidecar doctor
  sidecar doctor --config new.yaml --json
  sidecar doctor --callback https://api.example.com/wechat/callback

exit status:
  0  no FAIL; warnings are allowed
  1  at least one FAIL, a wrong configuration included
  2  wrong usage
`

func run(ctx context.Context, c *cli.Invocation) int {
	var o config.Overrides
	set := c.Flags()
	cli.AllFlags(set, &o)
	asJSON := set.Bool("json", false, "print each finding as a JSON object on one line")
	fetch := set.Bool("fetch", false, "where Redis has no token, fetch one from WeChat, even if that invalidates a token in use elsewhere")
	callback := set.String("callback", "", "send a push of an unknown kind to this `URL`, the public address of the platforms' callback; {platform} in it is the platform's id")
	startPush := set.Bool("start-push", false, "ask WeChat to push the tickets of the platforms again")
	timeout := set.Duration("timeout", time.Minute, "`duration` that all of it may take (default 1m)")
	if _, status, done := c.Parse(set, 0); done {
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	redisclient.Silence() // the findings say it
	status := cli.Done
	Examine(ctx, Options{
		Load:    func() (*config.Config, error) { return config.Load(o, c.Getenv) },
		Connect: redisclient.Connect,
		Fetch:   *fetch, Callback: *callback, StartPush: *startPush,
	}, func(f Finding) {
		if f.State == Fail {
			status = cli.Failed
		}
		if *asJSON {
			printJSON(c.Stdout, f)
		} else {
			printLine(c.Stdout, f)
		}
	})
	return status
}

func printJSON(w io.Writer, f Finding) {
	line, err := json.Marshal(f)
	if err != nil {
		return // cannot be: strings
	}
	fmt.Fprintf(w, "%s\n", line)
}

func printLine(w io.Writer, f Finding) {
	state := string(f.State)
	if f.State == Fail {
		state = "FAIL" // to be found by eye
	}
	fix := ""
	if f.Fix != "" {
		fix = " -- " + f.Fix
	}
	fmt.Fprintf(w, "%-8s %s: %s%s\n", state, f.Check, f.Text, fix)
}
