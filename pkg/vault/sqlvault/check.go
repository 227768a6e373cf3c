package sqlvault

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	noTable      = "there is no table wxtoken_vault: create it with what sqlvault.Schema returns"
	otherTable   = "the table wxtoken_vault is not the one that sqlvault.Schema returns"
	tooManyConns = "the server has no connection left: raise its limit, or put a pooler before it"
)

// Check reports whether the table is there as [Schema] defines it, and whether the user may read
// and write it. It changes nothing. The error says what to do.
func (s *Store) Check(ctx context.Context) error {
	return s.do(ctx, "check", func(ctx context.Context) error {
		for _, text := range s.d.check {
			if _, err := s.db.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		return s.compare(ctx)
	})
}

// compare looks at what the statements do not depend on until it is too late: with another
// collation two IDs are one, or the order is another.
func (s *Store) compare(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, s.d.describe)
	if err != nil {
		return err
	}
	defer rows.Close()
	got := map[string]string{}
	for rows.Next() {
		var name, is string
		if err := rows.Scan(&name, &is); err != nil {
			return err
		}
		got[name] = is
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.d.wanted)) {
		if want := s.d.wanted[name]; !slices.Contains(want, got[name]) {
			return fmt.Errorf("%w: %s is %q, not %s", errTable, name, got[name], strings.Join(want, " or "))
		}
	}
	return nil
}

// Durability says for people why a commit may not survive a crash of the server, and what to do;
// "" if it survives as far as the server's settings say. A replica of the server may still lack
// it.
func (s *Store) Durability(ctx context.Context) (problem string, err error) {
	err = s.do(ctx, "durability", func(ctx context.Context) error {
		settings := make([]string, 2)
		err := s.db.QueryRowContext(ctx, s.d.durability).Scan(&settings[0], &settings[1])
		if err == nil {
			problem = s.d.problem(settings)
		}
		return err
	})
	return problem, err
}
