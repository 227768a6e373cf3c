// Package tokencache shares credentials that must be fetched rarely between the replicas of a
// program: in the memory of each replica, and in Redis for all replicas and for apps that read the
// key directly. WeChat's access tokens are one example, OAuth client credentials another.
//
// # What it guarantees
//
// However many replicas and callers there are, one expiry costs one upstream fetch. A value that
// upstream superseded is not handed out as good after the overlap, whichever process stops at
// whichever moment. Any number of reports of one rejected value cost one fetch for the whole
// cluster, and a late report costs none. While Redis or upstream is away, a replica answers from
// memory until the true end of the value.
//
// # Words
//
//	app         what a credential belongs to; all Redis keys of an app are in one hash slot
//	credential  a value with a life, named by a [Key]; a [Source] fetches it
//	version     a number that grows with each committed value of a credential
//	lease       the distributed lock that one replica holds while it refreshes
//	snapshot    what one replica knows of a credential; immutable, replaced as a whole
//	refresh     the one operation that changes a credential
//	flight      one refresh of one credential on this replica, shared by its callers (singleflight)
//	attempt     the part of a refresh under the lease
//	overlap     how long the previous value works after upstream issued a new one
//	cut         before a fetch, the life of the present value is shortened to less than the overlap
//	doubt       upstream may have superseded the value by one that no replica has
//	report      a caller says that upstream rejects a value
//	probe       a question to upstream whether it accepts a value
//	backoff     the time during which upstream must not be asked
//	margin      how long before its end a value leaves Redis
//
// # The refresh
//
// A refresh runs for three reasons: there is no usable value (missing), the value should be renewed
// (due), or a caller reports that upstream rejects it (report). Its steps:
//
//	look      another replica may have done it already
//	lease     one replica at a time; the others wait for the value, not for the lease
//	begin     look again, check the allowances, and cut: from the next step on, upstream may
//	          supersede the present value by one that no replica has
//	fetch     ask upstream, under a deadline inside the lease
//	commit    if the lease is still held: store value, life and version, and release the lease
//
// A lease holder that stops at any step leaves a value that every replica sees is in doubt, and
// that leaves Redis before it can be dead. A lease holder that wakes up after its lease has its
// commit refused. It then cuts the present value, because its own fetch may have superseded it.
//
// # What it does not trust
//
// Other programs can write to the same Redis. A number that no script can have written counts as
// none and is replaced. So is a value whose digest differs from the one in its meta, and a key of
// another type. A lock key that outlives every lease is shortened to one lease, and reported. What
// a replica knows of the end of a version only gets shorter, so a clock of Redis that is stepped
// back prolongs nothing.
//
// # What it does not do
//
// It knows nothing of any upstream: a [Source] does. It does not log and has no metrics: an
// observer of [Event] has. It does not encrypt what is in Redis, because apps read it; ACLs and TLS
// protect it.
//
// One order of events is not covered by the fence, where every fetch supersedes the value. A holds
// the lease, looks at the clock for the last time, and stalls before its request leaves the host. B
// takes the lease, fetches and commits. A wakes up, and its request reaches upstream after that of
// B. The value that B committed is then dead when the overlap is over. The deadline of a fetch
// makes that window as short as one request, the refused commit cuts the value, and a report heals
// it. An endpoint that repeats its value (WeChat's stable_token) does not have the window at all.
package tokencache
