package tokencache_test

import (
	"context"
	"strconv"
	"time"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// withdrawals is what a history took back. Its fields are guarded by world.mu.
type withdrawals struct {
	isEnded bool        // upstream answers each fetch that the right to ask has ended
	endedAt time.Time   // when the last fetch began that was answered so
	taking  int         // calls of Revoke under way
	taken   []time.Time // when Revoke was called
	unclear int         // calls of Revoke that failed, and may have taken the value back all the same
	takenAt time.Time   // until when a value may have been taken back
	last    withdrawal
	touched map[string]time.Time // when something was last done to a replica's link
}

// withdrawal is a call of Revoke that returned without an error.
type withdrawal struct {
	from, at time.Time
	mark     int64             // a version: what Redis had before is below it. 0: none was taken back yet
	by       *replica          // that took it back
	events   map[*replica]bool // those that an event reaches
}

// endedError is what a Source says that has lost its secret for good, or whose right was withdrawn.
var endedError = tokencache.FetchError{Class: tokencache.ClassEnded, Message: "withdrawn"}

// maxLateRevoke is how long a script may still be under way when its caller has given up.
const maxLateRevoke = 21 * time.Second

// revoke takes the value back, as a platform does when an account withdraws its authorisation, or
// when its secret is another one.
func (w *world) revoke(r *replica) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	next := withdrawal{from: time.Now(), by: r, events: map[*replica]bool{}}
	w.mu.Lock()
	w.taking++
	w.closeWindows()
	for _, each := range w.Replicas {
		next.events[each] = each.Link.Healthy() && each.Cache.Health().Subscribed && next.from.Sub(w.quietSince(each)) > subscribing
	}
	w.mu.Unlock()
	err := r.Cache.Revoke(ctx, tokencachetest.Key)
	w.losing.Lock()
	mark, _ := strconv.ParseInt(w.Meta("revoked"), 10, 64)
	next.at = time.Now()
	w.mu.Lock()
	w.taking--
	w.taken, w.takenAt = append(w.taken, next.from), next.at
	if next.at.Sub(next.from) > 100*time.Millisecond {
		w.taken = append(w.taken, next.at) // a repeated call takes back twice
	}
	switch {
	case err != nil:
		w.unclear++
		w.takenAt = next.at.Add(maxLateRevoke)
	case w.lost.Before(next.from):
		next.mark = mark
		w.last = next
	}
	w.mu.Unlock()
	w.losing.Unlock()
	if err == nil {
		w.lookAround()
		w.callers.Go(func() {
			time.Sleep(eventTime + time.Millisecond)
			w.lookAround()
		})
	}
}

// eventTime is how long the event of a withdrawal may take, and the look that follows it.
const eventTime = 250 * time.Millisecond

// revokeAgain takes back what the first withdrawal made the replicas fetch, or are fetching.
func (w *world) revokeAgain(r *replica, n int) {
	w.revoke(r)
	time.Sleep(time.Duration(n) * 40 * time.Millisecond)
	w.revoke(w.replica(n))
}

// setEnded lets upstream say of each fetch that the right to ask has ended, or no more.
func (w *world) setEnded(ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isEnded = ended
}

// authorise lets upstream answer again, as it does when the vault has the secret again. Then the
// platform revokes, if the secret is another one, or retries.
func (w *world) authorise(r *replica, n int) {
	w.setEnded(false)
	if n%2 == 0 {
		w.retry(r)
		return
	}
	w.revoke(r)
}

func (w *world) retry(r *replica) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = r.Cache.Retry(ctx, tokencachetest.Key) // without Redis nothing is forgotten
}

// touch notes that something is done to a replica's link.
func (w *world) touch(r *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touched[r.Name] = time.Now()
}

// withdrawn reports, with mu held, whether a replica still hands out what was taken back, although
// the event or a look must have told it.
func (w *world) withdrawn(r *replica, g glimpse) (bool, string) {
	m := w.last
	if m.mark == 0 || !m.at.After(w.lost) || !g.Alive || g.Version >= m.mark && !w.fetchedBefore(g.Value, m.from) {
		return false, ""
	}
	since := m.at
	if t := w.quietSince(r); t.After(since) {
		since = t
	}
	switch link := r.Link; {
	case r == m.by && since.Equal(m.at):
		return true, "a value is handed out by the replica that took it back"
	case m.events[r] && link.Healthy() && w.quietSince(r).Before(m.at): // else the event may have been lost at that moment
		return time.Since(since) > eventTime, "a value that was taken back is handed out after the event"
	case link.Healthy() || link.Deaf():
		return time.Since(since) > w.rereadBound(), "a value that was taken back is handed out after the next look"
	}
	// Without Redis it is unconfirmed, unless this replica has fetched it since for itself.
	return g.Good && time.Since(m.at) > goodAlone && w.fetchedBefore(g.Value, m.from), "a value that was taken back is handed out as good without Redis"
}

// subscribing is how long a replica may take to notice that a subscription broke, and to make
// another.
const subscribing = 5 * time.Second

// quietSince returns, with mu held, when something last happened to a replica's link.
func (w *world) quietSince(r *replica) time.Time {
	since := w.touched[r.Name]
	if t := w.healthySince(r.Name); t.After(since) {
		since = t
	}
	return since
}

// goodAlone is how long a value may be good that Redis does not confirm.
const goodAlone = 4*time.Minute + 3*time.Second

// rereadBound is after how long a lost event does not matter any more: the re-read comes after its
// time plus half of it, and takes up to a second; so may the connection.
func (w *world) rereadBound() time.Duration { return w.reread*3/2 + 3*time.Second }

// fetchedBefore reports whether every fetch that brought value had begun before t.
func (w *world) fetchedBefore(value string, t time.Time) bool {
	for _, f := range w.Upstream.Fetches() {
		if f.Issued == value && !f.At.Before(t) {
			return false
		}
	}
	return true
}

// mayBeTaken reports, with mu held, whether a value that was issued at a moment can have been taken
// back since: by a call, or because a later fetch found the right ended. What a replica fetched for
// itself without Redis has no version of its own. So Redis takes it back with what was there before,
// also if it came later.
func (w *world) mayBeTaken(issued time.Time, uncommitted bool) bool {
	if uncommitted {
		issued = time.Unix(0, 0)
	}
	return w.taking > 0 || !w.takenAt.Before(issued) || !w.endedAt.Before(issued)
}

// checkWithdrawn checks that apps which read Redis directly get no withdrawn value.
func (w *world) checkWithdrawn() {
	w.losing.Lock()
	defer w.losing.Unlock()
	w.mu.Lock()
	m, lost := w.last, w.lost
	w.mu.Unlock()
	if m.mark == 0 || !m.at.After(lost) {
		return
	}
	value := w.Value() // before the version, which only grows
	if version, _ := strconv.ParseInt(w.Meta("version"), 10, 64); value != "" && version <= m.mark {
		w.fail("P4: a value that was taken back is in Redis", "%s, version %d, taken back as %d %v ago", value, version, m.mark, time.Since(m.at))
	}
}
