// Package sourcetest has the inside of a sidecar in one process: WeChat, simulated; a Redis behind
// a link that can fail; and a cache of the credentials that the program makes of its configuration.
//
// Inside a testing/synctest bubble all of it lives in virtual time:
//
//	synctest.Test(t, func(t *testing.T) {
//		s := sourcetest.New(t, sourcetest.Options{}, app)
//		value := s.Token(t, app)
//		s.Replica.Link.BlackHole() // or Reset, Refuse, Delay, Deafen, LoseReply
//		s.WeChat.KillTokens(app.ID)
//	})
//
// The other rigs, tokencachetest and integration/rig, call the same faults by the same names.
package sourcetest

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// Options are optional; the zero value is ready for use.
type Options struct {
	// Adjust changes a credential before the cache is given it.
	Adjust func(*tokencache.Credential)
	// Account changes what WeChat knows of an app before it is made.
	Account func(*wechattest.App)
	// Default names the default app.
	Default string
	// Observe is the cache's. Default: the replica keeps the events.
	Observe func(tokencache.Event)
}

// Stack is the whole way from the faces of a sidecar to WeChat.
type Stack struct {
	WeChat  *wechattest.Server
	Redis   *miniredis.Miniredis
	Replica *tokencachetest.Replica // with its link to Redis, its events, and its background work
	Cache   *tokencache.Cache       // the replica's
	Apps    atomic.Pointer[apps.Set]

	options    Options
	source     source.WeChat
	configured []config.App
}

// New makes the stack of some apps, whose API base may be missing. Its background work does not run
// until the replica is started. Everything is stopped when the test ends.
func New(t testing.TB, o Options, configured ...config.App) *Stack {
	t.Helper()
	s := &Stack{options: o}
	var accounts []wechattest.App
	for _, a := range configured {
		account := wechattest.App{ID: a.ID, Agent: a.Agent, Secret: a.Secret.Reveal()}
		if a.Platform == config.PlatformWeCom {
			account.Kind = wechattest.Corp
		}
		if o.Account != nil {
			o.Account(&account)
		}
		accounts = append(accounts, account)
	}
	s.WeChat = wechattest.New(accounts...)
	transport := s.WeChat.Transport()
	t.Cleanup(func() { _ = transport.Close() })
	s.source.HTTP = &http.Client{Transport: transport}
	cluster := tokencachetest.New(t, 1, &tokencachetest.Upstream{},
		tokencachetest.Options(tokencache.Options{Reread: 5 * time.Minute, Observe: o.Observe, Missing: s.missing}),
		tokencachetest.Redis(func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = 3*time.Second, 3*time.Second })) // outside of a bubble, on a busy machine
	s.Redis, s.Replica, s.Cache = cluster.Redis, cluster.Replicas[0], cluster.Replicas[0].Cache
	s.Set(t, configured...)
	return s
}

// Set puts other apps into force, as a new configuration does.
func (s *Stack) Set(t testing.TB, configured ...config.App) {
	t.Helper()
	cfg := &config.Config{AllowUpstreamHost: true, DefaultApp: s.options.Default, Apps: slices.Clone(configured)}
	for i, a := range cfg.Apps {
		if a.APIBase == "" && a.Platform == config.PlatformWeCom {
			cfg.Apps[i].APIBase = wechat.DefaultCorpBaseURL
		} else if a.APIBase == "" {
			cfg.Apps[i].APIBase = wechat.DefaultBaseURL
		}
	}
	set, err := source.Apps(cfg)
	if err != nil {
		t.Fatal(err)
	}
	creds := s.source.Credentials(cfg.Apps, s.Cache)
	for i := range creds {
		s.adjust(&creds[i])
	}
	if err := s.Cache.Set(creds...); err != nil {
		t.Fatal(err)
	}
	s.configured = cfg.Apps
	s.Apps.Store(set)
}

// missing is what the program does for a ticket that the configuration does not name.
func (s *Stack) missing(_ context.Context, k tokencache.Key) (tokencache.Credential, error) {
	c, ok := s.source.OnDemand(s.configured, k, s.Cache)
	if !ok {
		return c, tokencache.ErrUnknown
	}
	s.adjust(&c)
	return c, nil
}

func (s *Stack) adjust(c *tokencache.Credential) {
	if s.options.Adjust != nil {
		s.options.Adjust(c)
	}
}

// Token returns the current token of an app.
func (s *Stack) Token(t testing.TB, a config.App) string {
	t.Helper()
	return s.value(t, source.Key(a))
}

// Ticket returns the current ticket of an app.
func (s *Stack) Ticket(t testing.TB, a config.App, name string) string {
	t.Helper()
	return s.value(t, source.TicketKey(a, name))
}

// value waits as long as a busy machine needs: what is asked of Redis has a second.
func (s *Stack) value(t testing.TB, k tokencache.Key) string {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		token, err := s.Cache.Get(context.Background(), k)
		if err == nil {
			return token.Value.Reveal()
		}
		if time.Since(begun) > 5*time.Minute {
			t.Fatal(err)
		}
	}
}

// Fetches returns how often the apps' token endpoints were called.
func (s *Stack) Fetches(apps ...config.App) (n int) {
	for _, a := range apps {
		n += s.WeChat.Calls(a.CredentialID()).Fetches()
	}
	return n
}
