package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// source is what an image is made of. The same source gives the same image.
type source struct {
	root     string
	version  string    // a tag, as git describes it, or devel
	revision string    // the commit, with -dirty behind it if files differ; empty outside of a checkout
	created  time.Time // SOURCE_DATE_EPOCH, the commit's time, or the epoch: never now
	tags     string    // build tags of the program; usually none
}

// withSQL is the source of the other image, whose program has the drivers of databases. Its version
// says so, and so do the tag and every file that is named after it.
func (s source) withSQL() source {
	s.tags, s.version = "sql", s.version+"-sql"
	return s
}

// tag returns the tag of the image: the version without the v of git's tags, as the manifests and the
// release name it.
func (s source) tag() string {
	if rest, ok := strings.CutPrefix(s.version, "v"); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		return rest
	}
	return s.version
}

// A version is a tag, too.
var tagShape = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// describe finds out what root is. A version that is given wins over what git says, and so does
// SOURCE_DATE_EPOCH.
func describe(ctx context.Context, root, version string) (source, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return source{}, err
	}
	s := source{root: root, version: version, created: time.Unix(0, 0).UTC()}
	if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
		if err := s.askGit(ctx); err != nil {
			return source{}, err
		}
	}
	if s.version == "" {
		s.version = "devel"
	}
	if !tagShape.MatchString(s.version) {
		return source{}, fmt.Errorf("version %q cannot be a tag of an image", s.version)
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return source{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		s.created = time.Unix(seconds, 0).UTC()
	}
	return s, nil
}

func (s *source) askGit(ctx context.Context) error {
	described, err := output(ctx, s.root, nil, "git", "describe", "--tags", "--always", "--dirty", "--match", "v[0-9]*")
	if err != nil {
		return err
	}
	commit, err := output(ctx, s.root, nil, "git", "show", "--no-patch", "--format=%H %ct", "HEAD")
	if err != nil {
		return err
	}
	var seconds int64
	if _, err := fmt.Sscan(commit, &s.revision, &seconds); err != nil {
		return fmt.Errorf("git show says %q: %w", commit, err)
	}
	s.created = time.Unix(seconds, 0).UTC()
	if strings.HasSuffix(described, "-dirty") {
		s.revision += "-dirty"
	}
	if s.version == "" {
		s.version = described
	}
	return nil
}

// output runs a command in dir, with env in place of this process' environment if it is not nil.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, bytes.TrimSpace(exit.Stderr))
	}
	return string(bytes.TrimSpace(out)), err
}
