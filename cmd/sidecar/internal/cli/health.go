package cli

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

// Healthcheck is the command healthcheck.
var Healthcheck = Command{Name: "healthcheck", Summary: "ask whether a running sidecar serves, for probes", Usage: healthUsage, About: healthAbout, Run: runHealthcheck}

const healthUsage = "healthcheck [flags]"

const healthAbout = `Asks /healthz of a running sidecar, for an image without curl: Docker's HEALTHCHECK, or an exec
probe of Kubernetes. Like /healthz it does not depend on Redis or WeChat.

It finds the address as serve does, and nothing else of the configuration has to be right.

examples:
  HEALTHCHECK CMD ["/sidecar", "healthcheck"]
  sidecar healthcheck --ops-listen unix:/run/wxtoken/ops.sock

exit status:
  0  it serves
  1  it does not
  2  wrong usage
`

func runHealthcheck(ctx context.Context, c *Invocation) int {
	var o config.Overrides
	set := c.Flags()
	configFlag(set, &o)
	opsListenFlag(set, &o)
	timeout := set.Duration("timeout", 2*time.Second, "`duration` to wait for the answer (default 2s)")
	if _, status, done := c.Parse(set, 0); done {
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	r, err := client{config.LoadListeners(o, c.Getenv)}.ops(ctx, "/healthz")
	if err == nil && r.status != http.StatusOK {
		err = r.refusal()
	}
	if err != nil {
		return c.Failed("%v", err)
	}
	fmt.Fprintln(c.Stdout, "ok")
	return Done
}
