package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a build takes from others is named by what it is, not by a tag that its owner can move.
func TestActionsAndBaseImagesArePinnedByDigest(t *testing.T) {
	workflows, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(workflows) < 2 {
		t.Fatalf("%v, %v", workflows, err)
	}
	pinned := map[string]*regexp.Regexp{
		"uses: ": regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`),
		"FROM ":  regexp.MustCompile(`^(--platform=\S+ )?(scratch|[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64})( AS \w+)?$`),
	}
	seen := 0
	for _, path := range append(workflows, "../../Dockerfile") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for word, want := range pinned {
				if _, what, ok := strings.Cut(line, word); ok && !strings.HasPrefix(strings.TrimSpace(line), "#") {
					seen++
					if what = strings.TrimSpace(what); !want.MatchString(what) {
						t.Errorf("%s: %q is not pinned by digest, with its version beside it", path, what)
					}
				}
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d references found", seen)
	}
}
