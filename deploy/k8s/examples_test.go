package k8s

import (
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// examples returns the directories of the examples.
func examples(t *testing.T) []string {
	t.Helper()
	dirs := slices.DeleteFunc(kustomizations(t), func(dir string) bool { return filepath.Dir(dir) != "examples" })
	if len(dirs) < 6 {
		t.Fatalf("only %v", dirs)
	}
	return dirs
}

// All examples can be applied to one namespace. With a name that two of them use, the second apply
// would replace the object of the first.
func TestNoTwoExamplesAreTheSameObject(t *testing.T) {
	t.Parallel()
	first := map[string]string{}
	for _, dir := range examples(t) {
		for _, o := range render(t, dir) {
			m, err := meta.Accessor(o)
			if err != nil {
				t.Fatal(err)
			}
			name := o.GetObjectKind().GroupVersionKind().GroupKind().String() + " " + m.GetNamespace() + "/" + m.GetName()
			if other, there := first[name]; there {
				t.Errorf("%s and %s both have a %s", other, dir, name)
			}
			first[name] = dir
		}
	}
	for _, name := range []string{"Deployment.apps shop/web", "ConfigMap shop/wxtoken-hosts", "ServiceAccount shop/wxtoken"} {
		if first[name] == "" {
			t.Errorf("no %s among %v", name, first)
		}
	}
}

// Without its Secret a pod does not start, and the manifests of the examples contain none.
func TestTheREADMEsCreateEverySecretOfTheExamples(t *testing.T) {
	t.Parallel()
	needed := map[string]string{}
	for _, dir := range examples(t) {
		for name, pod := range pods(t, dir) {
			for _, secret := range secretsOf(pod.Spec) {
				needed[secret] = dir + ", " + name
			}
		}
	}
	if needed["wxtoken"] == "" || needed["reports-redis"] == "" {
		t.Errorf("saw only %v", needed)
	}
	for _, readme := range []string{"README.md", "README.zh-CN.md"} {
		text := read(t, readme)
		for secret, by := range needed {
			command := regexp.MustCompile(`(?m)^kubectl -n shop create secret \S+ ` + regexp.QuoteMeta(secret) + ` --from-`)
			if !command.MatchString(text) {
				t.Errorf("%s has no command that creates the Secret %s of %s", readme, secret, by)
			}
		}
	}
}

// secretsOf returns the names of the Secrets without which a pod does not start.
func secretsOf(pod corev1.PodSpec) (names []string) {
	add := func(name string, optional *bool) {
		if name != "" && (optional == nil || !*optional) {
			names = append(names, name)
		}
	}
	for _, v := range pod.Volumes {
		if v.Secret != nil {
			add(v.Secret.SecretName, v.Secret.Optional)
		}
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				if source.Secret != nil {
					add(source.Secret.Name, source.Secret.Optional)
				}
			}
		}
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				add(e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Optional)
			}
		}
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				add(from.SecretRef.Name, from.SecretRef.Optional)
			}
		}
	}
	for _, pull := range pod.ImagePullSecrets {
		add(pull.Name, nil)
	}
	return names
}

// The classic sidecar is the first container, which kubectl logs and exec take by default.
func TestAnExampleWithTheClassicSidecarNamesItsAppToKubectl(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, dir := range examples(t) {
		for name, pod := range pods(t, dir) {
			if c, native := sidecar(pod.Spec); c == nil || native {
				continue
			}
			seen++
			own := withoutSidecar(pod).Spec.Containers[0].Name
			if got := pod.Annotations["kubectl.kubernetes.io/default-container"]; got != own {
				t.Errorf("%s, %s: kubectl takes the container %q by default, want %q", dir, name, got, own)
			}
		}
	}
	if seen == 0 {
		t.Error("no example has the classic sidecar")
	}
}
