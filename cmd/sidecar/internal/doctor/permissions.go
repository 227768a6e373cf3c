package doctor

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

//go:embed acl.lua
var aclLua string

// permissions finds out what the user may not do, with the keys of every app: a key that a script
// declares is checked, whatever the script does with it, and this one looks permissions up.
func (e *examination) permissions(ctx context.Context) {
	const check = "redis permissions"
	channel := e.cfg.Namespace + ":events"
	var missing []string
	for _, app := range e.cfg.Apps {
		found, err := e.missing(ctx, app, channel)
		text := oneLine(fmt.Sprint(err))
		switch {
		case err == nil:
			missing = append(missing, found...)
		case redis.IsPermissionError(err) && strings.Contains(text, "key"):
			e.fail(check, fmt.Sprintf("user %s may not read and write the keys of app %s, such as %s", e.username, app.CredentialID(), e.valueKey(app)),
				"ACL SETUSER "+e.username+" ~"+e.cfg.Namespace+":*")
			return
		case redis.IsPermissionError(err):
			missing = append(missing, "eval", "evalsha")
		default:
			e.fail(check, "a script cannot be run: "+text, "look at Redis' log")
			return
		}
	}
	if c, ok := e.rdb.(*redis.ClusterClient); ok && redis.IsPermissionError(c.Do(ctx, "COMMAND", "COUNT").Err()) {
		missing = append(missing, tokencache.RedisClusterCommands[1])
	}
	mayHear, noChannel := e.mayHear(ctx, channel)
	if !mayHear && !noChannel {
		missing = append(missing, "subscribe")
	}
	slices.Sort(missing)
	missing = e.renamed(check, slices.Compact(missing))
	if noChannel {
		// A channel that is not permitted takes the commands with it.
		missing = slices.DeleteFunc(missing, func(name string) bool { return strings.Contains(name, "subscribe") || name == "publish" })
		e.fail(check, "user "+e.username+" may not use the channel "+channel+", on which replicas tell each other of new tokens",
			"ACL SETUSER "+e.username+" &"+channel)
	}
	if len(missing) > 0 {
		e.mayNot(check, missing, "")
	}
	if !noChannel && len(missing) == 0 {
		e.ok(check, "user "+e.username+" may do all that the sidecar does")
	}
}

// renamed reports the commands that this Redis does not have under their names, marked with a ?,
// and returns the others. What is for people, and events, the sidecar can do without.
func (e *examination) renamed(check string, commands []string) (others []string) {
	const fix = "take the rename-command out of redis.conf, and let the ACL decide who may use the command"
	for _, c := range commands {
		name, gone := strings.CutSuffix(c, "?")
		switch {
		case !gone:
			others = append(others, c)
		case name == "xadd":
			e.warn(check, "this Redis has no command xadd (rename-command?): the sidecar works, and there is no journal", fix)
		case name == "publish", strings.Contains(name, "subscribe"), name == "ping":
			e.warn(check, "this Redis has no command "+name+" (rename-command?): the sidecar works, and notices what other replicas did some seconds later", fix)
		case name == "evalsha" || name == "pexpireat" || name == "getrange":
			e.warn(check, "this Redis has no command "+name+" (rename-command?): the sidecar works, but for rare cases", fix)
		default:
			e.fail(check, "this Redis has no command "+name+" (rename-command?), which every refresh needs", fix)
		}
	}
	return others
}

// mayNot reports commands that the user is not permitted; text is what Redis said, if it adds
// something.
func (e *examination) mayNot(check string, commands []string, text string) {
	if text != "" {
		text = ": " + text
	}
	e.fail(check, "user "+e.username+" may not use "+strings.Join(commands, ", ")+text, "ACL SETUSER "+e.username+" +"+strings.Join(commands, " +"))
}

// missing returns the commands that are not permitted.
func (e *examination) missing(ctx context.Context, app config.App, channel string) ([]string, error) {
	names, ok, err := e.ask(ctx, "look", e.keys(app, e.valueKey(app)), channel)
	if err == nil && !ok {
		names, _, err = e.ask(ctx, "do", e.keys(app, e.scratch(app)), channel)
	}
	return names, err
}

// ask runs the script; ok is false if this Redis cannot do it that way.
func (e *examination) ask(ctx context.Context, mode string, keys []string, channel string) (names []string, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := e.rdb.Eval(ctx, aclLua, keys, channel, mode).Result()
	_, ok = reply.([]any)
	return namesOf(reply), ok, err
}

// namesOf returns the names in the script's answer.
func namesOf(reply any) (names []string) {
	list, _ := reply.([]any)
	for _, name := range list {
		names = append(names, fmt.Sprint(name))
	}
	return names
}

// mayHear reports whether the channel can be subscribed to, and if not, whether that is for the
// channel.
func (e *examination) mayHear(ctx context.Context, channel string) (ok, noChannel bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sub := e.rdb.Subscribe(ctx, channel)
	defer sub.Close()
	_, err := sub.ReceiveTimeout(ctx, patience)
	if err == nil {
		return true, false
	}
	return false, strings.Contains(err.Error(), "access") && strings.Contains(err.Error(), "channel")
}

// valueKey is the public key of an app's access token.
func (e *examination) valueKey(app config.App) string {
	return e.cfg.Namespace + ":{" + app.CredentialID() + "}:" + source.AccessToken
}

// keys are those that the sidecar uses with a value under key.
func (e *examination) keys(app config.App, key string) []string {
	journal := e.cfg.Namespace + ":{" + app.CredentialID() + "}:journal"
	if key != e.valueKey(app) {
		journal = key + ":journal"
	}
	return []string{key, key + ":meta", key + ":lock", key + ":backoff", journal}
}

// scratch is a key that no program uses, in the slot of an app.
func (e *examination) scratch(app config.App) string {
	return e.cfg.Namespace + ":{" + app.CredentialID() + "}:doctor-" + rand.Text()[:8]
}
