package platform

import (
	"context"
	"encoding/json"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// What the answers to a platform's SDK are made of, besides tokens.

// Kind returns the platform's kind.
func (p *Platform) Kind() Kind { return p.o.Kind }

// Authorization is what the vault has of an authorisation, besides the secret.
type Authorization struct {
	// Info is what WeChat said of it, as [wechat.Authorization] has it; nil if nothing is kept.
	Info json.RawMessage
	// HasTokens is false if the account authorised no API permission.
	HasTokens bool
}

// Authorization returns what the vault has of an account. The error is the vault's.
func (p *Platform) Authorization(ctx context.Context, authorizer string) (Authorization, error) {
	r, err := p.load(ctx, authorizer)
	var info accountInfo
	_ = json.Unmarshal(r.Info, &info) // what cannot be read says nothing
	return Authorization{info.Said, !r.Secret.Empty()}, err
}

// CorpInfo asks WeCom what it has about a corp that has installed the suite now. The error is
// [apps.ErrNotAuthorized], or that of the vault, of the suite's token or of WeCom.
func (p *Platform) CorpInfo(ctx context.Context, call wechat.InfoCall, corpid string) (json.RawMessage, error) {
	r, err := p.load(ctx, corpid)
	if err != nil {
		return nil, err
	}
	if r.State == vault.StateWithdrawn || r.Secret.Empty() {
		return nil, apps.ErrNotAuthorized
	}
	return withToken(ctx, p, func(token secret.String) (json.RawMessage, error) {
		return p.o.Client.CorpInfo(ctx, call, token, corpid, r.Secret)
	})
}

// StartPush has WeChat push tickets again, if they have stopped. What the cluster has asked for in the
// last ten minutes is not asked for again.
func (p *Platform) StartPush(ctx context.Context) error {
	if !p.once(ctx, "start_push", startPushEvery) {
		return nil
	}
	return p.dialect.startPush(ctx)
}
