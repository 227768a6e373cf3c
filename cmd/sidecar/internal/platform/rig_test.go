package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/source"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

const (
	id     = "wx134c8103faa5a59e"
	shop   = "wxba5fad812f8e6fb9"
	aesKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	corpID = "wwprovider"
)

// rig is a platform on some replicas, in front of a WeChat that pushes to any of them. What the
// tests call P1 to P7 is in integration/README.md, "The guards of platforms".
type rig struct {
	*testing.T
	sim     *wechattest.Server
	cluster *tokencachetest.Cluster
	kind    Kind
	// replicas are the platform as each replica of the cluster has it.
	replicas []*Platform
	ends     []func()   // stop what runs of each of them
	mu       sync.Mutex // guards replicas while one is replaced
	faults   *faultyStore
	next     atomic.Int64
	upstream http.RoundTripper // to WeChat
	settings settings
}

// settings are what the configuration says to a replica that starts now. Of several keys the first
// one is the current one.
type settings struct {
	secret, token      string
	aesKeys, vaultKeys []string
}

// faultyStore is a vault that can be away, and whose clock can be ahead.
type faultyStore struct {
	vault.Store
	away  atomic.Bool  // nothing is answered
	deaf  atomic.Bool  // nothing is written
	hang  atomic.Int64 // for so long, in ns
	ahead atomic.Int64 // so much older is everything, in ns
	lists atomic.Int64 // calls of List

	race atomic.Pointer[func()] // is called once, just before many are saved
}

// beforeSaves lets f be faster than the next call of SaveAll.
func (s *faultyStore) beforeSaves(f func()) { s.race.Store(&f) }

var errAway = errors.New("the vault is away")

func (s *faultyStore) Load(ctx context.Context, platform, id string) (vault.Row, error) {
	if err := s.fault(ctx); err != nil {
		return vault.Row{}, err
	}
	r, err := s.Store.Load(ctx, platform, id)
	r.Age += time.Duration(s.ahead.Load())
	return r, err
}

func (s *faultyStore) List(ctx context.Context, platform, after string, n int) ([]vault.Row, error) {
	s.lists.Add(1)
	rows, err := s.Store.List(ctx, platform, after, n)
	for i := range rows {
		rows[i].Age += time.Duration(s.ahead.Load())
	}
	return rows, err
}

func (s *faultyStore) Save(ctx context.Context, r vault.Row) (int64, error) {
	if err := s.fault(ctx); err != nil {
		return 0, err
	}
	if s.deaf.Load() {
		return 0, errAway
	}
	return s.Store.Save(ctx, r)
}

func (s *faultyStore) SaveAll(ctx context.Context, rows []vault.Row) []error {
	if len(rows) == 0 {
		return nil // as the stores do
	}
	if race := s.race.Swap(nil); race != nil {
		(*race)()
	}
	err := s.fault(ctx)
	if s.deaf.Load() {
		err = errAway
	}
	if err == nil {
		return s.Store.SaveAll(ctx, rows)
	}
	return slices.Repeat([]error{err}, len(rows))
}

func (s *faultyStore) fault(ctx context.Context) error {
	if d := s.hang.Load(); d > 0 && !sleep(ctx, time.Duration(d)) {
		return ctx.Err()
	}
	if s.away.Load() {
		return errAway
	}
	return nil
}

// newRig makes n replicas, whose work does not run yet. It must be made in a bubble.
func newRig(t *testing.T, n int, kind Kind) *rig {
	x := &rig{
		T: t, sim: wechattest.New(), cluster: tokencachetest.New(t, n, &tokencachetest.Upstream{}), kind: kind, faults: &faultyStore{},
		settings: settings{"app-secret", "callback-token", []string{aesKey}, []string{vaulttest.Key}},
	}
	calls := x.sim.Transport()
	pushes := wechattest.TransportTo(x)
	t.Cleanup(func() { _ = calls.Close(); _ = pushes.Close() })
	x.upstream = calls
	x.sim.AddPlatform(wechattest.Platform{
		ID: id, Secret: x.settings.secret, Token: x.settings.token, AESKey: aesKey, Callback: "http://callback.example/", CorpID: corpID,
		Kind: map[Kind]wechattest.PlatformKind{Suite: wechattest.Suite, Template: wechattest.Template, Provider: wechattest.Provider}[kind], Transport: pushes,
	})
	x.replicas, x.ends = make([]*Platform, n), make([]func(), n)
	for i := range x.replicas {
		x.make(i)
	}
	return x
}

// make makes the platform of a replica of the cluster, as the settings say.
func (x *rig) make(i int) {
	r := x.cluster.Replicas[i]
	rdb := redis.NewClient(&redis.Options{
		Addr: "127.0.0.1:6379", Dialer: r.Link.Dial, ContextTimeoutEnabled: true,
		PoolSize:       10_000, // a wait for a connection uses timers that are of no bubble
		ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	x.Cleanup(func() { _ = rdb.Close() })
	if x.faults.Store == nil {
		x.faults.Store = vault.NewRedis(rdb, "wxtoken")
	}
	base := "https://qyapi.weixin.qq.com"
	if x.kind == OpenPlatform {
		base = ""
	}
	one, err := New(Options{
		ID: id, Kind: x.kind, Secret: secret.New(x.settings.secret), Envelope: x.envelope(id), Echo: x.envelope(corpID),
		Client: &wechat.Client{BaseURL: base, HTTP: &http.Client{Transport: x.upstream}},
		Vault:  vault.New(x.faults, x.keys()), Cache: r.Cache, Redis: rdb, Namespace: "wxtoken",
	})
	if err != nil {
		x.Fatal(err)
	}
	if err := r.Cache.Set(one.Credentials()...); err != nil {
		x.Fatal(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.replicas[i] = one
}

// envelope opens what is pushed to a receiver.
func (x *rig) envelope(receiver string) *wechat.Envelope {
	var keys []secret.String
	for _, k := range x.settings.aesKeys {
		keys = append(keys, secret.New(k))
	}
	envelope, err := wechat.NewEnvelope(secret.New(x.settings.token), receiver, keys...)
	if err != nil {
		x.Fatal(err)
	}
	return envelope
}

// keys are those of the vault.
func (x *rig) keys() vault.Keys { return vaulttest.Keys(x, x.settings.vaultKeys...) }

// start runs the replicas and WeChat's pushes until the test ends, and waits for the first ticket.
func (x *rig) start() {
	for i := range x.replicas {
		x.run(i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	pushed := make(chan struct{})
	x.Cleanup(func() { cancel(); <-pushed })
	go func() { defer close(pushed); x.sim.RunPushes(ctx) }()
	x.cluster.Start()
	x.eventually("the platform has a token", func() bool {
		_, err := x.replicas[0].o.Cache.Get(x.Context(), x.replicas[0].TokenKey())
		return err == nil
	})
}

// run runs the work of a replica's platform until the replica or the test ends.
func (x *rig) run(i int) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	x.ends[i] = func() { cancel(); <-ended }
	x.Cleanup(x.ends[i])
	p := x.replicas[i]
	go func() { defer close(ended); p.Run(ctx) }()
}

// restart replaces each replica in turn by one that has the settings of now, as a rolling update
// does: pushes and reads come to the new one before the old one ends.
func (x *rig) restart() {
	for i, end := range x.ends {
		old, young := x.cluster.Replace(i)
		x.make(i)
		young.Start()
		x.run(i)
		end()
		old.Stop()
	}
}

// ServeHTTP is the callback, on any replica in turn.
func (x *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	p := x.replicas[int(x.next.Add(1))%len(x.replicas)]
	x.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	ctx, cancel := context.WithTimeout(r.Context(), 800*time.Millisecond)
	defer cancel()
	switch _, err := p.Receive(ctx, r.URL.Query(), body); {
	case err == nil:
		_, _ = io.WriteString(w, "success")
	case IsForged(err):
		w.WriteHeader(http.StatusForbidden)
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// long reports whether WXTOKEN_LONG is 1, as make platforms sets it: then the histories here have
// their full size.
var long = os.Getenv("WXTOKEN_LONG") == "1"

// atFullSize returns the first number, or the second one if the histories are short.
func atFullSize(full, short int) int {
	if long {
		return full
	}
	return short
}

// seed puts n authorizers into the vault, as if they had authorised before, and returns their ids.
func (x *rig) seed(n int) []string {
	k := x.sim.PlatformKnobs(id)
	before := k.NoCodePush
	k.NoCodePush = true
	x.sim.SetPlatformKnobs(id, k)
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("wx%016d", i)
		x.sim.Authorize(id, ids[i])
	}
	k.NoCodePush = before
	x.sim.SetPlatformKnobs(id, k)
	records := make([]vault.Record, n)
	for i, a := range x.sim.Ledger(id).Authorizers {
		var place int
		_, _ = fmt.Sscanf(i, "wx%d", &place)
		records[place] = vault.Record{Platform: id, ID: i, State: vault.StateActive, Order: time.Now().Unix(), Secret: secret.New(a.Accepts[0])}
	}
	for page := range slices.Chunk(records, 500) {
		if err := errors.Join(vault.New(x.faults.Store, x.keys()).SaveAll(x.Context(), page)...); err != nil {
			x.Fatal(err)
		}
	}
	return ids
}

// patiently reads a token as an app does that heeds Retry-After, until it has one.
func (x *rig) patiently(replica int, authorizer string) tokencache.Token {
	for {
		token, err := x.get(replica, authorizer)
		u, ok := errors.AsType[*tokencache.UnavailableError](err)
		if !ok {
			if err != nil {
				x.Error(err)
			}
			return token
		}
		time.Sleep(max(time.Second, u.RetryAfter))
	}
}

// clockFetches notes when WeChat is asked for a token of an account, until the test ends.
func (x *rig) clockFetches() (times func() []time.Time) {
	var mu sync.Mutex
	var all []time.Time
	x.sim.Tune(func(k *wechattest.Knobs) {
		k.LatencyFunc = func(r *http.Request) time.Duration {
			if r.URL.Path == "/cgi-bin/component/api_authorizer_token" {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, time.Now())
			}
			return 100 * time.Millisecond
		}
	})
	return func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// eventually waits for up to 2 minutes.
func (x *rig) eventually(what string, is func() bool) {
	x.Helper()
	for began := time.Now(); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			x.Fatalf("in 2 minutes not: %s", what)
		}
	}
}

// get reads the token of an authorizer on a replica, as a caller does.
func (x *rig) get(replica int, authorizer string) (tokencache.Token, error) {
	p := x.replicas[replica]
	key := p.authorizerKey(authorizer)
	token, err := p.o.Cache.Get(x.Context(), key)
	if !errors.Is(err, tokencache.ErrUnknown) {
		return token, err
	}
	spec, err := p.Credential(x.Context(), authorizer, source.AccessToken)
	if err != nil {
		return token, err
	}
	if err := p.o.Cache.Add(spec); err != nil {
		x.Fatal(err)
	}
	return p.o.Cache.Get(x.Context(), key)
}

// mustGet is get for a token that must work.
func (x *rig) mustGet(replica int, authorizer string) tokencache.Token {
	x.Helper()
	token, err := x.get(replica, authorizer)
	if err != nil || token.Stale || !x.sim.Valid(apps.AccountName(id, authorizer), token.Value.Reveal()) {
		x.Fatalf("replica %d: %+v, %v", replica, token, err)
	}
	return token
}

// record returns what the vault has.
func (x *rig) record(of string) vault.Record {
	x.Helper()
	r, err := vault.New(x.faults.Store, x.keys()).Load(x.Context(), id, of)
	if err != nil {
		x.Fatal(err)
	}
	return r
}

// authorized lets an account authorise, and waits until the vault has its secret.
func (x *rig) authorized(authorizer string) (redirectCode string) {
	x.Helper()
	code := x.sim.Authorize(id, authorizer)
	x.eventually(authorizer+" is in the vault", func() bool {
		r := x.record(authorizer)
		return r.State == vault.StateActive && x.sim.Accepts(id, authorizer, r.Secret.Reveal())
	})
	return code
}

// calls is how many calls of the platform's own reached WeChat.
func (x *rig) calls() (n int) {
	for _, calls := range x.sim.Calls(id).Paths {
		n += calls
	}
	return n
}

// fetches is how many calls for the token of an account reached WeChat, whatever it answered.
func (x *rig) fetches(authorizer string) (n int) {
	for _, path := range []string{"/cgi-bin/component/api_authorizer_token", "/cgi-bin/service/get_corp_token"} {
		n += x.sim.Calls(id).Paths[path] + x.sim.Calls(apps.AccountName(id, authorizer)).Paths[path]
	}
	return n
}
