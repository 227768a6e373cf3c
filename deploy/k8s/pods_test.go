package k8s

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// workload is an object that makes pods.
type workload struct {
	name   string // with its kind
	labels map[string]string
	pod    *corev1.PodTemplateSpec
}

func (w workload) isJob() bool { return strings.Contains(w.name, "Job") }

// wants reports whether the workload asks for a sidecar.
func (w workload) wants() bool { return w.labels["wxtoken"] == "sidecar" }

func workloads(objects []runtime.Object) []workload {
	var all []workload
	add := func(kind string, meta metav1.ObjectMeta, pod *corev1.PodTemplateSpec) {
		all = append(all, workload{kind + " " + meta.Name, meta.Labels, pod})
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			add("Deployment", o.ObjectMeta, &o.Spec.Template)
		case *appsv1.StatefulSet:
			add("StatefulSet", o.ObjectMeta, &o.Spec.Template)
		case *batchv1.Job:
			add("Job", o.ObjectMeta, &o.Spec.Template)
		case *batchv1.CronJob:
			add("CronJob", o.ObjectMeta, &o.Spec.JobTemplate.Spec.Template)
		}
	}
	return all
}

// sidecar returns the sidecar of a pod, nil if it has none, and whether it is a native one.
func sidecar(pod corev1.PodSpec) (c *corev1.Container, native bool) {
	if i := slices.IndexFunc(pod.InitContainers, isSidecar); i >= 0 {
		return &pod.InitContainers[i], true
	}
	if i := slices.IndexFunc(pod.Containers, isSidecar); i >= 0 {
		return &pod.Containers[i], false
	}
	return nil, false
}

func isSidecar(c corev1.Container) bool { return c.Name == "wxtoken" }

// eachWorkload runs check on every workload of every kustomization that has a component in it: the
// ones without, in testdata, are what the others start from.
func eachWorkload(t *testing.T, check func(t *testing.T, dir string, w workload)) {
	t.Helper()
	t.Parallel()
	for _, dir := range kustomizations(t) {
		if dir == "testdata/bare" || dir == "testdata/full" {
			continue
		}
		for _, w := range workloads(render(t, dir)) {
			t.Run(dir+"/"+w.name, func(t *testing.T) { check(t, dir, w) })
		}
	}
}

func TestTheLabelDecidesWhoGetsASidecar(t *testing.T) {
	kinds := map[string]bool{}
	eachWorkload(t, func(t *testing.T, dir string, w workload) {
		c, native := sidecar(w.pod.Spec)
		if (c != nil) != w.wants() {
			t.Fatalf("label %q, sidecar %v", w.labels["wxtoken"], c != nil)
		}
		if c == nil {
			return
		}
		if w.pod.Labels["wxtoken"] != "sidecar" {
			t.Error("the pod has no label for the PodMonitor and the NetworkPolicy")
		}
		kind, _, _ := strings.Cut(w.name, " ")
		kinds[kind] = true
		classic := strings.Contains(dir, "classic")
		if native == classic {
			t.Errorf("native %v, from %s", native, dir)
		}
		switch {
		case native && (c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways):
			t.Error("an init container that ends: the pod would wait for it for ever")
		case native && !isSidecar(w.pod.Spec.InitContainers[0]):
			t.Error("other init containers start before it, and may need a token")
		case classic && !isSidecar(w.pod.Spec.Containers[0]):
			t.Error("other containers start before it")
		case classic && (c.Lifecycle == nil || c.Lifecycle.PostStart == nil || !slices.Contains(c.Lifecycle.PostStart.Exec.Command, "wait")):
			t.Error("nothing makes the other containers wait")
		case classic && w.isJob() != slices.Contains(c.Env, corev1.EnvVar{Name: "WXTOKEN_QUIT", Value: "true"}):
			t.Error("a job, and only a job, ends its sidecar")
		}
	})
	for _, kind := range []string{"Deployment", "StatefulSet", "Job", "CronJob"} {
		if !kinds[kind] {
			t.Errorf("no %s was looked at", kind)
		}
	}
}

func TestTheSidecarOfEachPodIsAsItShouldBe(t *testing.T) {
	eachWorkload(t, func(t *testing.T, dir string, w workload) {
		c, _ := sidecar(w.pod.Spec)
		if c == nil {
			return
		}
		check := func(ok bool, what string) {
			t.Helper()
			if !ok {
				t.Errorf("%s\n%s", what, toYAML(t, c))
			}
		}
		probe := func(p *corev1.Probe, path string) bool {
			return p != nil && p.HTTPGet != nil && p.HTTPGet.Path == path && p.HTTPGet.Port.StrVal == "wxtoken-ops"
		}
		check(probe(c.StartupProbe, "/startupz"), "startupProbe")
		check(probe(c.LivenessProbe, "/healthz"), "livenessProbe")
		grace := func(p *corev1.Probe) int64 {
			if p == nil || p.TerminationGracePeriodSeconds == nil {
				return 0
			}
			return *p.TerminationGracePeriodSeconds
		}(c.LivenessProbe)
		check(grace >= 1 && grace <= 5, "kubelet waits for a sidecar that hangs as long as for the pod")
		check(c.ReadinessProbe == nil, "a readinessProbe takes the whole pod out of service when Redis or WeChat is away")
		check(len(c.Ports) == 1 && c.Ports[0].Name == "wxtoken-ops" && c.Ports[0].ContainerPort == 7201, "only the operations port has a name: values stay on loopback")
		check(strings.Contains(c.Image, "/") && !strings.HasSuffix(c.Image, ":latest") && strings.Contains(c.Image[strings.LastIndex(c.Image, "/"):], ":"), "an image with a version")

		for _, e := range c.Env {
			check(e.ValueFrom == nil && !strings.Contains(e.Name, "SECRET") && !strings.Contains(e.Name, "REDIS"), "a secret in the environment: "+e.Name)
		}
		check(c.EnvFrom == nil, "envFrom")
		for _, m := range c.VolumeMounts {
			// The https face writes what the app has to trust, and keeps its authority.
			check(m.ReadOnly || strings.HasPrefix(m.MountPath, "/run/wxtoken/"), "not read-only: "+m.MountPath)
			// A subPath is a copy: no update of the volume reaches it. The hosts file has none.
			check(m.SubPath == "" && m.SubPathExpr == "" || m.MountPath == "/etc/hosts", "subPath: "+m.MountPath)
		}
		check(slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount"
		}), "Kubernetes would mount a token of its API")

		check(!c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero(), "requests")
		check(c.Resources.Limits.Cpu().IsZero(), "a CPU limit makes a refresh wait for the next period")
		limit := c.Resources.Limits.Memory().Value()
		check(limit > 0, "no limit of memory")
		share := float64(goMemLimit(t, c)) / float64(limit)
		check(share > .85 && share < .92, "GOMEMLIMIT is not about 90 % of the limit")
	})
}

// drainQuiet is the setting that differs with the kind of sidecar.
const drainQuiet = "WXTOKEN_DRAIN_QUIET"

// A sidecar that is killed while it serves would cut its app off; so would one that takes an app
// for gone which is between two calls. Only a native sidecar is asked to stop when its app has
// ended.
func TestTheStopFitsIntoTheGracePeriod(t *testing.T) {
	const answers = 5 * time.Second // stopGrace of cmd/sidecar, after the drain
	drains := regexp.MustCompile(`DefaultDrain += (\d+) \* time\.Second`).FindStringSubmatch(read(t, "../../cmd/sidecar/internal/config/config.go"))
	if drains == nil {
		t.Fatal("the program has no default drain")
	}
	byDefault, err := time.ParseDuration(drains[1] + "s")
	if err != nil {
		t.Fatal(err)
	}
	eachWorkload(t, func(t *testing.T, dir string, w workload) {
		c, native := sidecar(w.pod.Spec)
		if c == nil {
			return
		}
		drain, quiet := byDefault, time.Duration(0)
		for _, e := range c.Env {
			var err error
			switch e.Name {
			case "WXTOKEN_DRAIN":
				drain, err = time.ParseDuration(e.Value)
			case drainQuiet:
				quiet, err = time.ParseDuration(e.Value)
			}
			if err != nil {
				t.Error(err)
			}
		}
		grace := 30 * time.Second // Kubernetes' default
		if s := w.pod.Spec.TerminationGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		needs := drain + answers
		if native {
			needs = answers // of what the app leaves
		}
		if grace <= needs {
			t.Errorf("the pod is killed after %v, the sidecar takes up to %v", grace, needs)
		}
		switch {
		case native && quiet != 0:
			t.Errorf("%s=%v: its app is gone already", drainQuiet, quiet)
		case !native && (quiet < 5*time.Second || quiet >= drain):
			t.Errorf("%s=%v: long enough to see an app between its calls, and shorter than the drain of %v", drainQuiet, quiet, drain)
		}
	})
}

func goMemLimit(t *testing.T, c *corev1.Container) int64 {
	t.Helper()
	for _, e := range c.Env {
		if e.Name != "GOMEMLIMIT" {
			continue
		}
		mib, ok := strings.CutSuffix(e.Value, "MiB")
		n, err := parseInt(mib)
		if !ok || err != nil {
			t.Fatalf("GOMEMLIMIT=%s", e.Value)
		}
		return n << 20
	}
	t.Fatal("no GOMEMLIMIT")
	return 0
}

// Kubernetes' own evaluator says what its admission would.
func TestPodsMeetTheRestrictedPodSecurityStandard(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	eachWorkload(t, func(t *testing.T, dir string, w workload) {
		pod := *w.pod.DeepCopy()
		if strings.HasPrefix(dir, "testdata/") {
			// These apps are loose on purpose. What is ours must be in order by itself.
			pod.Spec.Containers = slices.DeleteFunc(pod.Spec.Containers, func(c corev1.Container) bool { return !isSidecar(c) })
			pod.Spec.InitContainers = slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return !isSidecar(c) })
		}
		restricted := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
		for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		if !strings.HasPrefix(dir, "testdata/") && (pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken) {
			t.Error("an example with a token of the Kubernetes API")
		}
	})
}

// What the API server checks beyond the fields' names, and what a merge can break.
func TestNamesInAPodAreUniqueAndLeadSomewhere(t *testing.T) {
	eachWorkload(t, func(t *testing.T, dir string, w workload) {
		seen := map[string]bool{}
		unique := func(kind, name string) {
			t.Helper()
			if seen[kind+name] {
				t.Errorf("%s %s is there twice", kind, name)
			}
			seen[kind+name] = true
		}
		for _, v := range w.pod.Spec.Volumes {
			unique("volume ", v.Name)
		}
		for _, c := range slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers) {
			unique("container ", c.Name)
			for _, p := range c.Ports {
				unique("port ", p.Name)
			}
			for _, m := range c.VolumeMounts {
				unique(c.Name+" mounts ", m.MountPath)
				if !seen["volume "+m.Name] {
					t.Errorf("%s mounts %s, which is no volume", c.Name, m.Name)
				}
			}
			for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if p != nil && p.HTTPGet != nil && !slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool { return port.Name == p.HTTPGet.Port.StrVal }) {
					t.Errorf("a probe of %s asks a port %s, which it does not have", c.Name, p.HTTPGet.Port.String())
				}
			}
		}
	})
}
