package vaultcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/vaultstore"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// account is what ls says of an authorizer.
type account struct {
	Platform   string      `json:"platform"`
	Authorizer string      `json:"authorizer"`
	State      vault.State `json:"state"`
	Saved      int64       `json:"saved"` // seconds ago, by the store's clock
	Order      int64       `json:"order"` // Unix seconds, by WeChat's clock
	Rev        int64       `json:"rev"`
	Secret     string      `json:"secret"` // kept, none, or unreadable: no key opens it
}

// sum is what ls says of a platform.
type sum struct {
	Platform string `json:"platform"`
	Alias    string `json:"alias,omitempty"`
	Kind     string `json:"kind"`
	// TicketAge and Compared are how many seconds ago the newest ticket was saved, and the vault was
	// compared with WeChat's list. They are absent if that never happened.
	TicketAge *int64 `json:"ticket_age,omitempty"`
	Compared  *int64 `json:"compared,omitempty"`
	Codes     int    `json:"codes"` // whose exchange has not ended
	Accounts  int    `json:"accounts"`
}

// list is the subcommand ls.
func list(ctx context.Context, s *session) error {
	platforms, err := s.named()
	if err != nil {
		return err
	}
	for _, c := range platforms {
		one, err := s.sum(ctx, c)
		if err != nil {
			return err
		}
		var accounts []account
		err = s.each(ctx, c.ID, func(row vault.Row) error {
			accounts = append(accounts, s.account(row))
			return nil
		})
		if err != nil {
			return err
		}
		one.Accounts = len(accounts)
		if s.json {
			err = printJSON(s.Stdout, one, accounts)
		} else {
			err = printTable(s.Stdout, one, accounts)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) sum(ctx context.Context, c config.ThirdParty) (sum, error) {
	one := sum{Platform: c.ID, Alias: c.Alias, Kind: c.Kind}
	codes, err := s.vault.Codes(ctx, c.ID)
	if err != nil {
		return one, err
	}
	one.Codes = len(codes)
	for id, age := range map[string]**int64{vault.Ticket: &one.TicketAge, vault.Marker: &one.Compared} {
		row, err := s.store.Load(ctx, c.ID, id)
		if err != nil {
			return one, err
		}
		if seconds := int64(row.Age.Seconds()); row.Rev > 0 {
			*age = &seconds
		}
	}
	return one, nil
}

func (s *session) account(row vault.Row) account {
	a := account{Platform: row.Platform, Authorizer: row.ID, State: row.State, Saved: int64(row.Age.Seconds()), Order: row.Order, Rev: row.Rev, Secret: "kept"}
	r, err := s.vault.Open(row)
	switch {
	case err != nil:
		a.Secret = "unreadable"
	case r.Secret.Empty():
		a.Secret = "none"
	}
	return a
}

func printJSON(w io.Writer, one sum, accounts []account) error {
	lines := json.NewEncoder(w)
	if err := lines.Encode(one); err != nil {
		return err
	}
	for _, a := range accounts {
		if err := lines.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

func printTable(w io.Writer, one sum, accounts []account) error {
	name := one.Platform
	if one.Alias != "" {
		name = one.Alias + " (" + one.Platform + ")"
	}
	fmt.Fprintf(w, "%s, %s: %s, %s not exchanged yet, %s, %s\n", name, one.Kind, text.Count(one.Accounts, "account"), text.Count(one.Codes, "code"),
		ago("the newest ticket came", "there is no ticket", one.TicketAge), ago("compared with WeChat's list", "never compared with WeChat's list", one.Compared))
	if len(accounts) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AUTHORIZER\tSTATE\tSAVED\tLAST EVENT\tREV\tSECRET")
	for _, a := range accounts {
		event := "-"
		if a.Order > 0 {
			event = time.Unix(a.Order, 0).UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", a.Authorizer, a.State, text.Ago(a.Saved), event, a.Rev, a.Secret)
	}
	return table.Flush()
}

func ago(did, never string, seconds *int64) string {
	if seconds == nil {
		return never
	}
	return did + " " + text.Ago(*seconds)
}

// schema is the subcommand schema.
func schema(_ context.Context, s *session) error {
	statements, err := vaultstore.Schema(s.cfg)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s.Stdout, statements)
	return err
}
