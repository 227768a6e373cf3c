package platform

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// Imported is what [Platform.Import] made of a record.
type Imported string

// The outcomes of an import.
const (
	ImportAdded     Imported = "added"
	ImportReplaced  Imported = "replaced"  // the vault had an older one
	ImportUnchanged Imported = "unchanged" // the vault has the same secret
	ImportKept      Imported = "kept"      // the vault has another one, which is not older
)

// loadsAtOnce is how many records an import loads at once.
const loadsAtOnce = 16

// Import puts up to 500 authorizers of a backup or of another program into the vault, unless the
// vault has something that is as new or newer. An empty secret replaces none. A dry import changes
// nothing and returns what one would do. Outcomes and errors are in the order of the records, whose
// IDs differ. An error is the vault's or Redis': then the call can be repeated.
func (p *Platform) Import(ctx context.Context, records []vault.Record, dry bool) (what []Imported, errs []error) {
	before, unread := make([]vault.Record, len(records)), make([]error, len(records))
	what = make([]Imported, len(records))
	loads, loading := errgroup.WithContext(ctx)
	loads.SetLimit(loadsAtOnce)
	for i, a := range records {
		loads.Go(func() error {
			before[i], unread[i] = p.o.Vault.Load(loading, p.o.ID, a.ID)
			if errors.Is(unread[i], vault.ErrSealed) {
				return nil // it holds up no other
			}
			return unread[i] // the vault is away, so the others need not wait for it
		})
	}
	_ = loads.Wait() // each record has its own error
	errs = p.changeAll(ctx, before, func(i int, r vault.Record) (next vault.Record, changed bool) {
		if unread[i] != nil {
			return r, false
		}
		next, what[i] = imported(records[i], r)
		return next, !dry && (what[i] == ImportAdded || what[i] == ImportReplaced)
	})
	var revokes errgroup.Group
	revokes.SetLimit(revokesAtOnce)
	for i, a := range records {
		revokes.Go(func() error {
			errs[i] = cmp.Or(unread[i], errs[i])
			if errs[i] == nil && !dry && what[i] != ImportKept {
				// Also if it is unchanged: the call that wrote it may have ended before this.
				errs[i] = p.revoke(ctx, a.ID)
			}
			return nil
		})
	}
	_ = revokes.Wait()
	return what, errs
}

// imported returns what the vault should have instead of r after a was imported, and why.
func imported(a, r vault.Record) (next vault.Record, what Imported) {
	next = a
	next.Rev = r.Rev
	switch {
	case r.Rev == 0:
		return next, ImportAdded
	case a.Order > r.Order:
		if next.Secret.Empty() {
			next.Secret = r.Secret
		}
		return next, ImportReplaced
	case a.Secret.Equal(r.Secret):
		return r, ImportUnchanged
	}
	return r, ImportKept
}

// Forget ends an authorisation because a person says so: its secret is erased, and its tokens are
// taken back from every replica. It returns the state of before. The error is
// [apps.ErrNotAuthorized] if the vault has no such authorizer, or the vault's or Redis': then the
// call can be repeated.
//
// WeChat does not learn of it, and goes on listing the account. So the record gets the time of now
// as its order: only a later authorisation replaces it.
func (p *Platform) Forget(ctx context.Context, authorizer string) (was vault.State, err error) {
	err = p.change(ctx, authorizer, func(r vault.Record) (vault.Record, bool) {
		if was = r.State; r.Rev == 0 {
			return r, false
		}
		return vault.Record{Platform: r.Platform, ID: r.ID, State: vault.StateWithdrawn, Order: max(r.Order, time.Now().Unix()), Rev: r.Rev}, true
	})
	switch {
	case err != nil:
		return was, err
	case was == "":
		return was, apps.ErrNotAuthorized
	}
	return was, p.revoke(ctx, authorizer)
}

// Recover compares the vault with WeChat's list now. The error is WeChat's or the vault's. On WeCom,
// which has no such list, it does nothing but erase what ended a day ago.
func (p *Platform) Recover(ctx context.Context) error {
	marker, err := p.o.Vault.Load(ctx, p.o.ID, vault.Marker)
	if err != nil {
		return err
	}
	if p.o.Kind == OpenPlatform {
		if err := p.reconcile(ctx); err != nil {
			return err
		}
	}
	if err := p.erase(ctx); err != nil {
		return err
	}
	marker.State = vault.StateDone
	if _, err = p.o.Vault.Save(ctx, marker); errors.Is(err, vault.ErrConflict) {
		return nil // a replica has noted it
	}
	return err
}

// retriesAtOnce is how many authorizers [Platform.RetryRefused] tries at a time.
const retriesAtOnce = 8

// RetryRefused fetches the token of each authorizer that WeChat has rejected, without the wait of
// the replicas, which get the token as well. It calls report with each of them, one at a time, and
// with the reason if it is still refused. The error is the vault's.
func (p *Platform) RetryRefused(ctx context.Context, report func(authorizer string, err error)) error {
	var refused []string
	err := p.eachKept(ctx, func(r vault.Record) error {
		if r.State == vault.StateRefused {
			refused = append(refused, r.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(retriesAtOnce)
	var mu sync.Mutex
	for _, authorizer := range refused {
		g.Go(func() error {
			err := p.retry(ctx, authorizer)
			mu.Lock()
			defer mu.Unlock()
			report(authorizer, err)
			return nil
		})
	}
	return g.Wait()
}

// retry fetches the token of one authorizer. The error is nil if WeChat accepts its secret again.
func (p *Platform) retry(ctx context.Context, authorizer string) error {
	key := p.authorizerKey(authorizer)
	if err := p.o.Cache.Retry(ctx, key); err != nil {
		return err
	}
	spec, err := p.Credential(ctx, authorizer, key.Kind)
	if err != nil {
		return err
	}
	if err := p.o.Cache.Add(spec); err != nil {
		return err
	}
	// A token that is due for renewal can still live, and says nothing of the secret.
	_, failed := p.o.Cache.GetAtLeast(ctx, key, source.ClassicRenewLeft)
	r, err := p.o.Vault.Load(ctx, p.o.ID, authorizer)
	switch {
	case err != nil:
		return err
	case r.State == vault.StateRefused && failed == nil:
		return ErrRefused
	case r.State == vault.StateRefused:
		return failed
	}
	return nil
}
