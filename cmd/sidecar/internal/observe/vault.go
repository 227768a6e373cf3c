package observe

import (
	"context"
	"errors"
	"time"

	"github.com/wxtoken/sidecar/pkg/vault"
)

// Operations of a [vault.Store], as labels.
const (
	opLoad  = "load"
	opSave  = "save"
	opList  = "list"
	opCodes = "codes"
)

// Vault returns a store that is s, and whose operations are counted.
func (m *PlatformMetrics) Vault(s vault.Store) vault.Store { return countedStore{s, m} }

// countedStore is a store whose operations are counted.
type countedStore struct {
	store vault.Store
	m     *PlatformMetrics
}

// isVaultFault reports whether an operation failed by the vault's fault: not because another replica
// was faster, or because the caller hung up.
func isVaultFault(err error) bool {
	return err != nil && !errors.Is(err, vault.ErrConflict) && !errors.Is(err, context.Canceled)
}

func (c countedStore) Load(ctx context.Context, platform, id string) (vault.Row, error) {
	begun := time.Now()
	row, err := c.store.Load(ctx, platform, id)
	c.m.since(opLoad, begun, err)
	return row, err
}

func (c countedStore) Save(ctx context.Context, r vault.Row) (int64, error) {
	begun := time.Now()
	rev, err := c.store.Save(ctx, r)
	c.m.since(opSave, begun, err)
	return rev, err
}

func (c countedStore) SaveAll(ctx context.Context, rows []vault.Row) []error {
	begun := time.Now()
	errs := c.store.SaveAll(ctx, rows)
	for _, err := range errs {
		c.m.since(opSave, begun, err)
	}
	return errs
}

func (c countedStore) List(ctx context.Context, platform, after string, n int) ([]vault.Row, error) {
	begun := time.Now()
	rows, err := c.store.List(ctx, platform, after, n)
	c.m.since(opList, begun, err)
	return rows, err
}

func (c countedStore) Codes(ctx context.Context, platform string) ([]string, error) {
	begun := time.Now()
	ids, err := c.store.Codes(ctx, platform)
	c.m.since(opCodes, begun, err)
	return ids, err
}
