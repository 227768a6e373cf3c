package main

import (
	"context"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// database is a vault in PostgreSQL or MySQL: the store of package sqlvault, which only sql.go may
// link.
type database interface {
	vault.Store
	Check(context.Context) error
	Durability(context.Context) (problem string, err error)
	Close() error
}

// openSQL opens such a vault without I/O. It is nil in a program that was built without the tag sql,
// because the drivers are large: sql.go sets it.
var openSQL func(url secret.String) (database, error)

// noSQL is the error of a vault in a database for a program without openSQL.
const noSQL = "this program was built without vaults in PostgreSQL and MySQL: build it with -tags sql"
