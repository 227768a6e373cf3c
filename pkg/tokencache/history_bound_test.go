package tokencache_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// balance is I1 and I5, at the end.
func (w *world) balance() {
	fetches := w.Upstream.Fetches()
	w.mu.Lock()
	bound, why := w.bound(fetches)
	limit := w.budget()
	w.mu.Unlock()
	if len(fetches) > bound {
		w.fail("I1: more fetches than there were reasons for", "%d, at most %d (%s): %s", len(fetches), bound, why, w.list(fetches))
	}
	if limit > 0 && len(fetches) > limit {
		w.fail("I5: more fetches than the budget allows", "%d, at most %d: %s", len(fetches), limit, w.list(fetches))
	}
}

func (w *world) list(fetches []tokencachetest.Fetch) string {
	s := ""
	for _, f := range fetches {
		s += fmt.Sprintf("\n  %v %s force=%v %s", f.At.Sub(w.start), f.Replica, f.Forced, f.Issued)
	}
	return s
}

// bound is how many fetches the history explains, with mu held.
func (w *world) bound(fetches []tokencachetest.Fetch) (int, string) {
	// One when cold, and one for each expiry. A value is renewed with half an hour left, or a
	// Repeating upstream's last 5 minutes.
	renewal := 90 * time.Minute
	if w.plan.Mode == repeating {
		renewal = 115 * time.Minute
	}
	renewals := 1 + int(time.Since(w.start)/renewal)

	// A fetch that met a fault of upstream's has to be repeated. One whose holder met a fault of
	// the network, of Redis or its own end may not have been committed; or it cut, in vain, because
	// it could not know.
	faults := 0
	for i, f := range fetches {
		switch {
		case w.faulty[i+1] > 0:
			faults += w.faulty[i+1]
		case w.disturbed(f):
			faults++
			if f.Issued != "" && !w.record.committed(f.Issued) {
				// An orphan: its cut, made when Redis is back, can also meet what was fetched
				// since.
				faults++
			}
		}
		if f.Forced && f.Issued == "" && (w.faulty[i+1] > 0 || w.faulty[i] > 0 || w.disturbed(f)) {
			// A forced fetch was lost, perhaps because the slow one before it left it no time. A
			// normal fetch follows at once, because the lost one may have issued a value, and
			// another one precedes the next forced fetch half a minute later.
			faults++
		}
	}

	// What Redis lost has to be fetched again. What upstream ended does too, once it is reported,
	// and again if it ends that as well. Forced fetches come after a normal one each; when they are
	// spent, upstream is asked every 5 minutes whether it has another value by now.
	kills := len(w.kills)
	if w.plan.Mode == repeating && kills > 0 {
		kills = 2*kills + int(time.Since(w.kills[0])/(4*time.Minute))
	}
	taken := len(w.taken) + 2*w.unclear // such a one may come later, to a fetch under way
	if w.plan.Mode == repeating && kills > 0 {
		// That a value was rejected is forgotten with it: upstream repeats it, and is forced again.
		kills += taken + w.slowed[tokencache.ClassEnded]
	}
	return renewals + faults + len(w.losses) + taken + kills,
		fmt.Sprintf("%d renewals, %d for faults, %d losses, %d taken back, %d for kills", renewals, faults, len(w.losses), taken, kills)
}

// disturbed reports, with mu held, whether f's holder, its link or Redis was not well while it was
// one.
func (w *world) disturbed(f tokencachetest.Fetch) bool {
	from, to := f.At.Add(-2*time.Second), f.At.Add(10*time.Second)
	if end, ok := w.ends[f.Replica]; ok && end.Before(to) {
		return true
	}
	for _, at := range slices.Concat(w.losses, w.taken) {
		if at.After(from) && at.Before(to) {
			return true
		}
	}
	return w.troubled(f.Replica, from, to)
}

// budget is how many fetches the allowance lets through, with mu held; 0 for no check.
func (w *world) budget() int {
	if !w.plan.Frugal || w.plan.Mode == repeating {
		return 0 // forced ones have an allowance of their own, and so have those without Redis
	}
	const burst, every = 20, 24 * time.Hour / 28
	return (burst+1)*(1+len(w.losses)) + int(time.Since(w.start)/every)
}

// spent says, from the history alone, whether the allowance for reports or for forced fetches may
// be.
func (w *world) spent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plan.Mode == repeating {
		return len(w.kills) > 0
	}
	return len(w.kills) > 2
}

// healTime is how long the cluster may take to agree when everything is well again.
func (w *world) healTime() time.Duration {
	spent := w.spent()
	w.mu.Lock()
	defer w.mu.Unlock()
	// A doubt, an overlap, and refreshes without Redis.
	d := 12 * time.Minute
	if w.slowed[tokencache.ClassQuota] > 0 {
		d += 31 * time.Minute
	}
	if w.slowed[tokencache.ClassPermanent]+w.slowed[tokencache.ClassLocal]+w.slowed[tokencache.ClassEnded] > 0 {
		d += 11 * time.Minute
	}
	if w.plan.Frugal {
		d += 110 * time.Minute // two more fetches
	}
	if spent && w.plan.Mode == repeating {
		d += 85 * time.Minute // until one may be forced
	} else if spent {
		d += 8 * time.Minute * time.Duration(len(w.kills)) // for each, a report
	}
	return d
}
