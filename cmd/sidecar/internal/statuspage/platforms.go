package statuspage

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// Platform is one third-party platform or suite of a [Status]. Its own token is one of the apps'.
// All times are in seconds.
type Platform struct {
	ID    string `json:"id"`
	Alias string `json:"alias,omitempty"`
	Kind  string `json:"kind"`
	// Ticket is absent for a kind that has none.
	Ticket *TicketStatus `json:"ticket,omitempty"`
	// Accounts are those in the vault, by state; absent until they were counted.
	Accounts map[string]int `json:"accounts,omitempty"`
	Counted  int64          `json:"counted,omitempty"` // how long ago
	// Kept is how many accounts this replica keeps a token or a ticket of; Unserved, how many of them
	// have one that is missing or rejected.
	Kept         int    `json:"kept"`
	Unserved     int    `json:"unserved"`
	CodesWaiting int    `json:"codes_waiting"`
	VaultError   string `json:"vault_error,omitempty"`
	// Worst are at most 20 accounts: those refused longest, those that fail here, and the latest
	// withdrawals.
	Worst []accountStatus `json:"worst"`

	api apps.Platform
}

// TicketStatus is the newest ticket of a [Platform]. All times are in seconds.
type TicketStatus struct {
	None bool  `json:"none,omitempty"` // there is none yet
	Age  int64 `json:"age"`            // since this replica began to look, if there is none
	Life int64 `json:"life"`           // how long a ticket can be used
}

// oldAfter is the age in seconds from which on pushes do not arrive: WeChat pushes every 10 minutes.
// The alert has the same limits.
func (t TicketStatus) oldAfter() int64 {
	if t.Life <= int64(time.Hour/time.Second) {
		return 15 * 60
	}
	return 30 * 60
}

func (t TicketStatus) level() level {
	switch {
	case t.Age > t.Life:
		return levelTrouble
	case t.None || t.Age > t.oldAfter():
		return levelAttention
	}
	return levelWell
}

type accountStatus struct {
	Account string `json:"account"`
	State   string `json:"state"` // active, refused, withdrawn
	Since   int64  `json:"since,omitempty"`
	Errcode int    `json:"errcode,omitempty"`
	Error   string `json:"error,omitempty"`
	RetryIn int64  `json:"retry_in,omitempty"`
}

// platforms adds what is known of the platforms to s, and returns the credentials that belong to
// none of their accounts: thousands of accounts are not listed one by one.
func (h *Handler) platforms(s *Status, all []tokencache.Status, found *problems) (others []tokencache.Status) {
	known := h.opts.Platforms()
	accounts := make(map[string][]tokencache.Status, len(known))
	for _, p := range known {
		accounts[p.ID] = nil
	}
	for _, c := range all {
		id, _, isAccount := strings.Cut(c.Key.App, ":")
		if _, ok := accounts[id]; ok && isAccount {
			accounts[id] = append(accounts[id], c)
			continue
		}
		others = append(others, c)
	}
	set := h.opts.Apps()
	for _, p := range known {
		one := platformOf(p, accounts[p.ID])
		if app := set.Named(p.ID); app != nil {
			one.Alias, one.api = app.Alias, app.Platform
		}
		s.Platforms = append(s.Platforms, one)
		found.platform(one, p)
		for _, c := range accounts[p.ID] {
			found.account(one, c)
		}
	}
	return others
}

func platformOf(p platform.Status, kept []tokencache.Status) Platform {
	one := Platform{ID: p.ID, Kind: string(p.Kind), CodesWaiting: p.Codes, Worst: worstOf(p, kept)}
	if p.TicketLife > 0 {
		one.Ticket = &TicketStatus{None: !p.HasTicket, Age: seconds(p.Ticket), Life: seconds(p.TicketLife)}
	}
	if p.Authorizers != nil {
		one.Accounts, one.Counted = map[string]int{}, seconds(p.Counted)
		for state, n := range p.Authorizers {
			one.Accounts[string(state)] = n
		}
	}
	if p.Vault != nil {
		one.VaultError = p.Vault.Error()
	}
	last, unserved := "", ""
	for _, c := range kept { // sorted by account
		if c.Key.App != last {
			last = c.Key.App
			one.Kept++
		}
		if !hasEnded(c) && (!c.Known && c.Err != nil || c.Rejected) && c.Key.App != unserved {
			unserved = c.Key.App
			one.Unserved++
		}
	}
	return one
}

// worstOf returns the accounts that a person may ask about. kept are the credentials of accounts on
// this replica.
func worstOf(p platform.Status, kept []tokencache.Status) []accountStatus {
	failing := map[string]accountStatus{}
	for _, c := range kept {
		_, account, _ := strings.Cut(c.Key.App, ":")
		if levelOf(c) == levelWell || c.Err == nil || hasEnded(c) {
			continue
		}
		a := accountStatus{Account: account, State: string(vault.StateActive), Error: c.Err.Error(), RetryIn: seconds(max(c.Backoff, c.RenewIn))}
		if f, ok := errors.AsType[*tokencache.FetchError](c.Err); ok {
			a.Errcode = f.Code
		}
		if _, twice := failing[account]; !twice || c.Key.Kind == kindToken {
			failing[account] = a
		}
	}
	all := []accountStatus{}
	for _, w := range p.Worst {
		a := failing[w.ID]
		a.Account, a.State, a.Since = w.ID, string(w.State), seconds(w.Since)
		delete(failing, w.ID)
		all = append(all, a)
	}
	for _, a := range failing {
		all = append(all, a)
	}
	rank := func(a accountStatus) int {
		return slices.Index([]string{string(vault.StateRefused), string(vault.StateActive), string(vault.StateWithdrawn)}, a.State)
	}
	slices.SortFunc(all, func(a, b accountStatus) int {
		since := cmp.Compare(b.Since, a.Since)
		if a.State == string(vault.StateWithdrawn) {
			since = -since
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), since, cmp.Compare(a.Account, b.Account))
	})
	return all[:min(platform.MaxWorst, len(all))]
}

// hasEnded reports whether the right to a credential has ended, which is no fault.
func hasEnded(c tokencache.Status) bool { return c.Class == tokencache.ClassEnded }

// isRefused reports whether an account fails because WeChat rejects its authorisation. The replicas
// that did not ask WeChat have only the text of the error.
func isRefused(err error) bool {
	f, ok := errors.AsType[*tokencache.FetchError](err)
	return errors.Is(err, platform.ErrRefused) || ok && f.Message == platform.ErrRefused.Error()
}

// account adds what is wrong with a credential of an account. A few failing accounts are no fault of
// the whole platform, so the level is one lower than an app's. One that WeChat rejects is only
// counted.
func (p *problems) account(of Platform, c tokencache.Status) {
	if level := levelOf(c); level == levelWell || c.Err == nil || hasEnded(c) || isRefused(c.Err) {
		return
	}
	one := problemStatus{Level: levelAttention, Credentials: []string{c.Key.String()}, RetryIn: seconds(max(c.Backoff, c.RenewIn))}
	one.explain(of.api, c.Key.Kind, c.Err)
	p.add(one)
}

const (
	// refusedShare: while at most one account in this many is refused, that is the customers' matter.
	refusedShare = 100
	// manyCodes is how many codes wait at once only if they cannot be exchanged.
	manyCodes = 10
)

// platform adds what is wrong with a platform.
func (p *problems) platform(one Platform, s platform.Status) {
	name := cmp.Or(one.Alias, one.ID)
	if t := one.Ticket; t != nil && t.level() != levelWell {
		p.add(ticketProblem(name, *t))
	}
	switch {
	case errors.Is(s.Vault, vault.ErrSealed):
		p.add(problemStatus{Level: levelTrouble, What: "No key of vault.key_file opens what the vault has of " + name + ".",
			Fix: "Put the key back with which it was sealed: it is needed until sidecar vault rekey has sealed everything again. Nothing is overwritten."})
	case s.Vault != nil:
		p.add(problemStatus{Level: levelAttention, What: "The vault does not answer: " + one.VaultError,
			Fix: "Bring back the Redis or the database that keeps it. Until then pushes are answered 503 and come again, and only accounts that a replica remembers are refreshed."})
	}
	total := 0
	for _, n := range one.Accounts {
		total += n
	}
	if refused := one.Accounts[string(vault.StateRefused)]; refused*refusedShare > total {
		p.add(problemStatus{Level: levelAttention,
			What: fmt.Sprintf("%s rejects %s of %s, and has not told that they withdrew.", one.api, text.Count(refused, "account"), name),
			Fix:  "Nothing yet: they are tried again by themselves, and no secret is erased. If they stay, ask these customers whether they have withdrawn, and look for another program that uses the same platform."})
	}
	if one.CodesWaiting >= manyCodes {
		p.add(problemStatus{Level: levelAttention, What: fmt.Sprintf("%d codes of new accounts of %s wait for their exchange.", one.CodesWaiting, name),
			Fix: "Look at the log for why they are not exchanged: they live 10 minutes."})
	}
}

func ticketProblem(name string, t TicketStatus) problemStatus {
	const mend = "Mend the way from WeChat to the callback: sidecar doctor --callback tries it."
	switch level := t.level(); {
	case t.None && t.Age <= t.oldAfter():
		return problemStatus{Level: level, What: "WeChat has pushed no ticket for " + name + " yet.", Fix: "Wait: it pushes one every 10 minutes. If none comes, see whether the callback can be reached and answers success."}
	case t.None:
		return problemStatus{Level: level, What: "WeChat has pushed no ticket for " + name + " since this replica started, " + text.Ago(t.Age) + ".", Fix: mend}
	case level == levelTrouble:
		return problemStatus{Level: level, What: "The newest ticket of " + name + " is too old to be used: WeChat's pushes do not arrive.", Fix: mend}
	default:
		return problemStatus{Level: level, What: "The newest ticket of " + name + " was stored " + text.Ago(t.Age) + ": WeChat's pushes do not arrive.",
			Fix: mend + " The token can be refreshed for " + text.Span(t.Life-t.Age) + " more."}
	}
}
