package k8s

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
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
		if c, _ := sidecar(want); c.Name == "" {
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

// styled renders a component on a manifest.
func styled(t *testing.T, component, manifest string) corev1.PodSpec {
	t.Helper()
	dir := t.TempDir()
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
	return pods(t, dir)["Deployment app"].Spec
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
