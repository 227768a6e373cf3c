package tokencache

import "time"

// Reason says why a credential is refreshed.
type Reason string

// The reasons of a refresh.
const (
	Missing Reason = "missing" // nothing usable stands
	Due     Reason = "due"     // ahead of the end, or in doubt with no lease held
	Report  Reason = "report"  // an app says that upstream rejects the current value

	// What a report becomes once it is believed, and when only force helps; internal to the refresh.
	rejected Reason = "rejected"
	forced   Reason = "force"
)

// Result says how a refresh, or a report, ended.
type Result string

// The results. Refreshes end in the first group; reports in any.
const (
	Committed Result = "committed" // a new value stands
	Unchanged Result = "unchanged" // upstream repeated the value: not yet
	Failed    Result = "failed"    // upstream gave no value
	Direct    Result = "direct"    // fetched without Redis, for this replica only
	Orphaned  Result = "orphaned"  // fetched, but Redis was lost before the commit; for this replica only
	Refused   Result = "refused"   // fetched, but the lease was lost: not committed, and what stands is cut
	Shared    Result = "shared"    // another replica did the work
	Waiting   Result = "backoff"   // upstream must not be asked now
	Throttled Result = "throttled" // an allowance is spent

	Stale    Result = "stale"    // the reported value was not the current one
	Accepted Result = "accepted" // a probe says that upstream accepts the reported value
	Unknown  Result = "unknown"  // the probe gave no clear answer

	Reread Result = "reread" // everything was read again from Redis, so it answers; without a Key
)

// Event tells an observer what the cache did. It holds no secret and no value.
type Event struct {
	Key     Key
	Reason  Reason
	Result  Result
	Version int64         // of the value that stands afterwards, 0 if none
	Took    time.Duration // from the start of the refresh
	// ForeignRefresher is set when values are rejected while young, again and again: somebody else
	// refreshes this app.
	ForeignRefresher bool
	// Err says why, for Failed, Orphaned, Refused, Throttled and Unknown; and is a *[StoreError] when Redis could not be
	// reached.
	Err error
}
