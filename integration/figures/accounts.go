package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const platformID = "wx134c8103faa5a59e"

// platformFiles are the files that the configuration of the platform names.
var platformFiles = map[string]string{
	"platform-secret": appSecret, "callback-token": "figures-only",
	"aes-key": strings.TrimSuffix(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", 32))), "="),
	"key":     base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))),
}

// manyAccounts measures a sidecar with a platform, before it has any account and when it keeps the
// tokens of n.
func (r *rig) manyAccounts(ctx context.Context, n int) ([]figure, error) {
	if err := r.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	sim := wechattest.New()
	upstream, stop := serve(sim)
	defer stop()
	const namespace = "accounts"
	s, err := r.platform(namespace, upstream)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.cmd.Process.Kill() }() // the rig waits for it
	sim.AddPlatform(wechattest.Platform{
		ID: platformID, Secret: appSecret, Token: platformFiles["callback-token"], AESKey: platformFiles["aes-key"],
		Callback: "http://" + s.addr + "/v1/apps/" + platformID + "/callback",
	})
	pushing, cancel := context.WithCancel(ctx)
	pushed := make(chan struct{})
	defer func() { cancel(); <-pushed }()
	go func() { defer close(pushed); sim.RunPushes(pushing) }()
	s.tokensOf([]string{platformID})
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	pause(ctx, 20*time.Second)
	without, memory := s.usage(), r.usedMemory(ctx)
	accounts, err := r.seed(ctx, sim, namespace, n)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.readAll(ctx, accounts); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.log)
	}
	took := time.Since(began)
	pause(ctx, 20*time.Second)
	with, most := s.usage(), r.usedMemory(ctx)
	kept, err := r.redis.MemoryUsage(ctx, namespace+":{"+platformID+"}:vault", 0).Result() // 0: all of it is counted
	if err != nil && r.redisPid != 0 {
		return nil, err
	}
	name := fmt.Sprintf("%d accounts of a platform", n)
	return []figure{
		{what: name + ": all have a token after", value: fmt.Sprintf("%.1f s", took.Seconds())},
		{what: name + ": RSS", value: fmt.Sprintf("%.1f MiB, and %.1f MiB at its peak", with.rss, with.peak),
			baseline: fmt.Sprintf("none: %.1f MiB; %.1f KiB of its own for each", without.rss, (with.anonymous-without.anonymous)*1024/float64(n)), ratio: with.rss / without.rss},
		{what: name + ": memory of Redis, with the vault in it", value: fmt.Sprintf("%.1f MiB, of which the vault %.1f MiB", most, float64(kept)/(1<<20)),
			baseline: fmt.Sprintf("none: %.1f MiB, so %.1f KiB for each", memory, (most-memory)*1024/float64(n)), ratio: most / memory},
	}, ctx.Err()
}

// platform starts a sidecar with a platform.
func (r *rig) platform(namespace, upstream string) (*server, error) {
	for name, text := range platformFiles {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return r.launch(namespace, strings.NewReplacer("DIR", r.dir, "REDIS", r.redisURL, "NAMESPACE", namespace, "ID", platformID, "UPSTREAM", upstream).Replace(`
redis: {url: REDIS}
namespace: NAMESPACE
vault: {key_file: DIR/key}
platforms:
  - {id: ID, kind: open_platform, secret_file: DIR/platform-secret, token_file: DIR/callback-token, aes_key_file: DIR/aes-key, api_base: "UPSTREAM"}
`))
}

// seed has n accounts authorise the platform, and puts them into the vault.
func (r *rig) seed(ctx context.Context, sim *wechattest.Server, namespace string, n int) ([]string, error) {
	k := sim.PlatformKnobs(platformID)
	k.NoCodePush = true
	sim.SetPlatformKnobs(platformID, k)
	accounts := make([]string, n)
	for i := range accounts {
		accounts[i] = fmt.Sprintf("wx%016x", 1<<24+i)
		sim.Authorize(platformID, accounts[i])
	}
	keys, err := vault.ParseKeys(secret.New(platformFiles["key"]))
	if err != nil {
		return nil, err
	}
	v := vault.New(vault.NewRedis(r.redis, namespace), keys)
	known := sim.Ledger(platformID).Authorizers
	var permissions []string // as many as an account grants
	for i := range 21 {
		permissions = append(permissions, fmt.Sprintf(`{"funcscope_category":{"id":%d}}`, i+1))
	}
	info := []byte(`{"said":[` + strings.Join(permissions, ",") + `]}`)
	for page := range slices.Chunk(accounts, 500) {
		records := make([]vault.Record, len(page))
		for i, id := range page {
			records[i] = vault.Record{Platform: platformID, ID: id, State: vault.StateActive, Order: time.Now().Unix(), Secret: secret.New(known[id].Accepts[0]), Info: info}
		}
		if err := errors.Join(v.SaveAll(ctx, records)...); err != nil {
			return nil, err
		}
	}
	return accounts, nil
}

// readAll reads the token of each account as an app does that heeds Retry-After.
func (s *server) readAll(ctx context.Context, accounts []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	for _, id := range accounts {
		g.Go(func() error {
			return readPatiently(ctx, client, "http://"+s.addr+"/v1/apps/"+platformID+":"+id+"/token")
		})
	}
	return g.Wait()
}

// readPatiently returns when a token was answered.
func readPatiently(ctx context.Context, client *http.Client, url string) error {
	for began := time.Now(); ; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusOK:
			return nil
		case answer.StatusCode != http.StatusServiceUnavailable || time.Since(began) > 5*time.Minute:
			return fmt.Errorf("%s: %s", url, answer.Status)
		}
		after, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		pause(ctx, time.Duration(max(1, after))*time.Second)
	}
}

// usedMemory is what Redis has allocated, in MiB; 0 if it is embedded.
func (r *rig) usedMemory(ctx context.Context) float64 {
	return float64(r.counter(ctx, "memory", "used_memory:")) / (1 << 20)
}
