// Package doctor looks for what keeps a sidecar from working, and says in words what to fix: the
// configuration, its secret files, the way to Redis and what it permits, the way to WeChat and what
// it says to the credentials.
//
// It disturbs nothing that runs. It reads no key of the sidecar but that of a token, writes only
// keys of its own, for seconds, and asks WeChat only what cannot invalidate a token in use; see
// [Options.Fetch] for the one exception. It prints no secret and no value of a credential.
package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// State is how a check ended.
type State string

// The states. Warn leaves a sidecar working, perhaps not always; Fail does not.
const (
	OK      State = "ok"
	Warn    State = "warn"
	Fail    State = "fail"
	Skipped State = "skipped" // the check could not be made, or would do harm
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Text  string `json:"text"`          // what was found, on one line
	Fix   string `json:"fix,omitempty"` // what to do about it
}

// Options are what [Examine] needs.
type Options struct {
	// Load returns the configuration, or every mistake in it.
	Load func() (*config.Config, error)
	// Connect returns a client as the sidecar would use it. It does no I/O.
	Connect func(config.Redis) (redis.UniversalClient, error)
	// Fetch permits to try the secret of an app where that ends the app's present token, if there
	// is one: on the endpoint token, and on WeCom. It is not done while Redis has a token.
	Fetch bool
	// Callback is the public address of the platforms' callbacks, to which a push of the doctor's own
	// is sent; {platform} in it is the id. Empty: none is sent.
	Callback string
	// StartPush permits to ask WeChat to push tickets again.
	StartPush bool
}

// patience bounds each question to Redis, to a name service or to a peer that is dialled; WeChat
// gets what its client gives it.
const patience = 3 * time.Second

// Examine makes every check that makes sense, in order, and hands each finding to report at once.
func Examine(ctx context.Context, o Options, report func(Finding)) {
	e := &examination{opts: o, report: report, answers: map[string]bool{}}
	cfg, ok := e.config()
	if !ok {
		e.skipped("redis, wechat", "not looked at: that needs a valid configuration")
		return
	}
	e.cfg = cfg
	e.secrets = append(append(e.secrets, cfg.Bearer), cfg.Redis.Secrets()...)
	for _, app := range cfg.Apps {
		e.secrets = append(e.secrets, app.Secret)
	}
	e.secrets = append(e.secrets, cfg.Vault.URL)
	for _, p := range cfg.Platforms {
		e.secrets = append(e.secrets, p.Secret)
	}
	e.secretFiles()
	e.redis(ctx)
	e.wechat(ctx)
	e.platforms(ctx)
	if e.rdb != nil {
		_ = e.rdb.Close() // nothing is waiting for it
	}
}

// examination is one run of all checks.
type examination struct {
	opts    Options
	report  func(Finding)
	cfg     *config.Config
	secrets []secret.String // that no finding may hold

	rdb      redis.UniversalClient // nil unless Redis answers
	username string                // of Redis
	secure   func(redisclient.Side, string) *tls.Config
	answers  map[string]bool // whether WeChat answers, by base
}

func (e *examination) ok(check, text string) { e.found(Finding{check, OK, text, ""}) }

func (e *examination) skipped(check, text string) { e.found(Finding{check, Skipped, text, ""}) }

func (e *examination) warn(check, text, fix string) { e.found(Finding{check, Warn, text, fix}) }

func (e *examination) fail(check, text, fix string) { e.found(Finding{check, Fail, text, fix}) }

// found passes a finding on. What peers say may hold what was sent to them.
func (e *examination) found(f Finding) {
	f.Text, f.Fix = text.OneLine(secret.ScrubRedis(f.Text, e.secrets...)), text.OneLine(secret.Scrub(f.Fix, e.secrets...))
	e.report(f)
}

// config reports every mistake, or the warnings.
func (e *examination) config() (*config.Config, bool) {
	const check = "config"
	cfg, err := e.opts.Load()
	if mistakes, ok := errors.AsType[*config.Errors](err); ok {
		for _, m := range mistakes.Mistakes {
			e.fail(check, m.Path, m.Text)
		}
		return nil, false
	}
	if err != nil {
		e.fail(check, err.Error(), "")
		return nil, false
	}
	for _, w := range cfg.Warnings {
		e.warn(check, w, "")
	}
	said := "valid: 1 app"
	if n := len(cfg.Apps); n != 1 {
		said = "valid: " + text.Count(n, "app")
	}
	if n := len(cfg.Platforms); n > 0 {
		said += " and " + text.Count(n, "platform")
	}
	e.ok(check, said+", namespace "+cfg.Namespace+", values at "+cfg.Listen+", operations at "+cfg.OpsListen)
	return cfg, true
}

const (
	othersRead  = 0o004 // permission bits
	othersWrite = 0o022
)

// secretFiles looks at the modes of the files that hold secrets. That they can be read and hold
// something is part of the configuration, and so is the warning about one that every user can read.
func (e *examination) secretFiles() {
	seen := map[string]bool{"": true}
	paths := []string{e.cfg.BearerTokenFile}
	for _, app := range e.cfg.Apps {
		paths = append(paths, app.SecretFile)
	}
	paths = append(paths, e.cfg.Vault.KeysFile, e.cfg.Vault.URLFile)
	for _, p := range e.cfg.Platforms {
		paths = append(paths, p.SecretFile, p.TokenFile, p.AESKeyFile)
	}
	for _, path := range paths {
		if seen[path] {
			continue
		}
		seen[path] = true
		const check = "secret file"
		info, err := os.Stat(path)
		if err != nil {
			e.fail(check, path+" has just gone", "let it stay: the sidecar reads it again and again")
			continue
		}
		mode := info.Mode().Perm()
		switch {
		case mode&othersWrite != 0:
			e.warn(check, fmt.Sprintf("%s has mode %04o: others than its owner may change it", path, mode), "chmod go-w "+path)
		case mode&othersRead == 0:
			e.ok(check, fmt.Sprintf("%s has mode %04o", path, mode))
		}
	}
}
