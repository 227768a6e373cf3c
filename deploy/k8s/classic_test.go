package k8s

import (
	"context"
	"os"
	"os/exec"
	"testing"
)

// The hook is run as kubelet would run it, on a sidecar that has just been started.
func TestTheHookOfTheClassicComponentWaits(t *testing.T) {
	t.Parallel()
	p, err := start(t, nil, "--dev")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := sidecar(pods(t, "testdata/bare-classic")["Deployment app"].Spec)
	hook := c.Lifecycle.PostStart.Exec.Command
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, hook[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "WXTOKEN_LISTEN=" + p.values, "WXTOKEN_OPS_LISTEN=" + p.ops}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", hook, err, out)
	}
	if status, answer := do(t, "GET", "http://"+p.ops+"/startupz", ""); status != 200 {
		t.Errorf("it did not wait: %d %s", status, answer)
	}
}
