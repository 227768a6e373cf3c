package config

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Values of [ThirdParty.Kind].
const (
	KindOpenPlatform = "open_platform"  // a third-party platform of WeChat
	KindSuite        = "wecom_suite"    // a third-party app of WeCom
	KindTemplate     = "wecom_dk"       // a template of apps that are developed on behalf of corps
	KindProvider     = "wecom_provider" // a provider of WeCom: a token, and no accounts
)

// kinds are all of them.
var kinds = []string{KindOpenPlatform, KindSuite, KindTemplate, KindProvider}

// DefaultIdle is how long an authorizer's token is kept after it was asked for.
const DefaultIdle = 2 * time.Hour

// ThirdParty is a platform or a suite that other accounts authorise, or a provider of suites. The
// program that has one needs a [Vault], except for a provider.
type ThirdParty struct {
	// ID is the platform's appid, the suite's id, or the provider's corpid.
	ID   string
	Kind string // one of the constants above
	// Alias is another name for callers to use. Empty means none.
	Alias   string
	APIBase string // as of [App]
	// Secret is the AppSecret, suite_secret or provider_secret, read from SecretFile.
	Secret     secret.String
	SecretFile string
	// Envelope opens the pushes, and Echo the check of the callback's address. They were made of
	// TokenFile, AESKeyFile and, for Echo on WeCom, CorpID. A provider has neither.
	Envelope, Echo        *wechat.Envelope
	TokenFile, AESKeyFile string
	// CorpID is the provider's. Only on WeCom.
	CorpID string
	// Idle is how long an authorizer's token is kept after it was asked for.
	Idle time.Duration
	// Forward is where [Config.CallbackListen] passes on pushes that mean nothing to the sidecar: an
	// absolute http or https URL without query, user or trailing slash. Empty: nowhere.
	Forward string

	pushSecrets []secret.String // what the envelopes were made of, for comparison
}

// HasAccounts reports whether accounts authorise it, so that it has pushes and needs a [Vault].
func (p ThirdParty) HasAccounts() bool { return p.Kind != KindProvider }

// Vault says how secrets are kept that WeChat gives only once. The zero value is none: no platform
// is configured.
type Vault struct {
	// URL is that of a database, read from URLFile: postgres:// or mysql://. Empty: the vault is in
	// the Redis of the configuration.
	URL     secret.String
	URLFile string
	// Keys seal what is kept. They were read from KeysFile.
	Keys     vault.Keys
	KeysFile string
	// Volatile permits a Redis that would lose what a suite cannot get again.
	Volatile bool

	keys secret.String // for comparison
}

// rawPlatform is a platform as it was written.
type rawPlatform struct {
	ThirdParty
	idle   string
	broken bool // as in file
	at     func(key string) string
}

func (w walker) platform(n *yaml.Node, path string) rawPlatform {
	p := rawPlatform{at: func(key string) string { return join(path, key) }}
	before := len(w.mistakes)
	if isNull(n) {
		w.mistake(path, "is empty (line %d)", n.Line)
	} else {
		w.mapping(n, path, fields{
			"id":           w.text(&p.ID),
			"kind":         w.text(&p.Kind),
			"alias":        w.text(&p.Alias),
			"api_base":     w.text(&p.APIBase),
			"secret_file":  w.text(&p.SecretFile),
			"token_file":   w.text(&p.TokenFile),
			"aes_key_file": w.text(&p.AESKeyFile),
			"corpid":       w.text(&p.CorpID),
			"idle":         w.text(&p.idle),
			"forward":      w.text(&p.Forward),
		})
	}
	p.broken = len(w.mistakes) > before
	return p
}

// platforms checks the platforms of the file, and the vault that they need.
func (l *loader) platforms(c *Config, f file) {
	for _, r := range f.platforms {
		c.Platforms = append(c.Platforms, l.platform(r))
	}
	l.vault(c, f)
	l.platformNames(c.Apps, f.platforms)
}

func (l *loader) platform(r rawPlatform) ThirdParty {
	p := r.ThirdParty
	missing := func(key, value, what string) bool {
		if value == "" && !r.broken {
			l.mistake(r.at(key), "missing: %s", what)
		}
		return value == ""
	}
	if !missing("id", p.ID, "the platform's appid, the suite's id, or the provider's corpid") && !isName(p.ID) {
		l.mistake(r.at("id"), notAName)
	}
	if p.Alias != "" && !isName(p.Alias) {
		l.mistake(r.at("alias"), notAName)
	}
	if p.Kind != "" || !missing("kind", p.Kind, strings.Join(kinds, ", ")) {
		l.oneOf(r.at("kind"), p.Kind, kinds...)
	}
	weCom := p.Kind == KindSuite || p.Kind == KindTemplate || p.Kind == KindProvider
	switch {
	case p.APIBase != "":
		p.APIBase = l.apiBase(r.at("api_base"), p.APIBase)
	case weCom:
		p.APIBase = DefaultWeComBase
	default:
		p.APIBase = DefaultWeChatBase
	}
	if !missing("secret_file", p.SecretFile, "name a file that holds the platform's secret") {
		p.Secret = l.secretFile(p.SecretFile, r.at("secret_file"))
	}
	if !p.HasAccounts() {
		for _, s := range []struct{ key, value string }{{"token_file", p.TokenFile}, {"aes_key_file", p.AESKeyFile}, {"corpid", p.CorpID}, {"idle", r.idle}} {
			if s.value != "" {
				l.mistake(r.at(s.key), "belongs to what accounts authorise: a provider has a token, and neither accounts nor pushes: remove it")
			}
		}
		return p
	}
	if p.Idle = DefaultIdle; r.idle != "" {
		d, err := time.ParseDuration(r.idle)
		if err != nil || d < time.Minute || d > 7*24*time.Hour {
			l.mistake(r.at("idle"), "needs a duration of 1m to 168h, with its unit, such as 2h")
		}
		p.Idle = d
	}
	switch {
	case weCom:
		missing("corpid", p.CorpID, "the provider's corpid, for which WeCom checks the address of the callback")
	case p.CorpID != "":
		l.mistake(r.at("corpid"), "belongs to platforms of WeCom: remove it")
	}
	if p.Forward != "" {
		p.Forward = l.plainURL(r.at("forward"), p.Forward, "http://app:8080/wechat")
	}
	l.envelopes(r, &p, weCom)
	return p
}

// callbackListener checks where pushes are taken.
func (l *loader) callbackListener(c *Config, f file) {
	at := l.origin["callback_listen"]
	if c.CallbackListen == "" {
		return
	}
	_, err := checkListen(c.CallbackListen)
	switch {
	case err != nil:
		l.mistake(at, "%v", err)
	case len(f.platforms) == 0 && !f.broken:
		l.mistake(at, "no platform is configured that needs it: remove it")
	case slices.Contains([]string{c.Listen, c.OpsListen, c.TLS.Listen}, c.CallbackListen) && !anyPort(c.CallbackListen):
		l.mistake(at, "must differ from listen, ops_listen and tls_listen")
	}
}

// envelopes makes what opens the pushes of p.
func (l *loader) envelopes(r rawPlatform, p *ThirdParty, weCom bool) {
	var token secret.String
	var keys []secret.String
	switch {
	case p.TokenFile != "":
		token = l.secretFile(p.TokenFile, r.at("token_file"))
	case !r.broken:
		l.mistake(r.at("token_file"), "missing: name a file that holds the Token of the callback")
	}
	switch {
	case p.AESKeyFile != "":
		keys = l.secretLines(p.AESKeyFile, r.at("aes_key_file"))
	case !r.broken:
		l.mistake(r.at("aes_key_file"), "missing: name a file that holds the EncodingAESKey of the callback; a second line may hold the previous one")
	}
	if token.Empty() || len(keys) == 0 {
		return
	}
	p.pushSecrets = append([]secret.String{token}, keys...)
	var err error
	if p.Envelope, err = wechat.NewEnvelope(token, p.ID, keys...); err != nil {
		l.mistake(r.at("aes_key_file"), "%s: %v", p.AESKeyFile, err)
		return
	}
	p.Echo = p.Envelope
	if weCom {
		p.Echo, _ = wechat.NewEnvelope(token, p.CorpID, keys...) // the same keys
	}
}

// vault reads the keys of the vault.
func (l *loader) vault(c *Config, f file) {
	c.Vault = f.vault
	needed := slices.ContainsFunc(c.Platforms, ThirdParty.HasAccounts)
	switch {
	case !needed && f.vault.KeysFile == "" && !f.vault.Volatile:
		return
	case !needed:
		l.mistake("vault", "no platform is configured that needs it: remove it")
		return
	case f.vault.KeysFile == "" && f.broken:
		return
	case f.vault.KeysFile == "":
		l.mistake("vault.key_file", "missing: name a file with a key that seals what WeChat gives only once, as of: openssl rand -base64 32")
		return
	}
	if f.vault.URLFile != "" {
		c.Vault.URL = l.secretFile(f.vault.URLFile, "vault.url_file")
		scheme, _, _ := strings.Cut(c.Vault.URL.Reveal(), "://")
		if !c.Vault.URL.Empty() && !slices.Contains([]string{"postgres", "postgresql", "mysql"}, scheme) {
			l.mistake("vault.url_file", "%s: must hold a URL that begins with postgres:// or mysql://", f.vault.URLFile)
		}
	}
	text, ok := l.secretText(f.vault.KeysFile, "vault.key_file")
	if !ok {
		return
	}
	c.Vault.keys = secret.New(text)
	var err error
	if c.Vault.Keys, err = vault.ParseKeys(c.Vault.keys); err != nil {
		l.mistake("vault.key_file", "%s: %v", f.vault.KeysFile, err)
	}
}

// platformNames checks that the name of a platform leads to nothing else.
func (l *loader) platformNames(apps []App, platforms []rawPlatform) {
	taken, corps := map[string]bool{}, map[string]bool{}
	for _, a := range apps {
		corps[a.ID] = true
		for _, name := range []string{a.CredentialID(), a.Alias} {
			taken[name] = taken[name] || name != ""
		}
	}
	for _, r := range platforms {
		for _, s := range []struct{ key, name string }{{"id", r.ID}, {"alias", r.Alias}} {
			if s.name == "" {
				continue
			}
			// A provider is a corp, which may have agents of its own.
			if taken[s.name] || corps[s.name] && (r.Kind != KindProvider || s.key != "id") {
				l.mistake(r.at(s.key), "another app or platform has this name: a name leads to one of them")
			}
			taken[s.name] = true
		}
	}
}

// equal reports whether the program would do the same with both.
func (p ThirdParty) equal(o ThirdParty) bool {
	return p.ID == o.ID && p.Kind == o.Kind && p.Alias == o.Alias && p.APIBase == o.APIBase && p.Secret.Equal(o.Secret) &&
		p.CorpID == o.CorpID && p.Idle == o.Idle && p.Forward == o.Forward && slices.EqualFunc(p.pushSecrets, o.pushSecrets, secret.String.Equal)
}

func (v Vault) equal(o Vault) bool {
	return v.URL.Equal(o.URL) && v.keys.Equal(o.keys) && v.Volatile == o.Volatile
}
