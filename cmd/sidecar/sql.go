//go:build sql

package main

import (
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault/sqlvault"
)

func init() {
	openSQL = func(url secret.String) (database, error) { return sqlvault.Open(url) }
}
