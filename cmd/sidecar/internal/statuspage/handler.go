// Package statuspage is /status: what this replica knows of each credential, of Redis and of the
// other replicas, as a page for people and as JSON for programs.
package statuspage

import (
	"context"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Options are optional; the zero value is ready for use.
type Options struct {
	// Started reports whether the start is over, else what is missing. Default: it is over.
	Started func() (bool, string)
	// Status is what /status shows: [tokencache.Cache.Status]. Default: no credentials.
	Status func() []tokencache.Status
	// Apps returns the configured apps, for their aliases and whose API they belong to. Default:
	// none.
	Apps func() *apps.Set
	// Platforms are the third-party platforms. Default: none.
	Platforms func() []platform.Status
	// Journal asks Redis what the replicas did lately: [tokencache.Cache.Journal]. Default: /status
	// says nothing of Redis.
	Journal func(ctx context.Context, perApp int) (tokencache.Journal, error)
	// Health is what /status says of the ways to Redis: [tokencache.Cache.Health]. Default: no
	// events arrive, and nothing says why.
	Health func() tokencache.Health
	// Configuration is what /status says of it. Default: nothing.
	Configuration func() Configuration
	// Stopping reports whether the process was asked to stop. Default: never.
	Stopping func() bool
}

// Handler serves /status. Safe for concurrent use.
type Handler struct {
	opts  Options
	since time.Time
	looks looks // at Redis, shared by all requests
}

// New returns the handler of /status. Its uptime counts from this call.
func New(o Options) *Handler {
	if o.Started == nil {
		o.Started = func() (bool, string) { return true, "" }
	}
	if o.Status == nil {
		o.Status = func() []tokencache.Status { return nil }
	}
	if o.Apps == nil {
		o.Apps = func() *apps.Set { return nil }
	}
	if o.Platforms == nil {
		o.Platforms = func() []platform.Status { return nil }
	}
	if o.Health == nil {
		o.Health = func() tokencache.Health { return tokencache.Health{} }
	}
	if o.Configuration == nil {
		o.Configuration = func() Configuration { return Configuration{} }
	}
	if o.Stopping == nil {
		o.Stopping = func() bool { return false }
	}
	return &Handler{opts: o, since: time.Now()}
}
