package vault_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

func dial(t *testing.T, addr string) *redis.Client { return dialAs(t, addr, "", "") }

func dialAs(t *testing.T, addr, user, password string) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: password, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// dump returns all that is in the hashes of a Redis.
func dump(t *testing.T, rdb *redis.Client) string {
	keys, err := rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, k := range keys {
		fmt.Fprintln(&all, k, rdb.HGetAll(t.Context(), k).Val(), rdb.Get(t.Context(), k).Val())
	}
	return all.String()
}

func TestRedisIsAStore(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{
		"miniredis":    func(t *testing.T) string { return miniredis.RunT(t).Addr() },
		"redis-server": func(t *testing.T) string { return tokencachetest.RedisServer(t) },
	} {
		t.Run(name, func(t *testing.T) {
			rdb := dial(t, start(t))
			vaulttest.Store(t, func(t *testing.T) (vault.Store, func() string) {
				if err := rdb.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				return vault.NewRedis(rdb, "wxtoken"), func() string { return dump(t, rdb) }
			})
		})
	}
}

// Authorizers never expire; what is left of a code does.
func TestRedisForgetsCodesAlone(t *testing.T) {
	m := miniredis.RunT(t)
	v := vault.New(vault.NewRedis(dial(t, m.Addr()), "ns"), vaulttest.Keys(t, vaulttest.Key))
	code := vault.CodeID(secret.New("code"))
	for _, r := range []vault.Record{
		{Platform: "wx1", ID: "wx2", State: vault.StateActive, Secret: secret.New("r")},
		{Platform: "wx1", ID: code, State: vault.StateReceived, Secret: secret.New("c")},
	} {
		if _, err := v.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if ttl := m.TTL("ns:{wx1}:vault"); ttl != 0 {
		t.Errorf("the hash lives %v", ttl)
	}
	if ttl := m.TTL("ns:{wx1}:vault:" + code); ttl.Hours() != 30*24 {
		t.Errorf("the code lives %v", ttl)
	}
}

// What is not given again is acknowledged by the disk, or else by a replica. What comes again waits
// for neither: the callback has a second.
func TestRedisWaitsForTheDiskOnlyWithWhatIsNotGivenAgain(t *testing.T) {
	m := miniredis.RunT(t)
	local, waits := 1, 0
	if err := m.Server().Register("WAITAOF", func(c *server.Peer, _ string, args []string) {
		waits++
		if strings.Join(args[:2], " ") != "1 0" {
			c.WriteError("ERR unexpected " + strings.Join(args, " "))
			return
		}
		c.WriteLen(2)
		c.WriteInt(local)
		c.WriteInt(0)
	}); err != nil {
		t.Fatal(err)
	}
	v := vault.New(vault.NewRedis(dial(t, m.Addr()), "ns"), vaulttest.Keys(t, vaulttest.Key))
	ticket := vault.Record{Platform: "wx1", ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New("t")}
	if _, err := v.Save(t.Context(), ticket); err != nil || waits != 0 {
		t.Errorf("a ticket: %v after %d waits", err, waits)
	}
	authorizer := vault.Record{Platform: "wx1", ID: "wx2", State: vault.StateActive, Secret: secret.New("r")}
	if _, err := v.Save(t.Context(), authorizer); err != nil || waits != 1 {
		t.Errorf("an authorizer: %v after %d waits", err, waits)
	}
	local = 0
	authorizer.ID = "wx3"
	if _, err := v.Save(t.Context(), authorizer); err == nil || errors.Is(err, vault.ErrConflict) {
		t.Errorf("the disk did not acknowledge: %v", err)
	}
}

// Redis waits for the disk with a connection's writes, a second of them: many records that need it wait
// once. If it does not acknowledge, none of them counts as saved.
func TestManyRecordsWaitForTheDiskOnce(t *testing.T) {
	m := miniredis.RunT(t)
	local, waits := 1, 0
	if err := m.Server().Register("WAITAOF", func(c *server.Peer, _ string, _ []string) {
		waits++
		c.WriteLen(2)
		c.WriteInt(local)
		c.WriteInt(0)
	}); err != nil {
		t.Fatal(err)
	}
	v := vault.New(vault.NewRedis(dial(t, m.Addr()), "ns"), vaulttest.Keys(t, vaulttest.Key))
	for name, unsaved := range map[string]int{"a": 0, "b": 500} {
		waits, local = 0, 1-unsaved/500
		var list []vault.Record
		for i := range 500 {
			list = append(list, vault.Record{Platform: "wx1", ID: fmt.Sprint(name, i), State: vault.StateActive, Secret: secret.New("r")})
		}
		failed := 0
		for _, err := range v.SaveAll(t.Context(), list) {
			if err != nil {
				failed++
			}
		}
		if waits != 1 || failed != unsaved {
			t.Errorf("%d waits, %d not saved, want %d", waits, failed, unsaved)
		}
	}
	ticket := vault.Record{Platform: "wx1", ID: vault.Ticket, State: vault.StateReceived, Secret: secret.New("t")}
	waits = 0
	if errs := v.SaveAll(t.Context(), []vault.Record{ticket}); errs[0] != nil || waits != 0 {
		t.Errorf("a ticket: %v after %d waits", errs, waits)
	}
}

func TestWhatARedisSaysOfItsDurability(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want vault.Durability
	}{
		"as installed": {nil, vault.Durability{}},
		"durable":      {[]string{"--appendonly", "yes"}, vault.Durability{Persists: true}},
		"a cache":      {[]string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb"}, vault.Durability{Persists: true, Evicts: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := vault.NewRedis(dial(t, tokencachetest.RedisServer(t, c.args...)), "wxtoken")
			got, err := s.Check(t.Context(), "wx1")
			if err != nil || got != c.want || got.Lasting() != (got.String() == "") {
				t.Errorf("%+v (%s), %v", got, got, err)
			}
		})
	}
	s := vault.NewRedis(dial(t, miniredis.RunT(t).Addr()), "wxtoken")
	if got, err := s.Check(t.Context(), "wx1"); err != nil || got.Unknown == nil || got.Lasting() {
		t.Errorf("one that does not say: %+v, %v", got, err)
	}
}

func TestWhatOthersWroteIsNotOverwritten(t *testing.T) {
	m := miniredis.RunT(t)
	rdb := dial(t, m.Addr())
	v := vault.New(vault.NewRedis(rdb, "ns"), vaulttest.Keys(t, vaulttest.Key))
	for _, garbage := range []string{"", "x", "1 active 5 6", "1 active 5 6 !", "-1 active 5 6 eA==", "0 active 1 1 eA==", "1 active x 1 eA==", "1 active 1 1 eA=="} {
		m.HSet("ns:{wx1}:vault", "wx2", garbage)
		if r, err := v.Load(t.Context(), "wx1", "wx2"); err == nil {
			t.Errorf("%q: loaded %+v", garbage, r)
		}
		if _, err := v.Save(t.Context(), vault.Record{Platform: "wx1", ID: "wx2", State: vault.StateActive, Secret: secret.New("r")}); err == nil {
			t.Errorf("%q: overwritten", garbage)
		}
	}
}

// The commands that the documents name are enough, and each is needed but for those that only say
// more.
func TestTheUserOfAVaultNeedsTheseCommands(t *testing.T) {
	addr := tokencachetest.RedisServer(t)
	admin := dial(t, addr)
	user := func(name string, commands ...string) *redis.Client {
		rules := []any{"acl", "setuser", name, "on", ">p", "~wxtoken:*", "-@all"}
		for _, c := range commands {
			if c != "waitaof" { // this Redis may not have it
				rules = append(rules, "+"+c)
			}
		}
		if err := admin.Do(t.Context(), rules...).Err(); err != nil {
			t.Fatal(err)
		}
		return dialAs(t, addr, name, "p")
	}
	vaulttest.Store(t, func(t *testing.T) (vault.Store, func() string) {
		if err := admin.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		return vault.NewRedis(user("all", vault.RedisCommands[:]...), "wxtoken"), func() string { return dump(t, admin) }
	})
	code := vault.Record{Platform: "wx1", ID: vault.CodeID(secret.New("c")), State: vault.StateReceived, Secret: secret.New("c")}
	for i, missing := range vault.RedisCommands[:len(vault.RedisCommands)-3] {
		if missing == "eval" || missing == "evalsha" {
			continue // either does where the script is known
		}
		rdb := user(fmt.Sprint("without", i), slices.DeleteFunc(slices.Clone(vault.RedisCommands[:]), func(c string) bool { return c == missing })...)
		v := vault.New(vault.NewRedis(rdb, "wxtoken"), vaulttest.Keys(t, vaulttest.Key))
		if err := admin.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		_, saved := v.Save(t.Context(), code)
		_, kept := v.Save(t.Context(), vault.Record{Platform: "wx1", ID: "wx2", State: vault.StateActive, Secret: secret.New("r")})
		_, loaded := v.Load(t.Context(), "wx1", "wx2")
		_, listed := v.List(t.Context(), "wx1", "", 10)
		_, codes := v.Codes(t.Context(), "wx1")
		done := code
		done.Rev, done.State = 1, vault.StateDone
		_, ended := v.Save(t.Context(), done)
		if errors.Join(saved, kept, loaded, listed, codes, ended) == nil {
			t.Errorf("%s is not needed", missing)
		}
	}
}

// A server that does not know a command repeats its arguments, those of AUTH too.
func TestNoErrorOfRedisRepeatsThePassword(t *testing.T) {
	const password = "HUSH-redis-password"
	m := miniredis.RunT(t)
	m.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		c.WriteError("ERR unknown command '" + cmd + "', with args beginning with: 'HUSH-re' and not " + password)
		return true
	})
	s := vault.NewRedis(dial(t, m.Addr()), "ns", secret.New(password))
	_, loading := s.Load(t.Context(), "wx1", vault.Ticket)
	_, saving := s.Save(t.Context(), vault.Row{Platform: "wx1", ID: vault.Ticket, State: vault.StateReceived, Sealed: []byte("x")})
	_, listing := s.List(t.Context(), "wx1", "", 1)
	_, codes := s.Codes(t.Context(), "wx1")
	durability, checking := s.Check(t.Context(), "wx1")
	if checking != nil || durability.Unknown == nil {
		t.Errorf("a Redis that only refuses: %v, %v", durability, checking)
	}
	for what, err := range map[string]error{"load": loading, "save": saving, "list": listing, "codes": codes, "check": durability.Unknown} {
		var answer redis.Error
		if text := fmt.Sprint(err); !errors.As(err, &answer) || strings.Contains(text, "HUSH") || !strings.Contains(text, what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
