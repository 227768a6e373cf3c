package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// openPlatforms makes the third-party platforms of the configuration, and checks the vault that
// they need.
func (s *sidecar) openPlatforms(cfg *config.Config, registry prometheus.Registerer) error {
	if len(cfg.Platforms) == 0 {
		return nil
	}
	var ids []string
	for _, c := range cfg.Platforms {
		ids = append(ids, c.ID)
	}
	s.platformMetrics = observe.NewPlatformMetrics(registry, ids, func(id string) (time.Duration, bool) { return s.platform(id).TicketAge() })
	store, err := s.openVault(cfg)
	if err != nil {
		return err
	}
	kept := vault.New(store, cfg.Vault.Keys)
	for _, c := range cfg.Platforms {
		p, err := platform.New(platform.Options{
			ID: c.ID, Kind: platform.Kind(c.Kind), Secret: c.Secret, Envelope: c.Envelope, Echo: c.Echo, Idle: c.Idle,
			Client: &wechat.Client{BaseURL: c.APIBase}, Vault: kept, Cache: s.cache, Redis: s.redis, Namespace: cfg.Namespace,
			Log: s.log, Observe: s.observePlatform,
		})
		if err != nil {
			return err
		}
		s.platforms = append(s.platforms, p)
		if err := s.checkVault(store, kept, c, cfg.Vault.Volatile); err != nil {
			return err
		}
	}
	return nil
}

// openVault returns where the configuration keeps secrets.
func (s *sidecar) openVault(cfg *config.Config) (vault.Store, error) {
	switch {
	case cfg.Vault.URL.Empty():
		return vault.NewRedis(s.redis, cfg.Namespace), nil
	case openSQL == nil:
		return nil, errors.New("vault.url_file: " + noSQL)
	}
	store, closeStore, err := openSQL(cfg.Vault.URL)
	if err != nil {
		return nil, fmt.Errorf("vault.url_file: %w", err)
	}
	s.closeVault = closeStore
	return store, nil
}

// checkTime bounds the look at a vault at the start. A Redis that is away is waited for later.
const checkTime = 3 * time.Second

// checkVault refuses a vault that the keys do not open, and one that would lose what a suite cannot
// get again.
func (s *sidecar) checkVault(store vault.Store, kept *vault.Vault, c config.ThirdParty, volatile bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	for _, id := range []string{vault.Ticket, vault.Marker} {
		if _, err := kept.Load(ctx, c.ID, id); errors.Is(err, vault.ErrSealed) {
			return fmt.Errorf("platform %s: vault.key_file: %w", c.ID, err)
		}
	}
	if db, ok := store.(interface{ Check(context.Context) error }); ok {
		if err := db.Check(ctx); err != nil {
			return fmt.Errorf("vault.url_file: %w", err)
		}
	}
	inRedis, ok := store.(*vault.Redis)
	if !ok {
		return nil // a database is durable, or its operator knows that it is not
	}
	d, err := inRedis.Check(ctx, c.ID)
	switch {
	case err != nil:
		s.log.Warn("the vault was not checked: Redis gives no answer", zap.String("platform", c.ID), zap.Error(err))
	case d.Lasting():
	case d.Unknown == nil && c.Kind != config.KindOpenPlatform && !volatile:
		return fmt.Errorf("platform %s: %s; WeCom gives a permanent code only once, so each corp would have to install again. To accept that, set vault.volatile: true", c.ID, d)
	default:
		s.log.Warn("the vault may lose what it keeps", zap.String("platform", c.ID), zap.String("why", d.String()))
	}
	return nil
}

// missing returns the credential that a caller asks for and the configuration does not name: a
// ticket, or what belongs to an account that authorised a platform.
func (s *sidecar) missing(ctx context.Context, k tokencache.Key) (tokencache.Credential, error) {
	id, authorizer, _ := strings.Cut(k.App, ":")
	if p := s.platform(id); p != nil && authorizer != "" {
		spec, err := p.Credential(ctx, authorizer, k.Kind)
		return spec, err
	}
	spec, ok := source.WeChat{}.OnDemand(s.live.Load().configured, k, s.cache)
	if !ok {
		return spec, tokencache.ErrUnknown
	}
	s.metrics.Add(k)
	return spec, nil
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

// observePlatform counts what happened to a platform.
func (s *sidecar) observePlatform(e platform.Event) {
	s.platformMetrics.Count(e.Platform, e.What, e.Label, e.Err)
}
