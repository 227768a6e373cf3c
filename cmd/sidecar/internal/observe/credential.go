package observe

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Values of labels that counters of credentials and apps have. Each set ends with what is in none,
// other, where there can be such a thing.
var (
	readOutcomes = [...]string{
		readMemory: string(tokencache.FromMemory), readRedis: string(tokencache.FromRedis), readUpstream: string(tokencache.FromUpstream),
		readStale: "stale", readFailed: "error", readCanceled: "canceled",
	}
	// How a refresh ended.
	refreshResults = [...]string{
		string(tokencache.ResultCommitted), string(tokencache.ResultUnchanged), string(tokencache.ResultDoubtResolved),
		string(tokencache.ResultFailed), string(tokencache.ResultDirect), string(tokencache.ResultOrphaned),
		string(tokencache.ResultRefused), string(tokencache.ResultShared), string(tokencache.ResultBackoff),
		string(tokencache.ResultThrottled), string(tokencache.ResultNoRedis), other,
	}
	// How a report ended: as the refresh that it caused, or without one.
	reportOutcomes = [...]string{
		string(tokencache.ResultNotCurrent), string(tokencache.ResultAccepted), string(tokencache.ResultUnknown),
		string(tokencache.ResultCommitted), string(tokencache.ResultUnchanged), string(tokencache.ResultDoubtResolved),
		string(tokencache.ResultFailed), string(tokencache.ResultDirect), string(tokencache.ResultOrphaned),
		string(tokencache.ResultRefused), string(tokencache.ResultShared), string(tokencache.ResultBackoff),
		string(tokencache.ResultThrottled), string(tokencache.ResultNoRedis), other,
	}
	refreshReasons = [...]string{string(tokencache.ReasonMissing), string(tokencache.ReasonDue), string(tokencache.ReasonReport), other}
	fetchReasons   = [...]string{string(tokencache.ReasonMissing), string(tokencache.ReasonDue), string(tokencache.ReasonReport), force, other}
	fetchResults   = [...]string{fetchOK, fetchFailed, fetchUnclear}
	classes        = [...]string{string(tokencache.ClassTransient), string(tokencache.ClassPermanent), string(tokencache.ClassQuota), string(tokencache.ClassLocal), string(tokencache.ClassEnded), other}
	// Those that an operator acts on. All others are "other".
	errcodes = [...]string{"-1", "40001", "40002", "40013", "40125", "40164", "40243", "42001", "45009", "45011", "48001", "48004",
		"50002", "60020", "61004", "89503", noErrcode, other}
	probeResults = [...]string{probeAccepted, probeRejected, probeUnknown}

	// As of proxy.Outcome.
	proxyOutcomes = [...]string{"answered", "cut", "refused", "no_app", "no_token", "unreachable", "broken", "overloaded", "timeout", "canceled", other}
	retries       = [...]string{string(Once), string(Twice)}
)

// Indices of readOutcomes.
const (
	readMemory = iota
	readRedis
	readUpstream
	readStale
	readFailed
	readCanceled
)

// Where the series of each family begin in a credential's counters.
const (
	slotReads     = 0
	slotReports   = slotReads + len(readOutcomes)
	wideSlots     = slotReports + len(reportOutcomes)
	slotRefreshes = wideSlots
	slotFetches   = slotRefreshes + len(refreshReasons)*len(refreshResults)
	slotFailures  = slotFetches + len(fetchReasons)*len(fetchResults)
	slotErrcodes  = slotFailures + len(classes)
	slotProbes    = slotErrcodes + len(errcodes)
	slotLost      = slotProbes + len(probeResults)
	slotEmptied   = slotLost + 1
	slotMissed    = slotEmptied + 1
	slotCapped    = slotMissed + 1
	slots         = slotCapped + 1
)

// Where those of each family begin in an app's counters.
const (
	slotProxied = 0
	slotForeign = slotProxied + len(proxyOutcomes)*len(retries)
	slotSecrets = slotForeign + len(retries)
	appSlots    = slotSecrets + 1
)

// credentialSeries are the series of each credential, in the order of the slots.
var credentialSeries = tabulate([]string{"app", "kind"},
	family{
		name: "reads_total", help: "Reads by what they were answered from (stale: with a value that may no longer work); canceled callers did not wait for an answer.",
		labels: []dimension{{"outcome", readOutcomes[:]}}, begins: always,
	},
	family{
		name: "reports_total", help: "Reports of rejected values; those that share a refresh count once.",
		labels: []dimension{{"outcome", reportOutcomes[:]}}, detail: true,
		begins: func(v []string) bool {
			return slices.Contains([]tokencache.Result{tokencache.ResultCommitted, tokencache.ResultNotCurrent, tokencache.ResultAccepted,
				tokencache.ResultThrottled, tokencache.ResultFailed}, tokencache.Result(v[0]))
		},
	},
	family{
		name: "refreshes_total", help: "Refreshes that this replica ran, by what asked for them and how they ended.",
		labels: []dimension{{"reason", refreshReasons[:]}, {"result", refreshResults[:]}}, detail: true,
		begins: func(v []string) bool {
			return v[0] != other && (v[1] == string(tokencache.ResultCommitted) || v[1] == string(tokencache.ResultFailed))
		},
	},
	family{
		name: "upstream_fetches_total", help: "Values asked of upstream by this replica; after an unclear one upstream may have issued a value that is lost.",
		labels: []dimension{{"reason", fetchReasons[:]}, {"result", fetchResults[:]}}, detail: true,
		begins: func(v []string) bool { return v[0] != other },
	},
	family{
		name: "upstream_fetch_failures_total", help: "Fetches that brought no value, by what that means for the next one.",
		labels: []dimension{{"class", classes[:]}}, begins: always,
	},
	family{
		name: "upstream_errcodes_total", help: "Fetches that brought no value, by upstream's errcode; none if it gave none.",
		labels: []dimension{{"errcode", errcodes[:]}}, begins: always, detail: true,
	},
	family{
		name: "upstream_probes_total", help: "Questions to upstream whether it accepts a value.",
		labels: []dimension{{"result", probeResults[:]}}, begins: always, detail: true,
	},
	family{name: "leases_lost_total", help: "Leases that were over before the refresh was.", begins: always},
	family{name: "redis_data_losses_total", help: "Times that Redis knew less than this replica: it was emptied, or a failover lost writes.", begins: always},
	family{name: "events_missed_total", help: "Versions that a re-read found and no event announced.", begins: always},
	family{
		name: "locks_capped_total", help: "Lock keys in Redis that no replica can have written, without an expiry or with one longer than a lease; each was left 10 s.",
		begins: always,
	},
)

// appSeries are the series of each app, in the order of its slots.
var appSeries = tabulate([]string{"app"},
	family{
		name: "proxy_calls_total", help: "Calls that the proxy took, by how they ended and whether they were repeated.",
		labels: []dimension{{"outcome", proxyOutcomes[:]}, {"retried", retries[:]}}, begins: never, detail: true,
	},
	family{
		name: "proxy_foreign_tokens_total", help: "Calls that came with an access token of no configured app and took it to WeChat; retried says whether WeChat rejected it and the sidecar's took its place.",
		labels: []dimension{{"retried", retries[:]}}, begins: never, detail: true,
	},
	family{
		name: "proxy_secrets_total", help: "Logins and quota resets into which the sidecar put the AppSecret, because the caller had sent another one.",
		begins: never, detail: true,
	},
)

// counters are those of one credential. Reads and reports are as frequent as callers make them;
// what else happens does so at most some times a second, which takes decades to overflow 32 bits.
type counters struct {
	wide   [wideSlots]atomic.Uint64
	narrow [slots - wideSlots]atomic.Uint32
}

func (c *counters) inc(slot int) {
	if slot < wideSlots {
		c.wide[slot].Add(1)
		return
	}
	c.narrow[slot-wideSlots].Add(1)
}

func (c *counters) load(slot int) uint64 {
	if slot < wideSlots {
		return c.wide[slot].Load()
	}
	return uint64(c.narrow[slot-wideSlots].Load())
}

// Credential counts what happens to one credential. A caller that keeps it saves the lookup of
// [Metrics.Of]. Its methods are safe for concurrent use, take no lock and allocate nothing; those
// of a nil Credential do nothing.
type Credential struct {
	counters
	owner     owner
	app       *app
	forgotten atomic.Bool
}

// app counts what happens to one app. All its credentials share it.
type app struct {
	counts [appSlots]atomic.Uint64
	owner  owner
	refs   int // credentials that exist; guarded by Metrics.mu
}

// Read counts what a reader got.
func (c *Credential) Read(ctx context.Context, t tokencache.Token, err error) {
	if c == nil {
		return
	}
	outcome := readMemory
	switch {
	case err == nil && t.Stale:
		outcome = readStale
	case err == nil && t.From == tokencache.FromUpstream:
		outcome = readUpstream
	case err == nil && t.From == tokencache.FromRedis:
		outcome = readRedis
	case err == nil:
	case ctx.Err() == context.Canceled: // by the caller: the end of the budget is another error
		outcome = readCanceled
	default:
		outcome = readFailed
	}
	c.wide[slotReads+outcome].Add(1)
}

// index returns where v is in a closed set, or where other is, the last.
func index[S ~string](set []string, v S) int {
	if i := slices.Index(set, string(v)); i >= 0 {
		return i
	}
	return len(set) - 1
}
