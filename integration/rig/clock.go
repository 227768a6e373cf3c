package rig

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Clock is the wall clock of one process, a [Clocked] sidecar or a Redis: the host's, shifted by
// whole seconds. Its monotonic clock is the host's, so that a shift is what a step of the wall
// clock is, or, after [Sidecar.Freeze], a suspend. Safe for concurrent use.
//
// A Go program reads its clocks in the vDSO, where nothing can be put between, and a host's clock
// is shared by all processes: so the sidecar is built with a standard library whose [time.Now] adds
// what a file says.
type Clock struct {
	t    testing.TB
	file string
	by   atomic.Int64 // in seconds
}

// Step shifts the clock by d more, at once.
func (c *Clock) Step(d time.Duration) {
	c.t.Helper()
	by := binary.NativeEndian.AppendUint64(nil, uint64(c.by.Add(int64(d/time.Second))))
	f, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE, 0o600) // never cut: it is mapped
	if err == nil {
		_, err = f.WriteAt(by, 0)
		_ = f.Close()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func newClock(t testing.TB) *Clock {
	t.Helper()
	c := &Clock{t: t, file: filepath.Join(t.TempDir(), "clock")}
	c.Step(0)
	return c
}

// clockSetting is the environment variable with the clock's file.
const clockSetting = "RIG_CLOCK"

const clockInTime = `package time

import "sync/atomic"

// WallShift points to the seconds by which the wall clock is shifted.
var WallShift atomic.Pointer[int64]

func wallShift() int64 {
	if p := WallShift.Load(); p != nil {
		return atomic.LoadInt64(p)
	}
	return 0
}
`

const clockInMain = `package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

func init() {
	f, err := os.Open(os.Getenv("` + clockSetting + `"))
	if err != nil {
		panic(err)
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	time.WallShift.Store((*int64)(unsafe.Pointer(&m[0])))
}
`

// clockOverlay writes what go build -overlay puts in the place of, or beside, the files of the
// standard library and of the program, and returns the list of it.
func clockOverlay(dir string) (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "time", program).Output()
	if err != nil {
		return "", err
	}
	dirs := strings.Fields(string(out))
	if len(dirs) != 2 {
		return "", fmt.Errorf("go list says %q", out)
	}
	source, err := os.ReadFile(filepath.Join(dirs[0], "time.go"))
	if err != nil {
		return "", err
	}
	const reading = "\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reading) != 1 {
		return "", fmt.Errorf("time.Now of %s is not as it was", runtime.Version())
	}
	texts := map[string]string{
		filepath.Join(dirs[0], "time.go"):      strings.Replace(string(source), reading, reading+"\tsec += wallShift()\n", 1),
		filepath.Join(dirs[0], "rig_clock.go"): clockInTime,
		filepath.Join(dirs[1], "rig_clock.go"): clockInMain,
	}
	replace := map[string]string{}
	for path, text := range texts {
		with := filepath.Join(dir, fmt.Sprintf("overlay-%d.go", len(replace)))
		if err := os.WriteFile(with, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = with
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}
