package integration

import (
	"os"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
)

const (
	appID     = rig.AppID
	appSecret = rig.AppSecret
	namespace = rig.Namespace
	valueKey  = rig.ValueKey
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// cluster is the rig's, and what these tests ask of it.
type cluster struct {
	*rig.Cluster
	t *testing.T
}

func newCluster(t *testing.T, store rig.Store, env ...string) *cluster {
	return &cluster{rig.New(t, store, env...), t}
}

func eventually(t *testing.T, within time.Duration, awaited string, ok func() bool) {
	t.Helper()
	rig.Eventually(t, within, awaited, ok)
}

func (c *cluster) wantFetches(want int) {
	c.t.Helper()
	if got := c.Upstream.Calls(appID).Fetches(); got != want {
		c.t.Errorf("%d upstream fetches, want %d", got, want)
	}
}

func (c *cluster) wantAllWork(answers []rig.Answer) {
	c.t.Helper()
	for _, a := range answers {
		if !c.Upstream.Works(a.AccessToken) || a.Stale {
			c.t.Errorf("version %d (stale: %t) was handed out and does not work", a.Version, a.Stale)
			return
		}
	}
}
