/*
 * The refresh of one credential of an upstream where every fetch supersedes the value before it (WeChat's
 * classic endpoint): three replicas, one Redis, one upstream. Every atomic step is one script on Redis, one
 * act of upstream, or the passing of one stretch of time; it names the Go function or the script that it
 * mirrors, and model_test.go checks that each of those names still exists. README.md says what is left out.
 *
 * -DNAME takes one guard out, or lifts one assumption; variants.go lists them.
 */

#ifndef EXPIRIES
#define EXPIRIES 2	/* how often the value becomes due */
#endif
#ifndef FAULTS
#define FAULTS 2	/* faults in one run, of all kinds together */
#endif
#define N 3		/* replicas, A to C in a trace */
#ifdef WITHDRAW
#define SLOTS 11	/* values that are still held; 0 is none */
#else
#define SLOTS 9
#endif

/* What a replica is about to do. */
#define IDLE    0
#define BEGIN   1	/* has the lease; begin comes next */
#define SEND    2	/* begin said go; the request comes next */
#define WAIT    3	/* the request is out */
#define COMMIT  4	/* has a value to commit */
#define FAILED  5	/* upstream issued nothing, for sure */
#define UNCLEAR 6	/* upstream may have issued something */
#define CUT     7	/* must cut without a lease */
#define PROBE   8	/* begin said settle; the probe comes next */
#define RELEASE 9	/* begin had no answer; gives the lease back */

/* A value upstream: free slot, the newest, superseded less than a minute ago (overlap - cut), superseded
   longer ago but inside the overlap, dead. */
#define FREE    0
#define NEWEST  1
#define RECENT  2
#define LATE    3
#define DEAD    4

/* When a key or a snapshot stops being good. TIGHT: before its value can be dead, because the time that it
   has was counted from before the value was superseded, or from at most overlap - cut after. LOOSE: no bound
   is known. For a key NO means that it was not cut; for a snapshot, that it is not good. OVER: a snapshot
   that was good until Redis had not confirmed it for too long. */
#define NO      0
#define TIGHT   1
#define LOOSE   2
#define OVER    3

#define GHOST   (N+1)	/* no replica uses the lease in the lock */
#define I       (_pid-1)	/* init is process 0 */
#define ME      (I+1)

/* Redis: the value's key, and of meta what matters. */
typedef Store {
	byte val;		/* 0: the key is gone */
	byte ver;
	bit doubt;
	unsigned cut : 2;	/* the key's time was cut: NO, TIGHT, LOOSE */
	bit old;		/* unclear_at is longer ago than the overlap and a lease */
	unsigned cutby : 3;	/* cut_by, 0 when its replica does not work any more */
	unsigned pcut : 2;	/* prior_expiry */
	bit pdoubt;		/* prior_doubt */
	bit pold;		/* prior_unclear_at */
	unsigned granted : 3;
	unsigned finished : 3
}
Store r;
unsigned lock : 3;		/* whose lease: replica + 1, GHOST, 0 */
unsigned during : 3;		/* the lease at the last cut, while it is held */
#ifdef FAILOVER
Store s;			/* the Redis that would take over, if it lags */
bit lags;
#else
#define lags false
#endif

/* A replica: its snapshot, and its refresh in flight (attempt). */
typedef Replica {
	unsigned pc : 4;
	byte val;		/* the snapshot's value */
	byte ver;
	bit doubt;
	unsigned good : 2;
	bit force;		/* due, whatever the schedule says */
	byte want;		/* the version that brought it here */
	bit settle;
	bit pend;		/* its request may still be acted on */
	byte got;		/* what upstream gave it */
	byte victim;		/* what its request superseded */
	bit late;		/* ... when the lease was not its own */
#ifdef WITHDRAW
	bit early;		/* it has been at work since before the last withdrawal */
	bit saw;		/* its snapshot has changed since it asked upstream */
	bit end;		/* upstream told it that the right to ask has ended */
#endif
	bit stale		/* another replica committed since it obtained its lease */
}
Replica R[N];

/* Upstream. */
byte phase[SLOTS];
bit overdue[SLOTS];		/* superseded by a request that was acted on without its lease */
bit exempt[SLOTS];		/* no running replica can know that it was superseded: what the design does not cover */
byte newest;
bit opend;			/* the request of a dead holder may still be acted on */

#ifdef WITHDRAW
/* The authorisation: the secret can be replaced (ACTIVE to RENEWED), or withdrawn and given again. What is
   saved in the vault comes first, and then Revoke: between the two everything may happen. */
#define ACTIVE    0
#define WITHDRAWN 1	/* in the vault; upstream is not asked any more */
#define REVOKED   2	/* and in Redis */
#define RENEWED   3	/* another secret is in the vault, and upstream is asked again */
#define AGAIN     4	/* and revoked in Redis */
unsigned right : 3;
byte mark;			/* Redis: revoked */
bit taken[SLOTS];		/* fetched before a withdrawal that Redis has acknowledged */
#endif

/* Time and faults. */
byte vmax;			/* the greatest version so far: Redis' clock never goes back */
byte due;			/* versions up to here are due for renewal */
byte expiries, faults;
byte budget;			/* fetches still allowed by I1 */

#ifndef TRACE
#define HIDDEN hidden
#else
#define HIDDEN
#endif
HIDDEN byte serial;		/* for traces only: the values' numbers */
HIDDEN byte name[SLOTS];

#ifdef COVER
#define SEEN(n, what) c_code { static int seen; if (!seen) { seen = 1; printf("reached: " what "\n"); } }
#else
#define SEEN(n, what) skip
#endif

#define FAULT (faults < FAULTS)
#define HIT(cost) faults++; budget = budget + cost

#define SUPERSEDED(t) (phase[t] >= RECENT)
#define WORKING(p)    (p != IDLE && p != CUT)
#define ANYBODY_REPEATS (REPEATS(0) || REPEATS(1) || REPEATS(2))
#define DUE(i)        (R[i].force || R[i].doubt || R[i].ver <= due)
/* A script that was applied is being repeated: its reply was lost. The repeat comes at once, or
   the replica was stopped. */
#define REPEATS(i)    (r.finished == i+1 && R[i].pc != IDLE)
#define KNOWS_BETTER(i) (R[i].ver > r.ver)

/* mirrors lua/prelude.lua (doubt) */
inline mark_doubt() {
	if
	:: r.val && r.cut != TIGHT ->
		if
#ifndef CUT_NOT_BELOW_OVERLAP
		:: phase[r.val] <= RECENT -> r.cut = TIGHT
#endif
		:: else -> r.cut = LOOSE
		fi
	:: else
	fi;
	r.doubt = 1; r.old = 0; during = lock
}

/* What the confirmation of value t promises, if the key itself promises k.
   mirrors tokencache.(*snapshot).fresh, tokencache.unconfirmed */
inline confirm(i, t, k) {
	if
#ifdef UNCONFIRMED_IS_GOOD
	:: k == TIGHT -> R[i].good = TIGHT
#else
	:: phase[t] <= RECENT || k == TIGHT -> R[i].good = TIGHT
#endif
	:: else -> R[i].good = LOOSE
	fi
}

#ifdef WITHDRAW
/* mirrors tokencache.(*snapshot).forget */
inline forgive(i) {
	if
#ifdef MARK_IGNORED
	:: false
#else
	:: R[i].ver < mark ->
		SEEN(21, "a replica learns of a withdrawal, and forgets the value");
		R[i].val = 0; R[i].ver = mark; R[i].doubt = 0; R[i].good = NO; R[i].force = 1
#endif
	:: else
	fi;
	if :: R[i].val && taken[R[i].val] -> printf("P4: a replica keeps what was taken back, although it looked\n"); assert(false) :: else fi
}

/* Without a lease, as of the caller of Revoke; or by the holder of one, whose fetch found that the right to ask
   has ended. mirrors lua/prelude.lua (revoke) */
inline revoke() {
	r.val = 0; r.cut = NO; r.doubt = 0; r.old = 0; during = 0;
#ifndef NO_MARK
	vmax++; r.ver = vmax; mark = vmax;
#endif
	r.granted = 0; r.cutby = 0; r.pcut = 0; r.pdoubt = 0; r.pold = 0
}
#define TAKE(t) if :: phase[t] -> taken[t] = 1 :: else fi
#define EARLY(i) if :: R[i].pc != IDLE -> R[i].early = 1; SEEN(22, "a withdrawal meets a refresh in flight"); budget++ :: else fi
inline take() {
	TAKE(1); TAKE(2); TAKE(3); TAKE(4); TAKE(5); TAKE(6); TAKE(7); TAKE(8); TAKE(9); TAKE(10);
	EARLY(0); EARLY(1); EARLY(2);
	budget++
}
#ifdef END_DROPS_ANY_VERSION
#define MAY_DROP(i) true
#else
#define MAY_DROP(i) !R[i].saw
#endif
#define SPURNS (right == WITHDRAWN || right == REVOKED)
#define MAY_ACT(i) (right != REVOKED || R[i].early)	/* it may have been asked before */
#else
#define MAY_ACT(i) true
#define forgive(i) skip
#endif

/* The replica adopts the state of Redis.
   mirrors tokencache.(*Cache).adopt, tokencache.(*snapshot).merge, tokencache.(*snapshot).take */
inline adopt(i) {
	if
	:: r.ver < R[i].ver ->				/* Redis lost data; no confirmation */
		R[i].force = 1
	:: r.ver == R[i].ver && r.doubt && R[i].val && r.val && r.val != R[i].val ->
		R[i].force = 1;				/* ours could not be committed, and is newer */
#ifdef KEPT_IS_CONFIRMED
		if :: R[i].good != NO -> confirm(i, R[i].val, NO) :: else fi
#else
		skip
#endif
	:: r.ver >= R[i].ver && !(r.ver == R[i].ver && r.doubt && R[i].val && r.val != R[i].val) && r.val ->
		R[i].val = r.val; R[i].ver = r.ver; R[i].doubt = r.doubt; R[i].force = 0;
		confirm(i, r.val, r.cut)
	:: r.ver == R[i].ver && !r.doubt && !r.val ->	/* the margin has begun, or a cut was undone */
		R[i].force = 1; R[i].doubt = 0;
		if :: R[i].good != NO -> confirm(i, R[i].val, NO) :: else fi
	:: else ->					/* the cut has run out, or a newer value came and went */
		R[i].doubt = r.doubt; R[i].good = NO; R[i].force = 1
	fi;
	forgive(i)
}

/* A look would change the snapshot. */
#ifdef WITHDRAW
#ifdef MARK_IGNORED
#define MARKED(i) false
#else
#define MARKED(i) (R[i].ver < mark)
#endif
#else
#define MARKED(i) false
#endif
#define LOOK(i) ( MARKED(i) || R[i].ver < r.ver && (r.val || !R[i].force || R[i].good != NO || R[i].doubt != r.doubt) \
	|| R[i].ver > r.ver && !R[i].force \
	|| R[i].ver == r.ver && ( \
		r.val && r.val == R[i].val && (R[i].doubt != r.doubt || R[i].force || R[i].good == NO || R[i].good == OVER || R[i].good != LOOSE && phase[r.val] == LATE && r.cut != TIGHT) \
		|| r.val && r.val != R[i].val && (!r.doubt || !R[i].val || !R[i].force || R[i].good == OVER || R[i].good == TIGHT && phase[R[i].val] == LATE) \
		|| !r.val && (!R[i].force || R[i].doubt != r.doubt || r.doubt && R[i].good != NO || !r.doubt && (R[i].good == OVER || R[i].good == TIGHT && phase[R[i].val] == LATE)) ) )

/* No step needs to tell a lease that is over and unused from another one. */
inline forget(i) {
	if :: r.cutby == i+1 -> r.cutby = 0; r.pcut = 0; r.pdoubt = 0; r.pold = 0 :: else fi;
	if :: r.granted == i+1 -> r.granted = 0 :: else fi;
	if :: r.finished == i+1 -> r.finished = 0 :: else fi;
#ifdef FAILOVER
	if :: s.cutby == i+1 -> s.cutby = 0; s.pcut = 0; s.pdoubt = 0; s.pold = 0 :: else fi;
	if :: s.granted == i+1 -> s.granted = 0 :: else fi;
	if :: s.finished == i+1 -> s.finished = 0 :: else fi;
#endif
	skip
}

inline rest(i) {
	if :: lock == i+1 -> lock = GHOST :: else fi;	/* it runs out by itself */
	forget(i);
	R[i].pc = IDLE; R[i].want = 0; R[i].settle = 0; R[i].pend = 0; R[i].got = 0; R[i].victim = 0; R[i].late = 0;
#ifdef WITHDRAW
	R[i].early = 0; R[i].saw = 0; R[i].end = 0;
#endif
	R[i].stale = 0
}

#ifdef CANON
c_code {
\#include "canon.h"
}
#endif

/* Values that no replica holds need no slot. */
#ifdef FAILOVER
#define IN_STORE(t) (r.val == t || lags && s.val == t)
#else
#define IN_STORE(t) (r.val == t)
#endif
#define HELD(t) (IN_STORE(t) || newest == t || R[0].val == t || R[1].val == t || R[2].val == t \
	|| R[0].got == t || R[1].got == t || R[2].got == t || R[0].victim == t || R[1].victim == t || R[2].victim == t)
#ifdef WITHDRAW
#define UNTAKE(t) taken[t] = 0
#else
#define UNTAKE(t) skip
#endif
#define SWEEP(t) if :: phase[t] && !HELD(t) -> phase[t] = FREE; name[t] = 0; overdue[t] = 0; exempt[t] = 0; UNTAKE(t) :: else fi
#ifdef CANON
inline sweep() { c_code { canon(); } }
#else
inline sweep() {
	SWEEP(1); SWEEP(2); SWEEP(3); SWEEP(4); SWEEP(5); SWEEP(6); SWEEP(7); SWEEP(8);
#ifdef WITHDRAW
	SWEEP(9); SWEEP(10);
#endif
	if :: !r.val -> r.cut = 0 :: else fi;
	if :: !r.cutby -> r.pcut = 0; r.pdoubt = 0; r.pold = 0 :: else fi
}
#endif

/* Upstream acts on a request: t is the new value, own says that the request's lease is still held. */
inline issue(t, own) {
	t = 1;
	do :: phase[t] -> t++ :: else -> break od;
	phase[newest] = RECENT;
	overdue[newest] = !(own);
	phase[t] = NEWEST;
	serial++; name[t] = serial
}

inline copy(to, from) {
	to.val = from.val; to.ver = from.ver; to.doubt = from.doubt; to.cut = from.cut; to.old = from.old;
	to.cutby = from.cutby; to.pcut = from.pcut; to.pdoubt = from.pdoubt; to.pold = from.pold;
	to.granted = from.granted; to.finished = from.finished
}

#ifdef EARLY_PROBE_CLEARS_DOUBT
#define OLD_ENOUGH true
#else
#define OLD_ENOUGH r.old
#endif
#ifdef NO_RECHECK
#define DONE(i) false
#else
#ifdef TRUST_OLDER_VERSIONS
#define DONE(i) (r.val && !r.doubt && (r.ver != R[i].want || r.ver > due))
#else
#define DONE(i) (r.val && !r.doubt && (r.ver > R[i].want || r.ver == R[i].want && r.ver > due))
#endif
#endif
/* mirrors lua/begin.lua; lost says that the reply is lost after the script was applied. */
inline begin(i, lost) {
	if
	:: lock != i+1 ->
		printf("%c: begin: the lease is lost\n", 65+i);
		if :: !lost -> adopt(i); rest(i) :: else fi
	:: lock == i+1 && r.granted == i+1 ->
		SEEN(1, "a repeated begin is recognized");
		printf("%c: begin, repeated: go\n", 65+i);
		if :: !lost -> adopt(i); R[i].want = 0; R[i].settle = 0; R[i].pc = SEND :: else fi
	:: lock == i+1 && r.granted != i+1 && DONE(i) ->
		SEEN(2, "the double check finds the work done");
		printf("%c: begin: done by another, value %d is in Redis\n", 65+i, name[r.val]);
		lock = 0;
		if
		:: !lost -> adopt(i); rest(i);
#ifdef TRUST_OLDER_VERSIONS
			R[i].ver = r.ver; R[i].force = 0	/* nothing comes of what it knew */
#endif
		:: else
		fi
	:: else ->
		if
		:: R[i].settle && r.ver == R[i].want && r.doubt && OLD_ENOUGH ->
			printf("%c: begin: the doubt is old enough to settle it by a probe\n", 65+i);
			r.cutby = i+1;
			if :: !lost -> adopt(i); R[i].settle = 0; R[i].pc = PROBE :: else fi
		:: else ->
			printf("%c: begin: cut the present value (value %d), go\n", 65+i, name[r.val]);
			r.granted = i+1; r.cutby = i+1;
			r.pcut = r.cut; r.pdoubt = r.doubt; r.pold = r.old;
#ifndef NO_CUT
			mark_doubt();
#endif
			if :: !lost -> adopt(i); R[i].want = 0; R[i].settle = 0; R[i].pc = SEND :: else fi
		fi
	fi;
	if :: lost -> printf("%c: ... but the reply is lost\n", 65+i) :: else fi
}

/* mirrors lua/commit.lua */
#ifdef NO_FENCE
#define FENCE(i) (r.finished != i+1)
#else
#define FENCE(i) (lock == i+1)
#endif
inline commit(i, lost) {
	if
	:: FENCE(i) ->
		if :: R[i].stale -> printf("I2: a commit replaces what was committed after it began\n"); assert(false) :: else fi;
		if :: r.val != R[i].got -> vmax++; r.ver = vmax :: else fi;
		R[(i+1)%N].stale = (R[(i+1)%N].pc != IDLE);
		R[(i+2)%N].stale = (R[(i+2)%N].pc != IDLE);
		if :: R[i].got == R[i].val -> SEEN(3, "an old doubt is settled by a probe") :: else fi;
		r.val = R[i].got; r.doubt = 0; r.cut = NO; r.old = 0;
		printf("%c: commits value %d as version %d\n", 65+i, name[r.val], r.ver);
		if
#ifndef OVERTAKEN_IGNORED
		:: r.cutby != i+1 ->
			SEEN(4, "a commit that was overtaken by a cut stays in doubt");
			printf("%c: ... in doubt: another replica cut since this one's cut\n", 65+i);
			mark_doubt()
#endif
		:: else
		fi;
		r.cutby = 0; r.finished = i+1; lock = 0;
		if :: !lost -> adopt(i); rest(i) :: else -> printf("%c: ... but the reply is lost\n", 65+i) fi
#ifndef NO_CONCLUDED
	:: !FENCE(i) && r.finished == i+1 ->
		SEEN(5, "a repeated commit is recognized");
		printf("%c: commit, repeated: it was done before\n", 65+i);
		if :: !lost -> adopt(i); rest(i) :: else fi
#endif
	:: else ->
		SEEN(6, "a commit is refused");
		printf("%c: commit of value %d refused: the lease is lost\n", 65+i, name[R[i].got]);
		if
		:: lost
#ifdef REFUSED_COMMIT_DROPPED
		:: !lost -> rest(i)
#else
		:: !lost -> R[i].got = 0; R[i].pc = CUT
#endif
		fi
	fi
}

/* What ended is the right that the replica had: not a later one. */
#define ENDING(i) if :: right == AGAIN -> printf("P4: the end of one authorisation takes back what came of the next\n"); assert(false) :: else -> SEEN(24, "a fetch finds the right to ask ended, and takes the value back") fi

/* mirrors lua/finish.lua; undo says that upstream issued nothing for sure. */
inline finish(i, undo, lost) {
	if
	:: lock == i+1 ->
		if
#ifdef UNDO_ANY_CUT
		:: undo ->
#else
		:: undo && r.cutby == i+1 ->
#endif
			SEEN(7, "a cut is undone");
			printf("%c: undoes its cut\n", 65+i);
			if :: r.val -> r.cut = r.pcut :: else fi;
			r.doubt = r.pdoubt; r.old = r.pold; r.cutby = 0
		:: else ->
			if :: undo -> SEEN(8, "a cut is not undone because another replica cut since") :: else fi
		fi;
#ifdef WITHDRAW
		if
		:: R[i].end ->
			if :: mark != r.ver -> revoke(); printf("%c: takes back what is in Redis\n", 65+i) :: else fi;
			ENDING(i)
		:: else
		fi;
#endif
		r.finished = i+1; lock = 0;
		printf("%c: finishes: failed\n", 65+i);
		if :: !lost -> adopt(i); rest(i) :: else -> printf("%c: ... but the reply is lost\n", 65+i) fi
	:: lock != i+1 && r.finished == i+1 ->
		if :: !lost -> adopt(i); rest(i) :: else fi
	:: else ->
		printf("%c: finish refused: the lease is lost\n", 65+i);
#ifdef WITHDRAW
		if
		:: R[i].end ->
			SEEN(23, "an end from before a later authorisation takes nothing back");
#ifdef ENDED_WITHOUT_LEASE
			if :: mark != r.ver -> revoke() :: else fi;
			ENDING(i)
#endif
		:: else
		fi;
#endif
		if
		:: !lost && R[i].pc == UNCLEAR ->
#ifdef UNCLEAR_WITHOUT_LEASE_DROPPED
			rest(i)
#else
			R[i].pc = CUT
#endif
		:: !lost && R[i].pc != UNCLEAR -> rest(i)
		:: lost
		fi
	fi
}

proctype replica()
{
end:	do
	/* An event, the slow re-read, or a caller's look.
	   mirrors tokencache.(*Cache).load, tokencache.(*Cache).lookAtAnnounced, tokencache.(*Cache).reread */
	:: d_step { R[I].pc == IDLE && LOOK(I) ->
		adopt(I); sweep();
		printf("%c: looks: value %d, version %d, doubt %d\n", 65+I, name[R[I].val], R[I].ver, R[I].doubt) }

#ifdef WITHDRAW
	/* ... while its own fetch is in flight, whose lease a withdrawal has ended. */
	:: d_step { R[I].early && R[I].pc >= SEND && R[I].pc <= CUT && lock != ME && LOOK(I) ->
		SEEN(25, "a replica looks while it fetches");
		adopt(I); R[I].saw = 1; sweep();
		printf("%c: looks, while it fetches: value %d, version %d\n", 65+I, name[R[I].val], R[I].ver) }
#endif

	/* The lease. What is due is known from the snapshot, which may be old; with its own unclear attempt in
	   the lock a replica takes that over.
	   mirrors lock.(*Lock).Obtain, lock.(*Lock).Unclear, tokencache.(*refresh).underLease, tokencache.(*refresh).run,
	   tokencache.(*snapshot).isDue, tokencache.(*attempt).canResolveDoubt */
	:: d_step { R[I].pc == IDLE && DUE(I) && (lock == 0 || lock == ME) && !ANYBODY_REPEATS ->
		if :: lock == ME -> SEEN(9, "an obtain whose reply was lost is taken over") :: else fi;
		lock = ME; during = 0; forget(I);
		R[I].want = R[I].ver; R[I].settle = (R[I].doubt && R[I].val); R[I].stale = 0;
		R[I].pc = BEGIN; sweep();
		printf("%c: obtains the lease, wants better than version %d\n", 65+I, R[I].want) }
	:: d_step { R[I].pc == IDLE && DUE(I) && lock == 0 && !ANYBODY_REPEATS && FAULT ->
		HIT(0); lock = ME; during = 0; sweep();
		printf("%c: obtains the lease, but the reply is lost\n", 65+I) }

	/* mirrors tokencache.(*attempt).run, tokencache.(*store).begin */
	:: d_step { R[I].pc == BEGIN -> begin(I, false); sweep() }
	:: d_step { R[I].pc == BEGIN && FAULT -> HIT(0); begin(I, true); sweep() }
	:: d_step { R[I].pc == BEGIN && FAULT -> HIT(0); R[I].pc = RELEASE;
		printf("%c: begin: no answer from Redis\n", 65+I) }

	/* mirrors lock.(*Lease).Release */
	:: d_step { R[I].pc == RELEASE ->
		printf("%c: releases\n", 65+I);
#ifdef RELEASE_WITHOUT_OWNER
		if :: lock != 0 && lock != ME -> printf("I8: the lease of another is released\n"); assert(false) :: else fi;
		lock = 0;
#else
		if :: lock == ME -> lock = 0 :: else -> SEEN(10, "a release finds another's lease and leaves it") fi;
#endif
		rest(I); sweep() }

	/* mirrors tokencache.(*attempt).fetchAndCommit, tokencache.(*Cache).fetch */
	:: d_step { R[I].pc == SEND -> if :: budget == 0 -> printf("I1: more than one fetch an expiry\n"); assert(false) :: else fi;
		budget--;
		printf("%c: asks upstream\n", 65+I); R[I].pend = 1; R[I].pc = WAIT }

	/* Upstream acts, at any moment until its caller's deadline or until its caller hangs up. */
	:: d_step { R[I].pc == WAIT && R[I].pend && MAY_ACT(I) ->
		issue(R[I].got, lock == ME);
#ifdef WITHDRAW
		taken[R[I].got] = R[I].early;
#endif
		R[I].victim = newest;
		if :: lock != ME -> R[I].late = 1; SEEN(11, "upstream acts on the request of a holder without its lease") :: else fi;
		newest = R[I].got; R[I].pend = 0; sweep();
		printf("upstream: acts on the request of %c: value %d\n", 65+I, name[newest]) }
	:: d_step { R[I].pc == WAIT && R[I].got -> R[I].pc = COMMIT }

#ifdef WITHDRAW
	/* The vault says that the authorisation was withdrawn: upstream is not asked.
	   mirrors tokencache.(*attempt).failed, tokencache.(*slot).end */
	:: d_step { R[I].pc == WAIT && R[I].pend && SPURNS ->
		R[I].pend = 0; R[I].end = 1; R[I].pc = FAILED; budget++;
		printf("%c: learns that the right to ask has ended\n", 65+I) }
	:: d_step { R[I].pc == FAILED && R[I].end && R[I].val && MAY_DROP(I) ->
		if :: R[I].saw && !taken[R[I].val] && right == AGAIN -> printf("P4: a replica forgets the value of a later authorisation\n"); assert(false) :: else fi;
		R[I].val = 0; R[I].doubt = 0; R[I].good = NO; R[I].force = 1; sweep();
		printf("%c: forgets its value\n", 65+I) }
#endif

	/* mirrors wechat.(*Error).MayHaveIssued: what is unclear, and what is sure */
	:: d_step { R[I].pc == WAIT && (R[I].pend || R[I].got) && FAULT ->
		HIT(1);
#ifdef ACTS_AFTER_HANGING_UP
		if :: R[I].pend -> opend = 1 :: else fi;
#endif
		R[I].pend = 0; R[I].got = 0; R[I].pc = UNCLEAR; sweep();
		printf("%c: has no clear answer from upstream\n", 65+I) }
	:: d_step { R[I].pc == WAIT && !R[I].pend && !R[I].got -> R[I].pc = UNCLEAR }
	:: d_step { R[I].pc == WAIT && R[I].pend && FAULT ->
		HIT(1); R[I].pend = 0; R[I].pc = FAILED;
		printf("%c: learns from upstream that nothing was issued\n", 65+I) }

	/* mirrors tokencache.(*attempt).commit, tokencache.(*store).commit */
	:: d_step { R[I].pc == COMMIT -> commit(I, false); sweep() }
	:: d_step { R[I].pc == COMMIT && FAULT -> HIT(0); commit(I, true); sweep() }

	/* Redis is away until the lease is over.
	   mirrors tokencache.(*Cache).keep */
	:: d_step { R[I].pc == COMMIT && FAULT ->
		HIT(2); SEEN(12, "a value that cannot be committed is kept");
		printf("%c: cannot commit value %d before its lease is over, keeps it in memory\n", 65+I, name[R[I].got]);
		if
#ifdef WITHDRAW
#ifndef KEPT_AFTER_A_WITHDRAWAL
		:: R[I].saw -> SEEN(26, "a value that cannot be committed is not kept, because a withdrawal came meanwhile")
#endif
#endif
		:: else ->
			if :: R[I].got == R[I].val -> confirm(I, R[I].val, NO) :: else -> R[I].good = TIGHT fi;
			R[I].val = R[I].got; R[I].doubt = 0; R[I].force = 1
		fi;
		if :: lock == ME -> lock = GHOST :: else fi;
		R[I].got = 0; R[I].pc = CUT; sweep() }

	/* mirrors tokencache.(*attempt).failed, tokencache.(*attempt).finish, tokencache.(*store).finish */
	:: d_step { R[I].pc == FAILED -> finish(I, true, false); sweep() }
	:: d_step { R[I].pc == FAILED && FAULT -> HIT(0); finish(I, true, true); sweep() }
#ifdef UNDO_AFTER_UNCLEAR
	:: d_step { R[I].pc == UNCLEAR -> finish(I, true, false); sweep() }
#else
	:: d_step { R[I].pc == UNCLEAR -> finish(I, false, false); sweep() }
	:: d_step { R[I].pc == UNCLEAR && FAULT -> HIT(0); finish(I, false, true); sweep() }
#endif
	:: d_step { R[I].pc == FAILED && FAULT -> HIT(0); rest(I); sweep();
		printf("%c: cannot finish, Redis is away\n", 65+I) }
	:: d_step { R[I].pc == UNCLEAR && FAULT -> HIT(1); R[I].pc = CUT;
		if :: lock == ME -> lock = GHOST :: else fi;
		printf("%c: cannot finish, Redis is away\n", 65+I) }

	/* Without a lease.
	   mirrors tokencache.(*attempt).cut, tokencache.(*Cache).cutLater, tokencache.(*store).cut, lua/cut.lua */
	:: d_step { R[I].pc == CUT ->
		mark_doubt(); r.cutby = 0; overdue[R[I].victim] = 0; /* unclear_at is later than the act now */
		printf("%c: cuts the present value (value %d), without a lease\n", 65+I, name[r.val]);
		rest(I); sweep() }

	/* mirrors tokencache.(*attempt).run (resolve the doubt) */
	:: d_step { R[I].pc == PROBE ->
		if
		:: R[I].val && phase[R[I].val] < DEAD -> R[I].got = R[I].val; R[I].pc = COMMIT
		:: else -> SEEN(13, "a probe shows that the doubt was right"); R[I].pc = BEGIN
		fi;
		printf("%c: probes value %d: works %d\n", 65+I, name[R[I].val], phase[R[I].val] < DEAD) }

	/* The process dies; a fresh one takes its place. */
	:: d_step { FAULT && (R[I].pc != IDLE || KNOWS_BETTER(I)) ->
		HIT(1);
		if :: WORKING(R[I].pc) && lock == ME -> SEEN(14, "a holder dies") :: else fi;
		printf("%c: dies\n", 65+I);
#ifndef DEATH_AFTER_LATE_ACTION
		/* Uncovered: it alone could know of these. */
		if :: R[I].late -> exempt[R[I].victim] = 1 :: else fi;
		if :: KNOWS_BETTER(I) && r.val -> exempt[r.val] = 1 :: else fi;
#endif
		if :: lock == ME -> lock = GHOST; opend = R[I].pend :: else fi;
		R[I].val = 0; R[I].ver = 0; R[I].doubt = 0; R[I].good = NO; R[I].force = 0;
		rest(I); sweep() }
	od
}

/* A live replica that has something to tell Redis about value t. It is not stopped for long again, and Redis
   answers it, before the overlap less the cut is over. */
#ifdef CUT_COMES_LATE
#define TO_TELL(i, t) false
#else
#define TO_TELL(i, t) (R[i].victim == t && (R[i].late || lock == i+1) || lock == i+1 && (R[i].got == t || R[i].pc == PROBE && R[i].val == t) || KNOWS_BETTER(i))
#endif
#define ANYBODY_TO_TELL(t) (TO_TELL(0, t) || TO_TELL(1, t) || TO_TELL(2, t))
/* A failover takes the lease, or the commit, of replica i: from now on it has something to tell. */
#define LOSES(i) if :: R[i].victim && (lock == i+1 || r.finished == i+1) -> R[i].late = 1; overdue[R[i].victim] = 1 :: else fi;
#define IN_VIEW(t) (R[0].val == t || R[1].val == t || R[2].val == t)
#define TIGHT_IN_VIEW(t) (R[0].val == t && R[0].good == TIGHT || R[1].val == t && R[1].good == TIGHT || R[2].val == t && R[2].good == TIGHT)
#define AGES(t) \
	:: d_step { phase[t] == RECENT && (r.val == t || IN_VIEW(t)) && !ANYBODY_TO_TELL(t) && !lags -> \
		phase[t] = LATE; printf("time: value %d was superseded more than overlap - cut ago\n", name[t]) } \
	:: d_step { phase[t] == LATE && (r.val == t || IN_VIEW(t)) && !(r.val == t && r.cut == TIGHT) && !TIGHT_IN_VIEW(t) && !lags -> \
		phase[t] = DEAD; overdue[t] = 0; printf("time: the overlap is over, value %d is dead\n", name[t]) }
/* Whether the end of t's overlap must come before a doubt as young as the last cut is old. */
#define HINDERS(t) ((phase[t] == RECENT || phase[t] == LATE) && !overdue[t])
#define ANY_HINDERS (HINDERS(1) || HINDERS(2) || HINDERS(3) || HINDERS(4) || HINDERS(5) || HINDERS(6) || HINDERS(7) || HINDERS(8) || HINDERS(SLOTS-2) || HINDERS(SLOTS-1))
#define UNCONFIRMED(i) \
	:: d_step { (R[i].good == TIGHT || R[i].good == LOOSE) && phase[R[i].val] == LATE -> \
		R[i].good = OVER; printf("time: the snapshot of %c is good no more\n", 65+i) }

proctype environment()
{	byte t;
end:	do
	/* mirrors tokencache.(*Cache).refreshAhead */
	:: d_step { expiries < EXPIRIES && r.val && !r.doubt && r.ver > due && !lags && !ANYBODY_REPEATS ->
		expiries++; budget++; due = r.ver;
		printf("time: value %d is due\n", name[r.val]) }
#ifdef WITHDRAW
	/* An account withdraws its authorisation, and gives it again; or the secret is another one.
	   mirrors tokencache.(*Cache).Revoke, lua/revoke.lua */
	:: d_step { right == ACTIVE -> right = WITHDRAWN; printf("vault: the authorisation is withdrawn\n") }
	:: d_step { right < RENEWED -> right = RENEWED; printf("vault: there is another authorisation\n") }
	:: d_step { right == WITHDRAWN || right == RENEWED ->
		right++; revoke();
#ifndef REVOKE_LEAVES_THE_LEASE
		if :: lock != 0 && lock != GHOST -> SEEN(27, "a withdrawal ends a lease") :: else fi;
		lock = 0;
#endif
		take(); sweep();
		printf("Redis: the value is taken back as version %d\n", mark) }
#endif
	/* mirrors tokencache.(*Credential).margin */
	:: d_step { r.val && r.cut == NO && !r.doubt && r.ver <= due && lock == 0 && !lags ->
		SEEN(15, "the key leaves Redis with the margin");
		printf("time: the margin begins, value %d leaves Redis\n", name[r.val]);
		r.val = 0; sweep() }
	/* mirrors tokencache.(*Credential).cut: minutes, a lease is seconds */
	:: d_step { r.val && r.cut != NO && (during == 0 || during != lock || r.pcut != NO) && !lags ->
		SEEN(16, "a cut runs out");
		printf("time: the cut is over, value %d leaves Redis\n", name[r.val]);
		r.val = 0; sweep() }
	:: d_step { r.doubt && !r.old && !r.val && !opend && (during == 0 || during != lock) && !lags && !ANY_HINDERS ->
		r.old = 1; printf("time: the doubt is older than the overlap and a lease\n") }
	AGES(1) AGES(2) AGES(3) AGES(4) AGES(5) AGES(6) AGES(7) AGES(8)
#ifdef WITHDRAW
	AGES(9) AGES(10)
#endif
	UNCONFIRMED(0) UNCONFIRMED(1) UNCONFIRMED(2)

	/* The lease runs out. Under a live holder only if that was stopped (or Redis kept it waiting) beyond
	   its end: its request is over by then. Two fetches more: its own, and the one that its cut asks for.
	   mirrors tokencache.leaseTTL, tokencache.workTime */
#ifndef LEASE_WITHOUT_END
	:: d_step { lock == GHOST ->
		lock = 0; opend = 0; SEEN(17, "a dead holder's lease runs out");
		printf("time: the unused lease is over\n") }
#endif
	:: d_step { lock != 0 && lock != GHOST && R[lock-1].pc == IDLE -> lock = 0 }
	:: d_step { lock != 0 && lock != GHOST && WORKING(R[lock-1].pc) && FAULT ->
		HIT(2); printf("%c: is stopped; its lease runs out\n", 64+lock);
		R[lock-1].pend = 0; lock = 0 }
	/* ... or stopped before it repeats a script, until another's lease is finished. One fetch more. */
	:: d_step { ANYBODY_REPEATS && FAULT ->
		HIT(1); printf("%c: is stopped before it asks Redis again; others go on\n", 64+r.finished);
		r.finished = 0 }
#ifdef LEASE_SHORTER_THAN_WORK
	:: d_step { lock != 0 && lock != GHOST && R[lock-1].pc == WAIT ->
		printf("time: the lease of %c is over, its work is not\n", 64+lock); lock = 0 }
#endif
	:: d_step { opend ->
		issue(t, lock == GHOST);
		SEEN(18, "upstream acts on the request of a dead holder");
#ifndef ACTS_AFTER_HANGING_UP
		if :: lock != GHOST -> exempt[newest] = 1 :: else fi;
#endif
		newest = t; opend = 0; t = 0; sweep();
		printf("upstream: acts on a request whose caller is gone: value %d\n", name[newest]) }

#ifdef FAILOVER
	/* Another Redis takes over: without the lease, and without the last writes if it lags. */
	:: d_step { FAULT ->
		HIT(2);
		LOSES(0) LOSES(1) LOSES(2)
		lock = 0;
		printf("Redis: fails over, the lease is lost\n");
		if
		:: lags -> copy(r, s); SEEN(19, "a failover loses writes"); printf("Redis: ... and the writes since value %d, version %d\n", name[r.val], r.ver)
		:: else
		fi;
		lags = 0; s.val = 0; s.ver = 0; s.doubt = 0; s.cut = 0; s.old = 0; s.cutby = 0; s.pcut = 0; s.pdoubt = 0; s.pold = 0; s.granted = 0; s.finished = 0;
		sweep() }
	:: d_step { !lags && lock != 0 && FAULT -> lags = 1; copy(s, r) }	/* from here on it lags, for seconds */
	:: d_step { lags ->
		lags = 0; s.val = 0; s.ver = 0; s.doubt = 0; s.cut = 0; s.old = 0; s.cutby = 0; s.pcut = 0; s.pdoubt = 0; s.pold = 0; s.granted = 0; s.finished = 0;
		sweep() }
#endif
	od
}

#define BAD(t) (phase[t] == DEAD && !exempt[t])
#define HANDS_OUT(i) ((R[i].good == TIGHT || R[i].good == LOOSE) && BAD(R[i].val))
/* A replica that will put it right: under its lease, or with a cut to make, or with a later version in mind. */
#define ANSWERS(i) (R[i].late && R[i].victim == r.val || R[i].got && lock == i+1 || KNOWS_BETTER(i))

#define KEEPS(i) (R[i].val && taken[R[i].val] && R[i].ver >= mark)

proctype invariants()
{
end:	do
	:: d_step { r.val && BAD(r.val) -> printf("I3: a dead value is in Redis\n"); assert(false) }
	:: d_step { HANDS_OUT(0) || HANDS_OUT(1) || HANDS_OUT(2) -> printf("I3: a replica hands out a dead value as good\n"); assert(false) }
	:: d_step { r.val && SUPERSEDED(r.val) && !r.doubt && !exempt[r.val] && !ANSWERS(0) && !ANSWERS(1) && !ANSWERS(2) ->
		printf("I3: a superseded value is not in doubt\n"); assert(false) }
#ifdef WITHDRAW
	:: d_step { r.val && taken[r.val] -> printf("P4: a value that was taken back is in Redis\n"); assert(false) }
	:: d_step { KEEPS(0) || KEEPS(1) || KEEPS(2) -> printf("P4: a replica that knows of the withdrawal hands the value out\n"); assert(false) }
#endif
	/* I8: when nothing more can happen, a good value is in Redis and no lease is left. */
	:: atomic { timeout ->
		SEEN(20, "an end: all is quiet");
		if
		:: lock == 0 && r.val && !r.doubt && r.ver > due && (phase[r.val] == NEWEST || exempt[r.val])
		:: else -> printf("I8: stuck: a due value cannot be renewed\n"); assert(false)
		fi;
		break }
	od
}

/* A value is in Redis, and every replica has it. */
init {
	atomic {
		serial = 1; name[1] = 1; phase[1] = NEWEST; newest = 1; vmax = 1; r.val = 1; r.ver = 1;
		R[0].val = 1; R[0].ver = 1; R[0].good = TIGHT;
		R[1].val = 1; R[1].ver = 1; R[1].good = TIGHT;
		R[2].val = 1; R[2].ver = 1; R[2].good = TIGHT;
		run replica(); run replica(); run replica(); run environment(); run invariants()
	}
}
