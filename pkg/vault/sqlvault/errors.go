package sqlvault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

var (
	// errForeign says that something else than this package wrote to the table.
	errForeign = errors.New("a row of wxtoken_vault was not written by wxtoken")
	// errTable says that the table is not as [Schema] defines it.
	errTable = errors.New(otherTable)
)

// failure is an error of a driver with a text that can be shown.
type failure struct {
	text string
	err  error
}

func (e *failure) Error() string { return e.text }

// Unwrap is for errors.Is with the errors of a context. What it returns may hold the URL's
// password.
func (e *failure) Unwrap() error { return e.err }

const (
	// tries is how often a call is tried.
	tries = 4
	// pause is the least time between two tries, and half of the most.
	pause = 10 * time.Millisecond
)

// do runs one call under its deadline. It repeats the call after a deadlock, a failed
// serialization or a lost connection: reads change nothing, and a save that is repeated finds what
// it wrote.
func (s *Store) do(ctx context.Context, op string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	for i := range tries {
		if i > 0 {
			sleep(ctx, pause+rand.N(pause))
		}
		if err = call(ctx); err == nil || errors.Is(err, vault.ErrConflict) {
			return err
		}
		if ctx.Err() != nil || !s.d.isTransient(err) {
			break
		}
	}
	return s.explain(ctx, op, err)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// isTransient reports whether a call may succeed if it is repeated.
func (d *dialect) isTransient(err error) bool {
	if code, ok := d.reply(err); ok {
		return slices.Contains(d.harmless, code)
	}
	return !isOurs(err)
}

// isOurs reports whether err is of this package, and says itself what to do.
func isOurs(err error) bool { return errors.Is(err, errForeign) || errors.Is(err, errTable) }

// explain returns err with a text that says what to do and repeats nothing secret.
func (s *Store) explain(ctx context.Context, op string, err error) error {
	code, isReply := s.d.reply(err)
	advice := s.d.advice[code]
	switch {
	case isReply || isOurs(err):
	case errors.Is(ctx.Err(), context.Canceled):
		err = errors.Join(context.Canceled, err)
	case ctx.Err() != nil:
		err = errors.Join(context.DeadlineExceeded, err)
		advice = fmt.Sprintf("no answer in time (at most %v): the database is slow or cannot be reached, or all of the %d connections are in use", timeout, mostConns)
	default:
		advice = "the database cannot be reached, or ended the connection"
	}
	if advice != "" {
		advice += ": "
	}
	reason := strings.Join(strings.Fields(err.Error()), " ")
	return &failure{"vault: " + s.d.name + ": " + op + ": " + secret.Scrub(advice+reason, s.secrets...), err}
}
