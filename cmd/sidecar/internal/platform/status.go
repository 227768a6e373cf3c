package platform

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/wxtoken/sidecar/pkg/vault"
)

// Status is what this replica knows of a platform, for people and for metrics. It holds no secret.
type Status struct {
	ID   string
	Kind Kind
	// Ticket is the time since the newest ticket was stored. Until the vault has shown one, HasTicket is
	// false, and Ticket is the time since this replica began to look.
	Ticket    time.Duration
	HasTicket bool
	// TicketLife is how long a ticket can be used.
	TicketLife time.Duration
	// Authorizers are the accounts that the vault has, by state, as they were Counted ago. It is nil
	// until they were counted.
	Authorizers map[vault.State]int
	Counted     time.Duration
	// Worst are accounts that are refused, those refused longest first, and then those that have
	// withdrawn in the last week, the latest first: at most [MaxWorst] of each.
	Worst []Account
	// Codes is how many codes wait for their exchange, by the last look.
	Codes int
	// Vault is why the vault did not answer the last look; nil if it did.
	Vault error
}

// Account is an authorizer of a [Status].
type Account struct {
	ID    string
	State vault.State
	Since time.Duration // in this state
}

const (
	// MaxWorst is how many accounts of a state a [Status] names.
	MaxWorst = 20
	// countEvery is how often a replica counts the accounts in the vault, which reads all of them.
	countEvery = 5 * time.Minute
	// lately is for how long a withdrawal is news.
	lately = 7 * 24 * time.Hour
)

// view is what the last look at the vault found.
type view struct {
	ticketFrom time.Time // by this host's clock; zero: there is none, or the vault has not answered
	codes      int
	vault      error

	authorizers map[vault.State]int
	worst       []Account // Since is as of counted
	counted     time.Time
	countAgain  time.Time
}

// Status returns what this replica knows. It does no I/O.
func (p *Platform) Status() Status {
	p.mu.Lock()
	v := p.seen
	p.mu.Unlock()
	s := Status{
		ID: p.o.ID, Kind: p.o.Kind, Ticket: time.Since(cmp.Or(v.ticketFrom, p.since)), HasTicket: !v.ticketFrom.IsZero(),
		TicketLife: p.dialect.ticketLife(), Codes: v.codes, Vault: v.vault,
	}
	if v.counted.IsZero() {
		return s
	}
	s.Counted = time.Since(v.counted)
	s.Authorizers, s.Worst = maps.Clone(v.authorizers), slices.Clone(v.worst)
	for i := range s.Worst {
		s.Worst[i].Since += s.Counted
	}
	return s
}

// see changes what Status says.
func (p *Platform) see(f func(*view)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.seen)
}

// look asks the vault what Status says, and returns the codes whose exchange has not ended.
func (p *Platform) look(ctx context.Context) (codes []string, err error) {
	ticket, err := p.o.Vault.Load(ctx, p.o.ID, vault.Ticket)
	if err == nil {
		codes, err = p.o.Vault.Codes(ctx, p.o.ID)
	}
	due := false
	p.see(func(v *view) {
		v.vault = err
		if err != nil {
			return
		}
		v.codes, due = len(codes), !time.Now().Before(v.countAgain)
		if ticket.Rev > 0 {
			v.ticketFrom = time.Now().Add(-ticket.Age)
		}
	})
	if due {
		err = p.count(ctx)
		p.see(func(v *view) { v.vault = err })
	}
	return codes, err
}

// count counts the accounts in the vault.
func (p *Platform) count(ctx context.Context) error {
	by := map[vault.State]int{vault.StateActive: 0, vault.StateRefused: 0, vault.StateWithdrawn: 0}
	var refused, withdrawn []Account
	err := p.eachKept(ctx, func(r vault.Record) error {
		by[r.State]++
		switch a := (Account{r.ID, r.State, r.Age}); {
		case r.State == vault.StateRefused:
			refused = append(refused, a)
		case r.State == vault.StateWithdrawn && r.Age < lately:
			withdrawn = append(withdrawn, a)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(refused, func(a, b Account) int { return cmp.Compare(b.Since, a.Since) })
	slices.SortFunc(withdrawn, func(a, b Account) int { return cmp.Compare(a.Since, b.Since) })
	worst := slices.Concat(refused[:min(MaxWorst, len(refused))], withdrawn[:min(MaxWorst, len(withdrawn))])
	p.see(func(v *view) {
		v.authorizers, v.worst, v.counted = by, worst, time.Now()
		v.countAgain = v.counted.Add(jitter(countEvery))
	})
	return nil
}
