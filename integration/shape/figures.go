package main

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The packages that handle calls. They came out of one folder with 28 files.
var faces = []string{"api", "web", "ops", "statuspage", "observe", "text", "apps"}

func (t *tree) figures() []figure {
	edges, mutual := t.edges()
	longest, where := t.longestFunction()
	files, file := t.longFiles()
	words, line := t.unclear()
	wide, widest := t.wideComments()
	helpers, most := t.helpers()
	return []figure{
		atMost("files in cmd/sidecar", float64(t.count("cmd/sidecar")), 8, ""),
		atMost("files in internal/api", float64(t.count("cmd/sidecar/internal/api")), 9, "three of them the drop-in paths, one the documentation"),
		atMost("edges between "+strings.Join(faces, ", "), float64(edges), 9, ""),
		atMost("pairs of them that need each other", float64(mutual), 0, ""),
		atMost("files of a read, in docs/architecture.md", float64(t.filesOf("A read")), 8, ""),
		atMost("files of a refresh, in docs/architecture.md", float64(t.filesOf("A refresh")), 18, "scripts and both libraries included"),
		atMost("files of a reload, in docs/architecture.md", float64(t.filesOf("A reload")), 9, ""),
		atMost("lines of the longest function", float64(longest), 60, where),
		atMost("files of more than 400 lines", float64(files), 0, file),
		atMost("lines with a word that hides who acts", float64(words), 0, line),
		atMost("constants of tokencache without their type's name", float64(len(t.bareConstants())), 0, strings.Join(t.bareConstants(), " ")),
		atMost("functions of tokencache that return (bool, error)", float64(len(t.boolErrors())), 2, strings.Join(t.boolErrors(), " ")+": whether it did it, not whether to look again"),
		atMost("comment lines wider than 100 columns, in %", wide, 1, widest),
		atMost("helpers per test", helpers, 0.6, most),
		atLeast("test lines per code line, pkg and cmd", t.ratio("pkg", "cmd"), 1.2, ""),
		atLeast("test lines per code line, doctor", t.ratio("cmd/sidecar/internal/doctor"), 0.8, ""),
	}
}

// count returns the sources of one folder, without tests.
func (t *tree) count(dir string) (n int) {
	for _, s := range t.sources {
		if s.dir() == dir && !s.test {
			n++
		}
	}
	return n
}

// edges returns how many of the faces import another one, and how many do so both ways, if only
// through others.
func (t *tree) edges() (edges, mutual int) {
	to := map[string]map[string]bool{}
	for _, face := range faces {
		to[face] = map[string]bool{}
		for _, s := range t.sources {
			if s.dir() != "cmd/sidecar/internal/"+face || s.test {
				continue
			}
			for _, dir := range s.imports() {
				if other := strings.TrimPrefix(dir, "cmd/sidecar/internal/"); slices.Contains(faces, other) {
					to[face][other] = true
				}
			}
		}
		edges += len(to[face])
	}
	for i, a := range faces {
		for _, b := range faces[i+1:] {
			if to[a][b] && to[b][a] {
				mutual++
			}
		}
	}
	return edges, mutual
}

// filesOf returns how many files a section of the architecture page names.
func (t *tree) filesOf(section string) int {
	page, err := readPage("docs/architecture.md")
	if err != nil {
		return 0
	}
	_, text, _ := strings.Cut(page, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	files := regexp.MustCompile("`([a-z][\\w./-]*\\.(?:go|lua))").FindAllStringSubmatch(text, -1)
	distinct := map[string]bool{}
	for _, f := range files {
		distinct[f[1]] = true
	}
	return len(distinct)
}

func (t *tree) longestFunction() (longest int, where string) {
	for _, s := range t.below("pkg", "cmd", "deploy", "integration") {
		if s.test {
			continue
		}
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && t.length(f) > longest {
				longest, where = t.length(f), s.path+":"+f.Name.Name
			}
		}
	}
	return longest, where
}

func (t *tree) longFiles() (n int, worst string) {
	most := 400
	for _, s := range t.sources {
		if s.test || s.lines <= 400 {
			continue
		}
		n++
		if s.lines > most {
			most, worst = s.lines, fmt.Sprintf("%s: %d", s.path, s.lines)
		}
	}
	return n, worst
}

// vague are words that hide who acts. They are in pieces here, so that this file has none of them.
var vague = regexp.MustCompile(`\b(` + strings.Join([]string{"no" + "body", "some" + "body", "who" + "ever", "who" + "m", "stand" + "s", "hear" + "d"}, "|") + `)\b`)

func (t *tree) unclear() (n int, where string) {
	for path, text := range t.texts {
		for i, line := range strings.Split(text, "\n") {
			if vague.MatchString(line) {
				n, where = n+1, fmt.Sprintf("%s:%d", path, i+1)
			}
		}
	}
	return n, where
}

// wideComments returns the share of comment lines of more than 100 columns, in percent.
func (t *tree) wideComments() (share float64, widest string) {
	all, wide, most := 0, 0, 0
	for _, s := range t.sources {
		for _, group := range s.syntax.Comments {
			for _, line := range strings.Split(group.Text(), "\n") {
				all++
				if width := len([]rune(line)) + 3; width > 100 {
					wide++
					if width > most {
						most, widest = width, s.path
					}
				}
			}
		}
	}
	return 100 * float64(wide) / float64(max(1, all)), widest
}

// bareConstants returns the exported constants of tokencache whose names do not begin with their
// type's, as in ReasonDue. A StoreClass begins with Store.
func (t *tree) bareConstants() (names []string) {
	for _, s := range t.sources {
		if s.dir() != "pkg/tokencache" || s.test {
			continue
		}
		for _, d := range s.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok.String() != "const" {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				kind, _ := v.Type.(*ast.Ident)
				for _, name := range v.Names {
					if name.IsExported() && (kind == nil || !strings.HasPrefix(name.Name, strings.TrimSuffix(kind.Name, "Class")) || kind.Name == "Class" && !strings.HasPrefix(name.Name, "Class")) {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// boolErrors returns the functions of tokencache whose results are a bool and an error.
func (t *tree) boolErrors() (names []string) {
	for _, s := range t.sources {
		if s.dir() != "pkg/tokencache" || s.test {
			continue
		}
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Type.Results == nil || f.Type.Results.NumFields() != 2 {
				continue
			}
			first, _ := f.Type.Results.List[0].Type.(*ast.Ident)
			last, _ := f.Type.Results.List[len(f.Type.Results.List)-1].Type.(*ast.Ident)
			if first != nil && last != nil && first.Name == "bool" && last.Name == "error" {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// helpers returns how many functions of tests and test kits are no tests, for each test, and the
// folder that has most.
func (t *tree) helpers() (perTest float64, most string) {
	helpers, tests := map[string]int{}, map[string]int{}
	allHelpers, allTests := 0, 0
	for _, s := range t.sources {
		if !s.test {
			continue
		}
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case !ok, f.Recv != nil && !strings.HasSuffix(s.path, "_test.go"):
				continue // a fake is a program of its own
			case f.Recv == nil && regexp.MustCompile(`^(Test|Benchmark|Fuzz|Example)`).MatchString(f.Name.Name):
				tests[s.dir()]++
				allTests++
			case f.Recv == nil:
				helpers[s.dir()]++
				allHelpers++
			}
		}
	}
	worst := 0.0
	for dir, n := range helpers {
		if r := float64(n) / float64(max(1, tests[dir])); tests[dir] > 0 && r > worst {
			worst, most = r, fmt.Sprintf("most in %s: %.2f", dir, r)
		}
	}
	return float64(allHelpers) / float64(max(1, allTests)), most
}

// ratio returns the lines of tests for each line of code.
func (t *tree) ratio(dirs ...string) float64 {
	code, test := 0, 0
	for _, s := range t.below(dirs...) {
		switch {
		case strings.HasSuffix(s.path, "_test.go"):
			test += s.lines
		case !s.test:
			code += s.lines
		}
	}
	return float64(test) / float64(max(1, code))
}

func readPage(name string) (string, error) {
	text, err := os.ReadFile(filepath.FromSlash(name))
	return string(text), err
}
