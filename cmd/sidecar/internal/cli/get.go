package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
)

// Get is the command get.
var Get = Command{Name: "get", Summary: "print a token or a ticket of a running sidecar", Usage: getUsage, About: getAbout, Run: runGet}

const getUsage = "get [app] [flags]"

const getAbout = `Prints the bare access token of an app, by its id or alias, as a running sidecar hands it out.
Without an app it is the only one that there is. A reader of the output can act as the app.

examples:
  curl "https://api.weixin.qq.com/cgi-bin/getcallbackip?access_token=$(sidecar get shop)"
  sidecar get shop --ticket jsapi
  sidecar get shop --json

exit status:
  0  printed
  1  there is no value, or no sidecar: the reason is on stderr
  2  wrong usage
`

func runGet(ctx context.Context, c *Invocation) int {
	var o config.Overrides
	set := c.Flags()
	configFlag(set, &o)
	listenFlag(set, &o)
	opsListenFlag(set, &o)
	asJSON := set.Bool("json", false, "print the whole answer, with the life that is left")
	ticket := set.String("ticket", "", "print this `ticket` instead of the token: jsapi, wx_card or agent_config")
	timeout := set.Duration("timeout", 10*time.Second, "`duration` to wait for the answer (default 10s)")
	rest, status, done := c.Parse(set, 1)
	if done {
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	cl := client{config.LoadListeners(o, c.Getenv)}
	app, err := cl.app(ctx, rest)
	if err != nil {
		return c.Failed("%v", err)
	}
	path := "/v1/apps/" + app + "/token"
	if *ticket != "" {
		path = "/v1/apps/" + app + "/tickets/" + *ticket
	}
	r, err := cl.values(ctx, path)
	if err == nil && r.status != http.StatusOK {
		err = r.refusal()
	}
	if err != nil {
		return c.Failed("%v", err)
	}
	var value struct {
		AccessToken string `json:"access_token"`
		Ticket      string `json:"ticket"`
		Stale       bool   `json:"stale"`
	}
	if json.Unmarshal(r.body, &value) != nil || value.AccessToken+value.Ticket == "" {
		return c.Failed("the answer holds no value: is this a sidecar?")
	}
	if value.Stale {
		fmt.Fprintln(c.Stderr, "sidecar get: stale: the value may no longer work, and nothing better can be had now (see: sidecar status)")
	}
	if *asJSON {
		_, err = c.Stdout.Write(r.body)
	} else {
		_, err = fmt.Fprintln(c.Stdout, value.AccessToken+value.Ticket)
	}
	if err != nil {
		return c.Failed("it cannot be printed: %v", plain(err))
	}
	return Done
}

// app returns the app that was named, as one segment of a path; else the only one.
func (c client) app(ctx context.Context, named []string) (string, error) {
	if len(named) > 0 {
		if named[0] != url.PathEscape(named[0]) {
			return "", errors.New("the app is neither an id nor an alias")
		}
		return named[0], nil
	}
	s, _, err := c.status(ctx)
	if err != nil {
		return "", err
	}
	if all := names(s); len(all) != 1 {
		return "", fmt.Errorf("it has %d apps, name one: %s", len(all), text.OneLine(strings.Join(all, ", ")))
	}
	return s.Apps[0].ID, nil
}
