package tokencache

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// CredentialInRedis is run on a real server: see servers_test.go. It measures what a credential
// takes of Redis where there are thousands, long after its journal was full for the first time.
//
// Most is the journal: a stream has at least one block of 4 KiB, whatever is in it. The rest is the
// value and its meta, of 250 and 420 bytes, and the tables of Redis for three keys with a life. So
// 5 KiB is out of reach for a credential that is alone in its app: Redis 7.0 counts 5.1. A ticket of
// the same app adds less than 1, because it shares the journal.
func CredentialInRedis(t *testing.T, rdb *redis.Client) {
	const apps, most, mostOfATicket = 40, 5700, 1200 // bytes
	s := newStore(rdb, "wxtoken", "checkout-7d4b9c6f5d-x2x4q-ABC123")
	s.kept.Store(10_000)
	refresh := func(app int, kind string, times int) {
		x := scripted{t, s, &Credential{Key: Key{App: fmt.Sprintf("wx%016d", app), Kind: kind}, Fingerprint: "f"}}
		x.begin(x.lease("a-lease-of-22-letters."), ReasonMissing, 0, decisionGo)
		for i := range times {
			x.commit(x.lease("a-lease-of-22-letters."), fmt.Sprintf("%04d", i)+strings.Repeat("x", 132))
		}
	}
	// By Redis' own account of each key, and of the table of their ends: what the process takes has the
	// buffers of connections in it, which come and go.
	used := func() (bytes int) {
		stats, err := rdb.Do(t.Context(), "MEMORY", "STATS").Result()
		if err != nil {
			t.Fatal(err)
		}
		ends := stats.(map[any]any)["db.0"].(map[any]any)["overhead.hashtable.expires"].(int64)
		bytes = int(ends)
		for _, key := range rdb.Keys(t.Context(), "*").Val() {
			bytes += int(rdb.MemoryUsage(t.Context(), key, 0).Val())
		}
		return bytes
	}
	refresh(apps, "access_token", 1) // the scripts take memory, too
	before := used()
	for app := range apps {
		refresh(app, "access_token", 80)
	}
	middle := used()
	for app := range apps {
		refresh(app, "jsapi_ticket", 1)
	}
	token, ticket := (middle-before)/apps, (used()-middle)/apps
	t.Logf("%d bytes for an app with a token, %d more for a ticket", token, ticket)
	if token > most || ticket > mostOfATicket {
		t.Errorf("%d bytes for an app with a token, want at most %d; %d more for a ticket, want at most %d", token, most, ticket, mostOfATicket)
	}
}
