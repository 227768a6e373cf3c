package main

import (
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// openSQL opens a vault in PostgreSQL or MySQL without I/O, and returns what closes it. The store
// also has the methods Check and Durability of package sqlvault. It is nil in a program that was
// built without the tag sql, because the drivers are large: sql.go sets it.
var openSQL func(url secret.String) (vault.Store, func() error, error)

// noSQL is the error of a vault in a database for a program without openSQL.
const noSQL = "this program was built without vaults in PostgreSQL and MySQL: build it with -tags sql"
