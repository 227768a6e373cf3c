package platform

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// How often the cluster asks WeChat for the tokens of a platform's accounts: all of them are due at
// once when Redis was emptied.
const (
	// fetchGap is the time between two fetches: 50 a second.
	fetchGap = 20 * time.Millisecond
	// fetchBurst is how many may follow each other without it, after a time without any.
	fetchBurst = 10
	// patience is how long a fetch waits for its turn under its lease. Where that is not enough, the
	// lease ends, and the account's next try is when its turn comes.
	patience = 2 * time.Second

	// When WeChat says within quotaWindow that a quota is spent, for quotaSeveral accounts, it may
	// be the platform's: then no token is asked for during quotaPause. A token is fetched half an
	// hour ahead of its end, so most live through several pauses.
	quotaSeveral = 3
	quotaWindow  = time.Minute
	quotaPause   = 5 * time.Minute
)

var (
	//go:embed turn.lua
	turnLua string
	//go:embed quota.lua
	quotaLua string

	turnScript  = redis.NewScript(turnLua)
	quotaScript = redis.NewScript(quotaLua)
)

// turn returns when WeChat may be asked for the token of an account, or an error that says after
// which time to try again. Without Redis it may not: the answer could not be committed either.
func (p *Platform) turn(ctx context.Context, authorizer string) error {
	short, cancel := context.WithTimeout(ctx, time.Second)
	reply, err := turnScript.Run(short, p.o.Redis, []string{p.turns()},
		authorizer, fetchGap.Milliseconds(), fetchBurst, patience.Milliseconds()).Int64Slice()
	cancel()
	switch {
	case err != nil || len(reply) < 2:
		return &tokencache.FetchError{Class: tokencache.ClassTransient, Err: secret.ScrubRedisError(err, p.o.Secrets...),
			Message: "Redis does not say whether an account's token may be fetched, so WeChat is not asked"}
	case reply[0] == 1:
		if !sleep(ctx, time.Duration(reply[1])*time.Millisecond) {
			return &tokencache.FetchError{Class: tokencache.ClassTransient, Err: ctx.Err(), Message: "the time was over before it was this account's turn"}
		}
		return nil
	}
	f := &tokencache.FetchError{Class: tokencache.ClassLimited, RetryAfter: time.Duration(reply[1]) * time.Millisecond, Err: tokencache.ErrLimited,
		Message: "more accounts need a token than WeChat is asked for at once, and this one waits for its turn"}
	if len(reply) > 2 && reply[2] == 1 {
		f.Message = "WeChat says of several accounts that a quota is spent, so it is asked for none for some minutes"
	}
	return f
}

// noteQuota counts an account for which WeChat says that a quota is spent.
func (p *Platform) noteQuota(ctx context.Context, authorizer string, err error) {
	if e, ok := errors.AsType[*wechat.Error](err); !ok || e.Code != 45009 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // the call may have used all of its time
	defer cancel()
	began, err := quotaScript.Run(ctx, p.o.Redis, []string{p.turns(), p.turns() + ":quota"},
		authorizer, quotaWindow.Milliseconds(), quotaSeveral, quotaPause.Milliseconds()).Bool()
	if err == nil && began {
		p.o.Log.Warn("WeChat says of several accounts that a quota is spent: no account's token is fetched for some minutes",
			zap.String("platform", p.o.ID), zap.Duration("for", quotaPause))
	}
}

// turns is the key of what turn.lua keeps.
func (p *Platform) turns() string { return p.o.Namespace + ":{" + p.o.ID + "}:vault:turns" }
