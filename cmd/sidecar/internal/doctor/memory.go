package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Of memory, this much should be free; a credential with its journal takes some 80 KiB of it.
const (
	leastFree       = 4 << 20
	leastFreeShares = 10 // one of so many
)

// memory looks for what would make Redis forget keys, where the ACL lets it: the least ACL does
// not.
func (e *examination) memory(ctx context.Context, nodes []node) {
	for _, n := range nodes {
		info, err := e.info(ctx, n)
		if err != nil || info["maxmemory"] == "" && info["aof_enabled"] == "" {
			why := "Redis does not say"
			if redis.IsPermissionError(err) {
				why = "user " + e.username + " may not ask (+info, which the sidecar does not need); look as another user with --redis-url"
			}
			e.skipped("redis memory", "eviction and persistence of "+n.address+" were not looked at: "+why)
			continue
		}
		e.eviction(n, info)
		e.persistence(ctx, n, info)
	}
}

func (e *examination) info(ctx context.Context, n node) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, err := n.Info(ctx).Result()
	return infoFacts(text), err
}

// infoFacts returns what INFO says, by name.
func infoFacts(text string) map[string]string {
	facts := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			facts[k] = v
		}
	}
	return facts
}

func (e *examination) eviction(n node, info map[string]string) {
	const check = "redis memory"
	policy := info["maxmemory_policy"]
	limit, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
	used, _ := strconv.ParseInt(info["used_memory"], 10, 64)
	room := fmt.Sprintf("%s has maxmemory-policy %s, and uses %s of %s", n.address, policy, mebibytes(used), mebibytes(limit))
	full := limit > 0 && limit-used < max(leastFree, limit/leastFreeShares)
	const setPolicy = "CONFIG SET maxmemory-policy noeviction, and in redis.conf; or use another Redis than the cache's"
	switch {
	case limit == 0 && strings.HasPrefix(policy, "allkeys"):
		e.warn(check, n.address+" has maxmemory-policy "+policy+": harmless without maxmemory, but with one it would evict tokens and leases", setPolicy)
	case limit == 0:
		e.ok(check, n.address+" has maxmemory-policy "+policy+" and no maxmemory")
	case strings.HasPrefix(policy, "allkeys"):
		e.fail(check, room+": when that is full it evicts tokens, leases and budgets", setPolicy)
	case strings.HasPrefix(policy, "volatile"):
		e.warn(check, room+": when that is full it evicts the sidecar's keys, too, because all of them have a TTL", setPolicy)
	case full:
		e.warn(check, room+": when that is full Redis refuses writes, and no refresh can be stored", "raise maxmemory, or remove what else is stored there")
	default:
		e.ok(check, room)
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func (e *examination) persistence(ctx context.Context, n node, info map[string]string) {
	const check = "redis persistence"
	if info["rdb_last_bgsave_status"] == "err" || info["aof_last_write_status"] == "err" {
		e.warn(check, n.address+" could not save to its disk the last time", "look at Redis' log and its disk: it may refuse writes soon (MISCONF)")
		return
	}
	if info["aof_enabled"] == "1" {
		e.ok(check, n.address+" has an append-only file")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	saves, err := n.ConfigGet(ctx, "save").Result()
	switch {
	case err != nil:
		e.skipped(check, n.address+" has no append-only file; whether it takes snapshots it does not tell this user (+config|get)")
	case saves["save"] != "":
		e.ok(check, n.address+" takes snapshots")
	default:
		e.warn(check, n.address+" stores nothing on disk: after its restart every token is fetched once more, and the day's budgets begin anew",
			"set appendonly yes, or accept that")
	}
}
