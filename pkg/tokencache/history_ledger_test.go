package tokencache_test

import (
	"slices"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// ledger is what a history did to the cluster, for what the cluster may then cost. Its fields are
// guarded by world.mu, but for losing.
type ledger struct {
	links  map[string][]window // when a replica's link was not well
	ends   map[string]time.Time
	losing sync.Mutex  // held while Redis loses data and that is noted, against a look between the two
	lost   time.Time   // Redis last lost data
	losses []time.Time // of any kind
	rolled time.Time   // the last failover
	kills  []time.Time // upstream invalidated values, or issued one to another program

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
	if w.isEnded {
		return w.answers(n, endedError)
	}
	if time.Now().Before(w.down) {
		f := w.answers(n, w.downWith)
		w.faulty[n] = 2 // one that issues nothing, and whose answer is lost
		return f
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
		w.slow(e.Class)
	}
	if isClass && !e.Unclear && f.Delay == 0 {
		w.faulty[n] = 1 // sure, so it costs itself and is tried again
		return f
	}
	// The next lease holder has to fetch again. A late one's commit is refused, which cuts what its
	// successor committed; or its successor sees the cut, and commits in doubt.
	w.faulty[n] = 2
	if d := f.Delay + f.DelayReply; d > 0 {
		w.deaf = append(w.deaf, window{replica, time.Now(), time.Now().Add(d + time.Second)})
	}
	return f
}

// answers is an error that upstream goes on answering with, with mu held.
func (w *world) answers(n int, e tokencache.FetchError) fault {
	w.faulty[n] = 1
	w.slow(e.Class)
	return fault{Err: &e}
}

// slow notes, with mu held, that a fetch that begins now is answered with an error.
func (w *world) slow(c tokencache.Class) {
	w.slowed[c]++
	if c == tokencache.ClassEnded {
		w.endedAt = time.Now()
	}
}

func (w *world) disturb(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = append(w.next, f)
}

// outage lets upstream answer with e, and issue nothing, for d.
func (w *world) outage(d time.Duration, e tokencache.FetchError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down, w.downWith = time.Now().Add(d), e
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
	w.touch(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.links[r.Name]; len(l) == 0 || !l[len(l)-1].to.IsZero() {
		w.links[r.Name] = append(l, window{replica: r.Name, from: time.Now()})
	}
}

func (w *world) heal(r *replica) {
	r.Link.LoseReply(0, 0)
	r.Link.LoseReplyTo("")
	r.Link.Heal()
	w.touch(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeWindow(r)
}

// closeWindows notes, with mu held, which links have got well by themselves: there is nothing left
// to lose.
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
	w.down, w.isEnded = time.Time{}, false
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
	w.losing.Lock()
	defer w.losing.Unlock()
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

// excused says which superseded values no replica can notice: those that a failover brought back,
// and those that a request superseded which no lease guarded any more, since it was late or Redis
// had lost the lock, and whose sender then could not tell.
func (w *world) excused(fate tokencachetest.Fate) bool {
	by := w.Upstream.Fetches()[fate.By-1]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rolled.After(fate.Issued) {
		return true
	}
	unguarded := fate.Superseded.Sub(by.At) >= workTime
	for _, at := range slices.Concat(w.losses, w.taken) {
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
