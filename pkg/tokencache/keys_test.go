package tokencache_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

var (
	luaCall    = regexp.MustCompile(`redis\.p?call\(([^\n]*)`)
	literalKey = regexp.MustCompile(`^['"](\w+)['"], *KEYS\[[1-9]\]`)
	copyCall   = regexp.MustCompile(`redis\.p?call\('COPY', KEYS\[[1-9]\], KEYS\[[1-9]\]`)
	keyless    = regexp.MustCompile(`^['"](TIME|PUBLISH)['"]`)
	luaComment = regexp.MustCompile(`--[^\n]*`)
)

// unliteral returns the calls of a script whose key is anything else than KEYS[n].
func unliteral(script string) (calls []string) {
	script = luaComment.ReplaceAllString(script, "")
	copies := len(copyCall.FindAllString(script, -1)) // the only command with two keys
	if copies != strings.Count(script, "COPY") {
		calls = append(calls, "COPY of something else")
	}
	for _, call := range luaCall.FindAllStringSubmatch(script, -1) {
		if !literalKey.MatchString(call[1]) && !keyless.MatchString(call[1]) {
			calls = append(calls, call[0])
		}
	}
	if strings.Count(script, "KEYS") != copies+len(regexp.MustCompile(`redis\.p?call\(['"]\w+['"], *KEYS\[[1-9]\]`).FindAllString(script, -1)) {
		calls = append(calls, "KEYS outside of a call")
	}
	return calls
}

// Some Cluster services refuse a script in which redis.call has a key that is not a literal
// KEYS[n]. They look at the text.
func TestEveryKeyOfAScriptIsALiteralKEYS(t *testing.T) {
	files, err := filepath.Glob("lua/*.lua")
	if err != nil || len(files) < 9 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if calls := unliteral(string(text)); len(calls) > 0 {
			t.Errorf("%s: %q", file, calls)
		}
	}
	for _, bad := range []string{"redis.call('GET', key)", "redis.call(name, KEYS[1])", "redis.pcall('DEL', unpack(KEYS))", "redis.call('GET', KEYS[i])",
		"local key = KEYS[1]", "redis.call('COPY', KEYS[1], key)", "redis.call('GET', KEYS[1], KEYS[2])"} {
		if len(unliteral(bad)) == 0 {
			t.Errorf("%s passes", bad)
		}
	}
}

// The same with all that a cache sends, the scripts of its lease included.
func TestACacheWorksWhereOnlyLiteralKeysArePermitted(t *testing.T) {
	m := miniredis.RunT(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	m.Server().SetPreHook(func(c *server.Peer, cmd string, args ...string) bool {
		if strings.ToUpper(cmd) != "EVAL" {
			return false
		}
		mu.Lock()
		seen[args[0]] = true
		mu.Unlock()
		if len(unliteral(args[0])) == 0 {
			return false
		}
		c.WriteError("ERR bad lua script for redis cluster, all the keys that the script uses should be passed using the KEYS array")
		return true
	})
	up := &upstream{}
	c := tokencache.New(dialed(t, m.Addr()), tokencache.Options{})
	defer c.Close()
	k := tokencachetest.Key
	if err := c.Set(tokencache.Credential{Key: k, Source: up.Source("x"), Probe: up.Probe, Forced: tokencache.Limit{PerDay: 20}}); err != nil {
		t.Fatal(err)
	}
	token, err := c.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	up.Kill()
	if next, err := c.Report(t.Context(), k, token.Value); err != nil || next.Version <= token.Version {
		t.Errorf("after a report: %v, %v", next, err)
	}
	if _, err := c.Journal(t.Context(), 5); err != nil {
		t.Error(err)
	}
	if len(seen) < 5 {
		t.Errorf("only %d scripts were sent", len(seen))
	}
}
