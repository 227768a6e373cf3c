// Cluster runs the manifests of deploy/k8s on a real API server, on loopback and without root: etcd of
// Debian, kube-apiserver and kubectl built from this module. It prints what it tried, a line each, and
// ends with 1 if anything was not as it must be.
//
// There is no node: no kubelet, no controller, no scheduler. What these do with the pods (the start-up
// gate, the order of the end, a rotation of the Secret) was seen once on a node, and is not repeated
// here: that takes root, containerd, runc and three more binaries.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := run(ctx)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	case failed > 0:
		fmt.Fprintf(os.Stderr, "cluster: %d checks failed\n", failed)
		os.Exit(1)
	}
	fmt.Println("not tried: a node (kubelet, containerd, runc), which takes root")
}

func run(ctx context.Context) (failed int, err error) {
	tools, err := install(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "wxtoken-cluster-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	api, err := start(ctx, tools, dir)
	if err != nil {
		return 0, err
	}
	defer api.stop()
	c := &checks{ctx: ctx, api: api, k8s: filepath.Join("..", "k8s")}
	if err := c.prepare(); err != nil {
		return 0, err
	}
	c.manifests()
	c.injection()
	return c.failed, nil
}

// checks are what is tried, and how much of it was not as it must be.
type checks struct {
	ctx    context.Context
	api    *apiServer
	k8s    string
	failed int
}

func (c *checks) check(what string, err error) {
	if err != nil {
		c.failed++
		fmt.Printf("FAILED  %s: %v\n", what, err)
		return
	}
	fmt.Printf("ok      %s\n", what)
}

// shop is the namespace of the examples. It enforces the Pod Security Standard "restricted".
const shop = "shop"

// prepare makes what a cluster has: the kinds of the Prometheus operator, namespaces, and the
// ServiceAccount that a controller would make.
func (c *checks) prepare() error {
	crds, err := crdFiles(c.ctx)
	if err != nil {
		return err
	}
	for _, file := range crds {
		if _, err := c.api.kubectl(c.ctx, nil, "apply", "--server-side", "-f", file); err != nil {
			return err
		}
	}
	if _, err := c.api.kubectl(c.ctx, nil, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"); err != nil {
		return err
	}
	if _, err := c.api.kubectl(c.ctx, nil, "apply", "-f", filepath.Join(c.k8s, "examples/web/namespace.yaml")); err != nil {
		return err
	}
	if _, err := c.api.kubectl(c.ctx, nil, "label", "namespace", shop, "pod-security.kubernetes.io/enforce=restricted", "--overwrite"); err != nil {
		return err
	}
	return c.serviceAccount(shop)
}

func (c *checks) serviceAccount(namespace string) error {
	_, err := c.api.kubectl(c.ctx, nil, "-n", namespace, "create", "serviceaccount", "default")
	return err
}

// manifests applies every example, and every workload that the tests have, as its user would.
func (c *checks) manifests() {
	for _, dir := range []string{"web", "redis-reader", "cronjob", "classic-job", "https", "api-host"} {
		c.apply("examples/"+dir, shop)
	}
	c.pods("examples", shop)
	for _, dir := range []string{"bare-native", "bare-classic", "full-native", "full-classic", "full-https", "overlay"} {
		namespace := "test-" + dir
		if dir == "overlay" {
			namespace = "elsewhere" // which it names itself
		}
		if _, err := c.api.kubectl(c.ctx, nil, "create", "namespace", namespace); err != nil {
			c.check(namespace, err)
			continue
		}
		c.apply("testdata/"+dir, namespace)
	}
}

// apply tries a directory: a dry run, the real thing, no difference afterwards, and nothing to do the
// second time.
func (c *checks) apply(dir, namespace string) {
	at := filepath.Join(c.k8s, dir)
	in := func(args ...string) []string { return append([]string{"-n", namespace}, args...) }
	_, err := c.api.kubectl(c.ctx, nil, in("apply", "-k", at, "--dry-run=server")...)
	c.check(dir+": dry run", err)
	out, err := c.api.kubectl(c.ctx, nil, in("apply", "-k", at)...)
	c.check(dir+": apply", firstWarning(out, err))
	_, err = c.api.kubectl(c.ctx, nil, in("diff", "-k", at)...)
	c.check(dir+": no difference afterwards", err)
	out, err = c.api.kubectl(c.ctx, nil, in("apply", "-k", at)...)
	for line := range strings.Lines(out) {
		if err == nil && !strings.HasSuffix(strings.TrimSpace(line), " unchanged") {
			err = errors.New(strings.TrimSpace(line))
		}
	}
	c.check(dir+": the second time, all is unchanged", err)
}

// firstWarning makes an error of a warning of the API server.
func firstWarning(out string, err error) error {
	for line := range strings.Lines(out) {
		if err == nil && strings.HasPrefix(line, "Warning:") {
			return errors.New(strings.TrimSpace(line))
		}
	}
	return err
}

// pods sends the pods of a directory's workloads, which no controller makes here, to the API server,
// which says whether it would take them.
func (c *checks) pods(dir, namespace string) {
	out, err := c.api.kubectl(c.ctx, nil, "-n", namespace, "get", "deployments,statefulsets,cronjobs,jobs", "-o", "json")
	if err != nil {
		c.check(dir+": its pods", err)
		return
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				Template    json.RawMessage
				JobTemplate struct {
					Spec struct{ Template json.RawMessage }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Items) == 0 {
		c.check(dir+": its pods", fmt.Errorf("%d workloads, %v", len(list.Items), err))
		return
	}
	for _, w := range list.Items {
		template := w.Spec.Template
		if template == nil {
			template = w.Spec.JobTemplate.Spec.Template
		}
		_, err := c.create(namespace, template, w.Metadata.Name)
		c.check(dir+": a pod of "+w.Metadata.Name+" is admitted by restricted", err)
	}
}

// pod is as much of a pod as is looked at.
type pod struct {
	Spec struct {
		InitContainers []struct {
			Name         string
			VolumeMounts []struct{ Name, MountPath string }
			Resources    struct{ Limits map[string]string }
		}
	}
}

// create sends a pod for a dry run and returns what would be stored.
func (c *checks) create(namespace string, template json.RawMessage, name string) (pod, error) {
	var p map[string]any
	if err := json.Unmarshal(template, &p); err != nil {
		return pod{}, err
	}
	p["apiVersion"], p["kind"] = "v1", "Pod"
	meta, _ := p["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta["name"] = name
	delete(meta, "creationTimestamp")
	p["metadata"] = meta
	body, err := json.Marshal(p)
	if err != nil {
		return pod{}, err
	}
	out, err := c.api.kubectl(c.ctx, body, "-n", namespace, "create", "--dry-run=server", "-o", "json", "-f", "-")
	if err != nil {
		return pod{}, err
	}
	var stored pod
	return stored, json.Unmarshal([]byte(out), &stored)
}

// injection tries the policy on the real server: with its defaulting, its ServiceAccount plugin and its
// second run after that.
func (c *checks) injection() {
	const labeled, unlabeled = "injected", "not-injected"
	for _, args := range [][]string{
		{"create", "namespace", labeled}, {"create", "namespace", unlabeled},
		{"label", "namespace", labeled, "wxtoken.io/injection=enabled", "pod-security.kubernetes.io/enforce=restricted"},
		{"apply", "-k", filepath.Join(c.k8s, "injection")},
	} {
		if _, err := c.api.kubectl(c.ctx, nil, args...); err != nil {
			c.check("injection: "+strings.Join(args, " "), err)
			return
		}
	}
	for _, namespace := range []string{labeled, unlabeled} {
		if err := c.serviceAccount(namespace); err != nil {
			c.check("injection: ServiceAccount", err)
			return
		}
	}
	const container = `{"name":"app","image":"registry.example.com/app:1","securityContext":{"runAsNonRoot":true,"runAsUser":10001,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"seccompProfile":{"type":"RuntimeDefault"}}}`
	asking := func(spec string) json.RawMessage {
		return json.RawMessage(`{"metadata":{"labels":{"wxtoken.io/inject":"true"}},"spec":{"containers":[` + container + `]` + spec + `}}`)
	}
	// A policy takes effect a moment after it is stored.
	var stored pod
	c.check("injection: a bare pod gets the sidecar, and restricted admits it", c.eventually(func() (err error) {
		stored, err = c.create(labeled, asking(""), "bare")
		return first(stored, err, "wxtoken")
	}))
	c.check("injection: no token of the API is mounted into it", noToken(stored))
	migrate := strings.Replace(container, `"app"`, `"migrate"`, 1)
	stored, err := c.create(labeled, asking(`,"initContainers":[`+migrate+`],"volumes":[{"name":"work","emptyDir":{}}]`), "full")
	c.check("injection: it is the first of the init containers", first(stored, err, "wxtoken", "migrate"))
	stored, err = c.create(labeled, asking(`,"initContainers":[],"volumes":[]`), "empty")
	c.check("injection: with empty lists", first(stored, err, "wxtoken"))
	stored, err = c.create(labeled, json.RawMessage(`{"spec":{"containers":[`+container+`]}}`), "unasked")
	c.check("injection: not without the label", first(stored, err))
	c.check("injection: refused in a namespace without the label", c.eventually(func() error {
		_, err := c.create(unlabeled, asking(""), "unlabeled")
		return says(err, "label the namespace wxtoken.io/injection=enabled")
	}))
	_, err = c.create(labeled, asking(`,"hostNetwork":true`), "host")
	c.check("injection: refused with hostNetwork", says(err, "hostNetwork"))

	limits := []byte(`{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"limits"},"spec":{"limits":[{"type":"Container","default":{"cpu":"300m"}}]}}`)
	if _, err = c.api.kubectl(c.ctx, limits, "-n", labeled, "create", "-f", "-"); err == nil {
		stored, err = c.create(labeled, asking(""), "limited")
	}
	c.check("injection: beside a LimitRange", first(stored, err, "wxtoken"))
	c.apply("injection", labeled)
}

// eventually tries for a minute.
func (c *checks) eventually(try func() error) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if err := try(); err == nil || time.Now().After(deadline) || c.ctx.Err() != nil {
			return err
		}
	}
}

// first reports whether the init containers are those.
func first(p pod, err error, names ...string) error {
	if err != nil {
		return err
	}
	var got []string
	for _, c := range p.Spec.InitContainers {
		got = append(got, c.Name)
	}
	if !slices.Equal(got, names) {
		return fmt.Errorf("the init containers are %q, want %q", got, names)
	}
	return nil
}

// noToken reports whether the sidecar's mounts have the empty volume where a token would be.
func noToken(p pod) error {
	if len(p.Spec.InitContainers) == 0 {
		return errors.New("no sidecar")
	}
	for _, m := range p.Spec.InitContainers[0].VolumeMounts {
		if m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" && m.Name != "wxtoken-no-api-token" {
			return fmt.Errorf("%s is mounted there", m.Name)
		}
	}
	return nil
}

func says(err error, text string) error {
	switch {
	case err == nil:
		return errors.New("it was admitted")
	case !strings.Contains(err.Error(), text):
		return err
	}
	return nil
}

// kubectl runs a command and returns what it printed.
func (a *apiServer) kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, a.tools.kubectl, append([]string{"--kubeconfig", a.config}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %.2000s%.2000s", args[0], err, problems.String(), out.String())
	}
	if strings.HasPrefix(problems.String(), "Warning:") {
		return problems.String() + out.String(), nil
	}
	return out.String(), nil
}
