// Package platform keeps the credentials of a third-party platform or a suite: its own token, which
// is fetched with the ticket that WeChat pushes, and the tokens of the accounts that authorised it.
// Of a provider it keeps the token, and there is nothing else.
//
// It is the one place that knows the vault, WeChat and the cache. A push goes to
// [Platform.Receive], which stores what it says and does nothing slow. [Platform.Run] does the
// rest, on whatever replica is there: it exchanges codes, mends what the vault has lost, and erases
// what has ended.
//
// The rules that everything here keeps: a durable secret is in the vault before a token that was
// fetched with it is handed out; an older event never replaces a newer one, and an empty secret
// nothing; a code is in flight once in the cluster; only an event or a person ends an
// authorisation.
package platform

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Kind is the kind of a platform.
type Kind string

// The kinds of platforms.
const (
	OpenPlatform Kind = "open_platform"  // of WeChat's accounts
	Suite        Kind = "wecom_suite"    // a third-party app of WeCom
	Template     Kind = "wecom_dk"       // of apps that are developed on behalf of corps
	Provider     Kind = "wecom_provider" // a provider of WeCom: a token, without ticket and accounts
)

// Options say what a platform is. All but Secrets, Idle, Log and Observe are required; a provider has
// neither Envelope nor Vault.
type Options struct {
	ID       string
	Kind     Kind
	Secret   secret.String // AppSecret, suite_secret or provider_secret
	Envelope *wechat.Envelope
	// Echo answers the check of the callback's address: on WeCom it is for the provider's corpid.
	Echo   *wechat.Envelope
	Client *wechat.Client

	Vault *vault.Vault
	Cache *tokencache.Cache
	// Redis and Namespace are for leases, of which there is one for each code.
	Redis     redis.UniversalClient
	Namespace string
	// Secrets are the passwords of that Redis, which no error may repeat. Default: none.
	Secrets []secret.String

	// Idle is how long an authorizer's token is kept after it was asked for. Default 2 h.
	Idle time.Duration
	// Log gets what a person should know. Default: none.
	Log *zap.Logger
	// Observe is called with what happened, for metrics. It must not block. Default: none.
	Observe func(Event)
}

// Configured returns the options that a configuration has for one of its platforms. Vault, Cache and
// Redis are still missing, and Log and Observe are not set.
func Configured(cfg *config.Config, c config.ThirdParty) Options {
	return Options{
		ID: c.ID, Kind: Kind(c.Kind), Secret: c.Secret, Envelope: c.Envelope, Echo: c.Echo, Idle: c.Idle,
		Client: &wechat.Client{BaseURL: c.APIBase}, Namespace: cfg.Namespace, Secrets: cfg.Redis.Secrets(),
	}
}

// Event is one thing that happened. It holds no secret.
type Event struct {
	Platform string
	// What is one of the constants below. Label says which of its kind, from a bounded set.
	What, Label string
	// Via is how an exchange's code came: push or redirect.
	Via string
	// Err is why it failed, or nil.
	Err error
}

// What an [Event] is about.
const (
	EventPush      = "push"      // Label: the InfoType, message, or other, also of a push that was not opened
	EventExchange  = "exchange"  // Label: done, skipped, recovered, lost, failed
	EventRecovery  = "recovery"  // Label: added, replaced, unchanged, unlisted
	EventWithdrawn = "withdrawn" // Label: withdrawn, late, test (by an account of WeChat's release test)
)

// Platform is one platform at work. Safe for concurrent use. Create it with [New].
type Platform struct {
	o       Options
	dialect dialect

	work chan string   // IDs of codes that this replica has just stored
	room chan struct{} // has an element for each exchange that a caller waits for, or waited

	mu         sync.Mutex
	remembered map[string]memory    // by authorizer
	unknown    map[string]time.Time // authorizers that WeChat does not know either, until when
	seen       view
	since      time.Time // of this replica; immutable
}

const (
	defaultIdle = 2 * time.Hour
	// leaseTime is how long a dead replica holds up a code or a recovery: more than the calls under
	// it take.
	leaseTime = 30 * time.Second
	// longestCall bounds one piece of work under a lease.
	longestCall = 20 * time.Second
	// lastCall is how long an exchange may go on after its caller has hung up, or its program stops.
	lastCall = 5 * time.Second
	// maxWaiting is how many codes of this replica may wait for their exchange; the others are found
	// in the vault.
	maxWaiting = 256
	// maxAsked is how many exchanges callers of this replica may have begun.
	maxAsked = 64
)

// New returns a platform. It does no I/O and starts no goroutine.
func New(o Options) (*Platform, error) {
	if o.Idle <= 0 {
		o.Idle = defaultIdle
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Echo == nil {
		o.Echo = o.Envelope
	}
	p := &Platform{o: o, work: make(chan string, maxWaiting), room: make(chan struct{}, maxAsked), remembered: map[string]memory{}, unknown: map[string]time.Time{}, since: time.Now()}
	switch o.Kind {
	case OpenPlatform:
		p.dialect = open{o.Client, o.ID, o.Secret}
	case Suite:
		p.dialect = suite{o.Client, o.ID, o.Secret}
	case Template:
		p.dialect = template{suite{o.Client, o.ID, o.Secret}}
	case Provider:
		p.dialect = provider{suite{o.Client, o.ID, o.Secret}}
	default:
		return nil, errors.New("platform: there is no kind " + string(cmp.Or(o.Kind, "(empty)")))
	}
	return p, nil
}

// ID returns the platform's id.
func (p *Platform) ID() string { return p.o.ID }

// HasAccounts reports whether accounts authorise it. Without, it has no pushes, and only ID,
// TokenKey, Credentials and Run may be called.
func (p *Platform) HasAccounts() bool { return p.o.Kind != Provider }

// TokenKey is the key of the platform's own token.
func (p *Platform) TokenKey() tokencache.Key {
	return tokencache.Key{App: p.o.ID, Kind: p.dialect.tokenKind()}
}

// authorizerKey is the key of an authorizer's access token.
func (p *Platform) authorizerKey(authorizer string) tokencache.Key {
	return tokencache.Key{App: apps.AccountName(p.o.ID, authorizer), Kind: source.AccessToken}
}

// revoke takes back whatever was fetched with an authorizer's secret.
func (p *Platform) revoke(ctx context.Context, authorizer string) error {
	return p.changeValues(ctx, authorizer, p.o.Cache.Revoke)
}

// endBackoff lets every replica fetch at once what it could not fetch for an authorizer.
func (p *Platform) endBackoff(ctx context.Context, authorizer string) error {
	return p.changeValues(ctx, authorizer, p.o.Cache.Retry)
}

// changeValues changes what the cluster has of an authorizer's token, and of the tickets that are
// fetched with it. What this replica remembers of the record is forgotten.
func (p *Platform) changeValues(ctx context.Context, authorizer string, change func(context.Context, tokencache.Key) error) error {
	p.forget(authorizer)
	key := p.authorizerKey(authorizer)
	errs := []error{change(ctx, key)}
	for _, kind := range p.dialect.tickets() {
		errs = append(errs, change(ctx, tokencache.Key{App: key.App, Kind: kind}))
	}
	return errors.Join(errs...)
}

// lease obtains the lease of a name for this platform. The error is [lock.ErrHeld] if another
// replica has it.
func (p *Platform) lease(ctx context.Context, name string, ttl time.Duration) (*lock.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	lease, err := lock.New(p.o.Redis, p.o.Namespace+":{"+p.o.ID+"}:vault:lease:"+name, ttl).Obtain(ctx)
	return lease, secret.ScrubRedisError(err, p.o.Secrets...)
}

// once reports whether this call is the first one with this name in the cluster for as long as ttl.
func (p *Platform) once(ctx context.Context, name string, ttl time.Duration) bool {
	_, err := p.lease(ctx, name, ttl) // which is not released
	return err == nil
}

func (p *Platform) observe(what, label string, err error) {
	p.o.Observe(Event{Platform: p.o.ID, What: what, Label: label, Err: err})
}

// jitter spreads what all replicas do at the same time: up to half more than d.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/2) }
