package tokencache

import "time"

// Reason says why a credential is refreshed.
type Reason string

// The reasons of a refresh.
const (
	ReasonMissing Reason = "missing" // there is no usable value
	ReasonDue     Reason = "due"     // ahead of the end, or in doubt with no lease held
	ReasonReport  Reason = "report"  // an app says that upstream rejects the current value

	// What a report becomes once upstream rejects the value, and when only force helps; internal to
	// the refresh.
	reasonRejected Reason = "rejected"
	ReasonForce    Reason = "force" // also of a Fetched event
)

// Result says how a refresh, or a report, ended.
type Result string

// The results. Refreshes end in the first group; reports in the first two; the rest happens beside
// them.
const (
	ResultCommitted     Result = "committed"      // a new value is in Redis
	ResultUnchanged     Result = "unchanged"      // upstream repeated the value: not yet
	ResultDoubtResolved Result = "doubt_resolved" // a probe found the value in doubt good
	ResultFailed        Result = "failed"         // upstream gave no value
	ResultDirect        Result = "direct"         // fetched without Redis, for this replica only
	ResultOrphaned      Result = "orphaned"       // fetched, but Redis was lost before the commit; for this replica only
	ResultRefused       Result = "refused"        // fetched, but the lease was lost: not committed, and the present value is cut
	ResultShared        Result = "shared"         // another replica did the work
	ResultBackoff       Result = "backoff"        // upstream must not be asked now
	ResultThrottled     Result = "throttled"      // an allowance is spent
	ResultNoRedis       Result = "no_redis"       // Redis could not be reached, and nothing could be done without it

	ResultNotCurrent Result = "not_current" // the reported value was not the current one
	ResultAccepted   Result = "accepted"    // a probe says that upstream accepts the reported value
	ResultUnknown    Result = "unknown"     // the probe gave no clear answer

	ResultReread       Result = "reread"        // Redis was read again, so it answers; without a Key
	ResultSubscribed   Result = "subscribed"    // this replica is subscribed to events; without a Key
	ResultClockStepped Result = "clock_stepped" // the wall clock went Took further than the monotonic one (< 0: less); without a Key

	ResultFetched     Result = "fetched"      // upstream was asked for a value, and Took is its time; Reason may be ReasonForce
	ResultProbed      Result = "probed"       // upstream was asked whether it accepts a value, and Took is its time
	ResultLeaseWaited Result = "lease_waited" // a refresh waited for as long as Took for another replica's lease
	ResultLeaseLost   Result = "lease_lost"   // the lease expired during the refresh and no value was fetched; with one it is ResultRefused
	ResultAdopted     Result = "adopted"      // a version of another replica was adopted, Took after it was committed
	ResultEventMissed Result = "event_missed" // a re-read found a version that no event announced
	ResultDataLost    Result = "data_lost"    // Redis has an older version than this replica: it lost data

	ResultLeaseCapped Result = "lease_capped" // a lock key without an end, or with a later one than any lease, now ends in 10 s; Err names it

	ResultAdded   Result = "added"   // a credential is kept from now on, by [Cache.Add] or because a caller wanted it
	ResultDropped Result = "dropped" // a credential of [Cache.Add] was idle, and is not kept any more

	// Only in the journal: [Cache.Revoke] took the value back, [Cache.Retry] ended a backoff.
	ResultRevoked Result = "revoked"
	ResultRetry   Result = "retry"
	// Only in the journal: a value that no commit can have written was deleted.
	ResultDiscarded Result = "discarded"
	// Only in the journal: the life of the present value was shortened, because upstream may have
	// superseded it, or is about to. [Entry].Why says whether by the fetch that begins, or by one
	// that ended badly.
	ResultCut Result = "cut"
	// Only as [Entry].Why of a ResultCut: it comes before a fetch.
	ResultFetch Result = "fetch"
)

// Event reports to an observer what the cache did. It holds no secret and no value.
type Event struct {
	Key     Key
	Reason  Reason
	Result  Result
	Version int64         // of the value afterwards, 0 if none
	Took    time.Duration // from the start of the refresh, unless its Result says otherwise
	// ForeignRefresher is set when values are rejected while young, again and again: probably
	// another program refreshes this app.
	ForeignRefresher bool
	// Err says why, for Failed, Orphaned, Refused, Throttled, Unknown, Fetched and Probed (nil: it
	// went well). Each operation on Redis that fails is an event of its own: without a Reason,
	// Failed, and Err is a *[StoreError].
	Err error
}

// eventAudit detects events that this replica missed, and data that Redis lost. The zero value is
// ready for use; the mutex of the slot guards it.
type eventAudit struct {
	announced   int64 // the latest version that an event announced
	unannounced int64 // a version that a re-read found before any event; 0: none
	losses      int   // answers in a row with an older version than this replica has
}

// dataLost reports whether Redis has just been found to have lost data. One answer with an older
// version shows nothing: Redis may have given it just before a commit whose reply came first. Two
// do.
func (a *eventAudit) dataLost(older bool) bool {
	if !older {
		a.losses = 0
		return false
	}
	a.losses++
	return a.losses == 2
}
