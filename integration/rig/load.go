package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Seen is what callers of every kind met while a [Load] ran. Calls to a sidecar that was away on
// purpose, when they began or before they ended, are left out.
type Seen struct {
	Calls  int // to sidecars
	Failed int // without a token, or without WeChat's answer
	Stale  int // marked as such; a value that has died may be among them
	// Dead counts the values handed out as good, or read in Redis, that WeChat had ended before
	// they were asked for; and 40001 and the like that reached a caller of the proxy.
	Dead int
	// Missing counts looks of direct readers into Redis that found no key, and MissingFor is the
	// longest time in which none found it. A Redis that does not answer is not a missing key.
	Missing    int
	MissingFor time.Duration
	Reads      int           // looks of direct readers that Redis answered
	Worst      time.Duration // the longest that a caller of a sidecar waited
	Failures   []string      // what they got, the first 20 that differ, without values
}

// Load is a steady load on every sidecar of a cluster. Of each there are callers of /v1, of the
// drop-in, and of the proxy, and each has a direct reader of Redis beside it, which goes past the
// links. Callers who are given a dead value report it to a sidecar, as an app would.
type Load struct {
	c       *Cluster
	every   time.Duration
	callers []caller
	ctx     context.Context
	stop    context.CancelFunc

	mu       sync.Mutex
	apps     map[*Sidecar]*app
	seen     Seen
	lostFrom time.Time // since when the key has not been seen; zero: it is there
}

// app is the callers of one sidecar.
type app struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// LoadOptions are optional.
type LoadOptions struct {
	// Every is how often each kind of caller calls each sidecar. Default 40 ms.
	Every time.Duration
	// Stable makes callers of the drop-in use /cgi-bin/stable_token instead of /cgi-bin/token.
	Stable bool
	// NoProxy leaves out the callers of the proxy, where they are not to be served.
	NoProxy bool
}

// StartLoad starts the load on the sidecars that are there. Those that are added later have none
// until they [Load.Join].
func (c *Cluster) StartLoad(o LoadOptions) *Load {
	if o.Every == 0 {
		o.Every = 40 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{c: c, every: o.Every, callers: []caller{native, classicDropIn}, ctx: ctx, stop: cancel, apps: map[*Sidecar]*app{}}
	if o.Stable {
		l.callers[1] = stableDropIn
	}
	if !o.NoProxy {
		l.callers = append(l.callers, proxied)
	}
	for _, p := range c.All {
		l.Join(p)
	}
	c.t.Cleanup(func() { l.Stop() })
	return l
}

// Join starts the callers of one more sidecar.
func (l *Load) Join(p *Sidecar) {
	ctx, cancel := context.WithCancel(l.ctx)
	a := &app{stop: cancel}
	for _, call := range l.callers {
		a.wg.Go(func() { l.repeat(ctx, func() { l.call(ctx, p, call) }) })
	}
	a.wg.Go(func() { l.repeat(ctx, func() { l.read(ctx, p) }) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apps[p] = a
}

// Leave ends the callers of one sidecar, as an app that ends, and their connections.
func (l *Load) Leave(p *Sidecar) {
	l.mu.Lock()
	a := l.apps[p]
	delete(l.apps, p)
	l.mu.Unlock()
	if a != nil {
		a.stop()
		a.wg.Wait()
	}
	HTTP.CloseIdleConnections()
}

// Runs reports whether there have been calls and direct reads.
func (l *Load) Runs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen.Calls > 0 && l.seen.Reads > 0
}

// Stop ends the load and returns what it met. It may be called again.
func (l *Load) Stop() Seen {
	l.stop()
	l.mu.Lock()
	apps := slices.Collect(maps.Values(l.apps))
	l.mu.Unlock()
	for _, a := range apps {
		a.wg.Wait()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found(time.Now())
	return l.seen
}

func (l *Load) repeat(ctx context.Context, do func()) {
	ticker := time.NewTicker(l.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// got is what a caller got: a value, or proof that there was one that works.
type got struct {
	value string
	stale bool
	dead  bool // WeChat rejected what the sidecar put in
}

// caller makes one call of its kind.
type caller func(ctx context.Context, p *Sidecar) (got, error)

func (l *Load) call(ctx context.Context, p *Sidecar, call caller) {
	life, there := p.present()
	if !there {
		return
	}
	asked := time.Now()
	g, err := call(ctx, p)
	waited := time.Since(asked)
	if now, _ := p.present(); now != life || ctx.Err() != nil {
		return
	}
	dead := g.dead || g.value != "" && l.wasDead(g.value, asked)
	l.mu.Lock()
	l.seen.Calls++
	l.seen.Worst = max(l.seen.Worst, waited)
	switch {
	case err != nil:
		l.seen.Failed++
		if said := err.Error(); len(l.seen.Failures) < 20 && !slices.Contains(l.seen.Failures, said) {
			l.seen.Failures = append(l.seen.Failures, said)
		}
	case g.stale:
		l.seen.Stale++
	case dead:
		l.seen.Dead++
	}
	l.mu.Unlock()
	if dead && g.value != "" {
		_, _ = p.Report(g.value)
	}
}

// wasDead reports whether WeChat had ended a value before a moment.
func (l *Load) wasDead(value string, then time.Time) bool {
	_, to, ok := l.c.Upstream.Life(AppID, value)
	return !ok || !then.Before(to)
}

// read looks into Redis as an app with direct access does.
func (l *Load) read(ctx context.Context, p *Sidecar) {
	asked := time.Now()
	look, cancel := context.WithTimeout(ctx, 3*time.Second)
	v, err := l.c.Store.Client().Get(look, ValueKey).Result()
	cancel()
	if ctx.Err() != nil {
		return
	}
	missing := errors.Is(err, redis.Nil)
	if err != nil && !missing {
		return
	}
	dead := !missing && l.wasDead(v, asked)
	l.mu.Lock()
	l.seen.Reads++
	switch {
	case missing:
		l.seen.Missing++
		if l.lostFrom.IsZero() {
			l.lostFrom = asked
		}
	default:
		l.found(asked)
		if dead {
			l.seen.Dead++
		}
	}
	l.mu.Unlock()
	if _, there := p.present(); dead && there {
		_, _ = p.Report(v)
	}
}

// found must be called with mu held.
func (l *Load) found(at time.Time) {
	if !l.lostFrom.IsZero() {
		l.seen.MissingFor = max(l.seen.MissingFor, at.Sub(l.lostFrom))
		l.lostFrom = time.Time{}
	}
}

func native(ctx context.Context, p *Sidecar) (got, error) {
	var a Answer
	err := ask(ctx, p, http.MethodGet, tokenPath, "", &a)
	return got{value: a.AccessToken, stale: a.Stale}, err
}

// wechatAnswer is what every call of WeChat may say.
type wechatAnswer struct {
	Errcode     int
	AccessToken string `json:"access_token"`
}

func classicDropIn(ctx context.Context, p *Sidecar) (got, error) {
	return dropIn(ctx, p, http.MethodGet, "cgi-bin/token?grant_type=client_credential&appid="+AppID+"&secret=any", "")
}

func stableDropIn(ctx context.Context, p *Sidecar) (got, error) {
	return dropIn(ctx, p, http.MethodPost, "cgi-bin/stable_token", `{"grant_type":"client_credential","appid":"`+AppID+`","secret":"any"}`)
}

func dropIn(ctx context.Context, p *Sidecar, method, path, body string) (got, error) {
	var a wechatAnswer
	if err := ask(ctx, p, method, path, body, &a); err != nil {
		return got{}, err
	}
	if a.Errcode != 0 || a.AccessToken == "" {
		return got{}, fmt.Errorf("%s: the drop-in says errcode %d", p.Name, a.Errcode)
	}
	return got{value: a.AccessToken}, nil
}

// proxied makes a call that needs a token and carries none.
func proxied(ctx context.Context, p *Sidecar) (got, error) {
	a := wechatAnswer{}
	if err := ask(ctx, p, http.MethodPost, "proxy/"+AppID+"/cgi-bin/message/custom/send", `{"touser":"o","msgtype":"text","text":{"content":"x"}}`, &a); err != nil {
		return got{}, err
	}
	switch a.Errcode {
	case 0:
		return got{}, nil
	case 40001, 40014, 42001:
		return got{dead: true}, nil
	}
	return got{}, fmt.Errorf("%s: through the proxy, errcode %d", p.Name, a.Errcode)
}

// ask makes a call and decodes what it says. Its errors hold no value.
func ask(ctx context.Context, p *Sidecar, method, path, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, p.Base()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		_, _ = p.bodies.Write(text)
		return fmt.Errorf("%s: %s: %s", p.Name, response.Status, text)
	}
	var e wechatAnswer
	if json.Unmarshal(text, &e) == nil && e.Errcode != 0 {
		_, _ = p.bodies.Write(text)
	}
	return json.Unmarshal(text, into)
}
