package tokencache

import "context"

// Revoke takes back the value of a credential, whether or not this cache keeps it: the secret
// behind it was replaced, or the right to use it has ended. Every replica stops handing the value
// out, as soon as the event arrives, or else with its next look at Redis: see [Options.Reread]. A
// fetch under way is not committed, and what was held against the old secret is forgiven. Then the
// next reader causes a fetch.
//
// It may be called again, and concurrently; ctx bounds it. The error says what is not valid, or is
// a *[StoreError]: then it is not known whether the value was taken back.
func (c *Cache) Revoke(ctx context.Context, k Key) error { return c.change(ctx, k, c.store.revoke) }

// Retry ends the backoff of a credential in the whole cluster: the caller knows that its cause is
// gone. The error is as of [Cache.Revoke].
func (c *Cache) Retry(ctx context.Context, k Key) error { return c.change(ctx, k, c.store.retry) }

// change changes what Redis has of a credential, and looks at the result.
func (c *Cache) change(ctx context.Context, k Key, change func(context.Context, *Credential) error) error {
	if err := k.validate(); err != nil {
		return err
	}
	spec, sl := &Credential{Key: k}, c.lookup(k)
	if sl != nil {
		spec = sl.spec.Load()
	}
	if err := change(ctx, spec); err != nil || sl == nil {
		return err
	}
	_, err := c.load(ctx, sl)
	return err
}

// end drops the value from the memory of this replica, while Redis takes no writes. It does nothing
// if a version later than before has come meanwhile: this replica's fetch hung, B revoked the value
// and fetched another one, and then upstream answered this replica that the earlier right had
// ended.
func (sl *slot) end(before *snapshot) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	old := sl.snapshot.Load()
	if old.version != before.version {
		return
	}
	next := *old
	next.forget(old.version)
	sl.replace(old, &next)
}

// forget drops a value that must not be handed out any more, up to version.
func (v *snapshot) forget(version int64) {
	*v = snapshot{version: version, asOf: v.asOf, confirmed: v.confirmed, past: v.past, young: v.young, spent: v.spent,
		backoff: v.backoff, note: v.note, patience: v.patience}
}
