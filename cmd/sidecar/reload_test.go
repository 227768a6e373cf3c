package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// A bad configuration shows in the metrics until the one in force can be read again, although
// nothing has changed then.
func TestABadConfigurationShowsUntilItIsMended(t *testing.T) {
	// The first Notify of a process starts a goroutine, which must not belong to the bubble.
	first := make(chan os.Signal, 1)
	signal.Notify(first, syscall.SIGHUP)
	signal.Stop(first)
	synctest.Test(t, func(t *testing.T) {
		env := map[string]string{"WECHAT_APPID": "wx0000000000000001", "WECHAT_SECRET": "CANARY", "REDIS_URL": "redis://127.0.0.1:1"}
		running, err := config.Load(config.Overrides{}, func(name string) string { return env[name] })
		if err != nil {
			t.Fatal(err)
		}
		var mistake atomic.Pointer[error]
		load := func() (*config.Config, error) {
			if err := mistake.Load(); err != nil && *err != nil {
				return nil, *err
			}
			return running, nil
		}
		reg := prometheus.NewRegistry()
		metrics := observe.NewMetrics(reg)
		successful := func() (v float64) {
			families, _ := reg.Gather()
			for _, f := range families {
				if f.GetName() == "wxtoken_config_last_reload_successful" {
					v = f.Metric[0].Gauge.GetValue()
				}
			}
			return v
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &sidecar{cfg: running, metrics: metrics, reloads: newReloads(running), log: zap.NewNop(), cache: tokencache.New(nil, tokencache.Options{})}
		go s.watch(ctx, load)
		for _, step := range []struct {
			mistake error
			want    float64
		}{{nil, 1}, {errors.New("a mistake"), 0}, {nil, 1}} {
			mistake.Store(&step.mistake)
			time.Sleep(3 * config.DefaultEvery)
			synctest.Wait()
			if got := successful(); got != step.want {
				t.Errorf("%v: got %v, want %v", step.mistake, got, step.want)
			}
		}
	})
}

// A configuration with another metrics_apps, or with more apps than that, changes the form of
// /metrics at once.
func TestMetricsAppsTakesEffectAtOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := &sidecar{metrics: observe.NewMetrics(reg), cache: tokencache.New(nil, tokencache.Options{})}
	apply := func(most int, apps ...string) {
		t.Helper()
		cfg := &config.Config{MetricsApps: most}
		for _, id := range apps {
			cfg.Apps = append(cfg.Apps, config.App{ID: id, Platform: config.PlatformWeChat, Endpoint: config.EndpointStable,
				APIBase: config.DefaultWeChatBase, Secret: secret.New("secret"), Probe: config.ProbeOff})
		}
		if err := s.apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	want := func(apps ...string) {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range families {
			if f.GetName() == "wxtoken_leases_lost_total" {
				for _, m := range f.Metric {
					got = append(got, m.Label[0].GetValue())
				}
			}
		}
		if slices.Sort(got); !slices.Equal(got, apps) {
			t.Errorf("series of %q, want %q", got, apps)
		}
	}
	apply(2, "wx1", "wx2")
	want("wx1", "wx2")
	apply(1, "wx1", "wx2")
	want("all")
	apply(2, "wx1", "wx2", "wx3")
	want("all")
	apply(2, "wx1", "wx3")
	want("wx1", "wx3")
	apply(0, "wx1")
	want("all")
}
