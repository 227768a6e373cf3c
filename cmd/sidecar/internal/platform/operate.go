package platform

import (
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

// Import puts an authorizer of a backup or of another program into the vault, unless the vault has
// something that is as new or newer. An empty secret replaces none. A dry import changes nothing
// and returns what one would do. The error is the vault's or Redis': then the call can be repeated.
func (p *Platform) Import(ctx context.Context, a vault.Record, dry bool) (what Imported, err error) {
	err = p.change(ctx, a.ID, func(r vault.Record) (vault.Record, bool) {
		next := a
		next.Rev = r.Rev
		switch {
		case r.Rev == 0:
			what = ImportAdded
		case a.Order > r.Order:
			what = ImportReplaced
			if next.Secret.Empty() {
				next.Secret = r.Secret
			}
		case a.Secret.Equal(r.Secret):
			what = ImportUnchanged
		default:
			what = ImportKept
		}
		return next, !dry && (what == ImportAdded || what == ImportReplaced)
	})
	if err == nil && !dry && what != ImportKept {
		// Also if it is unchanged: the call that wrote it may have ended before this.
		err = p.revoke(ctx, a.ID)
	}
	return what, err
}

// Forget ends an authorisation because a person says so: its secret is erased, and its tokens are
// taken back from every replica. It returns the state of before. The error is
// [apps.ErrNotAuthorized] if the vault has no such authorizer, or the vault's or Redis': then the
// call can be repeated.
//
// WeChat is not told, and goes on listing the account. So the record gets the time of now as its
// order: only a later authorisation replaces it.
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
// the replicas, which get the token as well. It calls tell with each of them, one at a time, and
// with the reason if it is still refused. The error is the vault's.
func (p *Platform) RetryRefused(ctx context.Context, tell func(authorizer string, err error)) error {
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
			tell(authorizer, err)
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
