package platform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// codeInfo is what a code's record says besides the code.
type codeInfo struct {
	// Authorizer is the account that a push named, or whose authorisation the exchange brought.
	Authorizer string `json:"authorizer,omitempty"`
	// Pushed says that the record's order is a push's. A code from a redirect has none.
	Pushed bool `json:"pushed,omitempty"`
}

func infoOf(r vault.Record) (i codeInfo) {
	_ = json.Unmarshal(r.Info, &i) // what cannot be read names no account
	return i
}

// accountInfo is what an authorizer's record says besides the secret.
type accountInfo struct {
	// Code is the ID of the code whose exchange brought the secret: a replica that takes an exchange
	// over finds out that its secret was saved.
	Code string `json:"code,omitempty"`
	// Said is what WeChat said of the authorisation, if it is short enough.
	Said json.RawMessage `json:"said,omitempty"`
}

// mostSaid keeps an accountInfo below the 4 KiB that a record can have.
const mostSaid = 3 << 10

func newAccountInfo(code string, said []byte) []byte {
	if !json.Valid(said) {
		said = nil
	}
	info, _ := json.Marshal(accountInfo{code, bounded(said)}) // a text and valid JSON: cannot fail
	return info
}

// bounded leaves out the longest members of what is too long to be kept. What is no object is
// dropped.
func bounded(said []byte) []byte {
	for len(said) > mostSaid {
		var members map[string]json.RawMessage
		if json.Unmarshal(said, &members) != nil || len(members) == 0 {
			return nil
		}
		longest := ""
		for name, value := range members {
			if len(value) >= len(members[longest]) {
				longest = name
			}
		}
		delete(members, longest)
		said, _ = json.Marshal(members) // they were decoded: cannot fail
	}
	return said
}

// Outcome is what became of a code.
type Outcome struct {
	State      vault.State
	Authorizer string // empty: not known yet
}

// ExchangeTime is how long a call waits for [Platform.Exchange]. Then the caller has to ask again.
const ExchangeTime = 5 * time.Second

// Exchange takes a code that came by the redirect of the browser, and waits for what becomes of it
// until ctx ends: then the state is received or sent, and the work goes on. The error is the
// vault's.
func (p *Platform) Exchange(ctx context.Context, code secret.String) (Outcome, error) {
	id := vault.CodeID(code)
	err := p.change(ctx, id, func(r vault.Record) (vault.Record, bool) {
		if r.Rev > 0 {
			return r, false
		}
		r.State, r.Secret = vault.StateReceived, code
		return r, true
	})
	if err != nil {
		return Outcome{}, err
	}
	for {
		wait := 200 * time.Millisecond // until another replica has done it
		if err := p.finishFor(ctx, id); err != nil && !errors.Is(err, lock.ErrHeld) && ctx.Err() == nil {
			wait = 2 * time.Second // WeChat is not asked again at once
			p.o.Log.Warn("code not exchanged yet", zap.String("platform", p.o.ID), zap.Error(err))
		}
		r, err := p.o.Vault.Load(context.WithoutCancel(ctx), p.o.ID, id)
		if err != nil {
			return Outcome{}, err
		}
		if r.State == vault.StateDone || r.State == vault.StateLost || !sleep(ctx, wait) {
			return Outcome{r.State, infoOf(r).Authorizer}, nil
		}
	}
}

// enqueue has this replica exchange a code. While too many wait, or if this replica ends, another
// one finds it.
func (p *Platform) enqueue(id string) {
	select {
	case p.work <- id:
	default:
	}
}

// finishFor is finish for a caller that waits until ctx ends. What it has begun goes on afterwards,
// and Run waits for that.
func (p *Platform) finishFor(ctx context.Context, id string) error {
	select {
	case p.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-p.room }()
		done <- p.finish(ctx, id)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish exchanges one code, under its lease. The error is [lock.ErrHeld] if another replica does.
func (p *Platform) finish(ctx context.Context, id string) error {
	lease, err := p.lease(ctx, id, leaseTime)
	if err != nil {
		return err
	}
	// Detached from ctx: a code is not left half exchanged because its caller hung up.
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestCall)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastCall, cancel) })()
	defer func() { _ = lease.Release(own) }() // it ends by itself
	r, err := p.o.Vault.Load(own, p.o.ID, id)
	if err != nil || r.Rev == 0 || r.State == vault.StateDone || r.State == vault.StateLost {
		return err
	}
	via := "redirect"
	if infoOf(r).Pushed {
		via = "push"
	}
	label, err := p.exchange(own, r)
	p.o.Observe(Event{Platform: p.o.ID, What: EventExchange, Label: label, Via: via, Err: err})
	return err
}

// exchange turns a code into a durable secret, and says how that ended. Each step is one that a
// crash after it can be mended from:
//
//  1. A newer event of the account makes the code worthless: nothing is called.
//  2. The code is marked as sent, which also proves that the vault takes writes before the code is
//     spent.
//  3. The call. After an unclear answer once more; if the code is then spent, the first call went
//     through, and WeChat is asked for the secret.
//  4. The account's secret is saved.
//  5. What was fetched with an earlier secret is taken back.
//  6. The code is done.
func (p *Platform) exchange(ctx context.Context, r vault.Record) (label string, err error) {
	info := infoOf(r)
	if stale, err := p.overtaken(ctx, r, info); err != nil || stale {
		if err == nil {
			err = p.close(ctx, r, vault.StateDone, info.Authorizer)
		}
		return "skipped", err
	}
	again := r.State == vault.StateSent
	r.State = vault.StateSent
	if r, err = p.o.Vault.Save(ctx, r); err != nil {
		return "failed", err
	}
	auth, recovered, err := p.spend(ctx, r, info, again)
	if err != nil {
		return p.unexchanged(ctx, r, info, err)
	}
	order := r.Order
	if !info.Pushed && !auth.Date.IsZero() {
		order = auth.Date.Unix() - redirectLead
	}
	if err = p.adopt(ctx, vault.Record{Platform: p.o.ID, ID: auth.Authorizer, State: vault.StateActive, Secret: auth.Secret, Order: order, Info: newAccountInfo(r.ID, auth.Info)}, info.Pushed); err != nil {
		return "failed", err
	}
	if err = p.revoke(ctx, auth.Authorizer); err != nil {
		return "failed", err
	}
	label = "done"
	if recovered {
		label = "recovered"
	}
	return label, p.close(ctx, r, vault.StateDone, auth.Authorizer)
}

// redirectLead is how long before WeChat's answer an authorisation is taken to have happened whose
// code no push brought, in seconds: a withdrawal after it must count.
const redirectLead = 5

// overtaken reports whether the vault has a newer event of the account than the code, or the same
// one: the redirect was faster than the push, or the push comes a second time under another code.
func (p *Platform) overtaken(ctx context.Context, r vault.Record, info codeInfo) (bool, error) {
	if info.Authorizer == "" || !info.Pushed || r.State == vault.StateSent {
		return false, nil
	}
	a, err := p.o.Vault.Load(ctx, p.o.ID, info.Authorizer)
	if err != nil || a.Rev == 0 {
		return false, err
	}
	return a.Order > r.Order || a.Order == r.Order && a.State == vault.StateActive, nil
}

// spend makes the call, and finds out what became of one whose answer was lost.
func (p *Platform) spend(ctx context.Context, r vault.Record, info codeInfo, again bool) (auth wechat.Authorization, recovered bool, err error) {
	call := func() (wechat.Authorization, error) {
		return withToken(ctx, p, func(token secret.String) (wechat.Authorization, error) {
			return p.dialect.exchange(ctx, token, r.Secret)
		})
	}
	auth, err = call()
	e, ok := errors.AsType[*wechat.Error](err)
	if ok && e.MayHaveIssued() {
		again = true
		if !sleep(ctx, 2*time.Second) {
			return auth, false, err
		}
		auth, err = call()
		e, ok = errors.AsType[*wechat.Error](err)
	}
	if !again || !ok || !e.BadCode() {
		return auth, false, err
	}
	auth, err = p.recall(ctx, r.ID, info.Authorizer)
	return auth, true, err
}

// errGone says that a code was spent and what it was for cannot be had again.
var errGone = errors.New("the code was exchanged, and its answer is lost")

// recall finds out what the exchange of a code has brought: from WeChat, or from the vault, if the
// replica that exchanged it ended after it had saved that.
func (p *Platform) recall(ctx context.Context, code, authorizer string) (auth wechat.Authorization, err error) {
	if authorizer != "" {
		auth, err = withToken(ctx, p, func(token secret.String) (wechat.Authorization, error) {
			return p.dialect.recall(ctx, token, authorizer)
		})
		if errors.Is(err, errNeverAgain) {
			return auth, errGone
		}
		return auth, err
	}
	err = p.eachKept(ctx, func(r vault.Record) error {
		var info accountInfo
		if json.Unmarshal(r.Info, &info) == nil && info.Code == code {
			auth = wechat.Authorization{Authorizer: r.ID, Secret: r.Secret, Info: info.Said, Date: time.Unix(r.Order+redirectLead, 0)}
		}
		return nil
	})
	if err != nil || auth.Authorizer != "" {
		return auth, err
	}
	newest := wechat.ListedAuthorizer{}
	err = p.eachPage(ctx, func(page []wechat.ListedAuthorizer) {
		for _, a := range page {
			if a.AuthTime > newest.AuthTime && !a.RefreshToken.Empty() {
				newest = a
			}
		}
	})
	switch {
	case errors.Is(err, errNeverAgain), err == nil && newest.Authorizer == "":
		return wechat.Authorization{}, errGone
	case err != nil:
		return wechat.Authorization{}, err
	}
	return wechat.Authorization{Authorizer: newest.Authorizer, Secret: newest.RefreshToken, Date: time.Unix(newest.AuthTime+redirectLead, 0)}, nil
}

// unexchanged deals with a code that brought nothing.
func (p *Platform) unexchanged(ctx context.Context, r vault.Record, info codeInfo, err error) (label string, _ error) {
	e, ok := errors.AsType[*wechat.Error](err)
	switch {
	case errors.Is(err, errGone):
		p.o.Log.Error("an authorisation is lost: the customer must authorise again", zap.String("platform", p.o.ID),
			zap.String("authorizer", cmp.Or(info.Authorizer, "not known")), zap.Time("at", time.Unix(r.Order, 0)))
		return "lost", p.close(ctx, r, vault.StateLost, info.Authorizer)
	case ok && e.BadCode():
		p.o.Log.Warn("WeChat does not accept a code: it has expired, or was exchanged by another program", zap.String("platform", p.o.ID),
			zap.String("authorizer", cmp.Or(info.Authorizer, "not known")), zap.Error(err))
		return "failed", p.close(ctx, r, vault.StateLost, info.Authorizer)
	}
	return "failed", err // and tried again
}

// close ends the life of a code. Its record makes every repeat a no-op.
func (p *Platform) close(ctx context.Context, r vault.Record, state vault.State, authorizer string) error {
	r.State, r.Secret = state, secret.String{}
	r.Info, _ = json.Marshal(codeInfo{Authorizer: authorizer, Pushed: infoOf(r).Pushed}) // texts: cannot fail
	_, err := p.o.Vault.Save(ctx, r)
	return err
}

// adopt saves what WeChat says of an authorizer, unless the vault has something newer. An empty
// secret replaces none. Without a push's order, only a withdrawal is known to be newer: of two
// codes of one authorisation, the second exchange can void what the first one brought.
func (p *Platform) adopt(ctx context.Context, auth vault.Record, pushed bool) error {
	return p.change(ctx, auth.ID, func(r vault.Record) (vault.Record, bool) {
		if r.Order > auth.Order && auth.Order != 0 && (pushed || r.State == vault.StateWithdrawn) {
			return r, false
		}
		next := auth
		next.Rev, next.Order = r.Rev, max(r.Order, auth.Order)
		if next.Secret.Empty() {
			next.Secret = r.Secret
		}
		return next, true
	})
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
