package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// insideEnv names the directory with what the node needs, in the environment of the process that is
// inside the namespaces; probing instead of a directory makes that process only try them. groupEnv
// names its cgroup there.
const (
	insideEnv = "WXTOKEN_NODE_INSIDE"
	groupEnv  = "WXTOKEN_NODE_GROUP"
	probing   = "probe"
)

// group is the cgroup of the node. Two nodes at once have two.
var group = cmp.Or(os.Getenv(groupEnv), fmt.Sprintf("wxtoken-node-%d", os.Getpid()))

const (
	address = "10.77.0.1" // of the node, which is alone in its network namespace
	refusal = "this machine does not permit a node: "
)

// inside runs a test of this program again, in namespaces of its own. All that it starts and mounts
// there ends with it: it is their PID 1. The cgroups, which no namespace removes, are removed here.
func inside(ctx context.Context, test, value string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc",
		os.Args[0], "-test.run", "^"+test+"$", "-test.v", "-test.timeout", "30m")
	cmd.Env = append(os.Environ(), insideEnv+"="+value, groupEnv+"="+group)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // unshare then kills its child
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if value != probing {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	err := cmd.Run()
	return out.Bytes(), errors.Join(err, removeCgroups())
}

// obstacle returns why this machine does not permit a node, or "". It tries all that a node needs, in
// namespaces that end at once.
func obstacle(ctx context.Context) string {
	if runtime.GOOS != "linux" {
		return "it takes Linux"
	}
	if os.Geteuid() != 0 {
		return "it takes root, for namespaces, mounts and cgroups"
	}
	for _, name := range []string{"unshare", "mount", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			return "there is no command " + name
		}
	}
	out, err := inside(ctx, "TestInside", probing)
	if err == nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if _, what, ok := strings.Cut(line, refusal); ok {
			return strings.TrimSpace(what)
		}
	}
	return fmt.Sprintf("no namespaces: %v: %s", err, bytes.TrimSpace(out))
}

// settle makes the mounts, the network and the cgroups of the node. It runs inside the namespaces.
func settle(dir string) error {
	// What kubelet would write there. These settings have no namespace: it finds them as it wants
	// them, and changes nothing.
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := do("mount", "--bind", file, filepath.Join("/proc/sys", name)); err != nil {
			return err
		}
	}
	// Containerd has its sockets and network namespaces in /run. It and kubelet also write to some
	// directories that no flag moves; what they write there ends with the namespace.
	if err := do("mount", "-t", "tmpfs", "tmpfs", "/run"); err != nil {
		return err
	}
	for _, at := range []string{"/var/lib", "/var/log"} {
		upper, work := filepath.Join("/run", at, "upper"), filepath.Join("/run", at, "work")
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := do("mount", "-t", "overlay", "-o", "lowerdir="+at+",upperdir="+upper+",workdir="+work, "overlay", at); err != nil {
			return err
		}
	}
	for _, args := range []string{
		"link set lo up", "link add node type veth peer name other", "addr add " + address + "/24 dev node",
		"link set node up", "link set other up", "route add default dev node", // which the API server and kubelet look for
	} {
		if err := do("ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	return makeCgroups()
}

func do(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// hierarchies returns the directories at which cgroups of version 1 are mounted, and of version 2.
func hierarchies() (dirs, unified []string, err error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, nil, err
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		switch f := strings.Fields(lines.Text()); {
		case len(f) > 2 && f[2] == "cgroup":
			dirs = append(dirs, f[1])
		case len(f) > 2 && f[2] == "cgroup2":
			unified = append(unified, f[1])
		}
	}
	return dirs, unified, nil
}

// makeCgroups makes the cgroup of the node, below which kubelet makes those of the pods.
func makeCgroups() error {
	dirs, unified, err := hierarchies()
	if err != nil {
		return err
	}
	if len(dirs) == 0 { // beside version 1, version 2 has no controllers
		dirs = unified
	}
	if len(dirs) == 0 {
		return errors.New("no cgroups are mounted")
	}
	for _, dir := range dirs {
		made := filepath.Join(dir, group)
		if err := os.MkdirAll(made, 0o755); err != nil {
			return err
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} { // of version 1, which leaves them empty
			value, err := os.ReadFile(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(made, name), value, 0)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroups removes what makeCgroups, kubelet and runc made. The processes in them have been
// killed, but may take a moment to end.
func removeCgroups() error {
	dirs, unified, err := hierarchies()
	if err != nil {
		return nil // and so none was made
	}
	var errs []error
	for _, dir := range slices.Concat(dirs, unified) {
		var below []string
		_ = filepath.WalkDir(filepath.Join(dir, group), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, path)
			}
			return nil
		})
		slices.Reverse(below) // the deepest first
		for _, path := range below {
			err := os.Remove(path)
			for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); err = os.Remove(path) {
				time.Sleep(50 * time.Millisecond)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// required is for a machine of which it is known that it permits a node.
func required() bool { return os.Getenv("WXTOKEN_REQUIRE_NODE") == "1" }

// skip skips the test, or fails it where a node is required.
func skip(t *testing.T, why string) {
	t.Helper()
	if required() {
		t.Fatal("no node was started: " + why)
	}
	t.Skip("no node was started: " + why)
}
