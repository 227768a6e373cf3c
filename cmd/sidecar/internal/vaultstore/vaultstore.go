// Package vaultstore opens where the configuration keeps the records of the vault: in Redis, or in
// PostgreSQL or MySQL. The drivers of these are large, so only a program that was built with the
// tag sql has them.
package vaultstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// Store is a store that can say whether it may lose what it keeps.
type Store interface {
	vault.Store
	// Durability says why the records of a platform may be lost, "" if they are safe, and whether
	// that is sure. The error is that of a store that gave no answer, or is not as it must be.
	Durability(ctx context.Context, platform string) (problem string, sure bool, err error)
	// Close frees what Open made.
	Close() error
}

// Open opens the store of the configuration without I/O. rdb is its Redis, which the caller closes.
func Open(cfg *config.Config, rdb redis.UniversalClient) (Store, error) {
	if cfg.Vault.URL.Empty() {
		return inRedis{vault.NewRedis(rdb, cfg.Namespace, cfg.Redis.Secrets()...)}, nil
	}
	if openSQL == nil {
		return nil, errNoSQL
	}
	db, err := openSQL(cfg.Vault.URL)
	if err != nil {
		return nil, fmt.Errorf("vault.url_file: %w", err)
	}
	return inDatabase{db}, nil
}

// Schema returns the statements that create what the configured vault needs. It does no I/O.
func Schema(cfg *config.Config) (string, error) {
	switch {
	case cfg.Vault.URL.Empty():
		return "", errors.New("the vault is in Redis, which needs no schema: vault.url_file names a database")
	case schemaSQL == nil:
		return "", errNoSQL
	}
	return schemaSQL(cfg.Vault.URL)
}

// sql.go sets these in a program with the tag sql. Else they are nil.
var (
	openSQL   func(url secret.String) (database, error)
	schemaSQL func(url secret.String) (string, error)
)

var errNoSQL = errors.New("vault.url_file: this program was built without vaults in PostgreSQL and MySQL: take the image whose tag ends with -sql, or build it with -tags sql")

// database is the store of package sqlvault.
type database interface {
	vault.Store
	Check(context.Context) error
	Durability(context.Context) (problem string, err error)
	Close() error
}

type inDatabase struct{ database }

func (d inDatabase) Durability(ctx context.Context, _ string) (problem string, sure bool, err error) {
	if err := d.Check(ctx); err != nil {
		return "", false, err
	}
	problem, err = d.database.Durability(ctx)
	return problem, true, err
}

type inRedis struct{ *vault.Redis }

func (r inRedis) Durability(ctx context.Context, platform string) (problem string, sure bool, err error) {
	d, err := r.Check(ctx, platform)
	return d.String(), d.Unknown == nil, err
}

func (inRedis) Close() error { return nil }
