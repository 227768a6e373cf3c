package vaultcmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
)

const (
	// longestLine is more than a record can take.
	longestLine = 256 << 10
	// mostMistakes is how many wrong lines are explained.
	mostMistakes = 20
	// skew is how far in the future the order of a plain line may be. That of a backup is WeChat's.
	skew = 24 * time.Hour
)

// numbered is a record of the input, and where it was.
type numbered struct {
	vault.Record
	line int
}

// importLines is the subcommand import.
func importLines(ctx context.Context, s *session) error {
	records, err := s.readLines()
	if err != nil {
		return err
	}
	platforms := map[string]*platform.Platform{}
	for _, c := range s.cfg.Platforms {
		if platforms[c.ID], err = s.platform(c, nil); err != nil {
			return err
		}
	}
	count := map[platform.Imported]int{}
	for _, c := range s.cfg.Platforms {
		own := slices.DeleteFunc(slices.Clone(records), func(r numbered) bool { return r.Platform != c.ID })
		if err := s.importOf(ctx, platforms[c.ID], own, count); err != nil {
			return err
		}
	}
	would := ""
	if s.dry {
		would = "dry run: "
	}
	fmt.Fprintf(s.Stdout, "%s%d added, %d replaced, %d unchanged, %d kept\n", would,
		count[platform.ImportAdded], count[platform.ImportReplaced], count[platform.ImportUnchanged], count[platform.ImportKept])
	return nil
}

// importOf imports the records of one platform, and counts what became of them.
func (s *session) importOf(ctx context.Context, p *platform.Platform, own []numbered, count map[platform.Imported]int) error {
	for page := range slices.Chunk(own, pageSize) {
		records := make([]vault.Record, len(page))
		for i, r := range page {
			records[i] = r.Record
		}
		what, errs := p.Import(ctx, records, s.dry)
		for i, r := range page {
			if errs[i] != nil {
				return fmt.Errorf("line %d may not have been written, nor may others; import the same lines again: %w", r.line, errs[i])
			}
			if count[what[i]]++; what[i] == platform.ImportKept {
				fmt.Fprintf(s.Stderr, "line %d: the vault has another secret of %s that is not older, and keeps it\n", r.line, apps.AccountName(r.Platform, r.ID))
			}
		}
	}
	return nil
}

// readLines reads all of the input before anything is written.
func (s *session) readLines() ([]numbered, error) {
	in := s.stdin
	if s.file != "" {
		file, err := os.Open(s.file)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	var records []numbered
	first := map[string]int{}
	mistakes, n := 0, 0
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		r, err := s.parse(text)
		if name := apps.AccountName(r.Platform, r.ID); err == nil && first[name] > 0 {
			err = fmt.Errorf("it is about the same account as line %d: keep one of them", first[name])
		} else {
			first[name] = n
		}
		if err != nil {
			if mistakes++; mistakes <= mostMistakes {
				fmt.Fprintf(s.Stderr, "line %d: %v\n", n, err)
			}
			continue
		}
		records = append(records, numbered{r, n})
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d is too long to be a record: each record is one line of JSON; nothing was written", n+1)
	case err != nil:
		return nil, fmt.Errorf("the input ends after line %d, and nothing was written: %w", n, err)
	case mistakes > 0:
		return nil, fmt.Errorf("%d of %d lines are wrong, and nothing was written: correct or remove them, and import all again", mistakes, n)
	case len(records) == 0:
		return nil, errors.New("there is no line to import")
	}
	return records, nil
}

// input is a line of a backup, or of another program.
type input struct {
	line
	RefreshToken  string `json:"refresh_token"`
	PermanentCode string `json:"permanent_code"`
}

// plainSecret is what a refresh token and a permanent code look like, with at most longestPlain
// letters. A serialized object of another program does not.
var plainSecret = regexp.MustCompile(`^[!-~]+$`)

const longestPlain = 1000

// parse reads one line. The error repeats nothing of it.
func (s *session) parse(text []byte) (vault.Record, error) {
	var in input
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return vault.Record{}, errors.New("it is not a JSON object with platform, authorizer and sealed, or refresh_token, or permanent_code; order is a number")
	}
	if _, err := d.Token(); err != io.EOF {
		return vault.Record{}, errors.New("there is more than one JSON object on it: put each on a line of its own")
	}
	c, err := s.find(in.Platform)
	switch {
	case err != nil:
		return vault.Record{}, fmt.Errorf("platform: %w", err)
	case !apps.IsAccount(in.Authorizer):
		return vault.Record{}, errors.New("authorizer must be an appid or a corpid")
	case len(in.Sealed) > 0 && in.RefreshToken+in.PermanentCode != "":
		return vault.Record{}, errors.New("it has a sealed and a plain secret: keep one of them")
	case len(in.Sealed) > 0:
		return s.unseal(c, in)
	}
	return plain(c, in)
}

// unseal opens a line of a backup.
func (s *session) unseal(c config.ThirdParty, in input) (vault.Record, error) {
	switch in.State {
	case vault.StateActive, vault.StateRefused, vault.StateWithdrawn:
	default:
		return vault.Record{}, errors.New("state must be active, refused or withdrawn")
	}
	r, err := s.vault.Open(vault.Row{Platform: c.ID, ID: in.Authorizer, State: in.State, Order: in.Order, Rev: 1, Sealed: in.Sealed})
	if err != nil {
		return r, errors.New("no key of vault.key_file opens it: add the key of the time of the backup to the file, below the first one; or the line was changed")
	}
	return r, nil
}

// plain reads a line of another program.
func plain(c config.ThirdParty, in input) (vault.Record, error) {
	key, value, other := "refresh_token", in.RefreshToken, in.PermanentCode
	if c.Kind != config.KindOpenPlatform {
		key, value, other = "permanent_code", in.PermanentCode, in.RefreshToken
	}
	switch {
	case other != "":
		return vault.Record{}, fmt.Errorf("an account of this platform has a %s", key)
	case value == "":
		return vault.Record{}, fmt.Errorf("%s is missing or empty: an account without one cannot be moved; remove the line", key)
	case len(value) > longestPlain || !plainSecret.MatchString(value):
		return vault.Record{}, fmt.Errorf("%s is not one line of plain letters: the program that it is from has put something around it", key)
	case in.Order < 0 || in.Order > time.Now().Add(skew).Unix():
		return vault.Record{}, errors.New("order must be a time of the past in Unix seconds: an order of the future would hide what WeChat tells until then")
	case in.State != "" && in.State != vault.StateActive:
		return vault.Record{}, errors.New("state of a plain line must be active, or missing")
	}
	return vault.Record{Platform: c.ID, ID: in.Authorizer, State: vault.StateActive, Secret: secret.New(value), Order: in.Order}, nil
}
