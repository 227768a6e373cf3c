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
	forced   Reason = "force" // also of a Fetched event
)

// Result says how a refresh, or a report, ended.
type Result string

// The results. Refreshes end in the first group; reports in the first two; the rest happens beside them.
const (
	Committed Result = "committed" // a new value stands
	Unchanged Result = "unchanged" // upstream repeated the value: not yet
	Settled   Result = "settled"   // a probe showed that a doubt was unfounded
	Failed    Result = "failed"    // upstream gave no value
	Direct    Result = "direct"    // fetched without Redis, for this replica only
	Orphaned  Result = "orphaned"  // fetched, but Redis was lost before the commit; for this replica only
	Refused   Result = "refused"   // fetched, but the lease was lost: not committed, and what stands is cut
	Shared    Result = "shared"    // another replica did the work
	Waiting   Result = "backoff"   // upstream must not be asked now
	Throttled Result = "throttled" // an allowance is spent
	NoRedis   Result = "no_redis"  // Redis could not be reached, and nothing could be done without it

	Stale    Result = "stale"    // the reported value was not the current one
	Accepted Result = "accepted" // a probe says that upstream accepts the reported value
	Unknown  Result = "unknown"  // the probe gave no clear answer

	Reread     Result = "reread"     // everything was read again from Redis, so it answers; without a Key
	Subscribed Result = "subscribed" // a subscription to the others' events stands; without a Key
	Stepped    Result = "stepped"    // the wall clock went Took further than the monotonic one (< 0: less); without a Key

	Fetched Result = "fetched" // upstream was asked for a value, and Took is its time; Reason may be "force"
	Probed  Result = "probed"  // upstream was asked whether it accepts a value, and Took is its time
	Waited  Result = "waited"  // a refresh waited for as long as Took for another replica's lease
	Lost    Result = "lost"    // a lease was over before its holder was, with no value fetched; else it is Refused
	Heard   Result = "heard"   // what another replica did was adopted, Took after it was done
	Missed  Result = "missed"  // a version was found by reading again, and no event told of it
	Emptied Result = "emptied" // Redis knows less than this replica: it lost data

	Capped Result = "lease_capped" // a lock key without an end, or with a later one than any lease, now ends in 10 s; Err names it

	// Only in the journal: a value that no commit can have written was deleted.
	Discarded Result = "discarded"
	// Only in the journal: the life of what stands was shortened, because upstream may have superseded it,
	// or is about to. [Entry].Why says whether by the fetch that begins, or by one that ended badly.
	Cut Result = "cut"
)

// Event tells an observer what the cache did. It holds no secret and no value.
type Event struct {
	Key     Key
	Reason  Reason
	Result  Result
	Version int64         // of the value that stands afterwards, 0 if none
	Took    time.Duration // from the start of the refresh, unless its Result says otherwise
	// ForeignRefresher is set when values are rejected while young, again and again: somebody else
	// refreshes this app.
	ForeignRefresher bool
	// Err says why, for Failed, Orphaned, Refused, Throttled, Unknown, Fetched and Probed (nil: it went well). Each
	// operation on Redis that fails is an event of its own: without a Reason, Failed, and Err is a *[StoreError].
	Err error
}
