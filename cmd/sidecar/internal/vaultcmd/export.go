package vaultcmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// line is an authorizer in a backup. What is secret of it is sealed.
type line struct {
	Platform   string      `json:"platform"`
	Authorizer string      `json:"authorizer"`
	State      vault.State `json:"state"`
	Order      int64       `json:"order"`
	Rev        int64       `json:"rev"` // for people: another vault counts anew
	Sealed     []byte      `json:"sealed"`
}

// export is the subcommand export. Tickets and codes are left out: WeChat sends new ones.
func export(ctx context.Context, s *session) error {
	platforms, err := s.named()
	if err != nil {
		return err
	}
	records, unreadable := 0, 0
	err = s.write(func(w io.Writer) error {
		lines := json.NewEncoder(w)
		for _, c := range platforms {
			err := s.each(ctx, c.ID, func(row vault.Row) error {
				records++
				if _, err := s.vault.Open(row); err != nil {
					unreadable++
				}
				return lines.Encode(line{row.Platform, row.ID, row.State, row.Order, row.Rev, row.Sealed})
			})
			if err != nil {
				return err
			}
		}
		if records == 0 {
			return errEmpty
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Stderr, "exported %s of %s\n", text.Count(records, "account"), text.Count(len(platforms), "platform"))
	if unreadable > 0 {
		return fmt.Errorf("no key opens %d of them: they are of use only with the key file that they were sealed with", unreadable)
	}
	return nil
}

// errEmpty is a failure so that a backup does not replace an earlier one after the vault was
// emptied.
var errEmpty = errors.New("the vault has no account: nothing was exported")

// write calls f with where the export goes. A file has its name only once it is whole.
func (s *session) write(f func(io.Writer) error) (err error) {
	if s.file == "" {
		w := bufio.NewWriter(s.Stdout)
		return errors.Join(f(w), w.Flush())
	}
	file, err := os.CreateTemp(filepath.Dir(s.file), ".vault-*") // only its owner can read it
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // unless it has been renamed
	w := bufio.NewWriter(file)
	if err := errors.Join(f(w), w.Flush(), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), s.file)
}
