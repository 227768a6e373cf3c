package source

import (
	"context"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// The kinds of tickets that the apps of each platform can have, by what the configuration calls
// them.
var (
	weChatTickets = map[string]string{config.TicketJSAPI: "jsapi_ticket", config.TicketCard: "wx_card_ticket"}
	weComTickets  = map[string]string{config.TicketJSAPI: "jsapi_ticket", config.TicketAgentConfig: "agent_config_ticket"}
)

const (
	// getticket says 7200 however old the ticket is, so what it says about the life is worth
	// little. A ticket is asked for again so often (with the cache's spread, every 3.5 to 4.5
	// minutes) that a new one is noticed while WeChat still accepts the old one; some 400 calls a
	// day of a quota that users saw end at 10 000.
	ticketEvery = 3*time.Minute + 30*time.Second
	// ticketTrust is how long a ticket is used if WeChat cannot be asked again.
	ticketTrust = time.Hour
	// ticketsPerDay leaves room for that.
	ticketsPerDay = 1000
)

// TicketIdle is how long a ticket that the configuration does not name is kept after it was asked
// for.
const TicketIdle = time.Hour

// Tickets are the kinds of tickets that an app can have, by what the configuration calls them.
func Tickets(app config.App) map[string]string { return TicketKinds(app.Platform) }

// TicketKinds are the kinds of tickets of each app of WeChat, or of WeCom.
func TicketKinds(platform string) map[string]string {
	if platform == config.PlatformWeCom {
		return weComTickets
	}
	return weChatTickets
}

// TicketKey is the key of one of an app's [Tickets].
func TicketKey(app config.App, ticket string) tokencache.Key {
	return tokencache.Key{App: app.CredentialID(), Kind: Tickets(app)[ticket]}
}

// Tokens is the part of the cache that a source needs whose credential needs another one. Both are
// as of [tokencache.Cache].
type Tokens interface {
	Get(context.Context, tokencache.Key) (tokencache.Token, error)
	Report(context.Context, tokencache.Key, secret.String) (tokencache.Token, error)
}

// ticketCredential keeps a ticket of a configured app.
func ticketCredential(app config.App, ticket string, client *wechat.Client, parent Tokens) tokencache.Credential {
	c := TicketCredential(Ticket{
		Key: TicketKey(app, ticket), Parent: Key(app), Type: wechat.TicketType(ticket), WeCom: app.Platform == config.PlatformWeCom,
	}, client, parent)
	c.Fingerprint, c.Margin = app.Secret.Fingerprint(), app.Margin
	return c
}

// Ticket says which ticket a credential is.
type Ticket struct {
	// Key is its own, and Parent that of the access token that it is fetched with.
	Key, Parent tokencache.Key
	Type        wechat.TicketType
	WeCom       bool
}

// TicketCredential returns the credential of a ticket, which is fetched with an access token.
func TicketCredential(t Ticket, client *wechat.Client, parent Tokens) tokencache.Credential {
	ask := client.Ticket
	if t.WeCom {
		ask = client.CorpTicket
	}
	return tokencache.Credential{
		Key: t.Key,
		Source: Fetch(func(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
			cred, err := WithToken(ctx, parent, t.Parent, func(token secret.String) (wechat.Credential, error) {
				return ask(ctx, token, t.Type)
			})
			life := min(cred.ExpiresIn, ticketTrust)
			return tokencache.Value{Value: cred.Value, Life: life, RenewLeft: life - ticketEvery}, err
		}),
		Fetches: tokencache.Limit{PerDay: ticketsPerDay},
	}
}

// WithToken calls use with the parent's token. If WeChat rejects it, the token is reported (which
// costs a refresh only if it is the current one) and use is called once more with another one.
func WithToken[T any](ctx context.Context, parent Tokens, key tokencache.Key, use func(secret.String) (T, error)) (answer T, err error) {
	token, err := parent.Get(ctx, key)
	if err != nil {
		return answer, parentError(err)
	}
	answer, err = use(token.Value)
	if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Class() != wechat.ClassBadToken {
		return answer, err
	}
	next, reported := parent.Report(ctx, key, token.Value)
	if reported != nil {
		return answer, parentError(reported)
	}
	if next.Value.Equal(token.Value) && next.Stale {
		return answer, err
	}
	return use(next.Value) // or the same one, if a probe finds that WeChat accepts it: its servers disagree for a moment
}

// parentError says that a credential cannot be fetched because another one is missing. Its reasons
// are not this one's: a wrong secret is reported and waited for there.
func parentError(err error) error {
	f := &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "the access token is not available", Err: err}
	if u, ok := errors.AsType[*tokencache.UnavailableError](err); ok {
		f.RetryAfter = u.RetryAfter
	}
	if cause, ok := errors.AsType[*tokencache.FetchError](err); ok {
		// The class too: what holds only for this secret, or this pod, holds no further for the
		// ticket.
		f.Class, f.Code, f.Message = cause.Class, cause.Code, "the access token is not available: "+cause.Message
	}
	return f
}
