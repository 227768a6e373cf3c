package tokencachetest

import "time"

// Fate is what became of a value that an [Upstream] issued. The zero time means never.
type Fate struct {
	Issued  time.Time
	Expires time.Time // of its own life
	// Superseded is when the next value was issued, after which this one worked for the overlap. A
	// forced fetch of a Repeating upstream leaves no overlap: it sets Killed.
	Superseded time.Time
	By         int // the fetch that superseded it, numbered from 1; 0: of a foreign refresher
	Killed     time.Time
}

// Fate returns what became of value so far; false if upstream never issued it.
func (u *Upstream) Fate(value string) (Fate, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.fates[value]
	if f == nil {
		return Fate{}, false
	}
	return *f, true
}

// succeed records, with mu held, that the n-th fetch was answered with a new value.
func (u *Upstream) succeed(n int) {
	if u.fates == nil {
		u.fates = map[string]*Fate{}
	}
	now := time.Now()
	if f := u.fates[u.previous.value]; f != nil {
		f.Superseded, f.By = now, n
	}
	u.fates[u.current.value] = &Fate{Issued: now, Expires: u.current.expires}
}

// kill records, with mu held, that value ended at once.
func (u *Upstream) kill(value string) {
	if f := u.fates[value]; f != nil && f.Killed.IsZero() {
		f.Killed = time.Now()
	}
}
