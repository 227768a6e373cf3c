package k8s

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// One Deployment in the styles of YAML that people and programs write. Each has a container app, an init container
// migrate, and an empty list of volumes, except where the style is about their absence.
var styles = map[string]string{
	"block": `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  labels:
    wxtoken: sidecar
spec:
  selector:
    matchLabels: {app: app}
  template:
    metadata:
      labels:
        app: app
    spec:
      initContainers: # before all others
        # it must come first
        - name: migrate
          image: app:1
      containers:
        - name: app # the app
          image: app:1
`,
	"JSON": `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"app","labels":{"wxtoken":"sidecar"}},
"spec":{"selector":{"matchLabels":{"app":"app"}},"template":{"metadata":{"labels":{"app":"app"}},
"spec":{"initContainers":[{"name":"migrate","image":"app:1"}],"containers":[{"name":"app","image":"app:1"}]}}}}`,
	"KYAML": `---
{
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: {
    name: "app",
    labels: {
      wxtoken: "sidecar",
    },
  },
  spec: {
    selector: {
      matchLabels: {
        app: "app",
      },
    },
    template: {
      metadata: {
        labels: {
          app: "app",
        },
      },
      spec: {
        initContainers: [{
          name: "migrate",
          image: "app:1",
        }],
        containers: [{
          name: "app",
          image: "app:1",
        }],
      },
    },
  },
}
`,
	"flow inside block": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {wxtoken: sidecar}}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {initContainers: [{name: migrate, image: "app:1"}], containers: [{name: app, image: "app:1"}]}
`,
	"flow lists": `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  labels: {"wxtoken": 'sidecar'}
spec:
  selector:
    matchLabels: {app: app}
  template:
    metadata:
      labels: {app: app}
    spec:
      volumes: []
      initContainers: [{name: migrate, image: "app:1"}]
      containers: [{name: app, image: "app:1"}]
`,
	"anchors": `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  labels: &labels {app: app, wxtoken: sidecar}
spec:
  selector:
    matchLabels: {app: app}
  template:
    metadata:
      labels:
        app: app
    spec:
      initContainers:
        - name: migrate
          image: &image "app:1"
      containers:
        - name: app
          image: *image
`,
}

// Every component on every style: the pod that comes out is the same.
func TestComponentsTakeEveryStyleOfYAML(t *testing.T) {
	t.Parallel()
	for _, component := range []string{"sidecar", "sidecar-classic"} {
		want := styled(t, component, styles["block"])
		if c, _ := sidecar(want); c == nil {
			t.Fatalf("%s: no sidecar in the block style", component)
		}
		for name, manifest := range styles {
			t.Run(component+", "+name, func(t *testing.T) {
				if diff := cmp.Diff(want, styled(t, component, manifest)); diff != "" {
					t.Errorf("-block +%s:\n%s", name, diff)
				}
			})
		}
	}
}

// Kinds that kustomize knows nothing of: Argo Rollouts and OpenKruise, with and without what the pod has besides.
const custom = `
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: bare, labels: {wxtoken: sidecar}}
spec: {template: {metadata: {labels: {app: app}}, spec: {containers: [{name: app, image: "app:1"}]}}}
---
apiVersion: apps.kruise.io/v1alpha1
kind: CloneSet
metadata: {name: full, labels: {wxtoken: sidecar}}
spec:
  template:
    metadata: {labels: {app: app}}
    spec:
      initContainers: # its own
        - {name: migrate, image: "app:1"}
      containers:
        - {name: app, image: "app:1"}
      volumes:
        - {name: own, emptyDir: {}}
---
{"apiVersion": "apps.kruise.io/v1beta1", "kind": "StatefulSet", "metadata": {"name": "advanced", "labels": {"wxtoken": "sidecar"}},
 "spec": {"template": {"metadata": {"labels": {"app": "app"}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}}
---
apiVersion: apps.kruise.io/v1alpha1
kind: DaemonSet
metadata: {name: daemon, labels: {wxtoken: sidecar}}
spec: {template: {metadata: {labels: {app: app}}, spec: {containers: [{name: app, image: "app:1"}]}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: unlabelled}
spec: {template: {metadata: {labels: {app: app}}, spec: {containers: [{name: app, image: "app:1"}]}}}
`

// What is no kind of Kubernetes' own gets the same sidecar, and loses nothing.
func TestKindsOfOthersGetTheSidecar(t *testing.T) {
	t.Parallel()
	want, _ := sidecar(pods(t, "testdata/bare-native")["Deployment app"].Spec)
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay(t, "sidecar", custom))
	if err != nil {
		t.Fatal(err)
	}
	if n := built.Size(); n != 5 {
		t.Errorf("%d objects come out, want 5: the template is in no output", n)
	}
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			Spec struct{ Template corev1.PodTemplateSpec }
		}
		if err := yaml.Unmarshal(text, &o); err != nil {
			t.Fatal(err)
		}
		pod := o.Spec.Template
		got, _ := sidecar(pod.Spec)
		if r.GetName() == "unlabelled" {
			if got != nil {
				t.Error("an unlabelled workload has a sidecar")
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s (-Deployment +this):\n%s", r.GetKind(), r.GetName(), diff)
		}
		if pod.Labels["wxtoken"] != "sidecar" || pod.Labels["app"] != "app" || len(pod.Spec.Containers) != 1 {
			t.Errorf("%s: labels %v, %d containers", r.GetName(), pod.Labels, len(pod.Spec.Containers))
		}
		if r.GetName() == "full" && (len(pod.Spec.InitContainers) != 2 || pod.Spec.InitContainers[0].Name != "migrate" || len(pod.Spec.Volumes) != 4) {
			t.Errorf("full: %+v", pod.Spec)
		}
	}
}

// styled renders a component on a manifest.
func styled(t *testing.T, component, manifest string) corev1.PodSpec {
	t.Helper()
	return pods(t, overlay(t, component, manifest))["Deployment app"].Spec
}

// overlay makes a kustomization of a manifest and a component.
func overlay(t *testing.T, component, manifest string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	here, err := filepath.Abs("components/" + component)
	if err != nil {
		t.Fatal(err)
	}
	to, err := filepath.Rel(dir, here)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"app.yaml":           manifest,
		"kustomization.yaml": "resources: [app.yaml]\ncomponents: [" + to + "]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A comment in a patch breaks a manifest in flow style, whose brackets cannot hold it.
func TestNoPatchHoldsAComment(t *testing.T) {
	t.Parallel()
	patches, _ := filepath.Glob("components/*/*.yaml")
	more, _ := filepath.Glob("examples/*/*.yaml")
	seen := 0
	for _, path := range append(patches, more...) {
		folder := filepath.Dir(path)
		if !strings.Contains(read(t, filepath.Join(folder, "kustomization.yaml")), "path: "+filepath.Base(path)) {
			continue
		}
		seen++
		if strings.Contains(read(t, path), "#") {
			t.Errorf("%s is a patch and holds a comment", path)
		}
	}
	if seen < 6 {
		t.Errorf("only %d patches found", seen)
	}
}
