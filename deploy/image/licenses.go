package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/google/licenseclassifier/v2/assets"
)

// component is something that is linked into the program: a module, this one first, or the standard
// library.
type component struct {
	name, version string
	licenses      map[string][]byte // texts by file name
	license       string            // an SPDX expression, or noAssertion
}

// components are those that the program says it was built from. One without a license text is an
// error: its code could not be passed on.
func components(ctx context.Context, src source, info *debug.BuildInfo, env []string) ([]component, error) {
	env = append(slices.Clone(env), "GOFLAGS=", "GOWORK=off")
	goroot, err := output(ctx, src.root, env, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	all := []component{{name: info.Main.Path, version: src.version}, {name: "std", version: info.GoVersion}}
	dirs := map[string]string{"std": goroot}
	query := []string{"list", "-m", "-f", "{{.Path}} {{.Dir}}", info.Main.Path}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("%s is replaced, and the image would say otherwise", m.Path)
		}
		all = append(all, component{name: m.Path, version: m.Version})
		query = append(query, m.Path)
	}
	list, err := output(ctx, src.root, env, "go", query...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(list) {
		name, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		dirs[name] = dir
	}
	for i := range all {
		c := &all[i]
		if c.licenses, err = licenseTexts(dirs[c.name]); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		if c.license, err = expression(c.licenses); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return all, nil
}

var licenseName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

func licenseTexts(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	texts := map[string][]byte{}
	for _, e := range entries {
		if e.Type().IsRegular() && licenseName.MatchString(e.Name()) {
			if texts[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("no license in %s", dir)
	}
	return texts, nil
}

const (
	noAssertion      = "NOASSERTION" // SPDX's word for what is not known
	classifierModule = "github.com/google/licenseclassifier/v2"
)

// The classifier compares a text with those of all known licenses.
var classifier = sync.OnceValues(assets.DefaultClassifier)

// expression names the licenses whose texts, or the notices that they apply, are among texts. A
// text may hold several, as that of yaml does: then all of them apply.
func expression(texts map[string][]byte) (string, error) {
	c, err := classifier()
	if err != nil {
		return "", err
	}
	found := map[string]bool{}
	for _, text := range texts {
		for _, m := range c.Match(text).Matches {
			if m.MatchType == "License" || m.MatchType == "Header" {
				found[m.Name] = true
			}
		}
	}
	if len(found) == 0 {
		return noAssertion, nil
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), " AND "), nil
}
