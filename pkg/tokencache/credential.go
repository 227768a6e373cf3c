package tokencache

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Key names one credential: which app it is for, and which of the app's credentials it is.
type Key struct {
	// App is the app's id: an appid, or corpid:agent. It becomes the hash tag of the Redis keys, so
	// it holds no brace, no white space and no control character. At most 128 bytes.
	App string
	// Kind says which credential: access_token, jsapi_ticket, ... Letters, digits and underscores.
	Kind string
}

// String returns app/kind.
func (k Key) String() string { return k.App + "/" + k.Kind }

// Without their bounds, which would make these many times as large in every program.
var (
	appPattern  = regexp.MustCompile(`^[A-Za-z0-9._:@-]+$`)
	kindPattern = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

func (k Key) validate() error {
	if len(k.App) > 128 || !appPattern.MatchString(k.App) {
		return fmt.Errorf("tokencache: app id %q: want 1 to 128 of A-Z a-z 0-9 . _ : @ -", k.App)
	}
	if len(k.Kind) > 64 || !kindPattern.MatchString(k.Kind) {
		return fmt.Errorf("tokencache: kind %q: want 1 to 64 of A-Z a-z 0-9 _", k.Kind)
	}
	return nil
}

// Source asks upstream for one credential. It knows upstream and nothing of Redis. A credential
// that needs another one (a ticket needs a token) gets it inside Fetch from the [Cache], within the
// same deadline.
type Source interface {
	// Fetch returns a value that upstream issued or still vouches for. The cache calls it from at
	// most one replica at a time and under a deadline, except that a replica that was stopped may
	// wake up inside a call; it may be called concurrently for that reason. An error that is not a
	// *[FetchError] counts as Transient and Unclear.
	Fetch(ctx context.Context, r Request) (Value, error)
}

// Request is what the cache asks of a [Source].
type Request struct {
	// Force asks for a value other than the present one, which upstream has been found to reject,
	// even where upstream would repeat it. A Source whose upstream cannot do that ignores it.
	Force bool
}

// Value is a value with a life.
type Value struct {
	// Value is 1 to 4096 printable ASCII characters.
	Value secret.String
	// Life is how long upstream says the value lives, counted from before it was asked: > 0. More
	// than 30 days count as 30 days.
	Life time.Duration
	// RenewLeft is how much of Life is left at the moment from which upstream has a better value.
	// The cache renews then, plus a random part of at most a quarter of it and of 1 minute; but
	// never sooner than 30 s (for a Life below 40 s: three quarters of it) after this value came.
	RenewLeft time.Duration
}

// ErrRejected is returned by a [Credential]'s Probe when upstream does not accept the value.
var ErrRejected = errors.New("tokencache: upstream rejects the value")

// Credential is what the cache must know about one credential to keep it.
type Credential struct {
	Key    Key
	Source Source

	// Overlap is how long the previous value works after upstream issued another one, for an
	// upstream where every fetch supersedes it (WeChat's classic endpoint: 5 minutes). Such a
	// credential is cut before each fetch, and never fetched without Redis.
	//
	// Zero means that a fetch invalidates no value: every fetch returns the same one. Such a
	// credential may be fetched without Redis, at most twice at once and every 30 s after that per
	// process.
	Overlap time.Duration

	// Probe asks upstream whether it accepts a value: nil for yes, [ErrRejected] for no, any other
	// error for no clear answer. Without a Probe every report of the current value counts as true.
	Probe func(ctx context.Context, value secret.String) error

	// Fingerprint distinguishes secrets without revealing them ([secret.String.Fingerprint]).
	// A backoff because of a wrong secret holds only for replicas with the same fingerprint.
	Fingerprint string

	// Margin is how long before its end a value leaves Redis. Default 1 minute; never more than a
	// tenth of the value's life.
	Margin time.Duration

	// Idle, if not 0, makes the cache drop the credential after no call of Get, GetAtLeast, Fresh
	// or Report has asked for it for so long. It is for credentials that come by [Cache.Add].
	Idle time.Duration

	// Fetches limits upstream calls, whatever the reason. Default 500 a day.
	Fetches Limit
	// Reports limits refreshes that reports cause. Default 200 a day.
	Reports Limit
	// Forced limits fetches with Request.Force, which are also 30 s apart. Default: none.
	Forced Limit
}

// validate says what is missing.
func (c *Credential) validate() error {
	if err := c.Key.validate(); err != nil {
		return err
	}
	if c.Source == nil {
		return fmt.Errorf("tokencache: %s has no Source", c.Key)
	}
	return nil
}

// Defaults and fixed times. They are here, not options, where no two users want different ones.
const (
	defaultMargin  = time.Minute
	defaultFetches = 500
	defaultReports = 200

	longestLife  = 30 * 24 * time.Hour // of a value; one that upstream lets live longer is renewed by then
	longestValue = 4096                // bytes

	leaseTTL = 10 * time.Second // how long a dead holder holds up the others
	workTime = 8 * time.Second  // of the lease, a parent credential included; the rest is for the commit

	goodInDoubt = 4 * time.Minute // what a cut leaves: less than the overlap, with room for a lost event
	forceGap    = 31 * time.Second
	probeGap    = 10 * time.Second // between two probes of a value that is reported again and again
	probeBurst  = 5                // that may precede them without a gap
	youngAge    = 30 * time.Minute // rejected before this age: probably superseded by a foreign refresher
)

// usable reports whether a value has the form of a credential: 1 to 4096 printable ASCII characters
// (RFC 6749, A.12).
func usable(value secret.String) bool {
	v := value.Reveal()
	return len(v) > 0 && len(v) <= longestValue && strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

func (c *Credential) margin(life time.Duration) time.Duration {
	m := c.Margin
	if m <= 0 {
		m = defaultMargin
	}
	return min(m, life/10)
}

// cut is how much life a fetch leaves to the present value: less than the overlap; 0 for no cut.
func (c *Credential) cut() time.Duration {
	return min(goodInDoubt, c.Overlap*4/5)
}
