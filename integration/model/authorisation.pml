/*
 * The secret of one account that has authorised a platform: it is received, kept in the vault, replaced by
 * upstream at any fetch, withdrawn and given again. Two replicas, one vault, one Redis, WeChat. Every atomic
 * step is one call of one of these, and a crash may come after each. It names the Go function that it mirrors,
 * and model_test.go checks that each of those names still exists. README.md says what is left out.
 *
 * -DNAME takes one guard out; variants.go lists them.
 */

#ifndef FAULTS
#define FAULTS 1
#endif
#define N 2		/* replicas, A and B in a trace */
#define SECRETS 8

/* What a replica is about to do for a fetch. */
#define IDLE   0
#define LOAD   1	/* has the lease */
#define MEND   2	/* saves a secret that it could not save before */
#define CALL   3	/* asks WeChat for a value */
#define RECALL 4	/* WeChat rejects the secret: asks which one is right */
#define ADOPT  5	/* saves that */
#define SAVE   6	/* saves the secret that came with the value */
#define COMMIT 7
#define ENDED  8
#define FAILED 9

/* What a handler of a push, or the exchange of a code, is about to do. */
#define READ   1
#define WRITE  2
#define REVOKE 3
#define ANSWER 4
#define SENT   5	/* saves that the code is being spent */
#define SPEND  6

/* The account's record. */
#define ACTIVE    1
#define WITHDRAWN 2
typedef Record { unsigned state : 2; unsigned secret : 3; unsigned order : 2; byte rev }
Record vault;
bit sent, done;		/* the record of the code */
bit saved[SECRETS];	/* the vault has acknowledged it */

/* WeChat: the event that came last is its order; 1 the first authorisation, 2 its withdrawal, 3 the next one. */
unsigned order : 2 = 1;
unsigned current : 3 = 1;	/* the secret that it accepts; 0: the account is not authorised */
unsigned issued : 3 = 1;
bit replaced;			/* it has done so at a fetch: once is enough */
bit spent;			/* the code of the next one */
bit told;			/* the push of the withdrawal was answered with success */
bit late;			/* ... and a later authorisation was in the vault by then, whose exchange revokes */

/* Redis: the value by the order in which it was issued. */
unsigned value : 2 = 1;
unsigned lock : 2;		/* replica + 1; N+1: its holder is dead */
#define NONE    0
#define SHORT   1	/* ends by itself */
#define LASTING 2	/* of a right that has ended: nothing is said of its end here */
unsigned backoff : 2;

typedef Replica {
	unsigned pc : 4;
	unsigned state : 2; unsigned secret : 3; unsigned order : 2; byte rev;	/* the record as it was loaded */
	unsigned next : 3;		/* the secret that came along */
	unsigned got : 2;		/* the value */
	unsigned unsaved : 3; byte unsavedRev	/* a secret that could not be saved, in memory */
}
Replica R[N];

/* The handler of the withdrawal, and the exchange. Each runs on some replica; two at once are excluded by the
   vault's comparison (the former) and by a lease (the latter). */
unsigned hpc : 3, xpc : 3;
byte hrev, xrev;
bit again;
unsigned xgot : 3;

byte faults, expiries;
#define FAULT (faults < FAULTS)
#define I (_pid-1)
#define ME (I+1)

#ifdef COVER
#define SEEN(n, what) c_code { static int seen; if (!seen) { seen = 1; printf("reached: " what "\n"); } }
#else
#define SEEN(n, what) skip
#endif

/* The vault takes a record only over the one that was loaded.
   mirrors vault.(*Vault).Save */
#ifdef NO_COMPARISON
#define UNCHANGED(r) true
#else
#define UNCHANGED(r) (vault.rev == r)
#endif
inline put(aa, bb, cc) {
	vault.state = aa; vault.secret = bb; vault.order = cc; vault.rev++; saved[bb] = 1
}

/* mirrors lua/revoke.lua, platform.(*Platform).revoke */
inline revoke() {
	value = 0; lock = 0;
#ifndef REVOKE_LEAVES_THE_BACKOFF
	backoff = NONE
#endif
}

inline rest(i) {
	R[i].pc = IDLE; R[i].state = 0; R[i].secret = 0; R[i].order = 0; R[i].rev = 0; R[i].next = 0; R[i].got = 0
}

proctype replica()
{
end:	do
	/* mirrors tokencache.(*refresh).underLease */
	:: d_step { R[I].pc == IDLE && !value && !lock && backoff == NONE ->
		lock = ME; R[I].pc = LOAD; printf("%c: obtains the lease\n", 65+I) }

	/* mirrors platform.(*Platform).load, platform.(*Platform).fetchAuthorizer */
	:: d_step { R[I].pc == LOAD ->
		R[I].state = vault.state; R[I].secret = vault.secret; R[I].order = vault.order; R[I].rev = vault.rev;
		printf("%c: loads the record: state %d, secret %d\n", 65+I, vault.state, vault.secret);
		if
		:: R[I].unsaved && R[I].unsavedRev == vault.rev -> R[I].pc = MEND
		:: else ->
			R[I].unsaved = 0; R[I].unsavedRev = 0;
			if :: vault.state == WITHDRAWN -> R[I].pc = ENDED :: else -> R[I].pc = CALL fi
		fi }
	:: d_step { R[I].pc == MEND ->
		if
		:: UNCHANGED(R[I].rev) ->
			SEEN(1, "a secret that could not be saved is saved first thing at the next try");
			put(R[I].state, R[I].unsaved, R[I].order);
			printf("%c: saves secret %d, which it could not save before\n", 65+I, R[I].unsaved);
			R[I].unsaved = 0; R[I].unsavedRev = 0; R[I].pc = LOAD
		:: else -> R[I].pc = FAILED
		fi }

	/* WeChat may give another secret with the value, which voids the one before.
	   mirrors platform.(*Platform).refresh */
	:: d_step { R[I].pc == CALL && current && R[I].secret == current ->
		R[I].got = order; R[I].pc = COMMIT; printf("WeChat: gives %c a value\n", 65+I) }
	:: d_step { R[I].pc == CALL && current && R[I].secret == current && !replaced ->
		replaced = 1; SEEN(2, "WeChat replaces the secret at a fetch");
		issued++; current = issued; R[I].got = order; R[I].next = current;
		R[I].pc = SAVE; printf("WeChat: gives %c a value, and secret %d\n", 65+I, current) }
	:: d_step { R[I].pc == CALL && R[I].secret != current ->
#ifdef NO_RECALL
		R[I].pc = FAILED;
#else
		R[I].pc = RECALL;
#endif
		printf("WeChat: rejects secret %d\n", R[I].secret) }

	/* mirrors platform.(*Platform).rejected */
	:: d_step { R[I].pc == RECALL ->
		if
		:: current && current != R[I].secret -> R[I].next = current; R[I].pc = ADOPT
		:: else -> R[I].pc = FAILED
		fi;
		printf("%c: asks WeChat for the secret: %d\n", 65+I, current) }
	:: d_step { R[I].pc == ADOPT ->
		if
		:: UNCHANGED(R[I].rev) ->
			SEEN(3, "a secret that the vault lost is had again from WeChat");
			put(ACTIVE, R[I].next, R[I].order); R[I].secret = R[I].next; R[I].next = 0; R[I].rev = vault.rev; R[I].pc = CALL
			printf("%c: saves secret %d\n", 65+I, R[I].secret)
		:: else -> R[I].pc = FAILED; printf("%c: cannot save: the record has changed\n", 65+I)
		fi }

	/* The secret is in the vault before the value is handed out.
	   mirrors platform.(*Platform).refresh, platform.(*Platform).note */
	:: d_step { R[I].pc == SAVE ->
		if
		:: UNCHANGED(R[I].rev) -> put(ACTIVE, R[I].next, R[I].order); R[I].pc = COMMIT; printf("%c: saves secret %d\n", 65+I, R[I].next)
		:: else ->
			SEEN(4, "another event comes between a fetch and its save");
			printf("%c: cannot save secret %d: the record has changed\n", 65+I, R[I].next);
#ifdef CONFLICT_HANDED_OUT
			R[I].pc = COMMIT
#else
			R[I].pc = FAILED
#endif
		fi }
	:: d_step { R[I].pc == SAVE && FAULT ->
		faults++; SEEN(5, "the vault does not take a new secret");
		printf("%c: cannot save secret %d: the vault is away\n", 65+I, R[I].next);
#ifdef HANDED_OUT_BEFORE_SAVED
		R[I].pc = COMMIT
#else
		R[I].unsaved = R[I].next; R[I].unsavedRev = R[I].rev; R[I].pc = FAILED
#endif
		}

	/* mirrors tokencache.(*attempt).commit, lua/commit.lua */
	:: d_step { R[I].pc == COMMIT ->
		if
		:: lock == ME ->
			if :: R[I].next && !saved[R[I].next] -> printf("P1: a value is handed out whose secret the vault does not have\n"); assert(false) :: else fi;
			value = R[I].got; lock = 0; backoff = NONE; printf("%c: commits the value of order %d\n", 65+I, value)
		:: else -> SEEN(6, "a commit is refused: a withdrawal or an exchange came meanwhile"); printf("%c: commit refused\n", 65+I)
		fi;
		rest(I) }
	/* mirrors tokencache.(*attempt).failed, lua/finish.lua, lua/prelude.lua (revoke) */
	:: d_step { R[I].pc == ENDED ->
		if
#ifdef END_AFTER_THE_LEASE
		:: true ->
#else
		:: lock == ME ->
#endif
			value = 0; lock = 0; backoff = LASTING; printf("%c: finds the right ended\n", 65+I)
		:: else -> SEEN(7, "an end whose lease is lost writes nothing")
		fi;
		rest(I) }
	:: d_step { R[I].pc == FAILED ->
		if :: lock == ME -> lock = 0; backoff = SHORT :: else fi;
		printf("%c: fails\n", 65+I); rest(I) }

	/* The process dies, and what it had in memory with it. */
	:: d_step { (R[I].pc != IDLE || R[I].unsaved) && FAULT ->
		faults++; SEEN(8, "a replica dies at a fetch");
		if :: R[I].next && !saved[R[I].next] || R[I].unsaved -> SEEN(9, "a replica dies with the only copy of a secret outside WeChat") :: else fi;
		printf("%c: dies\n", 65+I);
		if :: lock == ME -> lock = N+1 :: else fi;
		R[I].unsaved = 0; R[I].unsavedRev = 0; rest(I) }
	od
}

/* The handler of the withdrawal. WeChat repeats a push that was not answered; it may come before or after
   anything else. mirrors platform.(*Platform).receiveWithdrawal, platform.(*Platform).change */
proctype handler()
{
end:	do
	:: d_step { order >= 2 && !told && hpc == IDLE -> hpc = READ; printf("handler: receives the withdrawal\n") }
	:: d_step { hpc == READ ->
		hrev = vault.rev;
		if
#ifdef ORDER_IGNORED
		:: true -> hpc = WRITE
#else
		:: vault.order > 2 -> SEEN(10, "a withdrawal arrives after a later authorisation, and ends nothing"); late = 1; hpc = ANSWER
#endif
		:: vault.order < 2 -> hpc = WRITE
		:: vault.order == 2 -> SEEN(11, "a withdrawal that was saved before is revoked again"); hpc = REVOKE
		fi }
	:: d_step { hpc == WRITE ->
		if
		:: UNCHANGED(hrev) -> put(WITHDRAWN, vault.secret, 2); hpc = REVOKE; printf("handler: saves that it is withdrawn\n")
		:: else -> hpc = READ
		fi }
	:: d_step { hpc == REVOKE -> revoke(); hpc = ANSWER; printf("handler: revokes\n") }
#ifdef ANSWERED_BEFORE_REVOKED
	:: d_step { hpc == REVOKE && !told -> told = 1; printf("handler: answers success\n") }
#endif
	:: d_step { hpc == ANSWER -> told = 1; hpc = IDLE; hrev = 0; printf("handler: answers success\n") }
	:: d_step { hpc != IDLE && FAULT -> faults++; hpc = IDLE; hrev = 0; printf("handler: dies\n") }
	od
}

/* The exchange of the code, from where its record says; the push stored it. Any replica goes on.
   mirrors platform.(*Platform).exchange, platform.(*Platform).spend, platform.(*Platform).adopt, platform.(*Platform).close */
proctype exchange()
{
end:	do
	:: d_step { order == 3 && !done && xpc == IDLE -> again = sent;
		if :: vault.order == 3 && !sent -> done = 1 :: else -> xpc = SENT fi }
	:: d_step { xpc == SENT ->
#ifndef SPENT_BEFORE_SAVED
		sent = 1;
#endif
		xpc = SPEND; printf("exchange: saves that the code is being spent\n") }
	:: d_step { xpc == SPEND ->
		if
		:: !spent -> spent = 1; issued++; current = issued; xgot = current; xpc = READ; printf("WeChat: exchanges the code for secret %d\n", current)
		:: spent && again -> SEEN(12, "the secret of a spent code is had again from WeChat"); xgot = current; xpc = READ
		:: else -> done = 1; xpc = IDLE; printf("exchange: the code is lost\n")
		fi }
	:: d_step { xpc == SPEND && !spent && FAULT -> faults++;	/* the answer is lost, and a second call follows */
		spent = 1; issued++; current = issued; again = 1; printf("WeChat: exchanges the code for secret %d, but the answer is lost\n", current) }
#ifdef EXCHANGE_REVOKES_FIRST
	:: d_step { xpc == READ -> revoke(); xrev = vault.rev; xpc = WRITE }
#else
	:: d_step { xpc == READ -> xrev = vault.rev; xpc = WRITE }
#endif
	:: d_step { xpc == WRITE ->
		if
		:: UNCHANGED(xrev) -> put(ACTIVE, xgot, 3); printf("exchange: saves secret %d\n", xgot);
			if
#ifdef EXCHANGE_REVOKES_FIRST
			:: true -> xpc = ANSWER
#else
			:: true -> xpc = REVOKE
#endif
			fi
		:: else -> xpc = READ
		fi }
	:: d_step { xpc == REVOKE -> revoke(); xpc = ANSWER; printf("exchange: revokes\n") }
	:: d_step { xpc == ANSWER -> done = 1; xpc = IDLE; xgot = 0; xrev = 0; again = 0; printf("exchange: the code is done\n") }
	:: d_step { xpc != IDLE && FAULT -> faults++; SEEN(13, "a replica dies at an exchange");
		xpc = IDLE; xgot = 0; xrev = 0; again = 0; printf("exchange: its replica dies\n") }
	od
}

proctype environment()
{
end:	do
	:: d_step { order == 1 -> order = 2; current = 0; printf("WeChat: the account withdraws its authorisation\n") }
	:: d_step { order == 2 -> order = 3; issued++; current = issued; printf("WeChat: the account authorises again: secret %d\n", current) }
	:: d_step { value && expiries < 1 -> expiries++; value = 0; printf("time: the value is due\n") }
	:: d_step { lock == N+1 -> lock = 0; printf("time: a lease is over\n") }
	:: d_step { lock && lock != N+1 && FAULT -> faults++; lock = 0; printf("time: the lease of a stopped replica is over\n") }
	/* mirrors lua/retry.lua, tokencache.(*Cache).Retry */
	:: d_step { backoff == SHORT -> backoff = NONE; printf("time: the backoff is over, or forgotten\n") }
	od
}

#define HOLDS(i) (R[i].next == current || R[i].unsaved == current)
#ifdef NO_RECALL
#define ASKABLE false
#else
#define ASKABLE true
#endif

proctype invariants()
{
end:	do
	:: d_step { told && !late && value == 1 -> printf("P4: a withdrawal was answered, and a value of before is handed out\n"); assert(false) }
	/* WeChat's secret is in the vault, or a process is about to save it, or WeChat can be asked for it. */
	:: d_step { current && vault.secret != current && (order != 3 || done) && !HOLDS(0) && !HOLDS(1) && !ASKABLE ->
		printf("P1: a secret is lost\n"); assert(false) }
	/* When nothing more can happen, the last event counts, and no secret is lost. */
	:: atomic { timeout ->
		SEEN(14, "an end: the account is authorised again");
		if
		:: vault.state != ACTIVE -> printf("P1: an authorisation is lost: the vault has no active one\n"); assert(false)
		:: vault.state == ACTIVE && value != 3 -> printf("P1: an authorised account has no value, and none can be had\n"); assert(false)
		:: else
		fi;
		break }
	od
}

init {
	atomic {
		vault.state = ACTIVE; vault.secret = 1; vault.order = 1; vault.rev = 1; saved[1] = 1;
		run replica(); run replica(); run handler(); run exchange(); run environment(); run invariants()
	}
}
