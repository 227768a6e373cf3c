package rig

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// command is one command of a client, as it was on the wire and in words.
type command struct {
	raw   []byte
	words [][]byte
}

func (c command) is(name string) bool {
	return len(c.words) > 0 && bytes.EqualFold(c.words[0], []byte(name))
}

// commandReader reads commands in the only form in which clients send them: arrays of bulk strings.
type commandReader struct{ r *bufio.Reader }

func newCommandReader(r io.Reader) *commandReader { return &commandReader{bufio.NewReader(r)} }

func (r *commandReader) next() (command, error) {
	var c command
	n, err := r.length(&c, '*')
	if err != nil {
		return c, err
	}
	for range n {
		size, err := r.length(&c, '$')
		if err != nil {
			return c, err
		}
		start := len(c.raw)
		c.raw = append(c.raw, make([]byte, size+2)...)
		if _, err := io.ReadFull(r.r, c.raw[start:]); err != nil {
			return c, err
		}
		c.words = append(c.words, bytes.Clone(c.raw[start:start+size]))
	}
	return c, nil
}

// length reads a line such as *3 or $12.
func (r *commandReader) length(c *command, kind byte) (int, error) {
	line, err := r.r.ReadSlice('\n')
	c.raw = append(c.raw, line...)
	if err != nil {
		return 0, err
	}
	if len(line) < 3 || line[0] != kind {
		return 0, fmt.Errorf("rig: a client sent %q", line)
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	if err != nil || n < 0 || n > 64<<20 {
		return 0, fmt.Errorf("rig: a client sent %q", line)
	}
	return n, nil
}

// scripts are the names of the cache's scripts by the SHA-1 by which Redis knows them.
var scripts = sync.OnceValues(func() (map[string]string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/wxtoken/sidecar/pkg/tokencache").Output()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "lua")
	prelude, err := os.ReadFile(filepath.Join(dir, "prelude.lua"))
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.lua"))
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		names[digest(append(bytes.Clone(prelude), body...))] = strings.TrimSuffix(filepath.Base(file), ".lua")
	}
	return names, nil
})

func digest(body []byte) string {
	sum := sha1.Sum(body)
	return hex.EncodeToString(sum[:])
}

// The lease's own scripts are another module's. They are distinguished by their arguments after the
// key: the token, its length and the TTL; or the token alone.
var leaseScripts = map[int]string{3: "obtain", 1: "release"}

func knownScript(t testing.TB, name string) bool {
	t.Helper()
	names, err := scripts()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return name == "obtain" || name == "release"
}

// scriptOf returns the name of the script that a command runs, empty for none.
func scriptOf(c command) string {
	if len(c.words) < 4 {
		return ""
	}
	var sha string
	switch {
	case c.is("EVALSHA"):
		sha = string(c.words[1])
	case c.is("EVAL"):
		sha = digest(c.words[1])
	default:
		return ""
	}
	if names, _ := scripts(); names[sha] != "" {
		return names[sha]
	}
	if string(c.words[2]) == "1" && bytes.HasSuffix(c.words[3], []byte(":lock")) {
		return leaseScripts[len(c.words)-4]
	}
	return ""
}
