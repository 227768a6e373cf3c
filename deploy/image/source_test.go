package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestOutsideOfACheckoutNothingIsGuessed(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	s, err := describe(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if s.version != "devel" || s.revision != "" || !s.created.Equal(time.Unix(0, 0)) {
		t.Errorf("got %+v", s)
	}
}

func TestACheckoutSaysItsVersionItsCommitAndItsTime(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	t.Setenv("GIT_COMMITTER_DATE", "2026-11-22T10:00:00Z")
	root := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.test"}, args...)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	write(t, filepath.Join(root, "file"), "x")
	git("init", "-q")
	git("add", "file")
	git("commit", "-q", "-m", "x")
	git("tag", "v1.2.3")
	s, err := describe(t.Context(), root, "")
	if err != nil {
		t.Fatal(err)
	}
	if s.version != "v1.2.3" || s.tag() != "1.2.3" || len(s.revision) != 40 || !s.created.Equal(someTime) {
		t.Errorf("got %+v", s)
	}

	write(t, filepath.Join(root, "file"), "y")
	if s, err = describe(t.Context(), root, ""); err != nil {
		t.Fatal(err)
	}
	if s.version != "v1.2.3-dirty" || !strings.HasSuffix(s.revision, "-dirty") {
		t.Errorf("with a changed file: %+v", s)
	}

	t.Setenv("SOURCE_DATE_EPOCH", "1000")
	if s, err = describe(t.Context(), root, "v9"); err != nil {
		t.Fatal(err)
	}
	if s.version != "v9" || !s.created.Equal(time.Unix(1000, 0)) {
		t.Errorf("what is given must win: %+v", s)
	}
}

// The image that make image makes of the release that the manifests name is the one that they name.
func TestTheManifestsNameTheTagThatAnImageGets(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`(?:ghcr\.io/wxtoken/sidecar:|newTag: )([^\s,}]+)`)
	seen := 0
	err := filepath.WalkDir("../k8s", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "testdata") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			seen++
			if got := (source{version: "v" + m[1]}).tag(); got != m[1] {
				t.Errorf("%s names the tag %s; git's tag v%s makes %s", path, m[1], m[1], got)
			}
			if m[1][0] < '0' || m[1][0] > '9' {
				t.Errorf("%s names the tag %s, want one without a v", path, m[1])
			}
		}
		return nil
	})
	if err != nil || seen < 6 {
		t.Errorf("saw %d tags, %v", seen, err)
	}
	for version, tag := range map[string]string{"devel": "devel", "v0.1.0-3-gabc": "0.1.0-3-gabc", "0abc123": "0abc123", "v": "v", "vx": "vx"} {
		if got := (source{version: version}).tag(); got != tag {
			t.Errorf("%s: the tag %s, want %s", version, got, tag)
		}
	}
}

func TestAVersionThatIsNoTagIsRefused(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1+dirty", "-ldflags", "a b"} {
		if _, err := describe(t.Context(), t.TempDir(), version); err == nil {
			t.Errorf("%q is taken", version)
		}
	}
}
