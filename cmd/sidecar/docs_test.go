package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
)

const (
	readme     = "README.md"
	readmeTwin = "README.zh-CN.md"
)

// These pages exist in two languages. A translation differs in its prose and in nothing else.
func TestTwinsAreInStep(t *testing.T) {
	for _, page := range []string{"README.md", "deploy/k8s/README.md", "docs/http.md", "docs/redis.md", "docs/configuration.md", "docs/failures.md", "docs/sdks.md", "docs/platforms.md"} {
		twin := strings.TrimSuffix(page, ".md") + ".zh-CN.md"
		for _, drift := range drifts(filepath.Base(page), readRoot(t, page), readRoot(t, twin)) {
			t.Errorf("%s: %s", page, drift)
		}
	}
}

// TestReadmeDriftIsSeen changes one thing at a time, so that the test above cannot be green for
// want of eyes.
func TestReadmeDriftIsSeen(t *testing.T) {
	const original = "# t\n\n[language](README.zh-CN.md)\n\n## Use `it`\n\n" +
		"- one\n- two, see [`run`](cmd)\n  ```sh\n  cd a\n  ```\n\n| a | b |\n|---|---|\n| c | `d` |\n\n```sh\nrun # it\n```\n" +
		"\n## Older, than 1.29\n\nfirst [use](#use-it), then [this](#older-than-129)\n"
	// The headings' anchors are as different as their text.
	twin := strings.NewReplacer(readmeTwin, readme, "Use `it`", "使用 `it`", "#use-it", "#使用-it",
		"Older, than 1.29", "比 1.29（含）更旧", "#older-than-129", "#比-129含更旧").Replace(original)
	if got := drifts(readme, original, twin); len(got) != 0 {
		t.Errorf("twins in step: %q", got)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"heading level", "## 使用", "### 使用", "heading"},
		{"heading lost", "## 使用 `it`\n", "", "headings"},
		{"code", "run # it", "run # es", "code block"},
		{"code in a list", "cd a", "cd b", "code block"},
		{"code lost", "```sh\nrun # it\n```\n", "", "code block"},
		{"row", "| c | `d` |\n", "| c | `d` |\n| e | f |\n", "table"},
		{"column", "| a | b |", "| a | b | c |", "table"},
		{"span", "`d`", "`e`", "inline code"},
		{"link", "(cmd)", "(pkg)", "link"},
		{"link to another section", "(#使用-it)", "(#比-129含更旧)", "link"},
		{"link to the other's section", "(#使用-it)", "(#use-it)", "link"},
		{"item", "- one\n", "", "list"},
		{"language switch", "(README.md)", "(README.fr.md)", "language"},
	} {
		changed := strings.Replace(twin, c.old, c.new, 1)
		if got := drifts(readme, original, changed); len(got) == 0 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s: reported %q, want %q first", c.name, got, c.want)
		}
	}
}

// TestReadmeConfigurationIsValid loads the file that docs/configuration.md shows, verbatim and with
// the two lines that it comments out.
func TestReadmeConfigurationIsValid(t *testing.T) {
	var shown string
	for _, s := range sections(readRoot(t, "docs/configuration.md")) {
		for _, block := range s.code {
			if body, ok := strings.CutPrefix(block, "```yaml\n"); ok && strings.Contains(body, "\napps:\n") {
				shown = strings.TrimSuffix(body, "```\n")
			}
		}
	}
	if shown == "" {
		t.Fatalf("%s shows no yaml block with apps:", readme)
	}
	verbatim := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(shown, "")
	takenIn := regexp.MustCompile(`(?m)^# (\w+: )`).ReplaceAllString(shown, "$1")
	if takenIn == shown {
		t.Errorf("%s comments no key out", readme)
	}
	for name, yaml := range map[string]string{"verbatim": verbatim, "with the comments": takenIn} {
		c, err := config.Load(config.Overrides{Config: withSecrets(t, yaml)}, func(string) string { return "" })
		if err != nil {
			t.Errorf("%s:\n%v", name, err)
		} else if len(c.Warnings) > 0 {
			t.Errorf("%s: warnings %q", name, c.Warnings)
		}
	}
}

// withSecrets writes yaml, and a dummy for each secret that it names below /etc/wxtoken, to a new
// folder and returns the path of the file.
func withSecrets(t *testing.T, yaml string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	yaml = regexp.MustCompile(`/etc/wxtoken/[\w-]+`).ReplaceAllStringFunc(yaml, func(path string) string {
		content := strings.Repeat("0123456789abcdef", 2)
		switch name := filepath.Base(path); name {
		case "vault-key":
			content = base64.StdEncoding.EncodeToString([]byte(content))
		case "callback-aes-key":
			content = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
		}
		return write(filepath.Base(path), content)
	})
	return write("config.yaml", yaml)
}

func readRoot(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is the text between two headings, without its prose.
type section struct {
	heading string   // with its marks
	code    []string // fenced blocks, fences included
	tables  [][]int  // the number of columns of each row
	items   int      // of lists
	spans   []string // inline code, the heading's too, sorted and distinct
	links   []string // their targets, sorted; of one on the same page, the number of the section
}

func (s section) level() int { return len(s.heading) - len(strings.TrimLeft(s.heading, "#")) }

var (
	headingLine = regexp.MustCompile(`^#{1,6} `)
	listItem    = regexp.MustCompile(`^\s*([-*+]|\d+\.) `)
	inlineCode  = regexp.MustCompile("`[^`]+`")
	linkTarget  = regexp.MustCompile(`\]\(([^)]*)\)`)
)

// sections knows the Markdown that the README uses, not all there is.
func sections(text string) []section {
	var all []section
	s, prose := section{}, ""
	end := func() {
		s.spans = slices.Compact(slices.Sorted(slices.Values(inlineCode.FindAllString(prose, -1))))
		for _, m := range linkTarget.FindAllStringSubmatch(inlineCode.ReplaceAllString(prose, ""), -1) {
			s.links = append(s.links, m[1])
		}
		all = append(all, s)
	}
	inCode, inTable := false, false
	for line := range strings.Lines(text) {
		isFence, wasTable := strings.HasPrefix(strings.TrimLeft(line, " "), "```"), inTable
		inTable = !inCode && strings.HasPrefix(line, "|")
		switch {
		case isFence && !inCode:
			s.code = append(s.code, line)
		case inCode:
			s.code[len(s.code)-1] += line
		case headingLine.MatchString(line):
			end()
			s, prose = section{heading: strings.TrimSpace(line)}, line
		case inTable:
			if !wasTable {
				s.tables = append(s.tables, nil)
			}
			last := len(s.tables) - 1
			s.tables[last] = append(s.tables[last], strings.Count(line, "|")-strings.Count(line, `\|`)-1)
			prose += line
		default:
			if listItem.MatchString(line) {
				s.items++
			}
			prose += strings.TrimSuffix(line, "\n") + " "
		}
		inCode = inCode != isFence
	}
	end()
	all = all[1:] // there is nothing before the title
	numberAnchors(all)
	return all
}

// numberAnchors makes links to sections of the same page comparable: a translated heading has
// another anchor. One that leads nowhere stays as it is.
func numberAnchors(all []section) {
	numbers := map[string]string{}
	for i, s := range all {
		numbers["#"+anchor(s.heading)] = fmt.Sprintf("#%d", i)
	}
	for _, s := range all {
		for i, link := range s.links {
			if n, ok := numbers[link]; ok {
				s.links[i] = n
			}
		}
		slices.Sort(s.links)
	}
}

// anchor is what GitHub makes of a heading: letters and digits in lower case, dashes for spaces.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimLeft(heading, "# "))
}

// drifts says in what the twins differ, and where.
func drifts(page, original, twin string) []string {
	twinPage := strings.TrimSuffix(page, ".md") + ".zh-CN.md"
	var found []string
	drift := func(where section, format string, args ...any) {
		found = append(found, fmt.Sprintf("%q: ", where.heading)+fmt.Sprintf(format, args...))
	}
	a, b := sections(original), sections(twin)
	if len(a) != len(b) {
		found = append(found, fmt.Sprintf("%s has %d headings, %s has %d", page, len(a), twinPage, len(b)))
	}
	for i := range min(len(a), len(b)) {
		a, b := a[i], b[i]
		if i == 0 {
			var here, there bool
			a.links, here = without(a.links, twinPage)
			b.links, there = without(b.links, page)
			if !here || !there {
				drift(a, "the language switch is missing")
			}
		}
		if a.level() != b.level() {
			drift(a, "the twin's heading is %q", b.heading)
			return found // the rest would be compared with other sections
		}
		if len(a.code) != len(b.code) {
			drift(a, "%d code blocks, the twin has %d", len(a.code), len(b.code))
		}
		for i := range min(len(a.code), len(b.code)) {
			if a.code[i] != b.code[i] {
				drift(a, "code block %d differs:\n%s\nthe twin's:\n%s", i+1, a.code[i], b.code[i])
			}
		}
		if !slices.EqualFunc(a.tables, b.tables, slices.Equal) {
			drift(a, "tables have rows of %v columns, the twin's of %v", a.tables, b.tables)
		}
		if a.items != b.items {
			drift(a, "%d items in lists, the twin has %d", a.items, b.items)
		}
		if !slices.Equal(a.spans, b.spans) {
			drift(a, "inline code only here: %q, only in the twin: %q", minus(a.spans, b.spans), minus(b.spans, a.spans))
		}
		for i, link := range b.links { // a page in Chinese leads to other pages in Chinese
			b.links[i] = strings.Replace(link, ".zh-CN.md", ".md", 1)
		}
		slices.Sort(b.links)
		if !slices.Equal(a.links, b.links) {
			drift(a, "links to %q, the twin's to %q", a.links, b.links)
		}
	}
	return found
}

// without takes one link out and says whether it was there.
func without(links []string, link string) (rest []string, found bool) {
	i := slices.Index(links, link)
	if i < 0 {
		return links, false
	}
	return slices.Delete(slices.Clone(links), i, i+1), true
}

// minus returns the words of a that b has not.
func minus(a, b []string) []string {
	in := map[string]bool{}
	for _, word := range a {
		in[word] = true
	}
	for _, word := range b {
		delete(in, word)
	}
	return slices.Sorted(maps.Keys(in))
}
