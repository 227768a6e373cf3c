package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNode starts a real node, kubelet with containerd and runc, and runs TestInside on it. Where
// the machine does not permit that, it is skipped with a line that says why, and fails with
// WXTOKEN_REQUIRE_NODE=1.
func TestNode(t *testing.T) {
	if why := obstacle(t.Context()); why != "" {
		skip(t, why)
	}
	tools, err := install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := find(t.Context(), tools); err != nil {
		skip(t, err.Error())
	}
	if err := tools.build(t.Context(), ofKubernetes...); err != nil {
		t.Fatal(err)
	}
	if _, err := crdFiles(t.Context()); err != nil { // there is no network inside
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := buildImages(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := inside(t.Context(), "TestInside", dir); err != nil {
		t.Fatal("on the node: ", err)
	}
}

// TestInside is what TestNode runs inside the namespaces.
func TestInside(t *testing.T) {
	dir := os.Getenv(insideEnv)
	if dir == "" {
		t.Skip("TestNode runs it")
	}
	probe := dir == probing
	if probe {
		dir = t.TempDir()
	}
	if err := settle(dir); err != nil {
		t.Fatal(refusal, err)
	}
	if probe {
		return
	}
	tools, err := install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := startNode(t.Context(), tools, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	defer n.explain(t)
	n.fiveMinutes(t)
	t.Run("the first GET of each app gets a token", n.firstGet)
	t.Run("doctor finds nothing wrong", n.doctor)
	t.Run("a Job completes", n.job)
	t.Run("no GET fails during a rollout", n.rollout)
	t.Run("the https face answers an app that pins the address", n.https)
	t.Run("the http face answers an app that pins the name", n.apiHost)
	t.Run("a new Secret is applied", n.secret)
	t.Run("a sidecar that hangs is restarted", n.hang)
	t.Run("the policy injects a sidecar that works", n.injected)
}

// fiveMinutes does what README.md says under that title.
func (n *node) fiveMinutes(t *testing.T) {
	t.Helper()
	c := &checks{ctx: t.Context(), api: n.apiServer}
	if err := c.operatorKinds(); err != nil {
		t.Fatal(err)
	}
	n.run(t, "apply", "-f", filepath.Join("..", "k8s", "examples", "web", "namespace.yaml"))
	n.run(t, "create", "secret", "generic", "wxtoken", "--from-literal="+appid+"="+appSecret)
	n.sim(t, "knobs", `{"latency":"`+slow.String()+`"}`)
	n.run(t, "apply", "-k", filepath.Join("testdata", "web"))
	n.run(t, "rollout", "status", "deployment/web", "--timeout=3m")
	n.sim(t, "knobs", `{"latency":"0s"}`)
}

// slow is how long WeChat takes to answer while the first pods start.
const slow = 3 * time.Second

// sim changes something at the simulated WeChat.
func (n *node) sim(t *testing.T, what, body string) {
	t.Helper()
	resp, err := http.Post("http://"+upstream+"/sim/"+what, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(what, resp.Status)
	}
}

// pods returns the names of the pods with a label that are not being deleted.
func (n *node) pods(t *testing.T, label string) []string {
	t.Helper()
	return strings.Fields(n.run(t, "get", "pods", "-l", label, "-o",
		`go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}`))
}

// firstGetOf waits for the first report of a pod's app.
func (n *node) firstGetOf(t *testing.T, pod string) (first report) {
	t.Helper()
	soon(t, time.Minute, func() (err error) {
		first, err = n.reported(pod, false)
		return err
	})
	if first.Failed > 0 {
		t.Errorf("%s: %s", pod, first.Problem)
	}
	return first
}

// The start-up probe holds the app back until there is a token, for which it then does not wait.
func (n *node) firstGet(t *testing.T) {
	pods := n.pods(t, "app=web")
	if len(pods) != 3 {
		t.Fatalf("%d pods", len(pods))
	}
	for _, pod := range pods {
		if first := n.firstGetOf(t, pod); first.First > slow/2 {
			t.Errorf("%s: the first GET took %s", pod, first.First)
		}
	}
}

func (n *node) doctor(t *testing.T) {
	n.run(t, "exec", "deployment/web", "-c", "wxtoken", "--", "/sidecar", "doctor")
}

// The sidecar of a Job ends by itself when the app has ended.
func (n *node) job(t *testing.T) {
	n.run(t, "apply", "-k", filepath.Join("..", "k8s", "examples", "cronjob"))
	n.run(t, "create", "job", "now", "--from=cronjob/statistics")
	n.run(t, "wait", "--for=condition=Complete", "job/now", "--timeout=2m")
	status := n.run(t, "get", "pods", "-l", "job-name=now", "-o", "jsonpath={.items[*].status.initContainerStatuses[0].state.terminated.exitCode}")
	if status != "0" {
		t.Errorf("the exit status of the sidecar is %q", status)
	}
}

// Each app sends 20 GETs a second, and goes on for 4 s after SIGTERM.
func (n *node) rollout(t *testing.T) {
	old := n.pods(t, "app=web")
	n.run(t, "rollout", "restart", "deployment/web")
	n.run(t, "rollout", "status", "deployment/web", "--timeout=3m")
	gets := 0
	for _, pod := range old {
		var last report
		soon(t, time.Minute, func() (err error) {
			last, err = n.reported(pod, true)
			return err
		})
		if last.Failed > 0 {
			t.Errorf("%s: %d of %d GETs failed, %s", pod, last.Failed, last.Gets, last.Problem)
		}
		gets += last.Gets
	}
	if gets < 3*20 {
		t.Errorf("only %d GETs", gets)
	}
	t.Logf("%d GETs of the old pods", gets)
}

// WeChat and the Secret get a new AppSecret, and each sidecar reads it without a restart.
func (n *node) secret(t *testing.T) {
	const changed = "fedcba9876543210fedcba9876543210"
	n.sim(t, "apps/"+appid+"/secret", `{"secret":"`+changed+`"}`)
	began := time.Now()
	n.run(t, "patch", "secret", "wxtoken", "-p", fmt.Sprintf(`{"stringData":{%q:%q}}`, appid, changed))
	for _, pod := range n.pods(t, "app=web") {
		soon(t, 2*time.Minute, func() error {
			if log := n.run(t, "logs", pod, "-c", "wxtoken"); !strings.Contains(log, "configuration applied") {
				return fmt.Errorf("%s: the new Secret is not applied:\n%s", pod, log)
			}
			return nil
		})
		t.Logf("%s after %s", pod, time.Since(began).Round(time.Second))
	}
}

// SIGSTOP makes it hang: the liveness probe fails three times, and the sidecar has 5 s to end.
func (n *node) hang(t *testing.T) {
	pod := n.pods(t, "app=web")[0]
	status := func() (id string, restarts int) {
		var s struct {
			ContainerID  string
			RestartCount int
			State        struct{ Running *struct{} }
		}
		if err := json.Unmarshal([]byte(n.run(t, "get", "pod", pod, "-o", "jsonpath={.status.initContainerStatuses[0]}")), &s); err != nil {
			t.Fatal(err)
		}
		if s.State.Running == nil {
			return "", s.RestartCount
		}
		return strings.TrimPrefix(s.ContainerID, "containerd://"), s.RestartCount
	}
	id, before := status()
	began := time.Now()
	if _, err := n.containers("tasks", "kill", "--signal", "SIGSTOP", id); err != nil {
		t.Fatal(err)
	}
	soon(t, 90*time.Second, func() error {
		if id, restarts := status(); id == "" || restarts == before {
			return fmt.Errorf("%d restarts, running: %t", restarts-before, id != "")
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("running again after %s", took.Round(time.Second))
	if took > time.Minute {
		t.Error("more than a minute")
	}
}

func (n *node) injected(t *testing.T) {
	n.run(t, "apply", "-k", filepath.Join("..", "k8s", "injection"))
	n.run(t, "label", "namespace", "shop", "wxtoken.io/injection=enabled")
	pod := filepath.Join("testdata", "injected.yaml")
	soon(t, time.Minute, func() error { // a policy takes effect a moment after it was stored
		a, err := n.kubectl(t.Context(), nil, "-n", "shop", "create", "-f", pod, "--dry-run=server", "-o", "jsonpath={.spec.initContainers[*].name}")
		if err == nil && a.out != "wxtoken" {
			err = fmt.Errorf("the init containers are %q", a.out)
		}
		return err
	})
	n.run(t, "create", "-f", pod)
	n.run(t, "wait", "--for=condition=Ready", "pod/injected", "--timeout=2m")
	n.firstGetOf(t, "injected")
}

// The app calls https://api.weixin.qq.com, and has nothing but what the component gives it.
func (n *node) https(t *testing.T) { n.answers(t, "https", "pinned") }

// The app calls http://api.weixin.qq.com, which the sidecar answers on port 80.
func (n *node) apiHost(t *testing.T) { n.answers(t, "api-host", "legacy") }

// answers applies an example and waits until the app of its Deployment has got a token.
func (n *node) answers(t *testing.T, example, deployment string) {
	t.Helper()
	n.run(t, "apply", "-k", filepath.Join("..", "k8s", "examples", example))
	n.run(t, "rollout", "status", "deployment/"+deployment, "--timeout=3m")
	for _, pod := range n.pods(t, "app="+deployment) {
		n.firstGetOf(t, pod)
	}
}
