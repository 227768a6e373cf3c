package doctor

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
)

// servers reads what each server reports of itself after a login: HELLO needs no permission.
func (e *examination) servers(ctx context.Context, nodes []node) {
	const check = "redis server"
	var versions []string
	for _, n := range nodes {
		hello := e.hello(ctx, n)
		info, _ := e.info(ctx, n) // the least ACL does not permit it
		product, version := productOf(hello, info)
		role := cmp.Or(hello["role"], info["role"])
		mode := cmp.Or(hello["mode"], info["redis_mode"], info["server_mode"], info["redict_mode"])
		if role == "active-replica" || e.isActiveReplica(ctx, n, product) {
			e.warn(check, n.address+" is KeyDB with active replication: two servers take writes, so each may grant the lease of a refresh, and a token be fetched twice",
				"set active-replica no, or use one server or Sentinels")
		}
		switch {
		case version == "":
			e.skipped(check, n.address+" does not say which version it is")
			continue
		case older(version, 6, 2):
			e.fail(check, n.address+" is "+product+" "+version, "use Redis 6.2 or later")
			continue
		case role == "replica" || role == "slave":
			e.fail(check, n.address+" is a read-only replica", "name the master in "+redisNamed+", or the Sentinels with ?master_name=")
			continue
		case mode == "sentinel" && e.cfg.Redis.Form == config.RedisSingle:
			e.fail(check, n.address+" is a Sentinel, not Redis", "add ?master_name= with the name of the master to "+redisNamed)
			continue
		case mode == "cluster" && e.cfg.Redis.Form == config.RedisSingle:
			e.fail(check, n.address+" is one node of a Redis Cluster", "name the nodes in "+redisNamed+": redis://node-1:6379?addr=node-2:6379")
			continue
		}
		versions = append(versions, n.address+" is "+product+" "+version+", "+mode+" "+role)
	}
	if len(versions) > 0 {
		e.ok(check, strings.Join(versions, "; "))
	}
}

// productOf returns the name and the version of a server, by what it says of itself.
func productOf(hello, info map[string]string) (product, version string) {
	_, keyDB := info["mvcc_depth"]
	switch {
	case info["valkey_version"] != "", hello["server"] == "valkey":
		return "Valkey", cmp.Or(info["valkey_version"], hello["version"])
	case info["redict_version"] != "", hello["server"] == "redict":
		return "Redict", cmp.Or(info["redict_version"], hello["version"])
	case keyDB, info["role"] == "active-replica", hello["role"] == "active-replica":
		product = "KeyDB"
	default:
		product = "Redis"
	}
	return product, cmp.Or(hello["version"], info["redis_version"])
}

// isActiveReplica asks a KeyDB whether it also takes the writes of another server. Until the other
// one has written, only the configuration shows it.
func (e *examination) isActiveReplica(ctx context.Context, n node, product string) bool {
	if product != "KeyDB" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	set, err := n.ConfigGet(ctx, "active-replica").Result()
	return err == nil && set["active-replica"] == "yes"
}

// hello returns what HELLO says, by name; nil if the URL forbids HELLO, or the server does not know
// it.
func (e *examination) hello(ctx context.Context, n node) map[string]string {
	if n.Options().Protocol == 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := n.Do(ctx, "HELLO").Result()
	if err != nil {
		return nil // older than 6.2, or not quite Redis
	}
	return helloFacts(reply)
}

func helloFacts(reply any) map[string]string {
	facts := map[string]string{}
	switch r := reply.(type) {
	case map[any]any:
		for k, v := range r {
			facts[fmt.Sprint(k)] = fmt.Sprint(v)
		}
	case []any:
		for i := 0; i+1 < len(r); i += 2 {
			facts[fmt.Sprint(r[i])] = fmt.Sprint(r[i+1])
		}
	}
	return facts
}

// older reports whether a version is surely before major.minor.
func older(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

// writes tries a key of its own.
func (e *examination) writes(ctx context.Context) {
	const check = "redis writes"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := e.scratch(e.examined()[0])
	err := e.rdb.Set(ctx, key, "doctor", 10*time.Second).Err()
	said := text.OneLine(fmt.Sprint(err))
	switch {
	case err == nil:
		_ = e.rdb.Del(ctx, key).Err() // else it ends by itself
		e.ok(check, "a key can be written")
	case redis.IsPermissionError(err):
		e.skipped(check, "the ACL permits no key but the sidecar's own, so none was written")
	case redis.IsReadOnlyError(err):
		e.fail(check, "Redis takes no writes (READONLY): it is a replica", "name the master in "+redisNamed+", or the Sentinels with ?master_name=")
	case redis.IsOOMError(err):
		e.fail(check, "Redis has no memory left (OOM)", "raise maxmemory, or remove what else is stored there")
	case strings.HasPrefix(said, "MISCONF"):
		e.fail(check, "Redis takes no writes, because it cannot save to its disk (MISCONF)", "look at Redis' log and its disk")
	default:
		e.fail(check, said, "look at Redis' log")
	}
}

// clock compares the clocks, for people: the sidecar never does.
func (e *examination) clock(ctx context.Context) {
	const check = "clock"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked := time.Now()
	at, err := e.rdb.Time(ctx).Result()
	if err != nil {
		return // the check of the permissions reports it
	}
	ahead := at.Sub(asked.Add(time.Since(asked) / 2)).Round(100 * time.Millisecond)
	text := fmt.Sprintf("Redis' clock and this host's differ by %v; the sidecar does not compare them", ahead.Abs())
	if ahead.Abs() > 2*time.Minute {
		e.warn(check, text, "set both by NTP: whether a certificate is valid is judged by this host's")
		return
	}
	e.ok(check, text)
}

// Redis should have this much of its maxmemory free. A credential with its journal takes
// some 80 KiB.
const (
	leastFree       = 4 << 20 // bytes
	leastFreeShares = 10      // and a tenth of maxmemory
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
