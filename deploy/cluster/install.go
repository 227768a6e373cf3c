package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// tools are the programs of a control plane, and the directory in which they are kept: in the
// user's cache, by the version of Kubernetes and of Go.
type tools struct{ dir, version, etcd, apiserver, kubectl string }

// install finds the programs, or builds and fetches them: some 13 minutes of CPU time.
func install(ctx context.Context) (tools, error) {
	version, err := command(ctx, "", "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return tools{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return tools{}, err
	}
	t := tools{dir: filepath.Join(cache, "wxtoken", "kubernetes-"+version+"-"+runtime.Version()), version: version}
	if err := t.build(ctx, "kube-apiserver", "kubectl"); err != nil {
		return tools{}, err
	}
	t.apiserver, t.kubectl = t.kubernetes("kube-apiserver"), t.kubernetes("kubectl")
	t.etcd, err = t.debian(ctx, "etcd", "etcd-server", "usr/bin/etcd")
	return t, err
}

// kubernetes returns the path of a program that was built.
func (t tools) kubernetes(name string) string { return filepath.Join(t.dir, name) }

// build builds those programs of Kubernetes that are not there yet.
func (t tools) build(ctx context.Context, names ...string) error {
	var missing, packages []string
	for _, name := range names {
		if !exists(t.kubernetes(name)) {
			missing, packages = append(missing, name), append(packages, "k8s.io/kubernetes/cmd/"+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Printf("building %s %s into %s\n", strings.Join(missing, ", "), t.version, t.dir)
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	// An interrupted build must not leave half a program under its name.
	parts, err := os.MkdirTemp(t.dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(parts)
	flags := "-s -w -X k8s.io/component-base/version.gitVersion=" + t.version // which clients of it parse
	build := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags", flags, "-o", parts + string(filepath.Separator)}, packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building them: %w\n%s", err, out)
	}
	for _, name := range missing {
		if err := os.Rename(filepath.Join(parts, name), t.kubernetes(name)); err != nil {
			return err
		}
	}
	return nil
}

// debian returns the path of an installed program, or of the one at path in a package of Debian,
// which is unpacked and not installed.
func (t tools) debian(ctx context.Context, name, pkg, path string) (string, error) {
	if installed, err := exec.LookPath(name); err == nil {
		return installed, nil
	}
	path = filepath.Join(t.dir, pkg, filepath.FromSlash(path))
	if exists(path) {
		return path, nil
	}
	if _, err := command(ctx, t.dir, "apt-get", "download", pkg); err != nil {
		return "", fmt.Errorf("%s is not installed, and apt-get cannot download the package %s: %w", name, pkg, err)
	}
	packages, err := filepath.Glob(filepath.Join(t.dir, pkg+"_*.deb"))
	if err != nil || len(packages) == 0 {
		return "", fmt.Errorf("apt-get has downloaded no %s", pkg)
	}
	_, err = command(ctx, t.dir, "dpkg", "-x", packages[len(packages)-1], filepath.Join(t.dir, pkg))
	return path, err
}

// crdFiles returns the files of the Prometheus operator's kinds that the components use.
func crdFiles(ctx context.Context) ([]string, error) {
	out, err := command(ctx, os.TempDir(), "go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator@v0.85.0")
	if err != nil {
		return nil, err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		return nil, err
	}
	var files []string
	for _, kind := range []string{"podmonitors", "prometheusrules"} {
		file := filepath.Join(module.Dir, "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml")
		if !exists(file) {
			return nil, fmt.Errorf("%s is not there", file)
		}
		files = append(files, file)
	}
	return files, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, problems.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}
