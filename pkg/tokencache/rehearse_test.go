package tokencache_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A rehearsal needs what a refresh needs, and leaves nothing.
func TestARehearsalFindsWhatARefreshNeeds(t *testing.T) {
	m := miniredis.RunT(t)
	for name, addr := range map[string]string{"miniredis": m.Addr(), "redis-server": tokencachetest.RedisServer(t)} {
		rdb := patient(t, addr)
		if read, write := tokencache.Rehearse(t.Context(), rdb, "wxtoken", tokencachetest.Key); read != nil || write != nil {
			t.Errorf("%s: reading: %v, writing: %v", name, read, write)
		}
		if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
			t.Errorf("%s: it left %q", name, keys)
		}
	}
}

func TestARehearsalMissesEachCommandThatARefreshNeeds(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	admin := patient(t, addr)
	user := func(rules ...any) {
		t.Helper()
		if err := admin.Do(t.Context(), append([]any{"ACL", "SETUSER", "u"}, rules...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	user("on", ">p", "~wxtoken:*", "resetchannels", "-@all")
	optional := map[string]bool{"publish": true, "subscribe": true, "unsubscribe": true, "ping": true, "xadd": true, "xlen": true, "copy": true}
	for _, name := range acl.Commands {
		if !optional[name] {
			user("+" + name)
		}
	}
	rehearse := func() (read, write error) {
		// Else EVAL is not needed, where another test or sidecar has sent the scripts.
		if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		rdb := redis.NewClient(&redis.Options{Addr: addr, Username: "u", Password: "p", DisableIdentity: true})
		defer rdb.Close()
		return tokencache.Rehearse(t.Context(), rdb, "wxtoken", tokencachetest.Key)
	}
	if read, write := rehearse(); read != nil || write != nil {
		t.Fatalf("with all that a refresh needs: reading: %v, writing: %v", read, write)
	}
	for _, name := range acl.Commands {
		if optional[name] {
			continue
		}
		user("-" + name)
		if read, write := rehearse(); read == nil && write == nil {
			t.Errorf("without %s it passes", name)
		}
		user("+" + name)
	}
}
