package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/callback"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/vaultstore"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// openPlatforms makes the third-party platforms of the configuration, and checks the vault that
// they need.
func (s *sidecar) openPlatforms(cfg *config.Config, registry prometheus.Registerer) error {
	if len(cfg.Platforms) == 0 {
		return nil
	}
	var ids []string // of those that have accounts, and so pushes and secrets
	for _, c := range cfg.Platforms {
		if c.HasAccounts() {
			ids = append(ids, c.ID)
		}
	}
	s.metrics.Together(s.ofPlatform)
	metrics := observe.NewPlatformMetrics(registry, ids, s.platformStatus)
	// A client of their own: a save waits for the disk, and holds its connection. The cache takes a wait
	// for a connection for a Redis that is away.
	client, err := redisclient.Connect(cfg.Redis)
	if err != nil {
		return err
	}
	s.closeVault = client.Close
	var store vaultstore.Store
	var kept *vault.Vault
	if len(ids) > 0 {
		if store, err = vaultstore.Open(cfg, client); err != nil {
			return err
		}
		s.closeVault = func() error { return errors.Join(store.Close(), client.Close()) }
		kept = vault.New(metrics.Vault(store), cfg.Vault.Keys)
	}
	pushes := callback.Options{Panicked: s.metrics.Panicked, Log: s.log, Observe: func(id string, d callback.Door, r callback.Result) {
		metrics.Callback(id, string(d), string(r))
	}}
	for _, c := range cfg.Platforms {
		o := platform.Configured(cfg, c)
		o.Vault, o.Cache, o.Redis, o.Log, o.Observe = kept, s.cache, client, s.log, metrics.Observe
		p, err := platform.New(o)
		if err != nil {
			return err
		}
		s.platforms = append(s.platforms, p)
		if !p.HasAccounts() {
			continue
		}
		pushes.Platforms = append(pushes.Platforms, callback.Platform{Platform: p, Alias: c.Alias, Forward: c.Forward})
		if err := s.checkVault(store, kept, c, cfg.Vault.Volatile); err != nil {
			return err
		}
	}
	s.callback = callback.New(pushes)
	return nil
}

// checkTime bounds the look at a vault at the start. A Redis that is away is waited for later.
const checkTime = 3 * time.Second

// checkVault refuses a vault that the keys do not open, and one that would lose what a suite cannot
// get again.
func (s *sidecar) checkVault(store vaultstore.Store, kept *vault.Vault, c config.ThirdParty, volatile bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	for _, id := range []string{vault.Ticket, vault.Marker} {
		if _, err := kept.Load(ctx, c.ID, id); errors.Is(err, vault.ErrSealed) {
			return fmt.Errorf("platform %s: vault.key_file: %w", c.ID, err)
		}
	}
	problem, sure, err := store.Durability(ctx, c.ID)
	switch {
	case err != nil:
		s.log.Error("the vault cannot be checked", zap.String("platform", c.ID), zap.Error(err))
	case problem == "":
	case sure && c.Kind != config.KindOpenPlatform && !volatile:
		return fmt.Errorf("platform %s: %s; WeCom gives a permanent code only once, so each corp would have to install again. To accept that, set vault.volatile: true", c.ID, problem)
	default:
		s.log.Warn("the vault may lose what it keeps", zap.String("platform", c.ID), zap.String("why", problem))
	}
	return nil
}

// missing returns the credential that a caller asks for and the configuration does not name: a
// ticket, or what belongs to an account that authorised a platform.
func (s *sidecar) missing(ctx context.Context, k tokencache.Key) (tokencache.Credential, error) {
	if p, authorizer := s.parent(k.App); p != nil {
		return p.Credential(ctx, authorizer, k.Kind)
	}
	spec, ok := source.WeChat{}.OnDemand(s.live.Load().configured, k, s.cache)
	if !ok {
		return spec, tokencache.ErrUnknown
	}
	return spec, nil
}

// platformStatus returns what is known of each platform that has accounts.
func (s *sidecar) platformStatus() []platform.Status {
	var all []platform.Status
	for _, p := range s.platforms {
		if p.HasAccounts() {
			all = append(all, p.Status())
		}
	}
	return all
}

// ofPlatform returns the key of the series that all accounts of a platform share. Its app is no
// platform's, so that an alert can tell what concerns one account of many from what concerns them
// all.
func (s *sidecar) ofPlatform(k tokencache.Key) tokencache.Key {
	if p, _ := s.parent(k.App); p != nil {
		k.App = p.ID() + observe.Accounts
	}
	return k
}

// parent returns the platform of which an app is an account, and the account's id; nil if the app
// is none. A provider has none: what follows its corpid is an agent.
func (s *sidecar) parent(app string) (*platform.Platform, string) {
	id, account, _ := strings.Cut(app, ":")
	if p := s.platform(id); p != nil && account != "" && p.HasAccounts() {
		return p, account
	}
	return nil, ""
}

// platform returns the platform with this id, or nil.
func (s *sidecar) platform(id string) *platform.Platform {
	for _, p := range s.platforms {
		if p.ID() == id {
			return p
		}
	}
	return nil
}
