package k8s

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func parseInt(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// pods returns the pod of each workload of dir, by its name.
func pods(t *testing.T, dir string) map[string]*corev1.PodTemplateSpec {
	t.Helper()
	all := map[string]*corev1.PodTemplateSpec{}
	for _, w := range workloads(render(t, dir)) {
		all[w.name] = w.pod
	}
	return all
}

// The patches say the same at other paths: what one of them gets, all must get.
func TestAllKindsGetTheSameSidecar(t *testing.T) {
	t.Parallel()
	want, _ := sidecar(pods(t, "testdata/bare-native")["Deployment app"].Spec)
	for _, dir := range []string{"bare-native", "full-native", "bare-classic", "full-classic"} {
		for name, pod := range pods(t, "testdata/"+dir) {
			got, _ := sidecar(pod.Spec)
			got = got.DeepCopy()
			// What the classic one has instead of being an init container.
			got.RestartPolicy, got.Lifecycle = want.RestartPolicy, nil
			got.Env = without(got.Env, func(e corev1.EnvVar) bool { return e.Name == "WXTOKEN_QUIT" || e.Name == drainQuiet })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s (-bare-native Deployment +this):\n%s", dir, name, diff)
			}
		}
	}
}

// Whatever the workload has stays as it is, in its order.
func TestTheWorkloadsOwnPartsStay(t *testing.T) {
	t.Parallel()
	for _, own := range []string{"bare", "full"} {
		before := pods(t, "testdata/"+own)
		for _, kind := range []string{"native", "classic"} {
			for name, pod := range pods(t, "testdata/"+own+"-"+kind) {
				left := withoutSidecar(pod)
				if len(pod.Spec.Volumes)-len(left.Spec.Volumes) != 3 {
					t.Errorf("%s-%s, %s: volumes %v", own, kind, name, pod.Spec.Volumes)
				}
				if diff := cmp.Diff(before[name], left); diff != "" {
					t.Errorf("%s-%s, %s (-before +without the sidecar):\n%s", own, kind, name, diff)
				}
			}
		}
	}
}

// withoutSidecar returns the pod's own parts.
func withoutSidecar(pod *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	left := pod.DeepCopy()
	delete(left.Labels, "wxtoken")
	if len(left.Labels) == 0 {
		left.Labels = nil
	}
	left.Spec.InitContainers = without(left.Spec.InitContainers, isSidecar)
	left.Spec.Containers = without(left.Spec.Containers, isSidecar)
	left.Spec.Volumes = without(left.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, "wxtoken-") })
	return left
}

// without returns s without some, and nil instead of nothing.
func without[T any](s []T, some func(T) bool) []T {
	var rest []T
	for _, v := range s {
		if !some(v) {
			rest = append(rest, v)
		}
	}
	return rest
}

func TestAnOverlaySetsImageResourcesAndConfiguration(t *testing.T) {
	t.Parallel()
	for name, pod := range pods(t, "testdata/overlay") {
		c, _ := sidecar(pod.Spec)
		if name == "Deployment unlabelled" {
			continue
		}
		if want := "registry.example.com/mirror/wxtoken:9.9.9"; c.Image != want {
			t.Errorf("%s: image %s, want %s", name, c.Image, want)
		}
		if got := c.Resources.Limits.Memory().String(); name == "CronJob app" && got != "128Mi" {
			t.Errorf("limit %s", got)
		}
	}
	if config := one[*corev1.ConfigMap](t, "testdata/overlay"); !strings.Contains(config.Data["wxtoken.yaml"], "wx0000000000000001") || config.Namespace != "elsewhere" {
		t.Errorf("the overlay's configuration is not there:\n%s", toYAML(t, config))
	}
}

// What README.md explains line by line is what is rendered.
func TestTheREADMEShowsTheRenderedPod(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	_, after, ok := strings.Cut(readme, "## A Deployment, line by line")
	_, after, ok2 := strings.Cut(after, "```yaml\n")
	shown, _, ok3 := strings.Cut(after, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("no YAML in the section")
	}
	var pod corev1.PodSpec
	if err := yaml.UnmarshalStrict([]byte(shown), &pod); err != nil {
		t.Fatal(err)
	}
	want := pods(t, "testdata/bare-native")["Deployment app"].Spec
	want.Containers = nil
	if diff := cmp.Diff(want, pod); diff != "" {
		t.Errorf("-rendered +README.md:\n%s", diff)
	}
}
