package platform

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	// overlap is how long a replaced token of a platform or of an authorizer works: 5 minutes by
	// WeChat's staff for the platform's own. For an authorizer's it is an assumption.
	overlap = 5 * time.Minute
	// retryTicket is how long a replica without a ticket waits. A new ticket ends the wait.
	retryTicket = 30 * time.Second
	// afterStartPush is how long a ticket takes that was asked for.
	afterStartPush = 3 * time.Second
	// startPushEvery is how often the cluster asks WeChat for tickets.
	startPushEvery = 10 * time.Minute
)

// Credentials returns what the cache must always keep: the platform's own token.
func (p *Platform) Credentials() []tokencache.Credential {
	return []tokencache.Credential{{
		Key: p.TokenKey(),
		Source: source.Fetch(func(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
			cred, err := p.fetchToken(ctx)
			return source.Value(cred, source.ClassicRenewLeft), err
		}),
		Overlap:     p.dialect.overlap(),
		Fingerprint: p.o.Secret.Fingerprint(),
	}}
}

// fetchToken fetches the platform's own token, with the newest ticket if it takes one.
func (p *Platform) fetchToken(ctx context.Context) (wechat.Credential, error) {
	if p.dialect.ticketLife() == 0 {
		return p.dialect.platformToken(ctx, secret.String{})
	}
	ticket, err := p.o.Vault.Load(ctx, p.o.ID, vault.Ticket)
	switch {
	case err != nil:
		return wechat.Credential{}, vaultAway(err)
	case ticket.Rev == 0:
		return wechat.Credential{}, p.needTicket(ctx, "WeChat has pushed no ticket yet: the callback must be reachable and answer success", nil)
	case ticket.Age > p.dialect.ticketLife():
		return wechat.Credential{}, p.needTicket(ctx, "the newest ticket is too old: WeChat's pushes do not arrive", nil)
	}
	cred, err := p.dialect.platformToken(ctx, ticket.Secret)
	if e, ok := errors.AsType[*wechat.Error](err); ok && e.BadTicket() {
		return cred, p.needTicket(ctx, "WeChat rejects the newest ticket", err)
	}
	return cred, err
}

// needTicket says that there is no usable ticket, and has WeChat push one.
func (p *Platform) needTicket(ctx context.Context, why string, cause error) error {
	f := &tokencache.FetchError{Class: tokencache.ClassTransient, Message: why, RetryAfter: retryTicket, Err: cause}
	if e, ok := errors.AsType[*wechat.Error](cause); ok {
		f.Code = e.Code
	}
	if p.once(ctx, "start_push", startPushEvery) {
		if err := p.dialect.startPush(ctx); err != nil {
			p.o.Log.Warn("WeChat was asked to push tickets again, and refuses", zap.String("platform", p.o.ID), zap.Error(err))
		} else {
			f.RetryAfter = afterStartPush // it may even come before this failure is known
		}
	}
	return f
}

// vaultAway says that a fetch cannot begin because the vault does not answer, or none of its keys
// opens the record.
func vaultAway(err error) error {
	f := &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "the vault cannot be read: " + err.Error(), Err: err}
	if errors.Is(err, vault.ErrSealed) {
		f.Class, f.Message = tokencache.ClassPermanent, err.Error()
	}
	return f
}

// withToken calls use with the platform's own token, and once more with another one if WeChat
// rejects it.
func withToken[T any](ctx context.Context, p *Platform, use func(secret.String) (T, error)) (T, error) {
	return source.WithToken(ctx, p.o.Cache, p.TokenKey(), use)
}
