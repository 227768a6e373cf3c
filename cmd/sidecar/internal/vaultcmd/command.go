// Package vaultcmd is the command vault: what a person does with the secrets that WeChat gives only
// once. No output of it holds a secret in clear.
package vaultcmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/redisclient"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/vaultstore"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// Command returns the command vault of the program. stdin has the records to import, and the answer
// to a question.
func Command(stdin io.Reader) cli.Command {
	return cli.Command{
		Name: "vault", Summary: "list, back up, move, seal again or end the authorisations of third-party platforms",
		Usage: "vault ls|export|import|rekey|recover|forget|schema [flags]", About: about,
		Run: func(ctx context.Context, c *cli.Invocation) int { return run(ctx, c, stdin) },
	}
}

const about = `Works on the vault of the configuration: the refresh tokens and permanent codes of the accounts that
authorised a third-party platform. Takes the flags and the environment of the sidecar; no sidecar has
to be running, and those that run are not disturbed. Prints no secret.

  ls [PLATFORM]       each account: its state, when it was saved, WeChat's time of its last event, its rev
  export [PLATFORM]   the accounts as JSON lines on stdout, or in --file, still sealed: a backup is worth
                      nothing without the key file
  import              reads such lines, or lines of other programs, which it seals:
                        {"platform": "wx1", "authorizer": "wx2", "refresh_token": "..."}
                      (on WeCom permanent_code). With "order", in Unix seconds, a line replaces what
                      WeChat has told before that time; without it, it only fills what is missing.
                      If a line is wrong, nothing is written
  rekey [PLATFORM]    seals each record again with the first key of the key file; may be repeated
  recover [PLATFORM]  compares with WeChat's list of accounts now, and tries those that WeChat refuses
  forget ACCOUNT      ends an authorisation, PLATFORM:AUTHORIZER: its secret is erased, and its token
                      taken back everywhere. Only the account's owner can authorise again
  schema              the SQL that creates the table of the database that vault.url_file names

examples:
  sidecar vault ls
  sidecar vault export --file /backup/vault.jsonl
  kubectl exec -i POD -c wxtoken -- /sidecar vault import --dry-run < vault.jsonl

exit status:
  0  done
  1  not done, or not wholly: stderr says what is missing
  2  wrong usage or a wrong configuration
`

// subcommand is one of the words that may follow vault.
type subcommand struct {
	needs int      // how many arguments it must have
	most  int      // how many it may have
	flags []string // its own
	run   func(context.Context, *session) error
}

var subcommands = map[string]subcommand{
	"ls":      {0, 1, []string{"json"}, list},
	"export":  {0, 1, []string{"file"}, export},
	"import":  {0, 0, []string{"file", "dry-run"}, importLines},
	"rekey":   {0, 1, nil, rekey},
	"recover": {0, 1, nil, recoverNow},
	"forget":  {1, 1, []string{"yes"}, forget},
	"schema":  {0, 0, nil, schema},
}

// session is one run of a subcommand.
type session struct {
	*cli.Invocation
	stdin io.Reader
	cfg   *config.Config
	redis redis.UniversalClient
	store vaultstore.Store
	vault *vault.Vault
	cache *tokencache.Cache // of tokens that are taken back or tried

	json, dry, yes bool
	file           string
	argument       string // empty: none
}

func run(ctx context.Context, c *cli.Invocation, stdin io.Reader) int {
	s := &session{Invocation: c, stdin: stdin}
	var o config.Overrides
	set := c.Flags()
	cli.AllFlags(set, &o)
	set.BoolVar(&s.json, "json", false, "ls: print each account, and each platform, as a JSON object on one line")
	set.StringVar(&s.file, "file", "", "export, import: the `file` to write, which is replaced once it is whole, or to read")
	set.BoolVar(&s.dry, "dry-run", false, "import: say what would be done, and do nothing")
	set.BoolVar(&s.yes, "yes", false, "forget: do not ask")
	rest, status, done := c.Parse(set, 2)
	if done {
		return status
	}
	if len(rest) == 0 {
		rest = []string{""}
	}
	sub, ok := subcommands[rest[0]]
	if err := misuse(set, rest, sub, ok); err != nil {
		return c.Misused(err)
	}
	if len(rest) == 2 {
		s.argument = rest[1]
	}
	var err error
	if s.cfg, err = config.Load(o, c.Getenv); err != nil {
		fmt.Fprintln(c.Stderr, err)
		return cli.Misuse
	}
	// A provider keeps nothing in the vault.
	s.cfg.Platforms = slices.DeleteFunc(s.cfg.Platforms, func(c config.ThirdParty) bool { return !c.HasAccounts() })
	redisclient.Silence() // errors say it
	if err = s.open(rest[0]); err == nil {
		err = sub.run(ctx, s)
	}
	s.close()
	if err != nil {
		return c.Failed("%s", s.plain(err))
	}
	return cli.Done
}

// misuse says what is wrong with the arguments and flags of a subcommand. It repeats no argument: it
// may be a secret at the wrong place.
func misuse(set *flag.FlagSet, rest []string, sub subcommand, ok bool) (err error) {
	if !ok {
		return errors.New("name one of: " + strings.Join(slices.Sorted(maps.Keys(subcommands)), ", "))
	}
	switch n := len(rest) - 1; {
	case n < sub.needs:
		return fmt.Errorf("%s needs an account: PLATFORM:AUTHORIZER", rest[0])
	case n > sub.most:
		return fmt.Errorf("%s takes no argument", rest[0])
	}
	set.Visit(func(f *flag.Flag) {
		own := slices.Contains([]string{"json", "file", "dry-run", "yes"}, f.Name)
		if own && !slices.Contains(sub.flags, f.Name) {
			err = fmt.Errorf("%s takes no --%s", rest[0], f.Name)
		}
	})
	return err
}

// open makes what the subcommand needs. It does no I/O but for reading certificates.
func (s *session) open(name string) (err error) {
	switch {
	case len(s.cfg.Platforms) == 0:
		return errors.New("no platform is configured that has accounts: without one there is no vault")
	case name == "schema":
		return nil
	}
	if s.redis, err = redisclient.Connect(s.cfg.Redis); err != nil {
		return err
	}
	if s.store, err = vaultstore.Open(s.cfg, s.redis); err != nil {
		return err
	}
	s.vault = vault.New(s.store, s.cfg.Vault.Keys)
	s.cache = tokencache.New(s.redis, tokencache.Options{Namespace: s.cfg.Namespace, Secrets: s.cfg.Redis.Secrets()})
	return nil
}

func (s *session) close() {
	if s.cache != nil {
		s.cache.Close()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	if s.redis != nil {
		_ = s.redis.Close()
	}
}

// plain is the text of an error, on one line and without the passwords of the configuration.
func (s *session) plain(err error) string {
	return secret.Scrub(strings.Join(strings.Fields(err.Error()), " "), append(s.cfg.Redis.Secrets(), s.cfg.Vault.URL)...)
}

// named returns the configured platforms that the argument means: all, if there is none.
func (s *session) named() ([]config.ThirdParty, error) {
	if s.argument == "" {
		return s.cfg.Platforms, nil
	}
	c, err := s.find(s.argument)
	return []config.ThirdParty{c}, err
}

// find returns the platform with an id or an alias.
func (s *session) find(name string) (config.ThirdParty, error) {
	var known []string
	for _, c := range s.cfg.Platforms {
		if c.ID == name || c.Alias != "" && c.Alias == name {
			return c, nil
		}
		known = append(known, c.ID)
	}
	return config.ThirdParty{}, errors.New("no such platform is configured: there is " + strings.Join(known, ", "))
}

// platform makes a platform that can work, though none of it runs in the background.
func (s *session) platform(c config.ThirdParty, observe func(platform.Event)) (*platform.Platform, error) {
	o := platform.Configured(s.cfg, c)
	o.Vault, o.Cache, o.Redis, o.Observe = s.vault, s.cache, s.redis, observe
	p, err := platform.New(o)
	if err != nil {
		return nil, err
	}
	for _, cred := range p.Credentials() {
		if err := s.cache.Add(cred); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// pageSize is how many records are read at once.
const pageSize = 500

// each calls f with each authorizer of a platform, in the order of their ids.
func (s *session) each(ctx context.Context, platform string, f func(vault.Row) error) error {
	return s.eachPage(ctx, platform, func(rows []vault.Row) error {
		for _, row := range rows {
			if err := f(row); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachPage is each for as many at once as the vault saves together.
func (s *session) eachPage(ctx context.Context, platform string, f func([]vault.Row) error) error {
	for after := ""; ; {
		rows, err := s.store.List(ctx, platform, after, pageSize)
		if err != nil {
			return err
		}
		for i := range rows {
			rows[i].Platform = platform
		}
		if err := f(rows); err != nil || len(rows) < pageSize {
			return err
		}
		after = rows[len(rows)-1].ID
	}
}
