package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Build says how the program under test is built.
type Build string

const (
	// Raced has the race detector if WXTOKEN_RACED_SIDECAR is 1: it makes a process some five times
	// as slow, too slow for many of them beside other tests.
	Raced Build = ""
	// Plain never has it: for many processes at a time.
	Plain Build = "plain"
	// Clocked is Plain with a wall clock that the test sets: see [Clock].
	Clocked Build = "clocked"
	// SQL is Plain with the drivers of databases.
	SQL Build = "sql"
)

// builds are made when the first test needs them.
var builds = map[Build]func() (string, error){
	Raced:   sync.OnceValues(func() (string, error) { return build(Raced) }),
	Plain:   sync.OnceValues(func() (string, error) { return build(Plain) }),
	Clocked: sync.OnceValues(func() (string, error) { return build(Clocked) }),
	SQL:     sync.OnceValues(func() (string, error) { return build(SQL) }),
}

var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "wxtoken") })

func build(how Build) (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	if err := readSources(); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "sidecar"+string(how))
	args := []string{"build", "-o", file}
	if how == Raced && os.Getenv("WXTOKEN_RACED_SIDECAR") == "1" {
		args = append(args, "-race")
	}
	if how == SQL {
		args = append(args, "-tags", "sql")
	}
	if how == Clocked {
		overlay, err := clockOverlay(dir)
		if err != nil {
			return "", fmt.Errorf("a clock for the sidecar: %w", err)
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.Command("go", append(args, program)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the sidecar: %w\n%s", err, out)
	}
	return file, nil
}

const program = "github.com/wxtoken/sidecar/cmd/sidecar"

// readSources opens every file of the program. go test notes which files a test opens, and runs it
// again when one has changed; it does not see what go build reads.
func readSources() error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("looking for the module: %w", err)
	}
	for _, dir := range []string{"cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), dir), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Main runs the tests and removes what was built for them. It returns the exit status.
func Main(m *testing.M) int {
	redis.SetLogger(silence{}) // its own words on servers that die on purpose
	code := m.Run()
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	return code
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Binary returns the path of the program under test.
func Binary(t testing.TB, how Build) string {
	t.Helper()
	file, err := builds[how]()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Patience is how long a test waits for what must happen, however busy the machine is.
const Patience = 5 * time.Minute

// Eventually polls until ok, or ends the test with what was awaited.
func Eventually(t testing.TB, awaited string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, awaited)
		}
	}
}
