package tokencache_test

import (
	"fmt"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// ledger is what a history did to the cluster, for what the cluster may then cost. Its fields are guarded by
// world.mu.
type ledger struct {
	links  map[string][]window // when a replica's link was not well
	ends   map[string]time.Time
	lost   time.Time   // Redis last lost data
	losses []time.Time // of any kind
	rolled time.Time   // the last failover
	kills  []time.Time // upstream ended values, or gave one to somebody else

	faulty map[int]int // fetches that a fault was meant for: what each may cost besides itself
	deaf   []window    // fetches that do not hear of a stop
	slowed map[tokencache.Class]int

	version  int64               // last seen in Redis
	rejected map[int64]time.Time // versions seen to be rejected
}

type window struct {
	replica  string
	from, to time.Time // to is zero while it is open
}

func newLedger() ledger {
	return ledger{
		links: map[string][]window{}, ends: map[string]time.Time{}, faulty: map[int]int{},
		slowed: map[tokencache.Class]int{}, rejected: map[int64]time.Time{},
	}
}

// fault is upstream's, asked before the n-th fetch.
func (w *world) fault(n int, replica string) fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isWrong(replica) {
		return w.answers(n, upstreamErrors[3])
	}
	if w.refused[replica] {
		return w.answers(n, upstreamErrors[4])
	}
	f, ok := w.nextOf[replica]
	if ok {
		delete(w.nextOf, replica)
	} else if len(w.next) > 0 {
		f, w.next, ok = w.next[0], w.next[1:], true
	}
	if !ok {
		return fault{}
	}
	e, isClass := f.Err.(*tokencache.FetchError)
	if isClass {
		w.slowed[e.Class]++
	}
	if isClass && !e.Unclear && f.Before == 0 {
		w.faulty[n] = 1 // sure, so it costs itself and is tried again
		return f
	}
	// Whoever comes next has to fetch again. A late one's commit is refused, which cuts what its successor
	// committed; or its successor sees the cut, and commits in doubt.
	w.faulty[n] = 2
	if d := f.Before + f.After; d > 0 {
		w.deaf = append(w.deaf, window{replica, time.Now(), time.Now().Add(d + time.Second)})
	}
	return f
}

// answers is an error that upstream goes on answering with, with mu held.
func (w *world) answers(n int, e tokencache.FetchError) fault {
	w.faulty[n] = 1
	w.slowed[e.Class]++
	return fault{Err: &e}
}

func (w *world) disturb(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = append(w.next, f)
}

func (w *world) disturbOne(replica string, f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nextOf[replica] = f
}

func (w *world) refuse(replica string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[replica] = true
}

func (w *world) kill() {
	w.mu.Lock()
	w.kills = append(w.kills, time.Now())
	w.mu.Unlock()
	w.Upstream.Kill()
}

func (w *world) foreign() {
	w.mu.Lock()
	w.kills = append(w.kills, time.Now())
	w.mu.Unlock()
	w.Upstream.Foreign()
}

// unlink notes that something is going to be wrong with r's link.
func (w *world) unlink(r *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.links[r.Name]; len(l) == 0 || !l[len(l)-1].to.IsZero() {
		w.links[r.Name] = append(l, window{replica: r.Name, from: time.Now()})
	}
}

func (w *world) heal(r *replica) {
	r.Link.LoseReplies(0, 0)
	r.Link.LoseReplyTo("")
	r.Link.Heal()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeWindow(r)
}

// closeWindows notes, with mu held, which links have got well by themselves: there is nothing left to lose.
func (w *world) closeWindows() {
	for _, r := range w.Replicas {
		if r.Link.Healthy() {
			w.closeWindow(r)
		}
	}
}

func (w *world) closeWindow(r *replica) {
	if l := w.links[r.Name]; len(l) > 0 && l[len(l)-1].to.IsZero() {
		l[len(l)-1].to = time.Now()
	}
}

// healthySince returns, with mu held, when a replica's link was last not well.
func (w *world) healthySince(replica string) time.Time {
	if l := w.links[replica]; len(l) > 0 {
		return l[len(l)-1].to
	}
	return w.start
}

func (w *world) healAll() {
	w.mu.Lock()
	w.next = nil
	clear(w.nextOf)
	clear(w.refused)
	w.mu.Unlock()
	for _, r := range w.replicas() {
		w.heal(r)
	}
	w.secret("f1")
}

// ended notes that a replica stops.
func (w *world) ended(r *replica, _ bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[r.Name] = time.Now()
}

// What a Redis can lose.
const (
	everything = "everything"
	valueKey   = ""
	metaKey    = ":meta"
	lockKey    = ":lock"
)

func (w *world) lose(what string) {
	w.record.lose(what, func() {
		if what == everything {
			w.Redis.FlushAll()
		} else {
			w.Redis.Del(w.ValueKey() + what)
		}
	})
	w.noteLoss(what == everything || what == metaKey)
}

func (w *world) noteLoss(ofVersion bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.losses = append(w.losses, time.Now())
	if ofVersion {
		w.lost, w.version = time.Now(), 0
	}
}

// deafIn reports whether a fetch that does not hear of a stop was under way at replica.
func (w *world) deafIn(replica string, took time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.deaf {
		if d.replica == replica && d.from.Before(time.Now()) && d.to.After(time.Now().Add(-took)) {
			return true
		}
	}
	return false
}

// excused says which superseded values nobody can know of: those that a failover brought back, and those
// that a request superseded which no lease guarded any more, since it was late or Redis had lost the lock,
// and whose sender then could not tell.
func (w *world) excused(fate tokencachetest.Fate) bool {
	by := w.Upstream.Fetches()[fate.By-1]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rolled.After(fate.Issued) {
		return true
	}
	unguarded := fate.Superseded.Sub(by.At) >= workTime
	for _, at := range w.losses {
		unguarded = unguarded || at.After(by.At.Add(-time.Second)) && !at.After(fate.Superseded)
	}
	if !unguarded {
		return false
	}
	_, gone := w.ends[by.Replica]
	return gone || w.troubled(by.Replica, by.At, time.Now())
}

// workTime is the part of the lease in which upstream is asked.
const workTime = 8 * time.Second

// troubled reports, with mu held, whether a replica's link was not well at any moment in between.
func (w *world) troubled(replica string, from, to time.Time) bool {
	for _, l := range w.links[replica] {
		if l.from.Before(to) && (l.to.IsZero() || l.to.After(from)) {
			return true
		}
	}
	return false
}

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
	// One when cold, and one for each expiry. A value is renewed with half an hour left, or a Repeating
	// upstream's last 5 minutes.
	renewal := 90 * time.Minute
	if w.plan.Mode == repeating {
		renewal = 115 * time.Minute
	}
	renewals := 1 + int(time.Since(w.start)/renewal)

	// A fetch that met a fault of upstream's has to be repeated. One whose holder met a fault of the
	// network, of Redis or its own end may not have been committed; or it cut, in vain, because it could not
	// know.
	faults := 0
	for i, f := range fetches {
		switch {
		case w.faulty[i+1] > 0:
			faults += w.faulty[i+1]
		case w.disturbed(f):
			faults++
		}
	}

	// What Redis lost has to be fetched again. What upstream ended does too, once it is reported, and
	// again if it ends that as well. Forced fetches come after a normal one each; when they are spent, upstream
	// is asked every 5 minutes whether it has another value by now.
	kills := len(w.kills)
	if w.plan.Mode == repeating && kills > 0 {
		kills = 2*kills + int(time.Since(w.kills[0])/(4*time.Minute))
	}
	return renewals + faults + len(w.losses) + kills,
		fmt.Sprintf("%d renewals, %d for faults, %d losses, %d for kills", renewals, faults, len(w.losses), kills)
}

// disturbed reports, with mu held, whether f's holder, its link or Redis was not well while it was one.
func (w *world) disturbed(f tokencachetest.Fetch) bool {
	from, to := f.At.Add(-2*time.Second), f.At.Add(10*time.Second)
	if end, ok := w.ends[f.Replica]; ok && end.Before(to) {
		return true
	}
	for _, at := range w.losses {
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
	const burst, every = 2, 24 * time.Hour / 46
	return (burst+1)*(1+len(w.losses)) + int(time.Since(w.start)/every)
}

// spent says, with nobody's help, whether the allowance for reports or for forced fetches may be.
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
	// A doubt, an overlap, and whoever still works in the dark.
	d := 12 * time.Minute
	if w.slowed[tokencache.Quota] > 0 {
		d += 31 * time.Minute
	}
	if w.slowed[tokencache.Permanent]+w.slowed[tokencache.Local] > 0 {
		d += 11 * time.Minute
	}
	if w.plan.Frugal {
		d += 65 * time.Minute // two more fetches
	}
	if spent && w.plan.Mode == repeating {
		d += 85 * time.Minute // until one may be forced
	} else if spent {
		d += 8 * time.Minute * time.Duration(len(w.kills)) // for each, a report
	}
	return d
}
