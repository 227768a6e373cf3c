package tokencache

// news finds out what one replica should have heard of a credential, and did not. The zero value is
// ready for use; the credential's mutex guards it.
type news struct {
	heard   int64 // the latest version that an event told of
	unheard int64 // a version that a re-read found before any event; 0: none
	losses  int   // answers in a row with less than this replica knows
}

// emptied reports whether Redis has just been found to have lost data. One answer with less shows
// nothing: it may have been given just before a commit whose reply came first. Two do.
func (n *news) emptied(less bool) bool {
	if !less {
		n.losses = 0
		return false
	}
	n.losses++
	return n.losses == 2
}

// hear notes that an event told of a version.
func (cr *credential) hear(version int64) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	cr.news.heard = max(cr.news.heard, version)
}

// reread notes that a re-read found a version, before it is adopted. It reports whether the event of one
// that an earlier re-read found has not come: until then the event may merely have been slower.
func (cr *credential) reread(version int64) (missed bool) {
	cr.mu.Lock()
	defer cr.mu.Unlock()
	n, known := &cr.news, cr.view.Load().version
	missed = n.unheard > n.heard
	n.unheard = 0
	if known > 0 && version > known && version > n.heard {
		n.unheard = version
	}
	return missed
}
