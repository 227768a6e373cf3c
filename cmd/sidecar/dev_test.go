package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/cli"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dev"
)

// The tests of this package have --dev with and without the tag, so that go test ./... runs all of
// them.
func init() {
	startDev = func(o config.Overrides, getenv func(string) string) (devMode, error) { return dev.Start(o, getenv) }
}

// What --dev needs is 2.3 MB, a Lua VM and a Redis server, which have no place in a pod.
func TestOnlyATagLinksWhatDevNeeds(t *testing.T) {
	deps := func(flags ...string) []string {
		t.Helper()
		out, err := exec.Command("go", slices.Concat([]string{"list", "-deps"}, flags, []string{"."})...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.Fields(string(out))
	}
	with, without := deps("-tags", "dev"), deps()
	for _, name := range []string{module + "cmd/sidecar/internal/dev", module + "pkg/wechat/wechattest", "github.com/alicebob/miniredis/v2", "github.com/yuin/gopher-lua"} {
		if !slices.Contains(with, name) {
			t.Errorf("with the tag the program does not link %s", name)
		}
		if slices.Contains(without, name) {
			t.Errorf("without the tag the program links %s", name)
		}
	}
}

func TestAProgramWithoutDevSaysHowToGetIt(t *testing.T) {
	saved := startDev
	startDev = nil
	defer func() { startDev = saved }()
	var stdout, stderr bytes.Buffer
	if code := command(t.Context(), []string{"--dev"}, noEnv, &stdout, &stderr); code != cli.Misuse {
		t.Errorf("exit status %d, want %d", code, cli.Misuse)
	}
	for _, want := range []string{"built without --dev", "make run", "-tags dev"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in: %s", want, &stderr)
		}
	}
}
