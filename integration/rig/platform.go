package rig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// The one third-party platform of a [Cluster] that has one.
const (
	PlatformID    = "wx134c8103faa5a59e"
	PlatformAlias = "shops"

	platformSecret = "CANARY-platform-secret"
	callbackToken  = "CANARY-callback-token"
	aesKey         = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// PlatformSecrets is what no log, answer or key may hold: the platform's own secrets, and how every
// ticket, code and refresh token of the simulator begins.
var PlatformSecrets = []string{
	platformSecret, callbackToken, aesKey, vaulttest.Key, "ticket@@@", "queryauthcode@@@", "refreshtoken@@@",
}

// Platform is a third-party platform, and the load balancer through which WeChat's pushes reach the
// sidecars: each goes to the next one that runs. Safe for concurrent use.
type Platform struct {
	c     *Cluster
	dir   string
	vault string

	mu      sync.Mutex
	next    int
	answers []PushAnswer
	keep    chan KeptPush
}

// PushAnswer is what a sidecar answered to a push.
type PushAnswer struct {
	Sidecar string
	At      time.Time     // when it came
	Took    time.Duration // until then
	Status  int           // 0 if there was none
}

// KeptPush is a push as WeChat sent it, which reached no sidecar.
type KeptPush struct {
	Query url.Values
	Body  []byte
}

// AddPlatform gives the platform to WeChat, and to all sidecars that are added from now on. vault
// are lines of that section of their configuration besides the key; by default, the vault is in
// Redis. Nothing is pushed until [Platform.StartPushes].
func (c *Cluster) AddPlatform(vault ...string) *Platform {
	c.t.Helper()
	p := &Platform{c: c, dir: c.t.TempDir(), vault: strings.Join(vault, "\n")}
	for name, text := range map[string]string{"secret": platformSecret, "token": callbackToken, "aes": aesKey, "keys": vaulttest.Key} {
		p.write(name, text)
	}
	c.Upstream.AddPlatform(wechattest.Platform{
		ID: PlatformID, Secret: platformSecret, Token: callbackToken, AESKey: aesKey,
		Callback: "http://balancer.invalid/v1/apps/" + PlatformID + "/callback", Transport: p,
	})
	c.platform = p
	return p
}

// write makes a file, and returns its path.
func (p *Platform) write(name, text string) string {
	p.c.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.c.t.Fatal(err)
	}
	return path
}

// Config returns the path of the configuration for a sidecar, or a command, of that name.
func (p *Platform) Config(name string) string {
	p.c.t.Helper()
	return p.write(name+".yaml", strings.NewReplacer("DIR", p.dir, "ID", PlatformID, "ALIAS", PlatformAlias, "UPSTREAM", p.c.Upstream.URL+"/"+name).Replace(`
vault:
  key_file: "DIR/keys"
`+p.vault+`
platforms:
  - id: ID
    kind: open_platform
    alias: ALIAS
    secret_file: "DIR/secret"
    token_file: "DIR/token"
    aes_key_file: "DIR/aes"
    api_base: UPSTREAM
`))
}

// StartPushes has WeChat push, until stop or the end of the test. A ticket comes at once.
func (p *Platform) StartPushes() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.c.Upstream.RunPushes(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	p.c.t.Cleanup(stop)
	return stop
}

var (
	errNoSidecar = errors.New("rig: no sidecar runs")
	errKept      = errors.New("rig: the push is kept")
)

// RoundTrip implements [http.RoundTripper] for WeChat's pushes.
func (p *Platform) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	keep, next := p.keep, p.next
	p.keep = nil
	p.next++
	p.mu.Unlock()
	if keep != nil {
		body, _ := io.ReadAll(r.Body)
		keep <- KeptPush{r.URL.Query(), body}
		return nil, errKept
	}
	running := p.c.Others(nil)
	if len(running) == 0 {
		return nil, errNoSidecar
	}
	to := running[next%len(running)]
	out := r.Clone(r.Context())
	out.URL.Host, out.Host = to.Values, to.Values // a sidecar answers no other name
	begun := time.Now()
	resp, err := HTTP.Transport.RoundTrip(out)
	answer := PushAnswer{Sidecar: to.Name, At: time.Now(), Took: time.Since(begun)}
	if err == nil {
		answer.Status = resp.StatusCode
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, answer)
	return resp, err
}

// Answers returns what the sidecars answered so far, in the order of the answers.
func (p *Platform) Answers() []PushAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.answers)
}

// KeepNext lets the next push reach no sidecar; the channel receives it, once.
func (p *Platform) KeepNext() <-chan KeptPush {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep = make(chan KeptPush, 1)
	return p.keep
}

// Push sends a push to one sidecar, and returns the status of the answer.
func (k KeptPush) Push(ctx context.Context, to *Sidecar) (int, error) {
	target := to.Base() + "v1/apps/" + PlatformID + "/callback?" + k.Query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(k.Body))
	if err != nil {
		return 0, err
	}
	response, err := HTTP.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(to.bodies, response.Body)
	return response.StatusCode, err
}

// AccountName is the name of an account of the platform, as callers give it and as the simulator
// does.
func AccountName(id string) string { return PlatformID + ":" + id }

// issued returns every token that the platform and its accounts were issued.
func (p *Platform) issued() (values []string) {
	names := []string{PlatformID}
	for id := range p.c.Upstream.Ledger(PlatformID).Authorizers {
		names = append(names, AccountName(id))
	}
	for _, name := range names {
		for _, i := range p.c.Upstream.Issued(name) {
			values = append(values, i.Value)
		}
	}
	return values
}
