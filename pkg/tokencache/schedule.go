package tokencache

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// schedule says which credential is to be refreshed next, and when. What a change costs grows with
// the logarithm of the number of credentials. Safe for concurrent use.
type schedule struct {
	mu    sync.Mutex
	queue dueQueue
	wake  chan struct{} // of 1: the first entry changed, or a refresh ended
}

// entry is the place of a slot in the schedule, guarded by the schedule's mutex.
type entry struct {
	at    time.Time
	place int // in the queue, from 1 on; 0: it is not there
}

// set plans sl for a moment, whatever was planned before.
func (s *schedule) set(sl *slot, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.entry.at = at
	if sl.entry.place > 0 {
		heap.Fix(&s.queue, sl.entry.place-1)
	} else {
		heap.Push(&s.queue, sl)
	}
	if sl.entry.place == 1 {
		s.poke()
	}
}

// remove forgets sl.
func (s *schedule) remove(sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl.entry.place > 0 {
		heap.Remove(&s.queue, sl.entry.place-1)
	}
}

// next removes the first slot from the schedule and returns it, if its moment has come; else it
// returns how long that takes.
func (s *schedule) next() (*slot, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, time.Hour
	}
	if wait := time.Until(s.queue[0].entry.at); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&s.queue).(*slot), 0
}

// poke wakes the goroutine in wait.
func (s *schedule) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wait returns after d, when it is poked, or when ctx ends.
func (s *schedule) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-timer.C:
	}
}

// dueQueue is a heap of slots, the first by time on top.
type dueQueue []*slot

// Len implements [heap.Interface].
func (q dueQueue) Len() int { return len(q) }

// Less implements [heap.Interface].
func (q dueQueue) Less(i, j int) bool { return q[i].entry.at.Before(q[j].entry.at) }

// Swap implements [heap.Interface].
func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].entry.place, q[j].entry.place = i+1, j+1
}

// Push implements [heap.Interface].
func (q *dueQueue) Push(x any) {
	sl := x.(*slot)
	*q = append(*q, sl)
	sl.entry.place = len(*q)
}

// Pop implements [heap.Interface].
func (q *dueQueue) Pop() any {
	last := len(*q) - 1
	sl := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	sl.entry.place = 0
	return sl
}
