package tokencache_test

import (
	"context"
	"strconv"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

type glimpse = tokencache.Glimpse

// sight is what was last seen of a replica.
type sight struct {
	glimpse
	ends time.Time
}

// watchEvery is how often everything is looked at, besides after each call.
const watchEvery = 10 * time.Second

// watch looks at Redis and at every replica until the returned function is called. It makes no call
// anything, so it changes nothing.
func (w *world) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			w.lookAround()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (w *world) lookAround() {
	w.record.read(w.Value)
	w.checkRedis(w.Value())
	w.checkWithdrawn()
	for _, r := range w.replicas() {
		w.glance(r)
	}
}

// checkRedis is I2 and I3 for apps that read Redis directly.
func (w *world) checkRedis(value string) {
	w.losing.Lock()
	version, _ := strconv.ParseInt(w.Meta("version"), 10, 64)
	rejected := w.Meta("rejected")
	w.mu.Lock()
	w.closeWindows()
	backwards := version < w.version
	before := w.version
	w.version = version
	if rejected != "" && rejected != "0" && rejected == strconv.FormatInt(version, 10) && w.rejected[version].IsZero() {
		w.rejected[version] = time.Now()
	}
	w.mu.Unlock()
	w.losing.Unlock()
	if backwards {
		w.fail("I2: the version in Redis went back", "from %d to %d", before, version)
	}
	w.checkValue("a direct reader", value, true)
}

// checkValue is I3: nothing past its true end; and nothing as good when the overlap is over after a
// fetch of a replica superseded it.
func (w *world) checkValue(who, value string, good bool) {
	if value == "" {
		return
	}
	fate, ok := w.Upstream.Fate(value)
	switch {
	case !ok:
		w.fail("I3: a value that upstream never issued", "%s: %s", who, value)
	case !time.Now().Before(fate.Expires):
		w.fail("I3: past its true end", "%s: %s, by %v", who, value, time.Since(fate.Expires))
	case w.plan.Mode != superseding || !good || fate.Superseded.IsZero() || fate.By == 0:
		// A foreign refresher, or upstream itself, ended it: only a report can tell.
	case time.Since(fate.Superseded) >= overlap && !w.excused(fate):
		w.fail("I3: superseded, and after the overlap", "%s: %s, superseded %v ago by fetch %d", who, value, time.Since(fate.Superseded), fate.By)
	}
}

const overlap = 5 * time.Minute

// glance looks at a replica without asking it, and checks what it would say.
func (w *world) glance(r *replica) glimpse {
	w.mu.Lock()
	g := r.Cache.Peek(tokencachetest.Key) // under the lock: callers glance too
	last := w.seen[r]
	if last == nil {
		last = &sight{}
		w.seen[r] = last
	}
	before := *last
	last.glimpse, last.ends = g, time.Now().Add(g.End)
	if g.Value != "" && g.Value != before.Value {
		w.values = append(w.values, g.Value)
	}
	stale, why := w.late(r, g)
	back, whyBack := w.withdrawn(r, g)
	fate, _ := w.Upstream.Fate(before.Value)
	forgotten := g.Value == "" && before.Alive && time.Until(before.ends) > time.Second && !w.mayBeTaken(fate.Issued, before.Uncommitted)
	w.mu.Unlock()
	if g.Alive {
		w.checkValue(r.Name, g.Value, g.Good)
	}

	switch {
	case g.Version < before.Version:
		w.fail("I2: a replica's version went back", "%s: from %d to %d", r.Name, before.Version, g.Version)
	case !g.Alive && before.Alive && g.Value == before.Value && g.Version == before.Version && time.Until(before.ends) > time.Second:
		w.fail("I6: a warm replica forgot a value that lives", "%s: %s has %v left", r.Name, g.Value, time.Until(before.ends))
	case forgotten:
		w.fail("I6: a warm replica forgot a value that was not taken back", "%s: %s has %v left", r.Name, before.Value, time.Until(before.ends))
	case back:
		w.fail("P4: "+whyBack, "%s: %+v, %v after it was taken back as %d", r.Name, g, time.Since(w.last.at), w.last.mark)
	case stale:
		w.fail("staleness: "+why, "%s: %+v", r.Name, g)
	}
	return g
}

// late reports, with mu held, whether a replica that could hear of it still hands out as good what
// was replaced, or found to be rejected. This is the model of a cached read: per replica it only
// moves forward, and is at most as old as the slow re-read lets it be; without Redis, as old as
// goodInDoubt.
func (w *world) late(r *replica, g glimpse) (bool, string) {
	if !g.Good {
		return false, ""
	}
	bound := w.rereadBound()
	healthy := r.Link.Healthy() && time.Since(w.healthySince(r.Name)) > bound
	if !healthy {
		bound = goodAlone
	}
	if at := w.rejected[g.Version]; healthy && !at.IsZero() && at.After(w.lost) && time.Since(at) > bound {
		return true, "a value known to be rejected is handed out as good"
	}
	if at := w.record.replaced(g.Value); !at.IsZero() && at.After(w.lost) && time.Since(at) > bound {
		return true, "a value long replaced is handed out as good"
	}
	return false, ""
}

// answered checks what a caller got, who looked before.
func (w *world) answered(r *replica, before glimpse, began time.Time, token tokencache.Token, err error) {
	after := w.glance(r)
	took := time.Since(began)
	if took > patience+100*time.Millisecond {
		w.fail("I8: a call took longer than its deadline", "%s: %v", r.Name, took)
	}
	if err != nil {
		if before.Alive && before.End > patience && after.Value == before.Value && after.Version == before.Version {
			w.fail("I6: a failed read on a warm replica", "%s: %v", r.Name, err)
		}
		return
	}
	w.checkValue(r.Name+"'s caller", token.Value.Reveal(), !token.Stale)
}

// stopped is I8: how long a clean stop took.
func (w *world) stopped(r *replica, took time.Duration) {
	if took > 450*time.Millisecond && !w.deafIn(r.Name, took) {
		w.fail("I8: stopping took too long", "%s: %v", r.Name, took)
	}
}
