package tokencache

// news finds out what one replica should have heard of a credential, and did not. The zero value is
// ready for use; the credential's mutex guards it.
type eventAudit struct {
	announced   int64 // the latest version that an event told of
	unannounced int64 // a version that a re-read found before any event; 0: none
	losses      int   // answers in a row with less than this replica knows
}

// emptied reports whether Redis has just been found to have lost data. One answer with less shows
// nothing: it may have been given just before a commit whose reply came first. Two do.
func (n *eventAudit) emptied(less bool) bool {
	if !less {
		n.losses = 0
		return false
	}
	n.losses++
	return n.losses == 2
}
