package faults

import (
	"fmt"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
)

// row is one fault and what is promised about it. All callers of every kind go on throughout.
type row struct {
	name    string
	promise string // what the figures of limits do not say
	limits  limits
	reveals reveal

	// endpoints are those of WeChat on which the fault is tried; default both.
	endpoints []endpoint
	// replicas is the number of sidecars; default 3.
	replicas int
	// build is how the sidecars are built.
	build rig.Build
	// env goes over the settings of each sidecar.
	env []string
	// settings are such as are known only when the row runs; they go over env.
	settings func(*bench) []string
	// cold rows begin while no sidecar has a token.
	cold bool
	// alone rows are about how fast something is: no other one runs beside them.
	alone bool
	// store starts the Redis; default is a plain one, with a link between it and each sidecar.
	store func(*bench) rig.Store
	// run makes the fault and waits until what it promises is so. It fails the test with b.t.
	run func(b *bench)
}

// endpoint is what WECHAT_ENDPOINT says.
type endpoint string

const (
	classic endpoint = "token"
	stable  endpoint = "stable_token"
)

// limits are what a fault may cost; each zero is none.
type limits struct {
	// fetches beyond the one for each refresh that the row asks for with [bench.provoke].
	fetches int
	// failed calls, and values handed out or standing in Redis that WeChat had ended.
	failed, dead int
	// missingFor is how long direct readers may look in vain.
	missingFor time.Duration
	// stale allows answers that are marked so.
	stale bool
	// wait of a caller; default 2.5 s, which is refresh_wait and the way there and back.
	wait time.Duration
}

func (l limits) longest() time.Duration {
	if l.wait == 0 {
		return 2500 * time.Millisecond
	}
	return l.wait
}

func (l limits) String() string {
	words := []string{fmt.Sprintf("≤ %d more fetches", l.fetches), fmt.Sprintf("%d failed", l.failed), fmt.Sprintf("%d dead", l.dead)}
	if l.missingFor == 0 {
		words = append(words, "0 missing")
	} else {
		words = append(words, "missing ≤ "+l.missingFor.String())
	}
	if !l.stale {
		words = append(words, "0 stale")
	}
	return strings.Join(append(words, "wait ≤ "+l.longest().String()), ", ")
}

// reveal is the metric by which an operator sees the fault: its sum over the sidecars grows by at
// least by while the row runs. Gauges count with the most that they rose by.
type reveal struct {
	name   string
	labels []string
	by     float64  // default 1
	on     endpoint // only on this endpoint; default both
}

func (r reveal) String() string {
	if len(r.labels) == 0 {
		return r.name
	}
	return r.name + "{" + strings.Join(r.labels, ",") + "}"
}
