package tokencachetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// Mode says how an [Upstream] answers a fetch.
type Mode int

const (
	// Superseding issues a new value at each fetch; the one before works for the overlap (WeChat's
	// classic endpoint).
	Superseding Mode = iota
	// Repeating repeats the value until the overlap before its end, and then issues a new one
	// (WeChat's stable endpoint). A forced fetch issues a new one and ends the old one at once.
	Repeating
)

// Fault changes what happens to one fetch. The zero Fault changes nothing.
type Fault struct {
	// Err is returned instead of acting: nothing is issued.
	Err error
	// Delay holds the fetch before upstream acts, DelayReply its reply afterwards. Like a stopped
	// process, neither cares about the context.
	Delay, DelayReply time.Duration
	// LoseReply issues a value and loses the reply.
	LoseReply bool
	// Detached lets upstream act although its caller has hung up meanwhile.
	Detached bool
}

// Fetch is one call of an [Upstream].
type Fetch struct {
	At      time.Time
	Replica string
	Forced  bool
	Issued  string // the value returned or lost; empty if none was issued
}

// Upstream is an upstream that behaves: it issues values, lets them live and kills them. Safe for
// concurrent use; set the fields before the first fetch.
type Upstream struct {
	Mode      Mode
	Life      time.Duration // of a value; default 2 h
	Overlap   time.Duration // default 5 min
	RenewLeft time.Duration // stated with each value; default 30 min (Superseding) or 297 s (Repeating)
	Latency   time.Duration // of a fetch; default 100 ms

	// Fault is asked before each fetch, numbered from 1. Default: no faults.
	Fault func(n int, replica string) Fault

	mu       sync.Mutex
	current  issued
	previous issued
	fetches  []Fetch
	probes   int
	serial   int
	fates    map[string]*Fate
}

type issued struct {
	value   string
	expires time.Time // of its own life
	ends    time.Time // when it was superseded plus the overlap; zero: not superseded
}

func (i issued) valid(now time.Time) bool {
	return i.value != "" && now.Before(i.expires) && (i.ends.IsZero() || now.Before(i.ends))
}

// Source returns upstream as replica sees it.
func (u *Upstream) Source(replica string) tokencache.Source { return source{u, replica} }

type source struct {
	upstream *Upstream
	replica  string
}

func (s source) Fetch(ctx context.Context, r tokencache.Request) (tokencache.Value, error) {
	return s.upstream.fetch(ctx, r, s.replica)
}

func or(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func (u *Upstream) fetch(ctx context.Context, r tokencache.Request, replica string) (tokencache.Value, error) {
	u.mu.Lock()
	u.fetches = append(u.fetches, Fetch{At: time.Now(), Replica: replica, Forced: r.Force})
	n := len(u.fetches)
	u.mu.Unlock()
	var f Fault
	if u.Fault != nil {
		f = u.Fault(n, replica)
	}
	time.Sleep(f.Delay)
	select {
	case <-time.After(or(u.Latency, 100*time.Millisecond)):
	case <-ctx.Done():
		if !f.Detached {
			return tokencache.Value{}, ctx.Err()
		}
	}
	if f.Err != nil {
		return tokencache.Value{}, f.Err
	}
	v := u.act(n, r)
	time.Sleep(f.DelayReply)
	if f.LoseReply {
		return tokencache.Value{}, &tokencache.FetchError{Class: tokencache.ClassTransient, Message: "reset", Unclear: true}
	}
	return v, nil
}

// act issues or repeats a value, for the n-th fetch.
func (u *Upstream) act(n int, r tokencache.Request) tokencache.Value {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	overlap := or(u.Overlap, 5*time.Minute)
	renewLeft := or(u.RenewLeft, 30*time.Minute)
	if u.Mode == Repeating {
		renewLeft = or(u.RenewLeft, overlap-3*time.Second)
		if !r.Force && u.current.value != "" && u.current.expires.Sub(now) > overlap {
			u.fetches[n-1].Issued = u.current.value
			return tokencache.Value{Value: secret.New(u.current.value), Life: u.current.expires.Sub(now), RenewLeft: renewLeft}
		}
	}
	u.issue(n, now, overlap)
	if u.Mode == Repeating && r.Force {
		u.kill(u.previous.value)
		u.previous = issued{}
	}
	u.fetches[n-1].Issued = u.current.value
	return tokencache.Value{Value: secret.New(u.current.value), Life: u.current.expires.Sub(now), RenewLeft: renewLeft}
}

func (u *Upstream) issue(n int, now time.Time, overlap time.Duration) {
	u.serial++
	u.previous = u.current
	if ends := now.Add(overlap); u.previous.ends.IsZero() || ends.Before(u.previous.ends) {
		u.previous.ends = ends // a killed value stays dead
	}
	life := or(u.Life, 2*time.Hour)
	u.current = issued{value: fmt.Sprintf("TOKEN-%d-%d", u.serial, now.UnixNano()), expires: now.Add(life)}
	u.succeed(n)
}

// Foreign issues a value to another program, as a second refresher of the same app would get it.
func (u *Upstream) Foreign() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.issue(0, time.Now(), or(u.Overlap, 5*time.Minute))
}

// Kill ends every value at once. A Repeating upstream goes on repeating the dead one until forced.
func (u *Upstream) Kill() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	u.current.ends, u.previous.ends = now, now
	u.kill(u.current.value)
	u.kill(u.previous.value)
}

// Valid reports whether upstream accepts value now.
func (u *Upstream) Valid(value string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for _, i := range []issued{u.current, u.previous} {
		if i.value == value {
			return i.valid(now)
		}
	}
	return false
}

// Probe is a [tokencache.Credential]'s Probe.
func (u *Upstream) Probe(ctx context.Context, value secret.String) error {
	u.mu.Lock()
	u.probes++
	u.mu.Unlock()
	select {
	case <-time.After(or(u.Latency, 100*time.Millisecond)):
	case <-ctx.Done():
		return errors.New("probe: no answer")
	}
	if !u.Valid(value.Reveal()) {
		return tokencache.ErrRejected
	}
	return nil
}

// Fetches returns the calls so far.
func (u *Upstream) Fetches() []Fetch {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Fetch(nil), u.fetches...)
}

// Probes returns the number of probes so far.
func (u *Upstream) Probes() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.probes
}
