package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// programs are what a node has besides the API server.
type programs struct{ containerd, ctr, runc, plugins string }

// ofKubernetes are the programs that are built for a node.
var ofKubernetes = []string{"kubelet", "kube-controller-manager", "kube-scheduler"}

// find returns the programs of the node, installed ones or those of Debian's packages.
func find(ctx context.Context, t tools) (p programs, err error) {
	var ptp string
	for _, want := range []struct {
		path            *string
		name, pkg, file string
	}{
		{&p.containerd, "containerd", "containerd", "usr/bin/containerd"},
		{&p.ctr, "ctr", "containerd", "usr/bin/ctr"},
		{&p.runc, "runc", "runc", "usr/sbin/runc"},
		{&ptp, "ptp", "containernetworking-plugins", "usr/lib/cni/ptp"},
	} {
		if *want.path, err = t.debian(ctx, want.name, want.pkg, want.file); err != nil {
			return programs{}, err
		}
	}
	p.plugins = filepath.Dir(ptp)
	return p, nil
}

// node is a cluster of one node: API server, controllers, scheduler, kubelet and containerd, with a
// simulated WeChat and a Redis at its address. The apps in its pods report to it.
type node struct {
	*apiServer
	programs
	ctx context.Context
	dir string

	mu   sync.Mutex
	seen map[string][]report // by pod
}

// report is what an app says of its GETs; the program in app writes it.
type report struct {
	Pod          string
	Gets, Failed int
	Problem      string
	First        time.Duration
	Ended        bool
}

// startNode starts all in dir, which holds what buildImages wrote, and returns when the node is
// ready.
func startNode(ctx context.Context, t tools, dir string) (_ *node, err error) {
	n := &node{ctx: ctx, dir: dir, seen: map[string][]report{}}
	if n.programs, err = find(ctx, t); err != nil {
		return nil, err
	}
	for file, text := range n.files() {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	// For a node the API server must have an address that is not loopback's.
	if n.apiServer, err = start(ctx, t, dir, "--advertise-address", address, "--kubelet-preferred-address-types", "InternalIP"); err != nil {
		return nil, err
	}
	// Of containerd, for its shim and for the CNI plugins, which may call ip.
	if err := os.Setenv("PATH", filepath.Dir(n.containerd)+":"+os.Getenv("PATH")); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{filepath.Join(dir, "simulator"), "-appid", appid, "-secret", appSecret, "-wechat", upstream, "-redis", store},
		{n.containerd, "--config", filepath.Join(dir, "containerd.toml")},
		{t.kubernetes("kube-controller-manager"), "--kubeconfig", n.config, "--leader-elect=false", "--flex-volume-plugin-dir", filepath.Join(dir, "plugins"),
			"--service-account-private-key-file", filepath.Join(dir, accountsKey), "--root-ca-file", filepath.Join(dir, "certs", "apiserver.crt")},
		{t.kubernetes("kube-scheduler"), "--kubeconfig", n.config, "--leader-elect=false"},
	} {
		if err := n.launch(ctx, args[0], args[1:]...); err != nil {
			return nil, err
		}
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	for _, archive := range []string{"apps.tar", "wxtoken-v0.1.0.oci.tar"} {
		if err := poll(ctx, time.Minute, func() error {
			_, err := n.containers("images", "import", filepath.Join(dir, archive))
			return err
		}); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, n.lastWords())
		}
	}
	if err := n.launch(ctx, t.kubernetes("kubelet"), "--config", filepath.Join(dir, "kubelet.yaml"), "--kubeconfig", n.config,
		"--hostname-override", "node", "--node-ip", address, "--root-dir", filepath.Join(dir, "kubelet"), "--cert-dir", filepath.Join(dir, "kubelet", "pki")); err != nil {
		return nil, err
	}
	if err := poll(ctx, 2*time.Minute, func() error {
		_, err := n.kubectl(ctx, nil, "wait", "--for=condition=Ready", "node/node", "--timeout=10s")
		return err
	}); err != nil {
		return nil, fmt.Errorf("the node is not ready: %w\n%s", err, n.lastWords())
	}
	return n, nil
}

// files are the configuration of containerd, of its network and of kubelet.
func (n *node) files() map[string]string {
	in := func(parts ...string) string { return filepath.Join(append([]string{n.dir}, parts...)...) }
	return map[string]string{
		// Without CAP_SYS_RESOURCE, as in many containers, runc may not lower oom_score_adj. The
		// snapshotter copies, which every file system permits.
		in("containerd.toml"): fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = %q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = %q
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q
`, in("containerd"), in("opt"), pause, n.runc, n.plugins, in("cni")),
		in("cni", "node.conflist"): fmt.Sprintf(`{"cniVersion":"0.4.0","name":"node","plugins":[{"type":"ptp","ipam":{"type":"host-local",
"dataDir":%q,"ranges":[[{"subnet":"10.78.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, in("addresses")),
		in("kubelet.yaml"): fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /%s
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: [none]
evictionHard: {memory.available: 1Mi}
imageGCHighThresholdPercent: 100
podLogsDir: %q
resolvConf: ""
volumePluginDir: %q
syncFrequency: 10s
`, address, group, in("logs"), in("plugins")),
	}
}

// containers runs a command of ctr on the containers of the pods.
func (n *node) containers(args ...string) (string, error) {
	return command(n.ctx, "", n.ctr, append([]string{"--address", "/run/containerd/containerd.sock", "-n", "k8s.io"}, args...)...)
}

// listen takes the reports of the apps.
func (n *node) listen() error {
	l, err := net.Listen("tcp", reports)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var said report
		if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.seen[said.Pod] = append(n.seen[said.Pod], said)
	})}
	go func() { _ = server.Serve(l) }()
	return nil
}

// reported returns what the app of a pod reported first, or last after its end.
func (n *node) reported(pod string, ended bool) (report, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, said := range n.seen[pod] {
		if said.Ended == ended {
			return said, nil
		}
	}
	return report{}, fmt.Errorf("the app of %s has not reported yet (its end: %t)", pod, ended)
}

// poll tries until there is no error, or returns the last one.
func poll(ctx context.Context, patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// soon fails the test if something does not become so.
func soon(t *testing.T, patience time.Duration, try func() error) {
	t.Helper()
	if err := poll(t.Context(), patience, try); err != nil {
		t.Fatal(err)
	}
}

// run runs a command of kubectl in the namespace of the examples, and returns what it printed.
func (n *node) run(t *testing.T, args ...string) string {
	t.Helper()
	a, err := n.kubectl(t.Context(), nil, append([]string{"-n", "shop"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(a.out)
}

// explain prints, after a failure, what Kubernetes says of the pods. It stops everything.
func (n *node) explain(t *testing.T) {
	if !t.Failed() {
		return
	}
	for _, args := range [][]string{{"get", "pods", "-A", "-o", "wide"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"}} {
		a, err := n.kubectl(context.WithoutCancel(t.Context()), nil, args...)
		t.Log(a.out, err)
	}
	t.Log(n.lastWords())
}
