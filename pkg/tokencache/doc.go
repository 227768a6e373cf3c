// Package tokencache keeps credentials that must be fetched rarely and shared by many: in the memory
// of each replica, and in Redis for all of them and for whoever reads the key directly.
//
// # What it guarantees
//
// However many replicas and callers there are, one expiry costs one upstream fetch. A value that
// upstream superseded is not handed out as good after upstream's overlap, whichever process died at
// whichever moment. A report of a rejected value costs one fetch for the whole cluster, a late one
// none. A warm replica answers from memory while Redis or upstream is away, until the value's true
// end.
//
// # How
//
// One operation changes a credential, the refresh, for three reasons: nothing usable stands
// (missing), it is time (due), or an app reports that upstream rejects the value (report):
//
//	look      somebody may have done it already
//	lease     one replica at a time; the others wait for the value, not for the lease
//	begin     look again, ration, and cut: shorten the life of what stands to less than the overlap,
//	          because from the next step on it may be superseded by a value that nobody here knows
//	fetch     under a deadline inside the lease
//	commit    only if the lease still stands: value, life and version, in one step with its release
//
// A holder that dies anywhere leaves a value that everybody sees is in doubt and that leaves Redis
// before it can be dead. A holder that wakes up after its lease has its commit refused, and cuts
// what stands, since its own fetch may have superseded it.
//
// # What it does not believe
//
// Other programs can write to the same Redis. A number that no script can have written counts as
// none and is replaced; so is a value with another digest than its meta, and a key of another type. A
// lock key that outlives every lease is shortened to one, and reported. What a replica knows of the end
// of a version only gets shorter, so a clock of Redis that is stepped back prolongs nothing.
//
// # What it does not do
//
// It knows nothing of any upstream: a [Source] does. It does not log and has no metrics: an observer
// of [Event] has. It does not encrypt what is in Redis, because apps read it; ACLs and TLS guard it.
// And there is one order of events that no fence covers: where every fetch supersedes the value, a
// holder that stalls after its last look at the clock and before its request leaves the wire sends
// it after its successor's. What its successor committed is then dead when the overlap is over. The
// deadline makes the window that of one request, the refused commit cuts the value, and a report
// heals it; an endpoint that repeats its value (stable_token) does not have it at all.
package tokencache
