//go:build sql

package vaultstore

import (
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault/sqlvault"
)

func init() {
	openSQL = func(url secret.String) (database, error) { return sqlvault.Open(url) }
	schemaSQL = func(url secret.String) (string, error) {
		kind, err := sqlvault.KindOf(url)
		return sqlvault.Schema(kind), err
	}
}
