package main

import "slices"

// variant is one check of the model: some faults, and perhaps a guard taken out.
type variant struct {
	name    string
	defines []string
	// want starts what spin must find; empty: nothing, after all of the states.
	want string
	// what says in a few words what was taken out, and where it is in the sources.
	what string
}

// model is the file that v is a variant of.
func (v variant) model() string {
	if slices.Contains(v.defines, inAuthorisation) {
		return "authorisation.pml"
	}
	return "refresh.pml"
}

const inAuthorisation = "AUTHORISATION"

// withdrawn is a withdrawal at any moment, with n faults beside it. Each withdrawal makes the
// replicas fetch anew, so no value needs to expire.
func withdrawn(n string) []string { return faults(n, "EXPIRIES=0", "WITHDRAW") }

func faults(n string, more ...string) []string { return append([]string{"FAULTS=" + n}, more...) }

// whole lists the checks in which nothing may be found.
var whole = []variant{
	{"no-fault", faults("0"), "", "2 expiries"},
	{"one-fault", faults("1"), "", "2 expiries, any one fault"},
	{"failover", faults("1", "FAILOVER"), "", "2 expiries, any one fault or one failover of Redis"},
	{"withdrawal", withdrawn("1"), "", "an authorisation is withdrawn and given again, or another secret replaces it; any one fault"},
	{"authorisation", faults("1", inAuthorisation), "", "the same in the vault, at WeChat and in Redis; WeChat replaces the secret at a fetch; any one crash or fault"},
}

// large is more of the same: some 12 million states, 2 GB.
var large = []variant{
	{"two-faults", faults("2"), "", "2 expiries, any two faults"},
}

// broken lists the checks in which a guard is missing, and must be missed.
var broken = []variant{
	{"NO_FENCE", faults("1"), "I2", "commit without the lease: holds in lua/commit.lua"},
	{"NO_CUT", faults("1"), "I3", "ask upstream without a cut: doubt in lua/begin.lua"},
	{"NO_RECHECK", faults("0"), "I1", "no second look under the lease: done in lua/begin.lua"},
	{"RELEASE_WITHOUT_OWNER", faults("2", "EXPIRIES=1"), "I8", "release any lease: redislock's comparison"},
	{"LEASE_SHORTER_THAN_WORK", faults("0"), "I1", "workTime above leaseTTL"},
	{"LEASE_WITHOUT_END", faults("1"), "I8", "no time to live: redislock's PX"},
	{"REFUSED_COMMIT_DROPPED", faults("1"), "I3", "no cut after a refused commit: (*attempt).commit"},
	{"EARLY_PROBE_CLEARS_DOUBT", faults("1"), "I3", "a probe inside the overlap: unclear_at in lua/begin.lua"},
	{"UNDO_AFTER_UNCLEAR", faults("1"), "I3", "undo although upstream may have acted: (*attempt).failed"},
	{"UNDO_ANY_CUT", faults("2", "EXPIRIES=1"), "I3", "undo after the cut of another replica: cut_by in lua/finish.lua"},
	{"OVERTAKEN_IGNORED", faults("1"), "I3", "a commit clears a doubt newer than its cut: overtaken in lua/commit.lua"},
	{"UNCLEAR_WITHOUT_LEASE_DROPPED", faults("2", "EXPIRIES=1"), "I3", "no cut after an unclear request whose lease is lost: (*attempt).failed"},
	{"NO_CONCLUDED", faults("1"), "I1", "a repeated commit is refused: finished in lua/commit.lua"},
	{"CUT_NOT_BELOW_OVERLAP", faults("1"), "I3", "a cut that leaves more than the overlap: (*Credential).cut"},
	{"UNCONFIRMED_IS_GOOD", faults("0"), "I3", "a snapshot is good without a word from Redis: unconfirmed in (*snapshot).fresh"},
	{"KEPT_IS_CONFIRMED", faults("2", "EXPIRIES=1"), "I3", "any answer of Redis confirms a value that could not be committed: (*snapshot).merge"},
	{"TRUST_OLDER_VERSIONS", faults("1", "FAILOVER"), "I3", "a version below the wanted one counts as done: lua/begin.lua"},
	{"MARK_IGNORED", withdrawn("0"), "P4", "a look that finds the mark forgets nothing: (*snapshot).merge"},
	{"NO_MARK", withdrawn("0"), "P4", "no version and no mark of a withdrawal: revoke in lua/prelude.lua"},
	{"REVOKE_LEAVES_THE_LEASE", withdrawn("0"), "P4", "a withdrawal ends no lease: lua/revoke.lua"},
	{"ENDED_WITHOUT_LEASE", withdrawn("0"), "P4", "a fetch that found the right ended takes the value back without the lease: lua/finish.lua"},
	{"KEPT_AFTER_A_WITHDRAWAL", withdrawn("1"), "P4", "a value is kept whose withdrawal came meanwhile: (*Cache).keep"},
	{"END_DROPS_ANY_VERSION", withdrawn("0"), "P4", "a late end drops the value of a later authorisation: (*slot).end"},
	{"HANDED_OUT_BEFORE_SAVED", faults("1", inAuthorisation), "P1", "a value is handed out although the vault did not take the secret that came with it: (*Platform).refresh"},
	{"CONFLICT_HANDED_OUT", faults("1", inAuthorisation), "P1", "... although another event came between: vault.ErrConflict in (*Platform).refresh"},
	{"NO_COMPARISON", faults("1", inAuthorisation), "P1", "the vault takes a record over any other: (*Vault).Save"},
	{"NO_RECALL", faults("1", inAuthorisation), "P1", "WeChat is not asked for a secret that the vault lost: (*Platform).rejected"},
	{"SPENT_BEFORE_SAVED", faults("1", inAuthorisation), "P1", "a code is spent before its record says so: (*Platform).exchange"},
	{"EXCHANGE_REVOKES_FIRST", faults("1", inAuthorisation), "P1", "revoked before the new secret is saved: (*Platform).exchange"},
	{"REVOKE_LEAVES_THE_BACKOFF", faults("1", inAuthorisation), "P1", "a withdrawal leaves the backoff of an ended right: lua/revoke.lua"},
	{"END_AFTER_THE_LEASE", faults("1", inAuthorisation), "P1", "a fetch that found the right ended writes that without the lease: lua/finish.lua"},
	{"ORDER_IGNORED", faults("1", inAuthorisation), "P1", "a withdrawal ends a later authorisation: (*Platform).receiveWithdrawal"},
	{"ANSWERED_BEFORE_REVOKED", faults("1", inAuthorisation), "P4", "WeChat is answered before the value is taken back: (*Platform).receiveWithdrawal"},
}

// limits lists what the design does not cover, or the model not: the assumptions of the whole
// model, each lifted.
var limits = []variant{
	{"ACTS_AFTER_HANGING_UP", faults("1"), "I3", "upstream acts on a request after its caller hung up"},
	{"DEATH_AFTER_LATE_ACTION", faults("2", "EXPIRIES=1"), "I3", "a lease holder stopped beyond its lease asks, and is killed before its cut"},
	{"FAILOVER_LOSES_THE_CUT", faults("2", "EXPIRIES=1", "FAILOVER"), "I3", "a failover of Redis loses the cut of a replica that was stopped"},
	{"CUT_COMES_LATE", faults("1"), "I3", "the cut of a live replica comes more than overlap - cut after upstream acted"},
}
