package vaultcmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// rekeyed counts the records that rekey looked at.
type rekeyed struct{ did, had, failed int }

// rekey is the subcommand rekey.
func rekey(ctx context.Context, s *session) error {
	platforms, err := s.named()
	if err != nil {
		return err
	}
	var count rekeyed
	for _, c := range platforms {
		if err := s.rekeyAll(ctx, c.ID, &count); err != nil {
			return fmt.Errorf("%d records are sealed with the first key, others are not; repeat it: %w", count.did, err)
		}
	}
	fmt.Fprintf(s.Stdout, "%s sealed again with the first key, %d had been\n", text.Count(count.did, "record"), count.had)
	if count.failed > 0 {
		return fmt.Errorf("no key opens %s: the key of these is not in the key file", text.Count(count.failed, "record"))
	}
	fmt.Fprintln(s.Stdout, "once every sidecar runs with this key file, the other keys can be taken out of it")
	return nil
}

// rekeyAll seals again what the vault has of a platform.
func (s *session) rekeyAll(ctx context.Context, platform string, count *rekeyed) error {
	// One that no key opens does not keep the others from it.
	note := func(id string, again bool, err error) error {
		switch {
		case errors.Is(err, vault.ErrSealed):
			count.failed++
			fmt.Fprintf(s.Stderr, "%s: no key opens its record\n", recordName(platform, id))
		case err != nil:
			return err
		case again:
			count.did++
		default:
			count.had++
		}
		return nil
	}
	codes, err := s.vault.Codes(ctx, platform)
	if err != nil {
		return err
	}
	for _, id := range append([]string{vault.Ticket, vault.Marker}, codes...) {
		row, err := s.store.Load(ctx, platform, id)
		if err == nil && row.Rev == 0 {
			continue
		}
		again := false
		if err == nil {
			again, err = s.vault.Reseal(ctx, platform, id)
		}
		if err := note(id, again, err); err != nil {
			return err
		}
	}
	return s.eachPage(ctx, platform, func(rows []vault.Row) error {
		again, errs := s.vault.ResealAll(ctx, rows)
		for i, row := range rows {
			if err := note(row.ID, again[i], errs[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// recordName names a record for people. A code's id does not reveal the code.
func recordName(platform, id string) string {
	switch id {
	case vault.Ticket:
		return platform + ": the ticket"
	case vault.Marker:
		return platform + ": the time of the last comparison"
	}
	return apps.AccountName(platform, id)
}

// recoverNow is the subcommand recover.
func recoverNow(ctx context.Context, s *session) error {
	platforms, err := s.named()
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range platforms {
		if err := s.recoverOne(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (s *session) recoverOne(ctx context.Context, c config.ThirdParty) error {
	var mu sync.Mutex
	count := map[string]int{}
	p, err := s.platform(c, func(e platform.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.What == platform.EventRecovery && e.Err == nil {
			count[e.Label]++
		}
	})
	if err != nil {
		return err
	}
	compared := p.Recover(ctx)
	switch {
	case compared != nil:
	case c.Kind != config.KindOpenPlatform:
		fmt.Fprintf(s.Stdout, "%s: WeCom has no list of accounts to compare with\n", c.ID)
	default:
		fmt.Fprintf(s.Stdout, "%s: compared with WeChat's list: %d added, %d replaced, %d unchanged, %d not in it\n", c.ID,
			count["added"], count["replaced"], count["unchanged"], count["unlisted"])
	}
	well, still := 0, 0
	err = p.RetryRefused(ctx, func(authorizer string, err error) {
		if err == nil {
			well++
			return
		}
		still++
		fmt.Fprintf(s.Stderr, "%s is still refused: %s\n", apps.AccountName(c.ID, authorizer), s.plain(err))
	})
	if err == nil && well+still > 0 {
		fmt.Fprintf(s.Stdout, "%s: of %s that WeChat refused, it accepts %d again\n", c.ID, text.Count(well+still, "account"), well)
	}
	return errors.Join(compared, err)
}

// forget is the subcommand forget.
func forget(ctx context.Context, s *session) error {
	name, authorizer, ok := strings.Cut(s.argument, ":")
	if !ok || !apps.IsAccount(authorizer) {
		return errors.New("the account must be PLATFORM:AUTHORIZER, as ls prints them")
	}
	c, err := s.find(name)
	if err != nil {
		return err
	}
	p, err := s.platform(c, nil)
	if err != nil {
		return err
	}
	full := apps.AccountName(c.ID, authorizer)
	if !s.yes {
		fmt.Fprintf(s.Stderr, "This erases the secret of %s and takes its token back. Only the account's owner can authorise again.\nType %s to go on: ", full, authorizer)
		answer, _ := bufio.NewReader(s.stdin).ReadString('\n') // a failed read counts as no
		if !slices.Contains([]string{authorizer, full, s.argument}, strings.TrimSpace(answer)) {
			return errors.New("not confirmed: nothing was changed. With --yes it does not ask")
		}
	}
	was, err := p.Forget(ctx, authorizer)
	switch {
	case errors.Is(err, apps.ErrNotAuthorized):
		return fmt.Errorf("the vault has no account %s", full)
	case err != nil:
		return fmt.Errorf("it may be done in part; repeat it: %w", err)
	}
	fmt.Fprintf(s.Stdout, "%s was %s, and is withdrawn: its secret is erased, and its token taken back\n", full, was)
	return nil
}
