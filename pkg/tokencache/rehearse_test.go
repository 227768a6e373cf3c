package tokencache_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

// A rehearsal needs what a refresh needs, and leaves nothing.
func TestARehearsalFindsWhatARefreshNeeds(t *testing.T) {
	m := miniredis.RunT(t)
	for name, addr := range map[string]string{"miniredis": m.Addr(), "redis-server": tokencachetest.RedisServer(t)} {
		rdb := dialed(t, addr)
		if got := tokencache.Rehearse(t.Context(), rdb, "wxtoken", tokencachetest.Key); got.Read != nil || got.Write != nil {
			t.Errorf("%s: %+v", name, got)
		}
		if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
			t.Errorf("%s: it left %q", name, keys)
		}
	}
}

func TestARehearsalMissesEachCommandThatARefreshNeeds(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	admin := dialed(t, addr)
	user := func(rules ...any) {
		t.Helper()
		if err := admin.Do(t.Context(), append([]any{"ACL", "SETUSER", "u"}, rules...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	user("on", ">p", "~wxtoken:*", "resetchannels", "-@all")
	optional := map[string]bool{"publish": true, "subscribe": true, "unsubscribe": true, "ping": true, "xadd": true}
	for _, name := range tokencache.RedisCommands {
		if !optional[name] {
			user("+" + name)
		}
	}
	rehearse := func() tokencache.Rehearsal {
		// Else EVAL is not needed, where another test or sidecar has sent the scripts.
		if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		rdb := redis.NewClient(&redis.Options{Addr: addr, Username: "u", Password: "p", DisableIdentity: true})
		defer rdb.Close()
		return tokencache.Rehearse(t.Context(), rdb, "wxtoken", tokencachetest.Key)
	}
	if got := rehearse(); got.Read != nil || got.Write != nil {
		t.Fatalf("with all that a refresh needs: %+v", got)
	}
	for _, name := range tokencache.RedisCommands {
		if optional[name] {
			continue
		}
		user("-" + name)
		if got := rehearse(); got.Read == nil && got.Write == nil {
			t.Errorf("without %s it passes", name)
		}
		user("+" + name)
	}
}
