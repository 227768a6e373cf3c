package tokencache

import (
	"time"
)

// Status is what this replica knows of one credential, without its value.
type Status struct {
	Key       Key
	Version   int64         // 0: it never had a value
	ExpiresIn time.Duration // as of [Token]
	Known     bool          // there is a value that still lives
	Fresh     bool          // and it would be handed out as good
	InDoubt   bool          // upstream may have superseded it by a value that no replica has
	Rejected  bool          // upstream was found to reject it
	RenewIn   time.Duration // until this replica would refresh it
	// Backoff is how long upstream must not be asked, by the cluster or by this replica alone; then
	// Class and Code are as of the [FetchError] that made it so. The class is "limited" if it was
	// an allowance.
	Backoff time.Duration
	Class   Class
	Code    int
	// CommittedAt is when some replica committed the value, by this host's clock; zero if that is
	// not known.
	CommittedAt time.Time
	// What is left of the cluster's allowances.
	Fetches, Reports, Forced Allowance
	// Err says why the last refresh that this replica knows of failed; nil after one that did not.
	Err error
	// ForeignRefresher is as of [Event].
	ForeignRefresher bool
	// KeyIn is how long the key of the value stays in Redis: until the margin begins. 0: it is not
	// there.
	KeyIn time.Duration
	// Confirmed is how long ago Redis was asked for what is known; or the value fetched without it,
	// or the credential added, if that came later.
	Confirmed time.Duration
}

// Status returns the status of every credential that is kept now, in no order, from memory.
func (c *Cache) Status() []Status {
	all := c.kept()
	list := make([]Status, 0, len(all))
	for _, sl := range all {
		v, n := sl.snapshot.Load(), now()
		s := Status{
			Key: sl.spec.Load().Key, Version: v.version, ExpiresIn: v.expiresIn(n), Known: v.alive(n), Fresh: v.fresh(n),
			InDoubt: v.doubt, Rejected: v.rejected, Backoff: v.backoffLeft(n), ForeignRefresher: v.young >= 2,
		}
		if s.Known && !s.Rejected {
			s.KeyIn = max(0, v.key-n.since(v.asOf))
		}
		s.Confirmed = n.since(v.asOf)
		s.RenewIn, _ = sl.untilDue()
		if s.Err = sl.lastErr(); s.Err == nil && s.Backoff > 0 {
			s.Err = v.note.err()
		}
		s.CommittedAt = v.committed
		if s.Backoff > 0 {
			s.Class, s.Code = v.note.Class, v.note.Code
		}
		if left, f := sl.localBackoffLeft(); left > s.Backoff {
			s.Backoff, s.Class, s.Code = left, f.Class, f.Code
		}
		spec, age := sl.spec.Load(), n.since(v.asOf)
		s.Fetches = spec.Fetches.or(defaultFetches).allowance(v.spent.fetches, age)
		s.Reports = spec.Reports.or(defaultReports).allowance(v.spent.reports, age)
		s.Forced = spec.Forced.allowance(v.spent.forced, age)
		list = append(list, s)
	}
	return list
}
