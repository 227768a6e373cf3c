package platform

import (
	"context"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// dialect is what differs between the kinds of platforms: the calls, and what WeChat says of an
// authorisation. Safe for concurrent use.
type dialect interface {
	// tokenKind is the kind of the platform's own token.
	tokenKind() string
	// tickets are the kinds of tickets that an authorizer can have.
	tickets() map[string]string
	// ticketLife is how long a ticket can be used; 0: the platform's token takes none.
	ticketLife() time.Duration
	// overlap is how long a replaced token of the platform works; 0: a fetch replaces none.
	overlap() time.Duration
	// needsParent reports whether an authorizer's token is fetched with the platform's own.
	needsParent() bool

	platformToken(ctx context.Context, ticket secret.String) (wechat.Credential, error)
	// startPush asks for tickets again.
	startPush(ctx context.Context) error
	exchange(ctx context.Context, platformToken, code secret.String) (wechat.Authorization, error)
	// authorizerToken fetches a token. next is the secret from now on; empty: the same one.
	authorizerToken(ctx context.Context, platformToken secret.String, authorizer string, durable secret.String) (cred wechat.Credential, next secret.String, err error)
	// recall asks for the secret of an authorizer again. The error is errNeverAgain if it is given
	// once only.
	recall(ctx context.Context, platformToken secret.String, authorizer string) (wechat.Authorization, error)
	// list returns a page of all authorizers. The error is errNeverAgain if there is no such list.
	list(ctx context.Context, platformToken secret.String, offset int) (total int, page []wechat.ListedAuthorizer, err error)
}

// errNeverAgain says that upstream gives a secret once.
var errNeverAgain = errors.New("WeCom gives a permanent code only once")

// open is a third-party platform of WeChat.
type open struct {
	*wechat.Client
	id     string
	secret secret.String
}

func (open) tokenKind() string          { return "component_access_token" }
func (open) tickets() map[string]string { return source.TicketKinds(config.PlatformWeChat) }
func (open) ticketLife() time.Duration  { return 12 * time.Hour }
func (open) overlap() time.Duration     { return overlap }
func (open) needsParent() bool          { return true }

func (d open) platformToken(ctx context.Context, ticket secret.String) (wechat.Credential, error) {
	return d.ComponentToken(ctx, d.id, d.secret, ticket)
}

func (d open) startPush(ctx context.Context) error { return d.StartPush(ctx, d.id, d.secret) }

func (d open) exchange(ctx context.Context, platformToken, code secret.String) (wechat.Authorization, error) {
	return d.QueryAuth(ctx, platformToken, d.id, code)
}

func (d open) authorizerToken(ctx context.Context, platformToken secret.String, authorizer string, durable secret.String) (wechat.Credential, secret.String, error) {
	return d.AuthorizerToken(ctx, platformToken, d.id, authorizer, durable)
}

func (d open) recall(ctx context.Context, platformToken secret.String, authorizer string) (wechat.Authorization, error) {
	return d.AuthorizerInfo(ctx, platformToken, d.id, authorizer)
}

func (d open) list(ctx context.Context, platformToken secret.String, offset int) (int, []wechat.ListedAuthorizer, error) {
	return d.AuthorizerList(ctx, platformToken, d.id, offset, wechat.MaxAuthorizers)
}

// suite is a third-party app of WeCom.
type suite struct {
	*wechat.Client
	id     string
	secret secret.String
}

func (suite) tokenKind() string          { return "suite_access_token" }
func (suite) tickets() map[string]string { return source.TicketKinds(config.PlatformWeCom) }
func (suite) ticketLife() time.Duration  { return 30 * time.Minute }
func (suite) overlap() time.Duration     { return overlap }
func (suite) needsParent() bool          { return true }

func (d suite) platformToken(ctx context.Context, ticket secret.String) (wechat.Credential, error) {
	return d.SuiteToken(ctx, d.id, d.secret, ticket)
}

func (suite) startPush(context.Context) error { return nil } // WeCom has no such call: the console can push one

func (d suite) exchange(ctx context.Context, platformToken, code secret.String) (wechat.Authorization, error) {
	return d.PermanentCode(ctx, platformToken, code)
}

func (d suite) authorizerToken(ctx context.Context, platformToken secret.String, authorizer string, durable secret.String) (wechat.Credential, secret.String, error) {
	cred, err := d.CorpTokenBySuite(ctx, platformToken, authorizer, durable)
	return cred, secret.String{}, err
}

func (suite) recall(context.Context, secret.String, string) (wechat.Authorization, error) {
	return wechat.Authorization{}, errNeverAgain
}

func (suite) list(context.Context, secret.String, int) (int, []wechat.ListedAuthorizer, error) {
	return 0, nil, errNeverAgain
}

// template is one of apps that are developed on behalf of corps: the permanent code is the secret
// of an app of the corp's own.
type template struct{ suite }

func (template) needsParent() bool { return false }

func (d template) authorizerToken(ctx context.Context, _ secret.String, authorizer string, durable secret.String) (wechat.Credential, secret.String, error) {
	cred, err := d.CorpToken(ctx, authorizer, durable)
	return cred, secret.String{}, err
}

// provider has a token, which repeats while it is valid. What else it inherits is of no use to it.
type provider struct{ suite }

func (provider) tokenKind() string         { return "provider_access_token" }
func (provider) ticketLife() time.Duration { return 0 }
func (provider) overlap() time.Duration    { return 0 }

func (d provider) platformToken(ctx context.Context, _ secret.String) (wechat.Credential, error) {
	return d.ProviderToken(ctx, d.id, d.secret)
}
