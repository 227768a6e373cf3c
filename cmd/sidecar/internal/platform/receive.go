package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Received is what a push said, for the app that passed it on.
type Received struct {
	// InfoType is what it is about; Authorizer and Order are as of [wechat.Push].
	InfoType, Authorizer string
	Order                int64
	// Event is the decrypted push, if it means nothing here: the app may know it. Else nil.
	Event []byte
}

// ErrMessage is the error of a push that WeChat has sent, and that is no event of the platform: a
// message or an event of an account, which the app may know.
var ErrMessage = errors.New("platform: the push is a message of an account, and no event of the platform")

// Echo answers the check of the callback's address. The error is one of the envelope's.
func (p *Platform) Echo(query url.Values) ([]byte, error) { return p.o.Echo.Echo(query) }

// Receive takes a push as it came: the query of its address and its body. When it returns no error,
// what the push says is stored, and the answer to the sender is success. It calls neither WeChat
// nor anything slow but the vault: ctx bounds that.
//
// The error is one of the envelope's, or [wechat.ErrPush]: then the push is forged, or for another
// receiver. [ErrMessage] is not forged, and for the app. Any other error is the vault's: the sender
// must come again.
func (p *Platform) Receive(ctx context.Context, query url.Values, body []byte) (Received, error) {
	message, push, err := p.open(query, body)
	if err == ErrMessage {
		p.observe(EventPush, "message", nil)
		return Received{}, err
	}
	if err != nil {
		p.observe(EventPush, "other", err)
		return Received{}, err
	}
	got := Received{InfoType: push.InfoType, Authorizer: push.Authorizer, Order: push.Order}
	label := push.InfoType
	switch push.InfoType {
	case wechat.PushTicket, wechat.PushSuiteTicket:
		err = p.receiveTicket(ctx, push)
	case wechat.PushAuthorized, wechat.PushUpdated, wechat.PushCreateAuth, wechat.PushPermanentCode, wechat.PushChangeAuth:
		err = p.receiveCode(ctx, push)
	case wechat.PushUnauthorized, wechat.PushCancelAuth:
		err = p.receiveWithdrawal(ctx, push)
	default:
		got.Event, label = message, "other"
	}
	p.observe(EventPush, label, err)
	return got, err
}

// open opens a push that is for this platform.
func (p *Platform) open(query url.Values, body []byte) (message []byte, push wechat.Push, err error) {
	opened, err := p.o.Envelope.Open(query, body)
	if errors.Is(err, wechat.ErrReceiver) && p.o.Kind != OpenPlatform {
		return nil, push, ErrMessage // it is signed, and what a corp's users send has the corp for its receiver
	}
	if err != nil {
		return nil, push, err
	}
	push, err = wechat.ParsePush(opened.Message)
	switch {
	case err != nil && opened.Sender != p.o.ID:
		return nil, push, ErrMessage
	case err != nil:
		return nil, push, err
	}
	if opened.Sender != p.o.ID || push.Platform != p.o.ID {
		return nil, push, wechat.ErrReceiver
	}
	return opened.Message, push, nil
}

// receiveTicket stores a ticket that is newer than the one that is there. Two of one second cannot
// be ordered, so the later arrival counts.
func (p *Platform) receiveTicket(ctx context.Context, push wechat.Push) error {
	if push.Ticket.Empty() {
		return wechat.ErrPush
	}
	isNew := false
	err := p.change(ctx, vault.Ticket, func(r vault.Record) (vault.Record, bool) {
		isNew = push.Order > r.Order || push.Order == r.Order && !push.Ticket.Equal(r.Secret)
		if !isNew {
			return r, false
		}
		r.State, r.Secret, r.Order = vault.StateReceived, push.Ticket, push.Order
		return r, true
	})
	if err != nil {
		return err
	}
	if isNew {
		p.see(func(v *view) { v.ticketFrom = time.Now() })
	}
	if p.needsToken() {
		p.retryToken(ctx)
	}
	return nil
}

// needsToken reports whether this replica has no good token of the platform's own.
func (p *Platform) needsToken() bool {
	_, well := p.o.Cache.Fresh(p.TokenKey(), 0)
	return !well
}

// retryToken ends the backoff of the platform's own token: what failed for want of a ticket need not
// wait any longer than for the next one.
func (p *Platform) retryToken(ctx context.Context) {
	if err := p.o.Cache.Retry(ctx, p.TokenKey()); err != nil {
		p.o.Log.Debug("the backoff of the platform's token stays", zap.String("platform", p.o.ID), zap.Error(err))
	}
}

// useTicket ends the backoff of the platform's own token once for each ticket: the replica that stored
// it may have ended before it did that.
func (p *Platform) useTicket(ctx context.Context) {
	if !p.needsToken() {
		return
	}
	r, err := p.o.Vault.Load(ctx, p.o.ID, vault.Ticket)
	if err == nil && r.Rev > 0 && p.once(ctx, "ticket:"+strconv.FormatInt(r.Rev, 10), p.dialect.ticketLife()) {
		p.retryToken(ctx)
	}
}

// receiveCode stores a code, to be exchanged afterwards.
func (p *Platform) receiveCode(ctx context.Context, push wechat.Push) error {
	if push.Code.Empty() {
		return p.receiveChange(ctx, push)
	}
	id := vault.CodeID(push.Code)
	isNew := false
	err := p.change(ctx, id, func(r vault.Record) (vault.Record, bool) {
		if isNew = r.Rev == 0; !isNew {
			return r, false // delivered before
		}
		r.State, r.Secret, r.Order = vault.StateReceived, push.Code, push.Order
		r.Info, _ = json.Marshal(codeInfo{Authorizer: push.Authorizer, Pushed: true}) // texts: cannot fail
		return r, true
	})
	if err == nil && isNew {
		p.enqueue(id)
	}
	return err
}

// receiveChange takes back what was fetched for an account, because a push without a code says that
// its authorisation has changed: then it is fetched again, once for each such push. A record like a
// code's remembers it. The account's own order does not: a code that happened before the change and
// comes after it must still be exchanged.
func (p *Platform) receiveChange(ctx context.Context, push wechat.Push) error {
	if !apps.IsAccount(push.Authorizer) {
		return nil
	}
	a, err := p.o.Vault.Load(ctx, p.o.ID, push.Authorizer)
	if err != nil || a.Rev == 0 || push.Order < a.Order {
		return err // what an older push changed was taken back with the newer one
	}
	id := vault.CodeID(secret.New(fmt.Sprintf("%s %s %d", push.InfoType, push.Authorizer, push.Order)))
	seen, err := p.o.Vault.Load(ctx, p.o.ID, id)
	if err != nil || seen.Rev > 0 {
		return err
	}
	if err := p.revoke(ctx, push.Authorizer); err != nil {
		return err
	}
	return p.change(ctx, id, func(r vault.Record) (vault.Record, bool) {
		r.State, r.Order = vault.StateDone, push.Order
		return r, r.Rev == 0
	})
}

// receiveWithdrawal ends an authorisation, unless it is older than what the vault has. Of the same
// second, either may have come first: the next fetch decides.
func (p *Platform) receiveWithdrawal(ctx context.Context, push wechat.Push) error {
	if !apps.IsAccount(push.Authorizer) {
		return nil
	}
	label := "late"
	err := p.change(ctx, push.Authorizer, func(r vault.Record) (vault.Record, bool) {
		switch label = "withdrawn"; {
		case r.Rev > 0 && push.Order < r.Order:
			label = "late"
			return r, false
		case r.Rev > 0 && push.Order == r.Order:
			return r, false
		}
		r.State, r.Order = vault.StateWithdrawn, push.Order
		return r, true
	})
	if err == nil && label != "late" {
		err = p.revoke(ctx, push.Authorizer)
		if wechat.IsReleaseTest(push.Authorizer) {
			label = "test"
		}
	}
	p.observe(EventWithdrawn, label, err)
	return err
}

// change loads a record, lets f change it, and saves it if f says so; again, if another replica was
// faster.
func (p *Platform) change(ctx context.Context, id string, f func(vault.Record) (vault.Record, bool)) error {
	for {
		r, err := p.o.Vault.Load(ctx, p.o.ID, id)
		if err != nil {
			return err
		}
		next, changed := f(r)
		if !changed {
			return nil
		}
		if _, err = p.o.Vault.Save(ctx, next); !errors.Is(err, vault.ErrConflict) {
			return err
		}
	}
}

// changeAll is change for many records, which are saved together: so Redis waits for the disk once.
// before are they as they were loaded, and f gets the place of each there. The errors are in that
// order.
func (p *Platform) changeAll(ctx context.Context, before []vault.Record, f func(int, vault.Record) (vault.Record, bool)) []error {
	errs := make([]error, len(before))
	var next []vault.Record
	var places []int
	for i, r := range before {
		if r, changed := f(i, r); changed {
			next, places = append(next, r), append(places, i)
		}
	}
	for n, err := range p.o.Vault.SaveAll(ctx, next) {
		i := places[n]
		if errors.Is(err, vault.ErrConflict) {
			err = p.change(ctx, before[i].ID, func(r vault.Record) (vault.Record, bool) { return f(i, r) })
		}
		errs[i] = err
	}
	return errs
}

// IsForged reports whether an error of [Platform.Receive] or [Platform.Echo] says that the push is
// not from WeChat, or not for this platform: it is of no use to send it again.
func IsForged(err error) bool {
	for _, e := range []error{wechat.ErrSignature, wechat.ErrEnvelope, wechat.ErrDecrypt, wechat.ErrReceiver, wechat.ErrPush} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
