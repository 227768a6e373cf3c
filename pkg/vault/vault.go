// Package vault keeps what upstream gives once and a cluster must not lose: the refresh tokens and
// permanent codes of the accounts that authorised a third-party platform, its ticket, and the codes
// that it is to exchange.
//
// A [Record] is written by compare-and-swap, so no replica overwrites what it has not seen. Its
// secret is sealed before it leaves the process, and bound to the record that it belongs to:
// neither a dump of the store nor a swapped field is worth anything. An erased record stays, with
// its order, so that an old event cannot revive it.
//
// Stores are [NewRedis] and whatever else implements [Store]; package vaulttest has what each must
// do. The package imports pkg/secret and nothing else of this module.
package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// State says what became of an authorizer or a code.
type State string

// The states of an authorizer.
const (
	StateActive    State = "active"    // authorised, as far as is known
	StateRefused   State = "refused"   // upstream rejects the secret, and has not said that the authorisation ended
	StateWithdrawn State = "withdrawn" // upstream has said that the authorisation ended
)

// The states of a code. A ticket is StateReceived.
const (
	StateReceived State = "received"
	StateSent     State = "sent" // the exchange has begun, and nothing says that it ended
	StateDone     State = "done"
	StateLost     State = "lost" // the exchange went through, and its answer cannot be had again
)

// Record is one thing that the vault keeps.
type Record struct {
	// Platform is the platform's id: it becomes the hash tag of Redis keys.
	Platform string
	// ID says which of the platform's records it is: [Ticket], an authorizer's id, or one of
	// [CodeID]. At most 128 bytes.
	ID    string
	State State
	// Secret is a ticket, a refresh token, a permanent code or a code. It may be empty.
	Secret secret.String
	// Order is when upstream says that it happened, by upstream's clock, in Unix seconds. It is
	// only compared with its like.
	Order int64
	// Info is what else upstream said, at most 4 KiB. It is sealed like the secret.
	Info []byte
	// Rev grows with every change. 0: there is no such record.
	Rev int64
	// Age is the time since the record was saved, by the store's clock. [Vault.Save] ignores it.
	Age time.Duration
}

const (
	// Ticket is the ID of a platform's ticket.
	Ticket = ""
	// Marker is the ID of a record that is there unless the vault was emptied, and whose age says
	// when the vault was last compared with upstream.
	Marker = "@marker"
)

const (
	codePrefix = "code/"
	// codeLife is how long a code's record makes every replay of it a no-op. A code lives 10
	// minutes; WeChat's repeats of pushes are not documented.
	codeLife = 30 * 24 * time.Hour

	longestInfo   = 4 << 10
	longestSecret = 4 << 10
)

// CodeID returns the ID of a code. It does not reveal the code.
func CodeID(code secret.String) string { return codePrefix + digest(code)[:32] }

// IsCode reports whether a record with this ID is a code. The store forgets it after 30 days.
func IsCode(id string) bool { return strings.HasPrefix(id, codePrefix) }

// Errors of a vault, besides those of its store.
var (
	// ErrConflict is returned by Save if the record has changed since it was loaded.
	ErrConflict = errors.New("vault: the record has changed meanwhile")
	// ErrSealed is returned for a record that none of the keys opens. It is not overwritten.
	ErrSealed = errors.New("vault: no key opens the record: the key file is another one than the record was sealed with, or the record was changed by hand")
)

// Row is a record as a store keeps it. Sealed holds what is secret of it.
type Row struct {
	Platform, ID string
	State        State
	Order, Rev   int64
	Sealed       []byte
	Age          time.Duration
}

// Life is how long a store keeps a row after it was saved; 0: for ever.
func (r Row) Life() time.Duration {
	if IsCode(r.ID) {
		return codeLife
	}
	return 0
}

// IsOpen reports whether the row is a code whose exchange has not ended.
func (r Row) IsOpen() bool { return IsCode(r.ID) && (r.State == StateReceived || r.State == StateSent) }

// IsAuthorizer reports whether a record with this ID is an authorizer's.
func IsAuthorizer(id string) bool { return id != Ticket && id != Marker && !IsCode(id) }

// NeedsDisk reports whether a store must not acknowledge the row before it would survive a crash:
// what upstream does not give again. Tickets and codes come again.
func (r Row) NeedsDisk() bool { return r.State == StateActive }

// Store keeps rows. It is safe for concurrent use. A rev never repeats and never falls while the
// row is there.
type Store interface {
	// Load returns a row; one with Rev 0 if there is none.
	Load(ctx context.Context, platform, id string) (Row, error)
	// Save writes r as r.Rev+1, if the row that is there has r.Rev, and returns the new rev. Else
	// it changes nothing and returns [ErrConflict]. Repeating a call whose answer was lost is no
	// conflict: the same Sealed came from the same call.
	Save(ctx context.Context, r Row) (int64, error)
	// SaveAll is Save for rows of one platform that are no codes, whose IDs differ. The errors are in
	// their order.
	SaveAll(ctx context.Context, rows []Row) []error
	// List returns at most n rows whose IDs come after the given one in byte order, in that order.
	// Codes are left out, as are the ticket and the marker.
	List(ctx context.Context, platform, after string, n int) ([]Row, error)
	// Codes returns the IDs of the codes that are [StateReceived] or [StateSent], the oldest first,
	// at most 1000.
	Codes(ctx context.Context, platform string) ([]string, error)
}

// Vault keeps records in a [Store]. Safe for concurrent use. Create it with [New].
type Vault struct {
	store Store
	keys  Keys
}

// New returns a vault that seals with keys. It does no I/O.
func New(s Store, keys Keys) *Vault { return &Vault{s, keys} }

// Load returns a record; one with Rev 0 if there is none. The error is [ErrSealed], or the store's.
func (v *Vault) Load(ctx context.Context, platform, id string) (Record, error) {
	row, err := v.store.Load(ctx, platform, id)
	if err != nil {
		return Record{}, err
	}
	row.Platform, row.ID = platform, id
	return v.Open(row)
}

// Save writes r over what was loaded as r.Rev, and returns it as it is now. The secret of an active
// record is then as safe as the store can make it. The error is [ErrConflict], says what is not
// valid, or is the store's: then it is not known whether r was written.
func (v *Vault) Save(ctx context.Context, r Record) (Record, error) {
	row, err := v.seal(r)
	if err != nil {
		return Record{}, err
	}
	rev, err := v.store.Save(ctx, row)
	if err != nil {
		return Record{}, err
	}
	r.Rev, r.Age = rev, 0
	return r, nil
}

// Reseal seals a record again with the first key, if another one has sealed it, and reports whether
// it did. But for its rev and its age, the record stays as it is. The error is as of [Vault.Load]
// and [Vault.Save].
func (v *Vault) Reseal(ctx context.Context, platform, id string) (bool, error) {
	for {
		row, err := v.store.Load(ctx, platform, id)
		if err != nil || row.Rev == 0 {
			return false, err
		}
		row.Platform, row.ID = platform, id
		if _, err := v.keys.first().open(row.Sealed, row.binding()); err == nil {
			return false, nil
		}
		r, err := v.Open(row)
		if err != nil {
			return false, err
		}
		if _, err = v.Save(ctx, r); !errors.Is(err, ErrConflict) { // else look at what is there now
			return err == nil, err
		}
	}
}

// ResealAll is Reseal for up to 500 rows of one platform that are no codes, whose IDs differ, as they
// were loaded. It takes hardly longer than Reseal does for one. Both results are in the order of the
// rows.
func (v *Vault) ResealAll(ctx context.Context, rows []Row) (did []bool, errs []error) {
	did, errs = make([]bool, len(rows)), make([]error, len(rows))
	var records []Record
	var places []int
	for i, row := range rows {
		if _, err := v.keys.first().open(row.Sealed, row.binding()); err == nil {
			continue
		}
		r, err := v.Open(row)
		if err != nil {
			errs[i] = err
			continue
		}
		records, places = append(records, r), append(places, i)
	}
	for n, err := range v.SaveAll(ctx, records) {
		i := places[n]
		if did[i], errs[i] = err == nil, err; errors.Is(err, ErrConflict) {
			did[i], errs[i] = v.Reseal(ctx, rows[i].Platform, rows[i].ID)
		}
	}
	return did, errs
}

// SaveAll is Save for up to 500 records of one platform that are no codes, whose IDs differ. It takes
// hardly longer than Save does for one. The errors are in the order of the records.
func (v *Vault) SaveAll(ctx context.Context, records []Record) []error {
	errs := make([]error, len(records))
	rows, places := make([]Row, 0, len(records)), make([]int, 0, len(records))
	for i, r := range records {
		var row Row
		if row, errs[i] = v.seal(r); errs[i] == nil {
			rows, places = append(rows, row), append(places, i)
		}
	}
	for i, err := range v.store.SaveAll(ctx, rows) {
		errs[places[i]] = err
	}
	return errs
}

// saveAtOnce is how many rows SaveEach saves at once.
const saveAtOnce = 8

// SaveEach is [Store.SaveAll] for a store that knows nothing better than to save rows one by one: it
// saves some at once.
func SaveEach(ctx context.Context, rows []Row, save func(context.Context, Row) (int64, error)) []error {
	errs := make([]error, len(rows))
	var next atomic.Int64
	var g sync.WaitGroup
	for range min(saveAtOnce, len(rows)) {
		g.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(rows); i = int(next.Add(1)) - 1 {
				_, errs[i] = save(ctx, rows[i])
			}
		})
	}
	g.Wait()
	return errs
}

func (v *Vault) seal(r Record) (Row, error) {
	if err := r.validate(); err != nil {
		return Row{}, err
	}
	row := Row{Platform: r.Platform, ID: r.ID, State: r.State, Order: r.Order, Rev: r.Rev}
	body, _ := json.Marshal(newContent(r)) // a text and bytes: cannot fail
	row.Sealed = v.keys.seal(body, row.binding())
	return row, nil
}

// List returns at most n authorizers of a platform, whose IDs come after the given one in byte
// order, in that order. The error is as of [Vault.Load]; one record that no key opens fails the
// call.
func (v *Vault) List(ctx context.Context, platform, after string, n int) ([]Record, error) {
	rows, err := v.store.List(ctx, platform, after, n)
	if err != nil {
		return nil, err
	}
	records := make([]Record, len(rows))
	for i, row := range rows {
		row.Platform = platform
		if records[i], err = v.Open(row); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// Codes returns the IDs of the codes of a platform whose exchange has not ended, the oldest first,
// at most 1000.
func (v *Vault) Codes(ctx context.Context, platform string) ([]string, error) {
	return v.store.Codes(ctx, platform)
}

// Open returns the record of a row, whose Platform and ID are set. The error is [ErrSealed]. What is
// left of a code that was exchanged holds no secret, and is read without a key: so a key can be
// taken away although the code may be delivered once more.
func (v *Vault) Open(row Row) (Record, error) {
	r := Record{Platform: row.Platform, ID: row.ID, State: row.State, Order: row.Order, Rev: row.Rev, Age: row.Age}
	if row.Rev == 0 {
		return Record{Platform: row.Platform, ID: row.ID}, nil
	}
	body, err := v.keys.open(row.Sealed, row.binding())
	if err != nil && IsCode(row.ID) && !row.IsOpen() {
		return r, nil
	}
	if err != nil {
		return Record{}, err
	}
	var c content
	if json.Unmarshal(body, &c) != nil {
		return Record{}, ErrSealed
	}
	r.Secret = secret.New(c.Secret)
	if r.Info, err = c.info(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// binding is what the sealed part is bound to: moved to another record, or beside another state or
// order, it does not open.
func (r Row) binding() []byte {
	return fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", r.Platform, r.ID, r.State, r.Order)
}

// Without their bounds, which would make these many times as large in every program.
var (
	platformPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	idPattern       = regexp.MustCompile(`^[A-Za-z0-9._@/-]*$`)
)

func (r Record) validate() error {
	switch {
	case len(r.Platform) > 64 || !platformPattern.MatchString(r.Platform):
		return errors.New("vault: the platform's id must be 1 to 64 letters, digits and . _ -")
	case len(r.ID) > 128 || !idPattern.MatchString(r.ID):
		return errors.New("vault: a record's id must be at most 128 letters, digits and . _ - @ /")
	case len(r.Info) > longestInfo || len(r.Secret.Reveal()) > longestSecret:
		return errors.New("vault: a secret or an info has at most 4 KiB")
	case r.Order < 0 || r.Rev < 0:
		return errors.New("vault: an order or a rev is negative")
	}
	switch r.State {
	case StateActive, StateRefused, StateWithdrawn, StateReceived, StateSent, StateDone, StateLost:
		return nil
	}
	return fmt.Errorf("vault: there is no state %q", cmp.Or(string(r.State), "(empty)"))
}
