package faults

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// What WeChat answers to a fetch, or does not.
func upstreamRows() []row {
	return []row{
		failing("WeChat is busy five times", 5, sure, wechattest.Fault{Effect: wechattest.EffectErrcode, Code: -1}),
		failing("WeChat answers 502", 3, unclear, wechattest.Fault{Effect: wechattest.EffectStatus, After: true}),
		failing("WeChat answers 200 and HTML", 3, unclear, wechattest.Fault{Effect: wechattest.EffectHTML}),
		failing("WeChat answers half of the JSON", 3, unclear, wechattest.Fault{Effect: wechattest.EffectTruncate}),
		failing("WeChat resets a request that it read", 3, unclear, wechattest.Fault{Effect: wechattest.EffectReset, After: true}),
		failing("WeChat never answers", 1, unclear, wechattest.Fault{Effect: wechattest.EffectHang}),
	}
}

// What a failed fetch says about the token in Redis, where every fetch supersedes it.
const (
	sure    = false // nothing was issued: the cut is undone
	unclear = true  // something may have been issued: the cut stays
)

// failing is a row in which the next n fetches meet a fault.
func failing(name string, n int, isUnclear bool, fault wechattest.Fault) row {
	becomes := "undone"
	if isUnclear {
		becomes = "kept"
	}
	return row{
		name: name, promise: fmt.Sprintf("each of %d times followed by its backoff; on the classic endpoint the cut is %s", n, becomes),
		limits:  limits{fetches: n},
		reveals: reveal{name: "wxtoken_upstream_fetch_failures_total", labels: []string{`class="transient"`}, by: float64(n)},
		run: func(b *bench) {
			old, _ := b.inRedis()
			fault.Path, fault.Count = b.path(), n
			b.Upstream.AddFault(fault)
			fetches := b.fetches()
			b.provoke()
			b.within(90*time.Second, "all failures have been", func() bool { return b.failures() == n })
			// The next fetch is at least half a second away.
			b.checkCut(isUnclear)
			healed := b.refreshed(30*time.Second, b.All, old)
			b.note("healed after another %v", round(healed))
			b.checkBackoff(fetches(), n)
			b.checkLife()
		},
	}
}

// fetches notes when WeChat is asked from now on, and returns what was noted.
func (b *bench) fetches() func() []time.Time {
	var mu sync.Mutex
	var at []time.Time
	b.Upstream.OnCall(func(_ string, r *http.Request) {
		if rig.IsFetch(r) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
		}
	})
	return func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(at)
	}
}

// failures returns how many fetches have failed since the last commit, as the cluster counts them
// for its backoff. The journal thins them out.
func (b *bench) failures() (n int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for field, tries := range b.store.Client().HGetAll(ctx, rig.Namespace+":{"+rig.AppID+"}:access_token:backoff").Val() {
		if strings.HasSuffix(field, ":tries") {
			i, _ := strconv.Atoi(tries)
			n += i
		}
	}
	return n
}

// checkBackoff checks that each of n failures, the first of these fetches, held the next one back
// for 1 s, doubling, less half of it at most.
func (b *bench) checkBackoff(fetches []time.Time, n int) {
	b.t.Helper()
	if len(fetches) < n+1 {
		b.t.Errorf("%d fetches, want %d", len(fetches), n+1)
		return
	}
	for i := range n {
		gap, least := fetches[i+1].Sub(fetches[i]), time.Second<<i/2
		if gap < least {
			b.t.Errorf("fetch %d came %v after the one before, which had failed; want at least %v", i+2, gap, least)
		}
	}
	b.note("last wait %v", round(fetches[n].Sub(fetches[n-1])))
}

// checkCut checks what a failure left of the token in Redis: its life, and that it is not in doubt;
// or, where it may have been superseded, a life that is over before its overlap is, and a doubt.
func (b *bench) checkCut(kept bool) {
	b.t.Helper()
	const overlap = 5 * time.Minute
	kept = kept && b.endpoint == classic
	left := b.store.Client().PTTL(context.Background(), rig.ValueKey).Val()
	if doubt := b.doubtful(); doubt != kept {
		b.t.Errorf("in doubt: %t, want %t", doubt, kept)
	}
	if kept != (left < overlap) {
		b.t.Errorf("the value leaves Redis in %v; cut: want %t", left, kept)
	}
}

// checkLife checks that the value leaves Redis before WeChat invalidates it, as far as is decided.
func (b *bench) checkLife() {
	b.t.Helper()
	value, version := b.inRedis()
	left := b.store.Client().PTTL(context.Background(), rig.ValueKey).Val()
	if _, now := b.inRedis(); now != version {
		return // a refresh came between the two looks
	}
	_, end, ok := b.Upstream.Life(rig.AppID, value)
	if !ok || time.Now().Add(left).After(end) {
		b.t.Errorf("the value leaves Redis in %v, and is dead in %v", left, time.Until(end))
	}
}
