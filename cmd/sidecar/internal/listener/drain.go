package listener

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// Callers counts the connections of a listener. A process that ends takes its connections with it,
// so that is how a sidecar sees that the app beside it is gone: Kubernetes does not say so. The
// zero value is ready for use.
type Callers struct {
	mu    sync.Mutex
	open  int
	since time.Time // when the last one left
}

// Track is for [http.Server.ConnState].
func (c *Callers) Track(_ net.Conn, s http.ConnState) {
	if s == http.StateActive || s == http.StateIdle {
		return // which each call is, twice
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		c.open++
	case http.StateClosed, http.StateHijacked:
		c.open--
		c.since = time.Now()
	}
}

// Leave returns when no client has been connected for quiet, counted from now at the earliest, or
// when ctx ends. An app without kept-alive connections is not seen between its calls: quiet must be
// longer than these are apart.
func (c *Callers) Leave(ctx context.Context, quiet time.Duration) {
	begin := time.Now()
	for {
		c.mu.Lock()
		left := quiet
		if c.open == 0 {
			left -= min(time.Since(begin), time.Since(c.since))
		}
		c.mu.Unlock()
		if left <= 0 {
			return
		}
		look := time.NewTimer(min(left, 100*time.Millisecond))
		select {
		case <-ctx.Done():
			look.Stop()
			return
		case <-look.C:
		}
	}
}
