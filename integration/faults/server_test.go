package faults

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	rights "github.com/wxtoken/sidecar/pkg/tokencache/acl"
)

// What a Redis server does that runs, and does not do what it is asked.
var serverRows = []row{
	{
		name: "Redis evicts", promise: "allkeys-lru under pressure until the value, meta and, while WeChat is asked, the lease are gone: healed each time",
		// The first two cost one fetch each. The lease is then one that is taken away.
		limits:  limits{fetches: 2, missingFor: reread + 8*time.Second},
		reveals: reveal{name: "wxtoken_redis_data_losses_total"},
		run: func(b *bench) {
			for _, key := range []string{rig.ValueKey, rig.ValueKey + ":meta"} {
				b.expect(1)
				b.evict(key)
				b.note("%s back after %v", lastWord(key), round(b.refreshed(2*reread, b.All, "")))
			}
			old, _ := b.inRedis()
			b.issuing(2 * time.Second)
			b.evict(rig.ValueKey + ":lock")
			b.note("lock: everywhere after %v", round(b.refreshed(lease+2*reread, b.All, old)))
		},
	},
	takesNoWrites("Redis out of memory", "oom",
		func(b *bench) { b.set("maxmemory", "1") }, // noeviction is the default
		func(b *bench) { b.set("maxmemory", "0") }),
	takesNoWrites("Redis is made a replica", "readonly",
		func(b *bench) { b.do("REPLICAOF", "127.0.0.1", "1") }, // where no server is
		func(b *bench) { b.do("REPLICAOF", "NO", "ONE") }),
	takesNoWrites("Redis has too few replicas", "readonly",
		func(b *bench) { b.set("min-replicas-to-write", "1") },
		func(b *bench) { b.set("min-replicas-to-write", "0") }),
	loses("the right to run scripts", "noperm", "-eval -evalsha", "+eval +evalsha"),
	loses("its keys", "noperm", "resetkeys", "~wxtoken:*"),
	loses("its channel", "noperm", "resetchannels", "&wxtoken:events"),
	loses("its password", "noauth", "resetpass >another", "resetpass >"+password),
	loses("its user", "noauth", "off", "on"),
	clusterWithoutReplica("whole or nothing", "yes"),
	clusterWithoutReplica("the rest goes on", "no"),
}

// takesNoWrites is a row in which Redis answers reads and refuses writes: first while WeChat is
// asked, then when the token becomes due.
func takesNoWrites(name, class string, broken, heal func(*bench)) row {
	return row{
		name: name, promise: "for 5 s while WeChat is asked, whose value is committed afterwards; and for 30 s in which the token becomes due",
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`class="` + class + `"`}, by: 2},
		run: func(b *bench) {
			b.midRefresh(func() { broken(b) }, 5*time.Second, func() { heal(b) })
			b.dueMeanwhile(30*time.Second, class, func() { broken(b) }, func() { heal(b) })
		},
	}
}

// dueMeanwhile breaks Redis for d, in which the token becomes due, and waits until all have a new
// one.
func (b *bench) dueMeanwhile(d time.Duration, class string, broken, heal func()) {
	b.t.Helper()
	old, _ := b.inRedis()
	b.provokeUnheard() // no replica notices until the slow look, or never, as long as Redis is broken
	errors := func() float64 { return b.Metric("wxtoken_redis_errors_total", `class="`+class+`"`) }
	before := errors()
	broken()
	begun := time.Now()
	b.within(d, "a sidecar's metric says "+class+" again", func() bool { return errors() > before })
	b.hold(d - time.Since(begun))
	heal()
	b.note("due: everywhere after %v", round(b.refreshed(2*reread, b.All, old)))
}

const password = "CANARY-of-the-user"

// least is what the sidecar's user needs.
var least = "on resetpass >" + password + " resetkeys ~wxtoken:* resetchannels &wxtoken:events -@all +" + strings.Join(rights.Commands[:], " +")

// asUser is a Redis that the sidecars, but not those who look on, use as the user wxtoken.
type asUser struct{ *rig.Redis }

func (s asUser) URL() string { return "redis://wxtoken:" + password + "@" + s.Addr }

// loses is a row in which the sidecars' user loses something while they run, and is given it back.
// Their connections end then, because Redis asks for a password only at their start.
func loses(what, class, taken, back string) row {
	return row{
		name: "sidecar loses " + what, promise: "in Redis, for 5 s while WeChat is asked, and for 30 s in which the token becomes due",
		limits:  limits{fetches: 1},
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`class="` + class + `"`}, by: 2},
		store: func(b *bench) rig.Store {
			s := asUser{rig.StartRedis(b.t)}
			acl(b, s, least)
			return s
		},
		run: func(b *bench) {
			set := func(rules string) func() {
				return func() {
					s := b.store.(asUser)
					acl(b, s, rules)
					_ = s.Client().Do(context.Background(), "CLIENT", "KILL", "USER", "wxtoken").Err() // there may be none
				}
			}
			b.midRefresh(set(taken), 5*time.Second, set(back))
			b.dueMeanwhile(30*time.Second, class, set(taken), set(back))
		},
	}
}

func acl(b *bench, s asUser, rules string) {
	b.t.Helper()
	args := []any{"ACL", "SETUSER", "wxtoken"}
	for _, r := range strings.Fields(rules) {
		args = append(args, r)
	}
	if err := s.Redis.Client().Do(context.Background(), args...).Err(); err != nil {
		b.t.Fatal(err)
	}
}

// clusterWithoutReplica is a row in which the app's own master is lost with its replica, and comes
// back empty.
func clusterWithoutReplica(how, fullCoverage string) row {
	return row{
		name: "Cluster master lost without a replica, " + how, promise: "for 15 s; empty when it is back; one fetch heals it",
		limits:  limits{missingFor: reread + 8*time.Second},
		reveals: reveal{name: "wxtoken_redis_errors_total", labels: []string{`class="(unavailable|refused|timeout)"`}},
		store: func(b *bench) rig.Store {
			return rig.StartRedisCluster(b.t, "--cluster-require-full-coverage", fullCoverage)
		},
		run: func(b *bench) {
			cluster := b.store.(*rig.RedisCluster)
			old, _ := b.inRedis()
			cluster.Replica.Kill()
			cluster.Owner.Kill()
			b.hold(15 * time.Second)
			for _, p := range b.All {
				if a, err := p.Token(); err != nil || a.Stale || a.AccessToken != old {
					b.t.Errorf("%s does not hand out what it has: %v, stale %v", p.Name, err, a.Stale)
				}
			}
			b.lostAll(cluster.Owner.Start, old)
		},
	}
}

// evict writes junk into a Redis that evicts, until the key is gone, and makes room again.
func (b *bench) evict(key string) {
	b.t.Helper()
	ctx, rdb := context.Background(), b.store.Client()
	used := 0
	for line := range strings.Lines(rdb.Info(ctx, "memory").Val()) {
		if n, ok := strings.CutPrefix(line, "used_memory:"); ok {
			used, _ = strconv.Atoi(strings.TrimSpace(n))
		}
	}
	b.set("maxmemory-policy", "allkeys-lru")
	b.set("maxmemory", strconv.Itoa(used+4<<20))
	junk := strings.Repeat("x", 16<<10)
	n := 0
	b.within(20*time.Second, key+" is evicted", func() bool {
		for range 20 {
			pipe := rdb.Pipeline()
			for range 20 {
				pipe.Set(ctx, fmt.Sprintf("junk:%d", n), junk, time.Minute)
				n++
			}
			gone := pipe.Exists(ctx, key) // which is no use of the key, for LRU
			if _, err := pipe.Exec(ctx); err != nil {
				b.t.Fatal(err)
			}
			if gone.Val() == 0 {
				return true
			}
		}
		return false
	})
	b.set("maxmemory", "0")
	junkKeys := rdb.Keys(ctx, "junk:*").Val()
	if err := rdb.Unlink(ctx, junkKeys...).Err(); err != nil && len(junkKeys) > 0 {
		b.t.Fatal(err)
	}
}

func lastWord(key string) string { return key[strings.LastIndexByte(key, ':')+1:] }

// set is CONFIG SET.
func (b *bench) set(name, value string) { b.do("CONFIG", "SET", name, value) }

func (b *bench) do(args ...any) {
	b.t.Helper()
	if err := b.store.Client().Do(context.Background(), args...).Err(); err != nil {
		b.t.Fatal(err)
	}
}
