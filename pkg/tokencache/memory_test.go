package tokencache

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// CredentialInRedis is run on a real server: see servers_test.go. It measures what a credential
// takes of Redis where there are thousands, at the moment when its journal is the longest.
//
// Most is the journal. The rest is the value and its meta, of 250 and 420 bytes, and the tables of
// Redis for three keys with a life. A ticket of the same app adds less than 1 KiB, because it
// shares the journal.
func CredentialInRedis(t *testing.T, rdb *redis.Client) {
	const apps, mostAtFirst, most, mostOfATicket = 40, 2 << 10, 5 << 10, 1200 // bytes
	s := newStore(rdb, "wxtoken", "checkout-7d4b9c6f5d-x2x4q-ABC123")
	s.kept.Store(10_000)
	values := 0
	refresh := func(app int, kind string, times int) {
		x := scripted{t, s, &Credential{Key: Key{App: fmt.Sprintf("wx%016d", app), Kind: kind}, Fingerprint: "f"}}
		if x.load().version == 0 {
			x.begin(x.lease("a-lease-of-22-letters."), ReasonMissing, 0, decisionGo)
		}
		for range times {
			values++
			x.commit(x.lease("a-lease-of-22-letters."), fmt.Sprintf("%08d", values)+strings.Repeat("x", 128))
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
	all := func(kind string, times int) (bytes int) { // for each app
		for app := range apps {
			refresh(app, kind, times)
		}
		return (used() - before) / apps
	}
	full := journalLength(10_000)
	for _, c := range []struct {
		commits, most int
		kind          string
	}{
		{1, mostAtFirst, "access_token"}, // and then the journal grows
		{full - 1, most, "access_token"}, // until it is full
		{1, mostAtFirst, "access_token"}, // and begins anew
		{full - 1, most, "access_token"},
		{1, mostAtFirst + mostOfATicket, "jsapi_ticket"},
	} {
		got := all(c.kind, c.commits)
		t.Logf("%d bytes after %d commits more", got, c.commits)
		if got > c.most {
			t.Errorf("%d bytes after %d commits more of each %s, want at most %d", got, c.commits, c.kind, c.most)
		}
	}
}
