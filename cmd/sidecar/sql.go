//go:build sql

package main

import (
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/sqlvault"
)

func init() {
	openSQL = func(url secret.String) (vault.Store, func() error, error) {
		s, err := sqlvault.Open(url)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	}
}
