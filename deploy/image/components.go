package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// component is something that is linked into the program: a module, this one first, or the standard library.
type component struct {
	name, version string
	licenses      map[string][]byte // texts by file name
	license       string            // the SPDX expression, or NOASSERTION
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
	dirs := map[string]string{info.Main.Path: src.root, "std": goroot}
	query := []string{"list", "-m", "-json=Path,Dir"}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("%s is replaced, and the image would say otherwise", m.Path)
		}
		all = append(all, component{name: m.Path, version: m.Version})
		query = append(query, m.Path)
	}
	if len(info.Deps) > 0 {
		list, err := output(ctx, src.root, env, "go", query...)
		if err != nil {
			return nil, err
		}
		if err := readDirs(list, dirs); err != nil {
			return nil, err
		}
	}
	for i := range all {
		c := &all[i]
		if c.licenses, err = licenseTexts(dirs[c.name]); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		c.license = expression(c.licenses)
	}
	return all, nil
}

func readDirs(list string, into map[string]string) error {
	for decoder := json.NewDecoder(strings.NewReader(list)); ; {
		var m struct{ Path, Dir string }
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		into[m.Path] = m.Dir
	}
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

// Words that stand in one license only, or in the notice that one of them applies, in the order of
// the questions.
var licenseWords = []struct{ id, words string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"Apache-2.0", "Licensed under the Apache License, Version 2.0"},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from this software"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce the above copyright notice"},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose"},
}

// expression names the licenses whose words the texts hold. A text may hold several, as that of
// yaml does: then all of them apply.
func expression(texts map[string][]byte) string {
	var found []string
	for _, l := range licenseWords {
		if slices.Contains(found, l.id) || l.id == "BSD-2-Clause" && slices.Contains(found, "BSD-3-Clause") {
			continue // the words of the shorter BSD license are in the longer one
		}
		for _, text := range texts {
			if bytes.Contains(bytes.Join(bytes.Fields(text), []byte(" ")), []byte(l.words)) {
				found = append(found, l.id)
				break
			}
		}
	}
	if len(found) == 0 {
		return "NOASSERTION"
	}
	return strings.Join(found, " AND ")
}
