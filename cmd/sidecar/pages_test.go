package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are the documents whose links and names are checked.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/k8s/*.md", "deploy/image/*.md", "integration/*.md", "integration/model/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		all = append(all, found...)
	}
	return all
}

func TestLinksBetweenPagesLeadSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sections(string(text)) {
			for _, link := range s.links {
				path, _, _ := strings.Cut(link, "#")
				if path == "" || strings.Contains(path, "://") {
					continue
				}
				target := filepath.Join(filepath.Dir(page), path)
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s links to %s: %v", page, link, err)
				} else if _, fragment, _ := strings.Cut(link, "#"); fragment != "" && !hasAnchor(t, target, fragment) {
					t.Errorf("%s links to %s: no such heading", page, link)
				}
			}
		}
	}
}

// hasAnchor reports whether a page has a heading with this anchor.
func hasAnchor(t *testing.T, page, fragment string) bool {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(sections(string(text)), func(s section) bool { return anchor(s.heading) == fragment })
}

// Every key that the configuration file may have is in the example, or in one of its comments.
func TestEveryKeyOfTheFileIsDocumented(t *testing.T) {
	keys := regexp.MustCompile(`"([a-z_]+)":\s+(?:w\.|func\()`).FindAllStringSubmatch(readRoot(t, "cmd/sidecar/internal/config/yaml.go"), -1)
	if len(keys) < 30 {
		t.Fatalf("found only %q", keys)
	}
	example := strings.Join(regexp.MustCompile("(?s)```yaml\n.*?```").FindAllString(readRoot(t, "docs/configuration.md"), -1), "")
	for _, key := range keys {
		if !regexp.MustCompile(`\b` + key[1] + `\b`).MatchString(example) {
			t.Errorf("the example in docs/configuration.md has no %s", key[1])
		}
	}
}

// Every alert has a row in docs/failures.md, and every metric named there is exported.
func TestTheFailuresPageNamesAlertsAndMetrics(t *testing.T) {
	page := readRoot(t, "docs/failures.md")
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(readRoot(t, "deploy/k8s/components/monitoring/prometheusrule.yaml"), -1)
	if len(alerts) < 10 {
		t.Fatalf("found only %q", alerts)
	}
	for _, a := range alerts {
		if !strings.Contains(page, "[`"+a[1]+"`](") {
			t.Errorf("docs/failures.md has no row for %s", a[1])
		}
	}
	exported := readRoot(t, "cmd/sidecar/internal/observe/testdata/metrics.txt")
	metric := regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)`")
	checked := 0
	for line := range strings.Lines(page) {
		cells := strings.Split(line, " | ")
		if len(cells) != 4 {
			continue
		}
		for _, m := range metric.FindAllStringSubmatch(cells[2], -1) {
			checked++
			if !strings.Contains(exported, "wxtoken_"+m[1]+" ") {
				t.Errorf("docs/failures.md names the metric %s, which is not exported", m[1])
			}
		}
	}
	if checked < 15 {
		t.Errorf("checked only %d metrics", checked)
	}
}

// Every variable that the program reads is in the table, and the other way round.
func TestEveryVariableIsDocumented(t *testing.T) {
	sources, err := filepath.Glob("internal/config/*.go")
	if err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`\b(WECHAT|WXTOKEN)_[A-Z_]*[A-Z]\b|\bREDIS_URL\b`)
	read := map[string]bool{}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range variable.FindAllString(string(text), -1) {
			read[name] = true
		}
	}
	documented := map[string]bool{}
	for _, name := range variable.FindAllString(readRoot(t, "docs/configuration.md"), -1) {
		documented[name] = true
	}
	if !maps.Equal(read, documented) {
		t.Errorf("the program reads %q, docs/configuration.md has %q", slices.Sorted(maps.Keys(read)), slices.Sorted(maps.Keys(documented)))
	}
}

// The architecture page leads a reader to files and functions, as path.go:Function or
// path.go:Type.Method.
func TestTheArchitecturePageNamesWhatExists(t *testing.T) {
	place := regexp.MustCompile("`([a-z][\\w./-]*\\.(?:go|lua))(?::(\\w+)(?:\\.(\\w+))?)?`")
	places := place.FindAllStringSubmatch(readRoot(t, "docs/architecture.md"), -1)
	if len(places) < 40 {
		t.Fatalf("found only %d places", len(places))
	}
	for _, m := range places {
		source, err := os.ReadFile(filepath.Join("..", "..", m[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		function := `func ` + m[2] + `[\[(]`
		if m[3] != "" {
			function = `func \(\w+ \*?` + m[2] + `\) ` + m[3] + `\(`
		}
		if m[2] != "" && !regexp.MustCompile(function).Match(source) {
			t.Errorf("%s has no %s", m[1], strings.Trim(m[2]+"."+m[3], "."))
		}
	}
}
