package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the module's, where these are: the packages that the model names, by their names.
const root = "../.."

var packages = map[string]string{
	"tokencache": "pkg/tokencache", "lock": "pkg/lock", "wechat": "pkg/wechat",
	"platform": "cmd/sidecar/internal/platform", "vault": "pkg/vault",
}

// beyond are the scripts that the model leaves out: those that change nothing, and those that
// repair what no replica wrote.
var beyond = map[string]bool{
	"lua/load.lua": true, "lua/journal.lua": true, "lua/caplease.lua": true, "lua/discard.lua": true,
}

// The model is only as good as what it mirrors: a renamed or removed function needs a look at its
// step.
func TestEveryStepMirrorsSomethingInTheSources(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	for name, dir := range packages {
		declare(t, declared, name, dir)
	}
	comment := regexp.MustCompile(`(?s)mirrors (.*?)\*/`)
	goName := regexp.MustCompile(`\b(?:tokencache|lock|wechat|platform|vault)\.(?:\(\*?\w+\)\.)?\w+`)
	script := regexp.MustCompile(`lua/\w+\.lua`)
	names, scripts := map[string]bool{}, map[string]bool{}
	for _, c := range comment.FindAllStringSubmatch(string(refresh)+string(authorisation), -1) {
		found := 0
		for _, n := range goName.FindAllString(c[1], -1) {
			names[n] = true
			found++
			if !declared[n] {
				t.Errorf("a step mirrors %s, which the sources do not have", n)
			}
		}
		for _, s := range script.FindAllString(c[1], -1) {
			scripts[s] = true
			found++
		}
		if found == 0 {
			t.Errorf("a step mirrors nothing that can be looked up: %q", c[0])
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "pkg/tokencache/lua/*.lua"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range files {
		s := "lua/" + filepath.Base(f)
		have[s] = true
		if !beyond[s] && !scripts[s] {
			t.Errorf("no step mirrors %s", s)
		}
	}
	for s := range scripts {
		if !have[s] {
			t.Errorf("a step mirrors %s, which is not there", s)
		}
	}
	if len(names) < 20 {
		t.Errorf("the steps name %d functions, want at least 20", len(names))
	}
}

// declare adds what the package in dir declares at its top, as the model writes it.
func declare(t *testing.T, declared map[string]bool, name, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				declared[name+"."+receiver(d)+d.Name.Name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						for _, n := range v.Names {
							declared[name+"."+n.Name] = true
						}
					}
				}
			}
		}
	}
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	switch r := d.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		if id, ok := r.X.(*ast.Ident); ok {
			return "(*" + id.Name + ")."
		}
	case *ast.Ident:
		return "(" + r.Name + ")."
	}
	return ""
}

// A switch that the model does not know would be a variant that takes nothing out, and one that no
// variant sets would be a guard that no variant checks.
func TestVariantsAndSwitchesAreTheSame(t *testing.T) {
	t.Parallel()
	others := []string{"EXPIRIES", "FAULTS", "FAILOVER", "WITHDRAW", "CANON", "COVER", "TRACE"}
	var switches []string
	for _, m := range regexp.MustCompile(`(?m)^#ifn?def (\w+)$`).FindAllSubmatch(slices.Concat(refresh, authorisation), -1) {
		if name := string(m[1]); !slices.Contains(others, name) && !slices.Contains(switches, name) {
			switches = append(switches, name)
		}
	}
	for _, v := range slices.Concat(broken, limits) {
		i := slices.Index(switches, v.name)
		if i < 0 && !slices.Contains(v.defines, "FAILOVER") {
			t.Errorf("%s takes nothing out of the model", v.name)
		}
		if i >= 0 {
			switches = slices.Delete(switches, i, i+1)
		}
		if v.want == "" || v.what == "" {
			t.Errorf("%s does not say what must be found, and what it takes out", v.name)
		}
	}
	if len(switches) > 0 {
		t.Errorf("no variant sets %v", switches)
	}
	for _, v := range slices.Concat(whole, large) {
		if v.want != "" {
			t.Errorf("%s: the whole model must have no error", v.name)
		}
	}
}
