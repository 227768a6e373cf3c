package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
)

const doctorUsage = "doctor [flags]"

const doctorAbout = `Looks, in this order, at the configuration and its secret files, the way to Redis, what Redis permits,
how it keeps data, the way to WeChat, and what WeChat says to each app. Prints one line for each
check: ok, warn, FAIL or skipped, what was found, and how to mend it. Never a secret or a token.

Run it where the sidecar runs, with the same flags and environment; no sidecar has to be running, and
one that runs is not disturbed. In Redis it reads the tokens' keys, looks permissions up, and writes
keys of its own, for seconds. On stable_token it asks WeChat for the token, which stays the same.
On the endpoint token, and on WeCom, asking could end the token that is in use: there it tries out
the token that stands in Redis, and asks for none.

examples:
  sidecar doctor
  kubectl exec POD -c wxtoken -- /sidecar doctor
  sidecar doctor --config new.yaml --json

exit status:
  0  no FAIL; warnings are allowed
  1  at least one FAIL, a wrong configuration included
  2  wrong usage
`

func runDoctor(ctx context.Context, c *invocation) int {
	var o config.Overrides
	set := c.flags()
	allFlags(set, &o)
	asJSON := set.Bool("json", false, "print each finding as a JSON object on one line")
	fetch := set.Bool("fetch", false, "where no token stands in Redis, ask WeChat for one, even if that ends a token that somebody uses without Redis")
	timeout := set.Duration("timeout", time.Minute, "`duration` that all of it may take (default 1m)")
	if _, status, done := c.parse(set, 0); done {
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	redis.SetLogger(silence{}) // the findings tell
	status := exitDone
	doctor.Examine(ctx, doctor.Options{
		Load:    func() (*config.Config, error) { return config.Load(o, c.getenv) },
		Connect: connect,
		Fetch:   *fetch,
	}, func(f doctor.Finding) {
		if f.State == doctor.Fail {
			status = exitFailed
		}
		c.printFinding(f, *asJSON)
	})
	return status
}

func (c *invocation) printFinding(f doctor.Finding, asJSON bool) {
	if asJSON {
		line, err := json.Marshal(f)
		if err != nil {
			return // cannot be: strings
		}
		fmt.Fprintf(c.stdout, "%s\n", line)
		return
	}
	state := string(f.State)
	if f.State == doctor.Fail {
		state = "FAIL" // to be found by eye
	}
	mend := ""
	if f.Mend != "" {
		mend = " -- " + f.Mend
	}
	fmt.Fprintf(c.stdout, "%-8s %s: %s%s\n", state, f.Check, f.Text, mend)
}

// silence is go-redis' log where nobody reads it.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
