package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// binary is the program under test, built when the first test needs it; with the race detector if the
// test has it.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wxtoken")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "sidecar")
	args := []string{"build", "-o", file}
	if raced {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/wxtoken/sidecar/cmd/sidecar")...).CombinedOutput()
	if err != nil {
		return file, fmt.Errorf("building the sidecar: %w\n%s", err, out)
	}
	return file, nil
})

// Main runs the tests and removes what was built for them. It returns the exit status.
func Main(m *testing.M) int {
	redis.SetLogger(silence{}) // its own words on servers that die on purpose
	code := m.Run()
	if mine != "" {
		_ = os.RemoveAll(filepath.Dir(mine))
	}
	return code
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// mine is set once, by the first Binary; Main reads it when no test runs any more.
var (
	mine    string
	mineSet sync.Mutex
)

// Binary returns the path of the program under test.
func Binary(t testing.TB) string {
	t.Helper()
	file, err := binary()
	mineSet.Lock()
	mine = file
	mineSet.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Eventually polls until ok, or ends the test with what was awaited.
func Eventually(t testing.TB, within time.Duration, awaited string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, awaited)
		}
	}
}
