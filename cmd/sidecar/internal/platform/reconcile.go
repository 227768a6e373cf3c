package platform

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxtoken/sidecar/pkg/lock"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	// leftEvery is how often one replica looks for codes that were left lying.
	leftEvery = 10 * time.Second
	// recoverEvery is how often the vault is compared with WeChat's list.
	recoverEvery = 24 * time.Hour
	// recoverAgain is how soon that is tried again while the vault is empty.
	recoverAgain = 10 * time.Minute
	// eraseAfter is how long the secret of a withdrawn authorisation is kept: until then a wrong order
	// can be mended.
	eraseAfter = 24 * time.Hour
	// pageSize is how many records of the vault are read at once.
	pageSize = 500
)

// Run exchanges the codes that this replica stores, takes over those that another one left lying,
// and keeps the vault in step with WeChat, until ctx ends. For a provider there is nothing to do.
func (p *Platform) Run(ctx context.Context) {
	if !p.HasAccounts() {
		return
	}
	var g sync.WaitGroup
	defer p.waitForCallers()
	defer g.Wait()
	for range workers {
		g.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case id := <-p.work:
					if err := p.finish(ctx, id); err != nil && !errors.Is(err, lock.ErrHeld) {
						p.o.Log.Warn("code not exchanged yet", zap.String("platform", p.o.ID), zap.Error(err))
					}
				}
			}
		})
	}
	_, _ = p.look(ctx) // the error of the next one is logged
	for sleep(ctx, jitter(leftEvery)) {
		p.tidy(ctx)
	}
}

// waitForCallers waits for the exchanges that callers have begun: a code that is sent must not be
// lost because the program ends.
func (p *Platform) waitForCallers() {
	for range cap(p.room) {
		p.room <- struct{}{}
	}
	for range cap(p.room) {
		<-p.room
	}
}

// workers is how many codes a replica exchanges at once: a call to WeChat that hangs holds up one.
const workers = 4

// tidy looks at the vault, and does what only one replica need do.
func (p *Platform) tidy(ctx context.Context) {
	ids, err := p.look(ctx)
	if !p.once(ctx, "tidy", leftEvery) {
		return
	}
	p.useTicket(ctx)
	if err != nil {
		p.o.Log.Warn("the vault does not say what it has", zap.String("platform", p.o.ID), zap.Error(err))
		return
	}
	for _, id := range ids {
		p.enqueue(id)
	}
	marker, err := p.o.Vault.Load(ctx, p.o.ID, vault.Marker)
	if err != nil || marker.Rev > 0 && marker.Age < recoverEvery {
		return
	}
	// Without a token nothing can be compared: then the next look tries, and not one minutes later.
	if token, err := p.o.Cache.Get(ctx, p.TokenKey()); err != nil || token.Rejected || !p.once(ctx, "recover", recoverAgain) {
		return
	}
	own, cancel := context.WithTimeout(ctx, recoverAgain/2)
	defer cancel()
	p.recoverAll(own, marker)
}

// recoverAll compares the vault with WeChat's list, erases what has ended, and notes that it was
// done.
func (p *Platform) recoverAll(ctx context.Context, marker vault.Record) {
	err := p.reconcile(ctx)
	if err != nil && !errors.Is(err, errNeverAgain) {
		p.o.Log.Warn("the vault was not compared with WeChat's list", zap.String("platform", p.o.ID), zap.Error(err))
		return
	}
	if err := p.erase(ctx); err != nil {
		p.o.Log.Warn("what was withdrawn is not erased yet", zap.String("platform", p.o.ID), zap.Error(err))
	}
	marker.State = vault.StateDone
	_, _ = p.o.Vault.Save(ctx, marker) // the next look does it again
}

const (
	// pagesAtOnce is how many pages of WeChat's list are saved at once: each may wait a second for the
	// disk of Redis, and has one connection meanwhile.
	pagesAtOnce = 3
	// revokesAtOnce is how many of a page's accounts are revoked at once.
	revokesAtOnce = 4
)

// reconcile puts into the vault what WeChat's list of authorizers has and the vault lacks, or has
// with another secret of an earlier time. It takes nothing away. The error is WeChat's or the
// vault's; on WeCom there is no such list.
func (p *Platform) reconcile(ctx context.Context) error {
	kept := map[string]vault.Record{}
	if err := p.eachKept(ctx, func(r vault.Record) error { kept[r.ID] = r; return nil }); err != nil {
		return err
	}
	seen := map[string]bool{}
	var pages errgroup.Group
	pages.SetLimit(pagesAtOnce)
	err := p.eachPage(ctx, func(page []wechat.ListedAuthorizer) {
		for _, a := range page {
			seen[a.Authorizer] = true
		}
		pages.Go(func() error { return p.recoverPage(ctx, page, kept) })
	})
	if err = cmp.Or(pages.Wait(), err); err != nil {
		return err
	}
	for id, r := range kept {
		if r.State == vault.StateActive && !seen[id] {
			// It may have hidden behind an entry that left the list meanwhile. Only an event ends it.
			p.observe(EventRecovery, "unlisted", nil)
		}
	}
	return nil
}

// recoverPage compares a page of the list with what the vault kept, and saves together what differs.
// What was fetched with an earlier secret is taken back.
func (p *Platform) recoverPage(ctx context.Context, page []wechat.ListedAuthorizer, kept map[string]vault.Record) error {
	before, labels := make([]vault.Record, len(page)), make([]string, len(page))
	for i, a := range page {
		before[i] = kept[a.Authorizer]
		before[i].ID = a.Authorizer
	}
	errs := p.changeAll(ctx, before, func(i int, r vault.Record) (next vault.Record, changed bool) {
		next, labels[i] = p.compare(page[i], r)
		return next, labels[i] != unchanged
	})
	var g errgroup.Group
	g.SetLimit(revokesAtOnce)
	for i, a := range page {
		g.Go(func() error {
			err := errs[i]
			switch {
			case err != nil:
			case labels[i] == added: // what is in memory, or was fetched since the save, is as good as before
				err = p.endBackoff(ctx, a.Authorizer)
			case labels[i] != unchanged:
				err = p.revoke(ctx, a.Authorizer)
			}
			p.observe(EventRecovery, labels[i], err)
			return err
		})
	}
	return g.Wait()
}

// The labels of what became of an authorizer of the list.
const (
	added     = "added"     // the vault had no record of it
	replaced  = "replaced"  // the vault had an older secret
	unchanged = "unchanged" // the vault has what the list has, or something newer
)

// compare returns what the vault should have of an authorizer of the list instead of r, and why.
func (p *Platform) compare(a wechat.ListedAuthorizer, r vault.Record) (next vault.Record, label string) {
	switch label = replaced; {
	case a.RefreshToken.Empty(), r.Rev > 0 && a.RefreshToken.Equal(r.Secret), r.Rev > 0 && a.AuthTime <= r.Order:
		return r, unchanged
	case r.Rev == 0:
		label = added
	}
	return vault.Record{Platform: p.o.ID, ID: a.Authorizer, State: vault.StateActive, Secret: a.RefreshToken, Order: a.AuthTime, Rev: r.Rev}, label
}

// eachPage calls f for each page of WeChat's list of authorizers; for all of them once more if the
// list changed meanwhile, because an entry that leaves it hides another one.
func (p *Platform) eachPage(ctx context.Context, f func([]wechat.ListedAuthorizer)) error {
	type page struct {
		total int
		list  []wechat.ListedAuthorizer
	}
	for range 2 {
		first, offset := -1, 0
		changed := false
		for {
			got, err := withToken(ctx, p, func(token secret.String) (page, error) {
				total, list, err := p.dialect.list(ctx, token, offset)
				return page{total, list}, err
			})
			if err != nil {
				return err
			}
			if first < 0 {
				first = got.total
			}
			changed = changed || got.total != first
			f(got.list)
			if offset += len(got.list); len(got.list) == 0 || offset >= got.total {
				break
			}
		}
		if !changed {
			break
		}
	}
	return nil
}

// eachKept calls f for each authorizer of the vault.
func (p *Platform) eachKept(ctx context.Context, f func(vault.Record) error) error {
	for after := ""; ; {
		list, err := p.o.Vault.List(ctx, p.o.ID, after, pageSize)
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := f(r); err != nil {
				return err
			}
		}
		if len(list) < pageSize {
			return nil
		}
		after = list[len(list)-1].ID
	}
}

// erase drops the secrets of those that withdrew a day ago. The record stays, so that no late event
// revives it.
func (p *Platform) erase(ctx context.Context) error {
	return p.eachKept(ctx, func(r vault.Record) error {
		if r.State != vault.StateWithdrawn || r.Age < eraseAfter || r.Secret.Empty() && len(r.Info) == 0 {
			return nil
		}
		r.Secret, r.Info = secret.String{}, nil
		if _, err := p.o.Vault.Save(ctx, r); err != nil && !errors.Is(err, vault.ErrConflict) {
			return err
		}
		return nil
	})
}

// Authorizers returns at most n of the accounts that the vault knows, whose ids come after the
// given one in byte order.
func (p *Platform) Authorizers(ctx context.Context, after string, n int) ([]vault.Record, error) {
	return p.o.Vault.List(ctx, p.o.ID, after, n)
}
