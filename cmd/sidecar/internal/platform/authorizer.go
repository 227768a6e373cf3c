package platform

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Errors of an authorizer's token, as causes of a [tokencache.FetchError].
var (
	ErrWithdrawn    = errors.New("the account has withdrawn the authorisation")
	ErrNoPermission = errors.New("the account authorised no API permission, so it has no token")
	ErrRefused      = errors.New("WeChat rejects the authorisation, and has not told that it was withdrawn")

	errEmptied = errors.New("the vault has lost the account, and WeChat's list has not brought it back yet")
)

// Credential returns the credential of an authorizer that the vault has, for the cache to keep
// while it is asked for: its access token, or a ticket. The error is [apps.ErrNotAuthorized], or
// that of the vault.
func (p *Platform) Credential(ctx context.Context, authorizer, kind string) (tokencache.Credential, error) {
	key := p.authorizerKey(authorizer)
	if kind == key.Kind {
		if err := p.know(ctx, authorizer); err != nil {
			return tokencache.Credential{}, err
		}
		return tokencache.Credential{
			Key: key, Idle: p.o.Idle, Overlap: overlap,
			// What fails for want of the platform's token is tried at once with another secret of it.
			Fingerprint: p.o.Secret.Fingerprint(),
			Source: source.Fetch(func(ctx context.Context, _ tokencache.Request) (tokencache.Value, error) {
				cred, err := p.fetchAuthorizer(ctx, authorizer)
				return source.Value(cred, source.ClassicRenewLeft), err
			}),
		}, nil
	}
	for ticket, k := range p.dialect.tickets() {
		if k == kind {
			spec := source.TicketCredential(source.Ticket{
				Key: tokencache.Key{App: key.App, Kind: kind}, Parent: key, Type: wechat.TicketType(ticket), WeCom: p.o.Kind != OpenPlatform,
			}, p.o.Client, p.o.Cache)
			spec.Idle, spec.Fingerprint = source.TicketIdle, p.o.Secret.Fingerprint()
			return spec, nil
		}
	}
	return tokencache.Credential{}, tokencache.ErrUnknown
}

const (
	// noFor is how long it is remembered that WeChat does not know an id.
	noFor = 5 * time.Minute
	// asksPerMinute bounds the unknown ids about which the whole cluster asks WeChat.
	asksPerMinute = 10
	// maxUnknown bounds the unknown ids that a replica remembers.
	maxUnknown = 10_000
)

// know returns nil if the account is known to have authorised the platform at some time. WeChat is
// asked about an id that the vault does not have: the authorisation may have been lost.
func (p *Platform) know(ctx context.Context, authorizer string) error {
	if !apps.IsAccount(authorizer) {
		return apps.ErrNotAuthorized
	}
	r, err := p.load(ctx, authorizer)
	if err != nil || r.Rev > 0 {
		return err
	}
	p.mu.Lock()
	no := time.Now().Before(p.unknown[authorizer])
	p.mu.Unlock()
	if no || !p.mayAsk(ctx) {
		return apps.ErrNotAuthorized
	}
	auth, err := withToken(ctx, p, func(token secret.String) (wechat.Authorization, error) {
		return p.dialect.recall(ctx, token, authorizer)
	})
	switch {
	case err == nil && !auth.Secret.Empty():
		return p.adopt(ctx, vault.Record{Platform: p.o.ID, ID: authorizer, State: vault.StateActive, Secret: auth.Secret, Info: newAccountInfo("", auth.Info)}, false)
	case err != nil && !isNo(err):
		return err // it is not known
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unknown) >= maxUnknown {
		clear(p.unknown)
	}
	p.unknown[authorizer] = time.Now().Add(noFor)
	return apps.ErrNotAuthorized
}

// isNo reports whether WeChat has said that it has no secret for an account, and not that it cannot
// say so now.
func isNo(err error) bool {
	e, ok := errors.AsType[*wechat.Error](err)
	return errors.Is(err, errNeverAgain) || ok && e.Code != 0 && (e.Class() == wechat.ClassConfig || e.Class() == wechat.ClassOther)
}

// countInAMinute counts, and begins anew a minute after the first count.
var countInAMinute = redis.NewScript(`
local n = redis.call('INCR', KEYS[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], 60000) end
return n`)

// mayAsk reports whether the cluster may ask WeChat about one more unknown id in this minute.
func (p *Platform) mayAsk(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	key := p.o.Namespace + ":{" + p.o.ID + "}:vault:asked"
	n, err := countInAMinute.Run(ctx, p.o.Redis, []string{key}).Int64()
	return err == nil && n <= asksPerMinute
}

// fetchAuthorizer fetches the token of an authorizer.
func (p *Platform) fetchAuthorizer(ctx context.Context, authorizer string) (wechat.Credential, error) {
	r, err := p.load(ctx, authorizer)
	switch {
	case err != nil:
		return wechat.Credential{}, vaultAway(err)
	case r.Rev == 0:
		// No record is ever deleted, and there was one when the credential was made: the vault was
		// emptied. That ends no authorisation, so what is in memory is served until the list of WeChat
		// brings the record back.
		return wechat.Credential{}, &tokencache.FetchError{Class: tokencache.ClassTransient, Err: errEmptied, Message: errEmptied.Error()}
	case r.State == vault.StateWithdrawn:
		return wechat.Credential{}, ended(ErrWithdrawn)
	case r.Secret.Empty():
		return wechat.Credential{}, ended(ErrNoPermission)
	}
	cred, err := p.refresh(ctx, r)
	e, ok := errors.AsType[*wechat.Error](err)
	if !ok || !e.BadAuthorization() {
		return cred, err
	}
	return p.rejected(ctx, r, err)
}

// ended says that there is no token for good, until an event or a person changes it.
func ended(why error) error {
	return &tokencache.FetchError{Class: tokencache.ClassEnded, Message: why.Error(), Err: why}
}

// refresh fetches a token with the secret of r. A secret that comes back is in the vault before the
// token is handed out.
func (p *Platform) refresh(ctx context.Context, r vault.Record) (wechat.Credential, error) {
	type answer struct {
		cred wechat.Credential
		next secret.String
	}
	ask := func(token secret.String) (answer, error) {
		if err := p.turn(ctx, r.ID); err != nil {
			return answer{}, err
		}
		cred, next, err := p.dialect.authorizerToken(ctx, token, r.ID, r.Secret)
		p.noteQuota(ctx, r.ID, err)
		return answer{cred, next}, err
	}
	var a answer
	var err error
	if p.dialect.needsParent() {
		a, err = withToken(ctx, p, ask)
	} else {
		a, err = ask(secret.String{})
	}
	if err != nil {
		return wechat.Credential{}, err
	}
	changed := !a.next.Empty() && !a.next.Equal(r.Secret)
	if !changed && r.State == vault.StateActive {
		return a.cred, nil
	}
	before := r
	if changed {
		r.Secret = a.next
	}
	r.State = vault.StateActive // it was refused, and is accepted again
	saved, err := p.o.Vault.Save(ctx, r)
	if errors.Is(err, vault.ErrConflict) {
		saved, err = p.saveOverResealed(ctx, before, r)
	}
	switch {
	case err == nil:
		p.remember(saved)
		return a.cred, nil
	case !changed:
		return a.cred, nil // the next refresh saves the state
	case errors.Is(err, vault.ErrConflict):
		p.forget(r.ID) // another event has come meanwhile
	default:
		p.note(memory{r, true})
	}
	return wechat.Credential{}, &tokencache.FetchError{Class: tokencache.ClassTransient, Unclear: true, Err: err,
		Message: "the vault did not keep the new refresh token, so the access token is not used: " + err.Error()}
}

// saveOverResealed saves r although the rev of the record has changed, if only the rev has: while r
// was fetched, a person sealed the records again with a new key. The new secret must not be lost
// for that. The error is [vault.ErrConflict] if more has changed.
func (p *Platform) saveOverResealed(ctx context.Context, before, r vault.Record) (vault.Record, error) {
	now, err := p.o.Vault.Load(ctx, p.o.ID, r.ID)
	switch {
	case err != nil:
		return now, err
	case now.State != before.State || now.Order != before.Order || !now.Secret.Equal(before.Secret):
		return now, vault.ErrConflict
	}
	r.Rev = now.Rev
	return p.o.Vault.Save(ctx, r)
}

const (
	// A refused authorizer is tried again after as long as it has been refused, within these.
	refusedAtLeast = 5 * time.Minute
	refusedAtMost  = time.Hour
)

// rejected deals with a secret that WeChat does not accept. WeChat may have another one, which this
// cluster has missed. It never ends the authorisation: the same code comes from outages.
func (p *Platform) rejected(ctx context.Context, r vault.Record, cause error) (wechat.Credential, error) {
	auth, err := withToken(ctx, p, func(token secret.String) (wechat.Authorization, error) {
		return p.dialect.recall(ctx, token, r.ID)
	})
	if err == nil && !auth.Secret.Empty() && !auth.Secret.Equal(r.Secret) {
		r.Secret, r.State = auth.Secret, vault.StateActive
		saved, err := p.o.Vault.Save(ctx, r)
		if err != nil {
			p.forget(r.ID)
			return wechat.Credential{}, vaultAway(err)
		}
		p.remember(saved)
		p.o.Log.Info("WeChat had another refresh token than the vault, which now has it", zap.String("platform", p.o.ID), zap.String("authorizer", r.ID))
		cred, again := p.refresh(ctx, saved)
		if e, ok := errors.AsType[*wechat.Error](again); again == nil || !ok || !e.BadAuthorization() {
			return cred, again
		}
		r = saved
	}
	wait := refusedAtLeast
	if r.State == vault.StateRefused {
		wait = min(refusedAtMost, max(wait, r.Age))
	} else {
		r.State = vault.StateRefused
		if _, err := p.o.Vault.Save(ctx, r); err == nil {
			p.o.Log.Warn("WeChat rejects an authorisation, and has not told that it was withdrawn; it is tried again", zap.String("platform", p.o.ID),
				zap.String("authorizer", r.ID), zap.Error(cause))
		}
		p.forget(r.ID)
	}
	f := &tokencache.FetchError{Class: tokencache.ClassPermanent, RetryAfter: wait, Err: errors.Join(ErrRefused, cause), Message: ErrRefused.Error()}
	if e, ok := errors.AsType[*wechat.Error](cause); ok {
		f.Code = e.Code
	}
	return wechat.Credential{}, f
}

// load returns the record of an authorizer. While the vault is away, the last one that it gave
// serves: upstream returns the same secret again and again. A secret that could not be saved is
// saved first.
func (p *Platform) load(ctx context.Context, authorizer string) (vault.Record, error) {
	p.mu.Lock()
	known, ok := p.remembered[authorizer]
	p.mu.Unlock()
	r, err := p.o.Vault.Load(ctx, p.o.ID, authorizer)
	switch {
	case err != nil && ok && !known.unsaved && !errors.Is(err, vault.ErrSealed):
		return known.Record, nil
	case err != nil:
		return r, err
	case known.unsaved && known.Rev == r.Rev:
		if r, err = p.o.Vault.Save(ctx, known.Record); err != nil {
			return r, err
		}
	}
	if r.Rev > 0 {
		p.remember(r)
	}
	return r, nil
}

// maxRemembered bounds what is remembered: the accounts that a replica keeps are fewer.
const maxRemembered = 20_000

// memory is a record as the vault last gave it, or as it could not be saved: then nothing that is
// fetched with it may be handed out, and it is saved first thing at the next try.
type memory struct {
	vault.Record
	unsaved bool
}

func (p *Platform) remember(r vault.Record) { p.note(memory{r, false}) }

func (p *Platform) note(r memory) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.remembered) >= maxRemembered {
		for id := range p.remembered { // any one
			delete(p.remembered, id)
			break
		}
	}
	p.remembered[r.ID] = r
}

func (p *Platform) forget(authorizer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.remembered, authorizer)
	delete(p.unknown, authorizer)
}
