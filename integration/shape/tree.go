package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const module = "github.com/wxtoken/sidecar/"

// source is one Go file.
type source struct {
	path   string // from the root, with slashes
	test   bool   // a test, or a file of a test kit
	lines  int
	syntax *ast.File
}

func (s *source) dir() string { return filepath.ToSlash(filepath.Dir(s.path)) }

// tree is all sources of the repository.
type tree struct {
	fset    *token.FileSet
	sources []*source
	texts   map[string]string // every .go and .lua file
}

// read parses every Go file below root, whatever its build tags.
func read(root string) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: map[string]string{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || path != root && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".lua"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		t.texts[path] = string(text)
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		syntax, err := parser.ParseFile(t.fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		s := &source{path: path, lines: strings.Count(string(text), "\n"), syntax: syntax}
		s.test = strings.HasSuffix(path, "_test.go") || strings.HasSuffix(s.dir(), "test")
		t.sources = append(t.sources, s)
		return nil
	})
	if err == nil && len(t.sources) == 0 {
		err = fmt.Errorf("no Go files in %s", root)
	}
	return t, err
}

// below returns the sources in a folder or below it.
func (t *tree) below(dirs ...string) []*source {
	var found []*source
	for _, s := range t.sources {
		for _, dir := range dirs {
			if s.dir() == dir || strings.HasPrefix(s.dir(), dir+"/") {
				found = append(found, s)
				break
			}
		}
	}
	return found
}

// length returns the lines of a function.
func (t *tree) length(f *ast.FuncDecl) int {
	return t.fset.Position(f.End()).Line - t.fset.Position(f.Pos()).Line + 1
}

// imports returns the folders of this module that a source imports.
func (s *source) imports() []string {
	var dirs []string
	for _, i := range s.syntax.Imports {
		if dir, own := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); own {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
