// Cluster runs the manifests of deploy/k8s on a real API server, on loopback and without root: etcd
// of Debian, kube-apiserver and kubectl built from this module. It prints what it tried, a line each,
// and ends with 1 if anything was not as it must be.
//
// There is no node in it: no kubelet, no controller, no scheduler. The tests of this package start
// one where the machine permits that.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tried, failed, err := run(ctx)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	case failed > 0:
		fmt.Fprintf(os.Stderr, "cluster: %d of %d checks failed\n", failed, tried)
		os.Exit(1)
	}
	fmt.Printf("%d checks, none failed\n", tried)
}

func run(ctx context.Context) (tried, failed int, err error) {
	tools, err := install(ctx)
	if err != nil {
		return 0, 0, err
	}
	dir, err := os.MkdirTemp("", "wxtoken-cluster-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	api, err := start(ctx, tools, dir)
	if err != nil {
		return 0, 0, err
	}
	defer api.stop()
	c := &checks{ctx: ctx, api: api, k8s: filepath.Join("..", "k8s")}
	if err := c.operatorKinds(); err != nil {
		return 0, 0, err
	}
	if err := c.manifests(); err != nil {
		return 0, 0, err
	}
	if err := c.injection(); err != nil {
		return 0, 0, err
	}
	return c.tried, c.failed, ctx.Err()
}

// checks are what is tried, and how much of it was not as it must be.
type checks struct {
	ctx           context.Context
	api           *apiServer
	k8s           string
	tried, failed int
}

func (c *checks) check(what string, err error) {
	c.tried++
	if err != nil {
		c.failed++
		fmt.Printf("FAILED  %s: %v\n", what, err)
		return
	}
	fmt.Printf("ok      %s\n", what)
}

// soon checks what is so only a moment after an object was stored: a policy takes effect when its
// informer has seen it.
func (c *checks) soon(what string, try func() error) {
	err := try()
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline) && c.ctx.Err() == nil; err = try() {
		time.Sleep(200 * time.Millisecond)
	}
	c.check(what, err)
}

// do runs commands of kubectl, none of which may fail.
func (c *checks) do(commands ...[]string) error {
	for _, args := range commands {
		if _, err := c.api.kubectl(c.ctx, nil, args...); err != nil {
			return err
		}
	}
	return nil
}

// operatorKinds makes the kinds of the Prometheus operator that the components use.
func (c *checks) operatorKinds() error {
	files, err := crdFiles(c.ctx)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := c.do([]string{"apply", "--server-side", "-f", file}); err != nil {
			return err
		}
	}
	return c.do([]string{"wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"})
}

// namespace makes a namespace with labels, and the ServiceAccount in it that a controller would
// make.
func (c *checks) namespace(name string, labels ...string) error {
	return c.do(
		[]string{"create", "namespace", name, "--save-config"}, // an example may apply its own
		append([]string{"label", "namespace", name}, labels...),
		[]string{"-n", name, "create", "serviceaccount", "default"},
	)
}
