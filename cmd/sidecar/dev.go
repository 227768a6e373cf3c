//go:build dev

package main

import (
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dev"
)

func init() {
	startDev = func(o config.Overrides, getenv func(string) string) (devMode, error) { return dev.Start(o, getenv) }
}
