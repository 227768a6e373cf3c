// Package source joins WeChat and the cache: it turns the configured apps into credentials, each
// with the source that fetches it, and WeChat's errors into what they mean for the next fetch.
//
// What package platform does for third-party platforms is made of the same parts.
package source

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// AccessToken is the kind of an app's access token.
const AccessToken = "access_token"

const (
	// overlap is how long WeChat promises that a replaced token still works.
	overlap = 5 * time.Minute
	// stableRenewLeft lies 3 s inside the last 5 minutes: until then stable_token repeats the
	// token.
	stableRenewLeft = overlap - 3*time.Second
	// ClassicRenewLeft is for an endpoint where every fetch supersedes the token. It leaves room for
	// SDKs that subtract up to 1500 s from expires_in.
	ClassicRenewLeft = 30 * time.Minute
	// forcedPerDay is WeChat's limit on force_refresh.
	forcedPerDay = 20
)

// Key is the key of an app's access token.
func Key(app config.App) tokencache.Key {
	return tokencache.Key{App: app.CredentialID(), Kind: AccessToken}
}

// WeChat makes the credentials of apps. The zero value is ready for use.
type WeChat struct {
	// HTTP makes the requests. Default: that of [wechat.Client].
	HTTP *http.Client
}

// Credentials returns what cache must keep for apps: their access tokens, and the tickets that the
// configuration names.
func (w WeChat) Credentials(apps []config.App, cache *tokencache.Cache) []tokencache.Credential {
	var creds []tokencache.Credential
	clients := map[string]*wechat.Client{} // by base, of which thousands of apps have the same
	for _, app := range apps {
		if clients[app.APIBase] == nil {
			clients[app.APIBase] = w.client(app)
		}
		creds = append(creds, tokenCredential(app, clients[app.APIBase]))
		for _, ticket := range app.Tickets {
			creds = append(creds, ticketCredential(app, ticket, clients[app.APIBase], cache))
		}
	}
	return creds
}

// OnDemand returns the credential at k, if it is a ticket that one of apps can have. The cache
// keeps it while it is asked for.
func (w WeChat) OnDemand(apps []config.App, k tokencache.Key, cache *tokencache.Cache) (tokencache.Credential, bool) {
	i := slices.IndexFunc(apps, func(app config.App) bool { return app.CredentialID() == k.App })
	if i < 0 {
		return tokencache.Credential{}, false
	}
	for ticket, kind := range Tickets(apps[i]) {
		if kind == k.Kind {
			c := ticketCredential(apps[i], ticket, w.client(apps[i]), cache)
			c.Idle = TicketIdle
			return c, true
		}
	}
	return tokencache.Credential{}, false
}

func (w WeChat) client(app config.App) *wechat.Client {
	return &wechat.Client{BaseURL: app.APIBase, HTTP: w.HTTP}
}

// tokenCredential keeps an app's access token.
func tokenCredential(app config.App, client *wechat.Client) tokencache.Credential {
	c := tokencache.Credential{
		Key:         Key(app),
		Probe:       probe(app, client),
		Fingerprint: app.Secret.Fingerprint(),
		Margin:      app.Margin,
		Fetches:     tokencache.Limit{PerDay: app.FetchesPerDay},
		Reports:     tokencache.Limit{PerDay: app.ReportsPerDay},
	}
	switch {
	case app.Platform == config.PlatformWeCom:
		c.Source = Fetch(func(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
			cred, err := client.CorpToken(ctx, app.ID, app.Secret)
			return Value(cred, ClassicRenewLeft), err
		})
		// Whether gettoken repeats a valid token is no longer documented, so it must not be relied
		// on.
		c.Overlap = overlap
	case app.Endpoint == config.EndpointClassic:
		c.Source = Fetch(func(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
			cred, err := client.Token(ctx, app.ID, app.Secret)
			return Value(cred, ClassicRenewLeft), err
		})
		c.Overlap = overlap
	default:
		c.Source = Fetch(func(ctx context.Context, r tokencache.Request) (tokencache.Value, error) {
			mode := wechat.Normal
			if r.Force {
				mode = wechat.Forced
			}
			cred, err := client.StableToken(ctx, app.ID, app.Secret, mode)
			return Value(cred, stableRenewLeft), err
		})
		c.Forced = tokencache.Limit{PerDay: forcedPerDay}
	}
	return c
}

// Value says when upstream has a better one. A life shorter than WeChat's 7200 s keeps the
// proportion.
func Value(c wechat.Credential, renewLeft time.Duration) tokencache.Value {
	if renewLeft == ClassicRenewLeft {
		renewLeft = min(renewLeft, c.ExpiresIn/4)
	}
	return tokencache.Value{Value: c.Value, Life: c.ExpiresIn, RenewLeft: renewLeft}
}

// Fetch makes a Source of a function that returns WeChat's errors.
type Fetch func(context.Context, tokencache.Request) (tokencache.Value, error)

// Fetch implements [tokencache.Source].
func (f Fetch) Fetch(ctx context.Context, r tokencache.Request) (tokencache.Value, error) {
	v, err := f(ctx, r)
	if err != nil {
		return tokencache.Value{}, fetchError(err)
	}
	return v, nil
}

// fetchError says what WeChat's answer means for the next fetch.
func fetchError(err error) error {
	if f, ok := errors.AsType[*tokencache.FetchError](err); ok {
		return f // a ticket's, about its token, whose own error it wraps
	}
	e, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		return err
	}
	f := &tokencache.FetchError{
		Code: e.Code, Message: message(e), Unclear: e.MayHaveIssued(), RetryAfter: e.RetryAfter(), Err: e,
	}
	switch e.Class() {
	case wechat.ClassConfig:
		f.Class = tokencache.ClassPermanent
	case wechat.ClassQuota:
		f.Class = tokencache.ClassQuota
	case wechat.ClassEgress:
		f.Class = tokencache.ClassLocal
	default:
		f.Class = tokencache.ClassTransient
	}
	return f
}

func message(e *wechat.Error) string {
	text := e.Message
	if text == "" {
		text = e.Error()
	}
	if advice := e.Advice(); advice != "" {
		text += ": " + advice
	}
	return text
}

// probe asks WeChat whether it accepts a token; nil if it is switched off.
func probe(app config.App, client *wechat.Client) func(context.Context, secret.String) error {
	how := wechat.ProbeCallbackIP
	switch {
	case app.Probe == config.ProbeOff:
		return nil
	case app.Platform == config.PlatformWeCom:
		how = wechat.ProbeCorpCallbackIP
	case app.Probe == config.ProbeMenu:
		how = wechat.ProbeMenu
	}
	return func(ctx context.Context, token secret.String) error {
		err := client.Probe(ctx, token, how)
		if e, ok := errors.AsType[*wechat.Error](err); ok && e.Class() == wechat.ClassBadToken {
			return tokencache.ErrRejected
		}
		return err
	}
}
