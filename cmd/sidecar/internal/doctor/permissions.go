package doctor

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/acl"
)

//go:embed acl.lua
var aclLua string

// unneeded are commands without which the sidecar works, and what it lacks then.
var unneeded = map[string]string{
	"xadd":        "there is no journal",
	"xlen":        journalsLarge,
	"copy":        journalsLarge,
	"publish":     eventsLate,
	"subscribe":   eventsLate,
	"unsubscribe": eventsLate,
	"ping":        eventsLate,
}

const (
	eventsLate    = "what one replica does, the others notice some seconds later"
	journalsLarge = "each journal takes up to 4 KiB more of Redis"
)

const checkPermissions = "redis permissions"

// permissions runs what the sidecar runs, for every app, and judges by that. What it may not do is
// looked up only for people.
func (e *examination) permissions(ctx context.Context) {
	var missing []string
	refused := 0
	for _, app := range e.examined() {
		read, write := e.rehearse(ctx, app)
		lacks := e.missing(ctx, app)
		missing = append(missing, lacks...)
		if read != nil {
			refused++
			if isAboutKeys(read) {
				e.fail(checkPermissions, fmt.Sprintf("user %s may not read and write the keys of app %s, such as %s", e.username, app.CredentialID(), e.valueKey(app)),
					"ACL SETUSER "+e.username+" ~"+e.cfg.Namespace+":*")
				return
			}
			missing = append(missing, e.cannot("read", read, lacks)...)
		} else if write != nil && !isAboutKeys(write) {
			refused++
			missing = append(missing, e.cannot("store", write, lacks)...)
		}
	}
	if c, ok := e.rdb.(*redis.ClusterClient); ok && redis.IsPermissionError(c.Do(ctx, "COMMAND", "COUNT").Err()) {
		missing = append(missing, acl.ClusterCommands[1])
	}
	lacks, eventsArrive := e.events(ctx)
	missing = append(missing, lacks...)
	slices.Sort(missing)
	missing = slices.Compact(missing)
	all := len(missing)
	missing = e.renamed(missing)
	renamed := all - len(missing)
	optional := func(name string) bool { return unneeded[name] != "" }
	switch {
	case len(missing) == 0 && refused == 0 && eventsArrive && renamed == 0:
		e.ok(checkPermissions, "user "+e.username+" may do all that the sidecar does")
	case len(missing) == 0:
	case !slices.ContainsFunc(missing, func(name string) bool { return !optional(name) }):
		var lacks []string
		for _, name := range missing {
			lacks = append(lacks, unneeded[name])
		}
		slices.Sort(lacks)
		e.warn(checkPermissions, "user "+e.username+" may not use "+strings.Join(missing, ", ")+": the sidecar works, but "+strings.Join(slices.Compact(lacks), ", and "),
			"ACL SETUSER "+e.username+" +"+strings.Join(missing, " +"))
	default:
		e.mayNot(checkPermissions, missing, "")
	}
}

// examined returns the apps whose keys are tried: where there is none, a platform in its place.
func (e *examination) examined() []config.App {
	if len(e.cfg.Apps) > 0 {
		return e.cfg.Apps
	}
	return []config.App{{ID: e.cfg.Platforms[0].ID}}
}

// rehearse runs what the sidecar runs for the token of an app.
func (e *examination) rehearse(ctx context.Context, app config.App) (read, write error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	return tokencache.Rehearse(ctx, e.rdb, e.cfg.Namespace, tokencache.Key{App: app.CredentialID(), Kind: source.AccessToken})
}

// isAboutKeys reports whether an ACL permits the command, but not the key.
func isAboutKeys(err error) bool {
	text := err.Error()
	return strings.Contains(text, "keys used as arguments") || strings.Contains(text, "to access a key") ||
		strings.Contains(text, "to access one of the keys") || strings.Contains(text, "access at least one of the keys")
}

// named finds the command that a refusal names.
var (
	named   = regexp.MustCompile(`permissions to run the '([a-z]+)' command`)
	unknown = regexp.MustCompile("(?i)unknown command [`'\"]([a-z]+)")
)

// cannot returns the command that keeps the sidecar from working. Where the refusal names none, and
// none is known to be missing, it reports the refusal as it is.
func (e *examination) cannot(do string, err error, known []string) (missing []string) {
	text := err.Error()
	if found := named.FindStringSubmatch(text); found != nil {
		return found[1:]
	}
	if found := unknown.FindStringSubmatch(text); found != nil {
		return []string{strings.ToLower(found[1]) + "?"}
	}
	if slices.ContainsFunc(known, func(name string) bool { return unneeded[strings.TrimSuffix(name, "?")] == "" }) {
		return nil
	}
	if s, ok := errors.AsType[*tokencache.StoreError](err); ok {
		switch s.Class() {
		case tokencache.StoreReadOnly, tokencache.StoreOOM:
			return nil // what is written says it better
		}
		text = s.Err.Error()
	}
	e.fail(checkPermissions, "the sidecar cannot "+do+" a token: "+text, "look at Redis' log, and at a proxy before it: the sidecar needs EVAL, EVALSHA and the commands in docs/redis.md")
	return nil
}

// renamed reports the commands that this Redis does not have under their names, marked with a ?,
// and returns the others.
func (e *examination) renamed(commands []string) (others []string) {
	const fix = "take the rename-command out of redis.conf, and let the ACL decide who may use the command; or let a proxy pass it"
	for _, c := range commands {
		name, gone := strings.CutSuffix(c, "?")
		switch lack := unneeded[name]; {
		case !gone:
			others = append(others, c)
		case lack != "":
			e.warn(checkPermissions, "this Redis has no command "+name+" (rename-command?): the sidecar works, but "+lack, fix)
		default:
			e.fail(checkPermissions, "this Redis has no command "+name+" (rename-command?), which every refresh needs", fix)
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

// missing returns the commands of a refresh that are not permitted, as far as that can be found
// out.
func (e *examination) missing(ctx context.Context, app config.App) []string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := e.scratch(app)
	reply, err := e.rdb.Eval(ctx, aclLua, []string{e.valueKey(app)},
		key, key+":meta", key+":lock", key+":backoff", key+":journal", e.channel(), e.vaultIsInRedis()).Result()
	if redis.IsPermissionError(err) && !isAboutKeys(err) {
		return []string{"eval"}
	}
	return namesOf(reply)
}

// vaultIsInRedis reports whether the sidecar needs the rights of a vault, too.
func (e *examination) vaultIsInRedis() bool {
	return e.needsVault() && e.cfg.Vault.URL.Empty()
}

// needsVault reports whether a platform is configured that has accounts.
func (e *examination) needsVault() bool {
	return slices.ContainsFunc(e.cfg.Platforms, config.ThirdParty.HasAccounts)
}

// namesOf returns the names in the script's answer.
func namesOf(reply any) (names []string) {
	list, _ := reply.([]any)
	for _, name := range list {
		names = append(names, fmt.Sprint(name))
	}
	return names
}

func (e *examination) channel() string { return acl.Channel(e.rdb, e.cfg.Namespace) }

// events subscribes as the sidecar does, and returns the commands that are missing. It reports
// itself what no command says, and then events do not arrive.
func (e *examination) events(ctx context.Context) (missing []string, arrive bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	sub := e.rdb.Subscribe(ctx, e.channel())
	defer sub.Close()
	_, err := sub.ReceiveTimeout(ctx, patience)
	switch said := fmt.Sprint(err); {
	case err == nil:
	case strings.Contains(said, "access") && strings.Contains(said, "channel"):
		e.warn(checkPermissions, "user "+e.username+" may not use the channel "+e.channel()+": the sidecar works, but "+eventsLate,
			"ACL SETUSER "+e.username+" &"+e.channel())
		return nil, false
	case redis.IsPermissionError(err):
		return []string{"subscribe"}, false
	case isAnswer(err) && unknown.MatchString(said):
		return []string{"subscribe?"}, false
	default:
		e.warn(checkPermissions, "events do not arrive: "+text.OneLine(said)+": the sidecar works, but "+eventsLate, "let Redis, and a proxy before it, take SUBSCRIBE "+e.channel())
		return nil, false
	}
	// Of these two any answer will do for the sidecar, so only an ACL is worth a word.
	if err := sub.Ping(ctx); err == nil {
		if _, err := sub.ReceiveTimeout(ctx, patience); redis.IsPermissionError(err) {
			missing = append(missing, "ping")
		}
	}
	if err := sub.Unsubscribe(ctx, e.channel()); err == nil {
		if _, err := sub.ReceiveTimeout(ctx, patience); redis.IsPermissionError(err) {
			missing = append(missing, "unsubscribe")
		}
	}
	return missing, true
}

// valueKey is the public key of an app's access token.
func (e *examination) valueKey(app config.App) string {
	return e.cfg.Namespace + ":{" + app.CredentialID() + "}:" + source.AccessToken
}

// scratch is a key that no program uses, in the slot of an app.
func (e *examination) scratch(app config.App) string {
	return e.cfg.Namespace + ":{" + app.CredentialID() + "}:doctor-" + rand.Text()[:8]
}
