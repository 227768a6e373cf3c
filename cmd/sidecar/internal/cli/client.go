package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
)

// maxReply bounds an answer of a sidecar, in bytes.
const maxReply = 4 << 20

// client calls a sidecar that runs on this host.
type client struct{ at config.Listeners }

// reply is an answer of a sidecar, whatever it says.
type reply struct {
	status int
	body   []byte
}

// values calls the listener that hands out values.
func (c client) values(ctx context.Context, path string) (reply, error) {
	header := http.Header{"Accept": {"application/json"}}
	if !c.at.Bearer.Empty() {
		header.Set("Authorization", "Bearer "+c.at.Bearer.Reveal())
	}
	return c.call(ctx, c.at.Listen, path, header, "--listen, WXTOKEN_LISTEN")
}

// ops calls the operations listener.
func (c client) ops(ctx context.Context, path string) (reply, error) {
	return c.call(ctx, c.at.OpsListen, path, http.Header{"Accept": {"application/json"}}, "--ops-listen, WXTOKEN_OPS_LISTEN")
}

// call asks once. named says how the address is configured. Its errors say what to do.
func (c client) call(ctx context.Context, address, path string, header http.Header, named string) (reply, error) {
	network, dialled := dialAddress(address)
	// No proxy of the environment, which the default transport has, and no connection to keep.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, dialled)
	}}
	// Both listeners take this Host, and not each name that an address may have.
	target := url.URL{Scheme: "http", Host: "localhost", Path: path}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return reply{}, c.unreached(address, named, errors.New("it is no address"))
	}
	request.Header = header
	answer, err := transport.RoundTrip(request) // redirects are not followed
	if err != nil {
		return reply{}, c.unreached(address, named, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxReply))
	if err != nil {
		return reply{}, c.unreached(address, named, err)
	}
	return reply{answer.StatusCode, body}, nil
}

// dialAddress returns how to reach a listen address from this host.
func dialAddress(address string) (network, dialled string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "tcp", address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "tcp", net.JoinHostPort(host, port)
}

// unreached returns why no sidecar answered at an address, and what in the configuration may be the
// cause.
func (c client) unreached(address, named string, err error) error {
	why := "no answer: " + plain(err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		why = "no sidecar listens there"
	case errors.Is(err, fs.ErrPermission):
		why = "this user may not use the socket"
	case errors.Is(err, context.DeadlineExceeded):
		why = "no answer in time"
	}
	if config.CheckListen(address) != nil {
		address, why = "the configured address", "it is neither host:port nor unix:/path" // not repeated: it may be a URL with a password
	}
	text := fmt.Sprintf("%s: %s (another address? %s)", address, why, named)
	for _, d := range c.at.Doubts {
		text += "\n  also wrong: " + d
	}
	return errors.New(text)
}

// plain returns the innermost text of an error of package net, without the addresses.
func plain(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// comeBack begins the part of a refusal that says when to ask again.
const comeBack = "; come back in "

// refusal says in words why an answer is not what was asked for.
func (r reply) refusal() error {
	var p struct {
		Title, Detail string
		Errcode       int
		RetryAfter    int64 `json:"retry_after"`
	}
	if json.Unmarshal(r.body, &p) != nil || p.Title == "" {
		if why := text.OneLine(string(r.body)); r.status == http.StatusServiceUnavailable && why != "" && len(why) < 300 {
			return errors.New(why) // of a probe
		}
		return fmt.Errorf("HTTP status %d: is this a sidecar?", r.status)
	}
	why := p.Title + ": " + p.Detail
	if p.Errcode != 0 {
		why = fmt.Sprintf("%s (errcode %d)", why, p.Errcode)
	}
	if p.RetryAfter > 0 {
		why = fmt.Sprint(why, comeBack, seconds(p.RetryAfter))
	}
	return errors.New(text.OneLine(why))
}

// status asks what a sidecar keeps. It returns the answer as it came, too.
func (c client) status(ctx context.Context) (statuspage.Status, []byte, error) {
	var s statuspage.Status
	r, err := c.ops(ctx, "/status")
	if err != nil {
		return s, nil, err
	}
	if r.status != http.StatusOK {
		return s, nil, r.refusal()
	}
	if s, err = decodeStatus(r.body); err != nil {
		return s, nil, fmt.Errorf("%s: the answer is no status: is this a sidecar?", c.at.OpsListen)
	}
	return s, r.body, nil
}

// decodeStatus reads the answer of /status. Another program may listen at its address.
func decodeStatus(body []byte) (s statuspage.Status, err error) {
	return s, json.Unmarshal(body, &s)
}

// names returns the names of the apps of a status, aliases where there are any.
func names(s statuspage.Status) []string {
	var all []string
	for _, app := range s.Apps {
		if app.Alias != "" {
			all = append(all, app.Alias)
		} else {
			all = append(all, app.ID)
		}
	}
	return all
}
