// Package config turns a file, the environment and the flags into a checked [Config], and notices
// when the file or a secret has changed.
//
// Flags go over environment over file. The file is optional: WECHAT_APPID, WECHAT_SECRET and
// REDIS_URL are enough for one app. A [Config] that [Load] returns is complete and valid; if it
// cannot be, the error is an [Errors] that lists every mistake, each with its place.
//
// No message of this package repeats a value that it was given, only names of keys and variables
// and paths of files, because a secret may stand in the wrong place. What is secret is a
// [secret.String], so a Config can be printed.
//
// The package knows nothing of WeChat's wire format, of connections or of listeners. It does not
// log.
//
//	load := config.Remember(func() (*config.Config, error) { return config.Load(overrides, os.Getenv) })
//	cfg, err := load()
//	if err != nil {
//		return err // every mistake, one per line
//	}
//	go config.Watcher{Changed: apply}.Run(ctx, cfg, load)
package config

import (
	"cmp"
	"io/fs"
	"slices"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// The defaults.
const (
	DefaultListen    = "127.0.0.1:7200"
	DefaultOpsListen = ":7201"
	DefaultNamespace = "wxtoken"
	DefaultLogLevel  = "info"
	DefaultLogFormat = LogAuto

	DefaultSocketMode fs.FileMode = 0o660 // the group: containers that share an fsGroup

	DefaultDrain      = 20 * time.Second // of the 30 s that Kubernetes gives a pod
	DefaultDrainQuiet = time.Second

	DefaultMetricsApps = 200

	DefaultWeChatBase = "https://api.weixin.qq.com"
	DefaultWeComBase  = "https://qyapi.weixin.qq.com"

	defaultFallback = "https://api2.weixin.qq.com"
)

// Values of [App.Platform].
const (
	PlatformWeChat = "wechat"
	PlatformWeCom  = "wecom"
)

// Values of [App.Endpoint].
const (
	EndpointStable  = "stable_token"
	EndpointClassic = "token"
)

// Values of [App.Tickets].
const (
	TicketJSAPI       = "jsapi"
	TicketCard        = "wx_card"      // WeChat only
	TicketAgentConfig = "agent_config" // WeCom only
)

// Values of [App.Probe].
const (
	ProbeCallbackIP = "getcallbackip"
	ProbeMenu       = "menu/get" // WeChat only
	ProbeOff        = "off"
)

// Values of [Redis.Form].
const (
	RedisSingle   = "single"
	RedisSentinel = "sentinel"
	RedisCluster  = "cluster"
)

// Values of [Log.Format].
const (
	LogAuto    = "auto" // json unless stderr is a terminal
	LogJSON    = "json"
	LogConsole = "console"
)

// Config is one checked configuration. Treat it as immutable: all readers share it.
// Every field has its default filled in. It prints without its secrets.
type Config struct {
	// Listen is where values are served: host:port with a loopback host, or unix:/absolute/path.
	// Another host only together with AllowRemote and a Bearer.
	Listen string
	// OpsListen is where health, metrics and status are served: host:port with any host, or
	// unix:/absolute/path.
	OpsListen string
	// CallbackListen is where WeChat's pushes to the platforms are taken, and nothing else is served:
	// host:port with any host, or unix:/absolute/path. Empty: nowhere.
	CallbackListen string
	// SocketMode is the mode of the sockets of these three, if they are any.
	SocketMode fs.FileMode
	// AllowRemote permits a Listen that other hosts can reach.
	AllowRemote bool
	// AllowUpstreamHost lets callers of Listen call by the name of an app's upstream, and by any of
	// WeChat's names: a pod whose hosts file says that api.weixin.qq.com is here.
	AllowUpstreamHost bool
	// TLS is the https face. The zero value is none.
	TLS TLS
	// Bearer, unless empty, is demanded from every caller of Listen. It comes from BearerTokenFile.
	Bearer          secret.String
	BearerTokenFile string

	// Namespace starts every Redis key: letters, digits and . _ - :
	Namespace string
	Redis     Redis
	Log       Log

	Drain Drain
	// Quit permits POST /quitquitquit, by which a Job's main container stops a sidecar that is an
	// ordinary container and would outlive it.
	Quit bool

	// KeptBodies bounds the request bodies that the proxy keeps at one time to repeat a call, in
	// bytes. 0 leaves the choice to the proxy (8 MiB).
	KeptBodies int
	// MetricsApps is the number of apps up to which /metrics has series for each app. With more of
	// them, and always with 0, it has sums.
	MetricsApps int
	// DefaultApp is the CredentialID of the app that a call of the proxy means if it names none.
	// Default: the app, if there is only one; else empty, for none.
	DefaultApp string
	// Apps are in the order of the file, then the app of the environment. There is at least one, or
	// a platform.
	Apps []App
	// Platforms are what other accounts authorise, and Vault keeps what they gave.
	Platforms []ThirdParty
	Vault     Vault

	// Warnings are for people, one line each: nothing here stops the program.
	Warnings []string

	files []fileRead // that it was read from
}

// TLS is the https face: the same paths as on [Config.Listen], under WeChat's own names.
type TLS struct {
	// Listen is host:port, with a loopback host unless [Config.AllowRemote] and a Bearer permit
	// another one. Empty: there is no such face.
	Listen string
	// CertFile and KeyFile are a certificate and its key. Empty: the sidecar is an authority of its
	// own.
	CertFile, KeyFile string
	// TrustDir is where that authority writes what the apps have to trust: ca.pem, bundle.pem and
	// truststore.p12. An absolute path.
	TrustDir string
	// StateDir is where that authority is kept, key included, so that it outlives a restart of the
	// container. Empty: in memory. An absolute path.
	StateDir string
}

// Redis says where the shared copy lives.
type Redis struct {
	// URL is one that go-redis takes. Form says which of its parsers understands it.
	URL secret.String
	// Form follows from the URL. With the option master_name it is [RedisSentinel] (for
	// redis.ParseFailoverURL): host and addr options are Sentinels, user and password before the
	// @ are for the Sentinels, and those of Redis are the options username and password. Otherwise, with the
	// option addr, it is [RedisCluster] (for redis.ParseClusterURL): host and addr options are
	// seeds; a cluster with one seed names it twice. Otherwise it is [RedisSingle] (for
	// redis.ParseURL).
	Form string
	// TLS names files for rediss://. In what the user wrote they are options of the URL; in URL
	// they are not.
	TLS RedisTLS
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // LogAuto, LogJSON or LogConsole
}

// Drain says how long a program that was asked to stop goes on serving: its pod's apps may have
// been asked at the same moment, and need their tokens to finish.
type Drain struct {
	// Max is how long at most. 0 ends it at once.
	Max time.Duration
	// Quiet is for how long no app must have been connected to be taken for gone.
	Quiet time.Duration
}

// App is one configured account.
type App struct {
	// ID is the appid, or the corpid of a WeCom corporation.
	ID string
	// Agent is the agent of a WeCom app, which has a secret of its own. Empty for WeChat.
	Agent string
	// Alias is another name for callers to use. Empty means none. It equals no app's ID.
	Alias string

	Platform string // PlatformWeChat or PlatformWeCom
	Endpoint string // EndpointStable or EndpointClassic; empty for WeCom, which has one endpoint
	APIBase  string // absolute http or https URL without query, user or trailing slash
	// APIFallbacks are URLs of the same kind that the proxy calls if APIBase cannot be reached.
	// Default: https://api2.weixin.qq.com, which Tencent names for this, if APIBase is the default
	// of WeChat; else none.
	APIFallbacks []string

	// Secret is never empty. It was read from SecretFile, or, if that is empty, from the
	// environment.
	Secret     secret.String
	SecretFile string

	// Tickets are the tickets to keep besides the access token. Others are kept while they are
	// asked for. Empty means none.
	Tickets []string
	// Probe says how a reported token is tried out before it is replaced.
	Probe string
	// Margin is how long before its true end a value leaves Redis: 1 s to 3 min. 0 leaves the
	// choice to the cache (1 min).
	Margin time.Duration
	// FetchesPerDay bounds the fetches of one credential a day, and ReportsPerDay those that
	// reports cause. 0 leaves the choice to the cache.
	FetchesPerDay, ReportsPerDay int
	// RequireSecret makes the drop-in paths demand the true secret from their callers.
	RequireSecret bool
}

// CredentialID returns the name that distinguishes the app's credentials from all others, and
// is part of the Redis keys: the appid, or corpid:agent.
func (a App) CredentialID() string {
	if a.Agent == "" {
		return a.ID
	}
	return a.ID + ":" + a.Agent
}

// Overrides are the values of the flags. An empty field was not given.
type Overrides struct {
	Config    string // --config, over WXTOKEN_CONFIG: the path of the file
	Listen    string // --listen, over WXTOKEN_LISTEN
	OpsListen string // --ops-listen, over WXTOKEN_OPS_LISTEN
	Namespace string // --namespace, over WXTOKEN_NAMESPACE
	RedisURL  string // --redis-url, over REDIS_URL
	LogLevel  string // --log-level, over WXTOKEN_LOG_LEVEL
	LogFormat string // --log-format, over WXTOKEN_LOG_FORMAT
}

// Listeners says how to call a sidecar that runs on this host.
type Listeners struct {
	Listen, OpsListen string        // as of [Config]
	Bearer            secret.String // as of [Config]
	// Doubts are the mistakes in what says so, one line each. If a call fails, they may be why.
	Doubts []string
}

// LoadListeners reads the part of the configuration that a caller of a running sidecar needs, from
// the same places as [Load]. It refuses nothing: the sidecar keeps its configuration when a new one
// is wrong, and the caller may have neither the secrets nor the URL of Redis.
func LoadListeners(o Overrides, getenv func(string) string) Listeners {
	l := loader{env: getenv}
	f := l.file(o.Config)
	c := l.general(o, f)
	l.listeners(c, f)
	list := Listeners{Listen: c.Listen, OpsListen: c.OpsListen, Bearer: c.Bearer}
	for _, m := range l.mistakes {
		list.Doubts = append(list.Doubts, m.String())
	}
	return list
}

// Equal reports whether the program would do the same with both. Secrets are compared by content,
// wherever they came from; the order of apps and tickets and the warnings do not matter.
func (c *Config) Equal(o *Config) bool {
	return c == o || len(c.NeedsRestart(o)) == 0 &&
		c.AllowRemote == o.AllowRemote &&
		c.AllowUpstreamHost == o.AllowUpstreamHost &&
		c.Bearer.Equal(o.Bearer) &&
		c.DefaultApp == o.DefaultApp &&
		c.MetricsApps == o.MetricsApps &&
		slices.EqualFunc(sortedApps(c.Apps), sortedApps(o.Apps), App.equal)
}

// unchanged reports whether loading it again would find the same files.
func (c *Config) unchanged() bool {
	return !slices.ContainsFunc(c.files, func(f fileRead) bool { return !f.unchanged() })
}

// NeedsRestart names the settings, as keys of the file, that differ and that a running program
// cannot take over: where it listens, how it logs and stops, and which keys of which Redis it
// shares with the others.
func (c *Config) NeedsRestart(o *Config) []string {
	var keys []string
	for _, s := range []struct {
		key  string
		same bool
	}{
		{"listen", c.Listen == o.Listen},
		{"ops_listen", c.OpsListen == o.OpsListen},
		{"callback_listen", c.CallbackListen == o.CallbackListen},
		{"tls_listen", c.TLS == o.TLS},
		{"socket_mode", c.SocketMode == o.SocketMode},
		{"namespace", c.Namespace == o.Namespace},
		{"log", c.Log == o.Log},
		{"drain", c.Drain == o.Drain},
		{"quit", c.Quit == o.Quit},
		{"kept_bodies", c.KeptBodies == o.KeptBodies},
		{"platforms", slices.EqualFunc(c.Platforms, o.Platforms, ThirdParty.equal)},
		{"vault", c.Vault.equal(o.Vault)},
		{"redis", c.Redis.Form == o.Redis.Form && c.Redis.URL.Equal(o.Redis.URL) && c.Redis.TLS == o.Redis.TLS},
	} {
		if !s.same {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// Reload returns what a program that runs with c can make of next, and the settings that have to
// wait for a restart: these keep the values of c. While the listener waits, so do AllowRemote and
// a Bearer that next does without: next was checked for another listener, and one that strangers
// reach must not lose its token.
func (c *Config) Reload(next *Config) (effective *Config, restart []string) {
	e := *next
	e.Listen, e.OpsListen, e.Namespace, e.Redis = c.Listen, c.OpsListen, c.Namespace, c.Redis
	e.CallbackListen, e.SocketMode, e.TLS = c.CallbackListen, c.SocketMode, c.TLS
	e.Log, e.Drain, e.Quit = c.Log, c.Drain, c.Quit
	e.Platforms, e.Vault = c.Platforms, c.Vault
	restart = c.NeedsRestart(next)
	if slices.Contains(restart, "listen") || slices.Contains(restart, "tls_listen") {
		e.AllowRemote = c.AllowRemote
		if e.Bearer.Empty() {
			e.Bearer, e.BearerTokenFile = c.Bearer, c.BearerTokenFile
		}
	}
	return &e, restart
}

// equal leaves out SecretFile: where a secret came from changes nothing.
func (a App) equal(b App) bool {
	return a.ID == b.ID && a.Agent == b.Agent && a.Alias == b.Alias &&
		a.Platform == b.Platform && a.Endpoint == b.Endpoint && a.APIBase == b.APIBase &&
		slices.Equal(a.APIFallbacks, b.APIFallbacks) &&
		a.Secret.Equal(b.Secret) &&
		slices.Equal(slices.Sorted(slices.Values(a.Tickets)), slices.Sorted(slices.Values(b.Tickets))) &&
		a.Probe == b.Probe && a.Margin == b.Margin &&
		a.FetchesPerDay == b.FetchesPerDay && a.ReportsPerDay == b.ReportsPerDay &&
		a.RequireSecret == b.RequireSecret
}

func sortedApps(apps []App) []App {
	return slices.SortedFunc(slices.Values(apps), func(a, b App) int {
		return cmp.Compare(a.CredentialID(), b.CredentialID())
	})
}
