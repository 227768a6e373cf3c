package config

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Load reads the file, if one is named, and every file that it names, puts the environment and the
// flags over it and checks the result. getenv is os.Getenv, or a fake; what is around a value is
// [Trimmed], and a variable that is empty was not given.
//
// The environment can hold one app (WECHAT_APPID with WECHAT_SECRET or WECHAT_SECRET_FILE,
// WECHAT_ENDPOINT, WECHAT_API_BASE, WECHAT_TICKETS), which is added to those of the file. It is a
// mistake if the file has it as well: nothing of one overrides the other.
//
// The error is an [*Errors] with every mistake. Load keeps nothing and may be called at any time,
// by any number of goroutines.
func Load(o Overrides, getenv func(string) string) (*Config, error) {
	l := loader{env: Trimmed(getenv)}
	f := l.file(o.Config)
	c := l.general(o, f)
	c.Redis = l.redis(o, f)
	c.Apps = l.apps(f)
	l.platforms(c, f)
	c.DefaultApp = l.defaultApp(f.defaultApp, c.Apps)
	l.listeners(c, f)
	l.callbackListener(c, f)
	if len(l.mistakes) > 0 {
		return nil, &Errors{l.mistakes}
	}
	c.Warnings, c.files = l.warnings, l.files
	return c, nil
}

// Remember returns a function that loads only if one of the files has changed that the last valid
// configuration was read from: parsing thousands of apps takes a while. The environment must stay
// the same. Not for several goroutines.
func Remember(load func() (*Config, error)) func() (*Config, error) {
	var last *Config
	return func() (*Config, error) {
		if last != nil && last.unchanged() {
			return last, nil
		}
		c, err := load()
		last = c
		return c, err
	}
}

// Trimmed returns getenv without what surrounds a value: a newline, because the Secret was made
// with echo; a byte order mark, because a file was saved by an editor of Windows.
func Trimmed(getenv func(string) string) func(string) string {
	return func(name string) string { return trim(getenv(name)) }
}

func trim(s string) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s), "\ufeff"))
}

type loader struct {
	notes
	env func(string) string
	// origin remembers where a value came from, by its key in the file, for messages.
	origin map[string]string
}

// file reads and parses the configuration file. A file that cannot be read counts as broken.
func (l *loader) file(path string) file {
	at := "--config"
	if path == "" {
		at, path = "WXTOKEN_CONFIG", l.env("WXTOKEN_CONFIG")
	}
	if path == "" {
		return file{}
	}
	data, _, err := l.readFile(path, maxFile)
	if err != nil && !plainPath.MatchString(path) {
		l.mistake(at, "must be the path of a YAML file that can be read")
		return file{broken: true}
	}
	if err != nil {
		l.mistake(at, "%v", err)
		return file{broken: true}
	}
	return parse(filepath.Base(path), data, &l.notes)
}

// plainPath is what the path of a configuration looks like. A mistake repeats no other: it may be a
// URL with a password, or a secret.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./-]*(\.ya?ml|\.json|\.conf)$|^/[A-Za-z0-9_./-]*$`)

// pick returns the first value that was given, by flag, environment or file, and notes its origin.
func (l *loader) pick(key, flagName, flagValue, variable, inFile, fallback string) string {
	if l.origin == nil {
		l.origin = map[string]string{}
	}
	for _, s := range []struct{ at, value string }{{flagName, flagValue}, {variable, l.env(variable)}, {key, inFile}} {
		if s.value != "" {
			l.origin[key] = s.at
			return s.value
		}
	}
	l.origin[key] = key
	return fallback
}

// general fills in all but Redis and the apps. The listeners are checked later, as a pair.
func (l *loader) general(o Overrides, f file) *Config {
	c := &Config{
		Listen:         l.pick("listen", "--listen", o.Listen, "WXTOKEN_LISTEN", f.listen, DefaultListen),
		OpsListen:      l.pick("ops_listen", "--ops-listen", o.OpsListen, "WXTOKEN_OPS_LISTEN", f.opsListen, DefaultOpsListen),
		CallbackListen: l.pick("callback_listen", "", "", "WXTOKEN_CALLBACK_LISTEN", f.callbackListen, ""),
		Namespace:      l.pick("namespace", "--namespace", o.Namespace, "WXTOKEN_NAMESPACE", f.namespace, DefaultNamespace),
		AllowRemote:    f.allowRemote,
		Log: Log{
			Level:  l.pick("log.level", "--log-level", o.LogLevel, "WXTOKEN_LOG_LEVEL", f.logLevel, DefaultLogLevel),
			Format: l.pick("log.format", "--log-format", o.LogFormat, "WXTOKEN_LOG_FORMAT", f.logFormat, DefaultLogFormat),
		},
		Drain: Drain{
			Max:   l.upTo(time.Hour, l.pick("drain.max", "", "", "WXTOKEN_DRAIN", f.drainMax, DefaultDrain.String()), "drain.max"),
			Quiet: l.upTo(time.Hour, l.pick("drain.quiet", "", "", "WXTOKEN_DRAIN_QUIET", f.drainQuiet, DefaultDrainQuiet.String()), "drain.quiet"),
		},
		Quit: f.quit,

		TLS: TLS{
			Listen:   l.pick("tls_listen", "", "", "WXTOKEN_TLS_LISTEN", f.tls.Listen, ""),
			CertFile: l.pick("tls_cert_file", "", "", "WXTOKEN_TLS_CERT_FILE", f.tls.CertFile, ""),
			KeyFile:  l.pick("tls_key_file", "", "", "WXTOKEN_TLS_KEY_FILE", f.tls.KeyFile, ""),
			TrustDir: l.pick("tls_trust_dir", "", "", "WXTOKEN_TLS_TRUST_DIR", f.tls.TrustDir, ""),
			StateDir: l.pick("tls_state_dir", "", "", "WXTOKEN_TLS_STATE_DIR", f.tls.StateDir, ""),
		},
		AllowUpstreamHost: f.allowUpstreamHost,
		SocketMode:        l.socketMode(l.pick("socket_mode", "", "", "WXTOKEN_SOCKET_MODE", f.socketMode, "0660")),
		KeptBodies:        f.keptBodies,
		MetricsApps:       l.count("metrics_apps", l.pick("metrics_apps", "", "", "WXTOKEN_METRICS_APPS", f.metricsApps, strconv.Itoa(DefaultMetricsApps))),
		BearerTokenFile:   f.bearerTokenFile,
	}
	l.yesno("WXTOKEN_QUIT", &c.Quit)
	l.yesno("WXTOKEN_ALLOW_UPSTREAM_HOST", &c.AllowUpstreamHost)
	if !isNamespace(c.Namespace) {
		l.mistake(l.origin["namespace"], "must be 1 to 64 letters, digits and . _ - :")
	}
	l.oneOf(l.origin["log.level"], c.Log.Level, "debug", "info", "warn", "error")
	l.oneOf(l.origin["log.format"], c.Log.Format, LogAuto, LogJSON, LogConsole)
	if f.bearerTokenFile != "" {
		c.Bearer = l.secretFile(f.bearerTokenFile, "bearer_token_file")
		if n := len(c.Bearer.Reveal()); n > 0 && n < minBearer {
			l.mistake("bearer_token_file", "%s: shorter than %d characters: fill it with, say, openssl rand -hex 32", f.bearerTokenFile, minBearer)
		}
	}
	return c
}

// socketMode reads the mode of a socket. Only who may write to one can connect, so reading alone is
// taken for a mistake.
func (l *loader) socketMode(text string) fs.FileMode {
	n, err := strconv.ParseUint(text, 8, 32)
	mode := fs.FileMode(n)
	if err != nil || mode != 0o600 && mode != 0o660 && mode != 0o606 && mode != 0o666 {
		l.mistake(l.origin["socket_mode"], "must be 0600, 0660, 0606 or 0666, in octal")
		return DefaultSocketMode
	}
	return mode
}

// yesno puts an environment variable over what the file says.
func (l *loader) yesno(variable string, to *bool) {
	switch l.env(variable) {
	case "":
	case "true":
		*to = true
	case "false":
		*to = false
	default:
		l.mistake(variable, "needs true or false")
	}
}

// count returns the number that text holds, which came from where pick found key.
func (l *loader) count(key, text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		l.mistake(l.origin[key], "needs a whole number, 0 or more")
		return 0
	}
	return n
}

// upTo returns the duration that text holds, which came from where pick found key.
func (l *loader) upTo(most time.Duration, text, key string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		l.mistake(l.origin[key], "needs a duration of 0s to %s, with its unit, such as 90s", most)
		return 0
	}
	return d
}

// redis finds the URL. In the file it must be free of passwords.
func (l *loader) redis(o Overrides, f file) Redis {
	at := "redis.url"
	var u secret.String
	switch raw := l.pick(at, "--redis-url", o.RedisURL, "REDIS_URL", f.redisURL, ""); {
	case raw != "":
		at = l.origin[at]
		u = l.checkSecret(raw, at, "")
	case f.redisURLFile != "":
		at = "redis.url_file"
		u = l.secretFile(f.redisURLFile, at)
	case !f.broken:
		l.mistake(at, "missing: set REDIS_URL or redis.url, for example to redis://redis:6379/0")
	}
	if f.redisURL != "" && f.redisURLFile != "" {
		l.mistake("redis.url_file", "redis.url is given as well: remove one of them")
	}
	if u.Empty() {
		return Redis{}
	}
	rest, files, wrong := splitTLS(u.Reveal())
	form := ""
	if wrong == "" {
		form, wrong = redisForm(rest)
	}
	if wrong != "" {
		l.mistake(at, "the URL %s", wrong)
		return Redis{}
	}
	u = secret.New(rest)
	l.redisTLS(at, files)
	for _, w := range redisRisks(rest, files.Only) {
		l.warn(at, "%s", w)
	}
	if holdsPassword(u.Reveal()) {
		switch at {
		case "redis.url":
			l.mistake(at, "passwords are not read from this file: use url_file for a URL with its password, or the variable REDIS_URL")
		case "--redis-url":
			l.warn(at, "every user of this host can see the password in the list of processes: use REDIS_URL or redis.url_file")
		}
	}
	return Redis{URL: u, Form: form, TLS: files}
}

// listeners checks where values and status are served. A value listener that other hosts can reach
// needs consent and a token, both.
func (l *loader) listeners(c *Config, f file) {
	at, opsAt := l.origin["listen"], l.origin["ops_listen"]
	isLocal, err := checkListen(c.Listen)
	switch {
	case err != nil:
		l.mistake(at, "%v", err)
	case !isLocal && !f.broken && (!f.allowRemote || f.bearerTokenFile == ""):
		l.mistake(at, "other hosts can reach this address: use a loopback host or unix:/path, or give both allow_remote: true and bearer_token_file")
	}
	if strings.HasPrefix(c.Listen, "unix:") && c.SocketMode&0o006 != 0 && f.bearerTokenFile == "" {
		l.warn(l.origin["socket_mode"], "every user that reaches the socket gets every value: give a bearer_token_file, or put the socket into a directory that only those can enter who may have them")
	}
	if err == nil && !isLocal && c.AllowRemote {
		l.warn(at, "other hosts send the bearer token, and get every value, in clear: this listener has no TLS. Let only those networks reach it that may see them")
	}
	if _, err := checkListen(c.OpsListen); err != nil {
		l.mistake(opsAt, "%v", err)
	} else if c.OpsListen == c.Listen && !anyPort(c.Listen) {
		l.mistake(opsAt, "must differ from listen")
	}
	l.tls(c, f)
}

// tls checks the https face.
func (l *loader) tls(c *Config, f file) {
	at := func(key string) string { return l.origin[key] }
	t := c.TLS
	own := t.CertFile == "" && t.KeyFile == ""
	if t.Listen == "" {
		for _, s := range []struct{ key, value string }{
			{"tls_cert_file", t.CertFile}, {"tls_key_file", t.KeyFile}, {"tls_trust_dir", t.TrustDir}, {"tls_state_dir", t.StateDir},
		} {
			if s.value != "" {
				l.mistake(at(s.key), "is given, but not tls_listen, to which it belongs")
			}
		}
		return
	}
	isLocal, err := checkListen(t.Listen)
	switch {
	case err != nil || strings.HasPrefix(t.Listen, "unix:"):
		l.mistake(at("tls_listen"), "must be host:port, as in 127.0.0.1:443")
	case !isLocal && !f.broken && (!f.allowRemote || f.bearerTokenFile == ""):
		l.mistake(at("tls_listen"), "other hosts can reach this address: use a loopback host, or give both allow_remote: true and bearer_token_file")
	case (t.Listen == c.Listen || t.Listen == c.OpsListen) && !anyPort(t.Listen):
		l.mistake(at("tls_listen"), "must differ from listen and ops_listen")
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		l.mistake(at("tls_cert_file"), "is given without tls_key_file")
	case t.CertFile == "" && t.KeyFile != "":
		l.mistake(at("tls_key_file"), "is given without tls_cert_file")
	case !own && t.TrustDir != "":
		l.mistake(at("tls_trust_dir"), "belongs to the sidecar's own authority, but tls_cert_file is given: remove one of them")
	case !own && t.StateDir != "":
		l.mistake(at("tls_state_dir"), "belongs to the sidecar's own authority, but tls_cert_file is given: remove one of them")
	case own && t.TrustDir == "":
		l.mistake(at("tls_trust_dir"), "missing: name a directory that the apps share with the sidecar, for what they have to trust; or give tls_cert_file and tls_key_file")
	case own && t.TrustDir == t.StateDir:
		l.mistake(at("tls_state_dir"), "must differ from tls_trust_dir: it holds a key, which no app may see")
	}
	for _, s := range []struct{ key, value string }{{"tls_trust_dir", t.TrustDir}, {"tls_state_dir", t.StateDir}} {
		if s.value != "" && !filepath.IsAbs(s.value) {
			l.mistake(at(s.key), "must be an absolute path")
		}
	}
}

// apps checks the apps of the file and of the environment, each by itself and all together.
func (l *loader) apps(f file) []App {
	raw := f.apps
	if a, ok := l.envApp(); ok {
		raw = append(raw, a)
	}
	if len(raw) == 0 && len(f.platforms) == 0 && !f.broken {
		l.mistake("apps", "no app is configured: set WECHAT_APPID, and WECHAT_SECRET or WECHAT_SECRET_FILE, for one app; "+
			"or name a file with a list of apps in --config or WXTOKEN_CONFIG")
	}
	apps := make([]App, len(raw))
	for i, r := range raw {
		apps[i] = l.app(r)
	}
	l.distinct(raw)
	return apps
}

// envApp returns the app that the environment holds, if any.
func (l *loader) envApp() (rawApp, bool) {
	variables := map[string]string{
		"id":          "WECHAT_APPID",
		"secret":      "WECHAT_SECRET",
		"secret_file": "WECHAT_SECRET_FILE",
		"endpoint":    "WECHAT_ENDPOINT",
		"api_base":    "WECHAT_API_BASE",
		"tickets":     "WECHAT_TICKETS",
	}
	get := func(key string) string { return l.env(variables[key]) }
	if get("id") == "" {
		// WECHAT_SECRET may serve a secret_env; the others serve nothing without an appid.
		for _, key := range []string{"secret_file", "endpoint", "api_base", "tickets"} {
			if get(key) != "" {
				l.mistake(variables[key], "is set, but not WECHAT_APPID, to which it belongs")
			}
		}
		return rawApp{}, false
	}
	return rawApp{
		App: App{
			ID: get("id"), SecretFile: get("secret_file"), Endpoint: get("endpoint"), APIBase: get("api_base"),
			Tickets: strings.FieldsFunc(get("tickets"), func(r rune) bool { return r == ',' || unicode.IsSpace(r) }),
		},
		secret: get("secret"),
		at: func(key string) string {
			name, _, _ := strings.Cut(key, "[") // of one of a list
			return variables[name]
		},
	}, true
}
