package main

import (
	"sync"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/statuspage"
)

// reloads remembers how the configuration was last read, for the status page.
type reloads struct {
	mu   sync.Mutex
	last statuspage.Configuration
}

func newReloads(cfg *config.Config) *reloads {
	return &reloads{last: statuspage.Configuration{Warnings: cfg.Warnings}}
}

func (r *reloads) status() statuspage.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *reloads) applied(cfg *config.Config, needsRestart []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = statuspage.Configuration{Warnings: cfg.Warnings, Read: time.Now(), NeedsRestart: needsRestart}
}

// failed notes that what was read is not in force.
func (r *reloads) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Read, r.last.Err = time.Now(), err
}

// recovered notes that what is in force is valid again, after failed.
func (r *reloads) recovered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Read, r.last.Err = time.Now(), nil
}
