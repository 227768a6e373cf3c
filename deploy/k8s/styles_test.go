package k8s

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// One Deployment in the styles of YAML that people and programs write. Each has a container app, an
// init container migrate, and an empty list of volumes, except where the style is about their
// absence.
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
	"merge keys": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {wxtoken: sidecar}}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      initContainers:
        - &base {name: migrate, image: "app:1", resources: &r {limits: {memory: 1Gi}}}
      containers:
        - <<: *base
          name: app
          resources: *r
`,
	"quoted keys, and comments everywhere": `# head
"apiVersion": "apps/v1" # version
"kind": 'Deployment'
"metadata":
  "name": "app"
  # the label
  "labels": {"wxtoken": "sidecar"}
"spec":
  "selector": {"matchLabels": {"app": "app"}}
  "template":
    # the pod
    "metadata": {"labels": {"app": "app"}}
    "spec": # of the pod
      "initContainers": # before
      # head of migrate
      - "name": "migrate" # migrate
        "image": "app:1"
        # foot of migrate
      # between
      "containers":
      - "name": "app"
        "image": "app:1"
      # foot
# end
`,
	"KYAML with comments": `---
{
  # the version
  apiVersion: "apps/v1",
  kind: "Deployment", # the kind
  metadata: { name: "app", labels: { wxtoken: "sidecar", }, }, # the label
  spec: {
    selector: { matchLabels: { app: "app", }, },
    # the pod
    template: {
      metadata: { labels: { app: "app", }, },
      spec: {
        initContainers: [
          # migrate comes first
          { name: "migrate", image: "app:1", }, # migrate
          # last
        ],
        volumes: [{
          name: "own", # its own
          emptyDir: {},
        }],
        containers: [{
          # the app
          name: "app",
          image: "app:1",
        }],
      },
    },
  },
}
`,
	"empty lists": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {wxtoken: sidecar}}
spec:
  selector: {matchLabels: {app: app}}
  template: {metadata: {labels: {}}, spec: {initContainers: [], volumes: [], containers: [{name: app, image: "app:1"}]}}
`,
	"nulls": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {wxtoken: sidecar}}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata:
    spec:
      initContainers: null
      volumes: ~
      containers:
        - name: app
          image: app:1
`,
	"a large number": `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"app","labels":{"wxtoken":"sidecar"}},
"spec":{"selector":{"matchLabels":{"app":"app"}},"template":{"spec":{"securityContext":{"runAsUser":1000660000},
"initContainers":[{"name":"migrate","image":"app:1"}],"containers":[{"name":"app","image":"app:1"}]}}}}`,
	"second of two documents": `
apiVersion: v1
kind: Service
metadata: {name: other, labels: {wxtoken: sidecar}}
spec: {selector: {app: app}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {wxtoken: sidecar}}
spec: {selector: {matchLabels: {app: app}}, template: {metadata: {labels: {app: app}}, spec: {containers: [{name: app, image: "app:1"}]}}}
`,
	"list": `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"app","labels":{"wxtoken":"sidecar"}},
"spec":{"selector":{"matchLabels":{"app":"app"}},"template":{"spec":{"containers":[{"name":"app","image":"app:1"}]}}}}]}`,
}

// Every component on every style and every kind with its pod at spec.template: the sidecar comes
// first, and nothing of the workload's own is lost.
func TestComponentsTakeEveryStyleOfYAML(t *testing.T) {
	t.Parallel()
	kinds := []string{
		"apps/v1 Deployment", "apps/v1 ReplicaSet", "v1 ReplicationController", "extensions/v1beta1 Deployment", "apps/v1beta2 StatefulSet",
		"batch/v1 Job", "argoproj.io/v1alpha1 Rollout", "apps.kruise.io/v1alpha1 CloneSet", "apps.kruise.io/v1beta1 StatefulSet",
		"apps.kruise.io/v1alpha1 DaemonSet", "apps.kruise.io/v1alpha1 BroadcastJob", "apps.openshift.io/v1 DeploymentConfig",
	}
	for style, manifest := range styles {
		for _, kind := range kinds {
			version, kind, _ := strings.Cut(kind, " ")
			// kustomize knows kinds of Kubernetes' own, and not the others. One of each takes every
			// style.
			if kind == "Deployment" && version == "apps/v1" || kind == "Rollout" || style == "nulls" {
				checkComponents(t, style, strings.NewReplacer("apps/v1", version, "Deployment", kind).Replace(manifest), kind)
			}
		}
	}
}

// Kinds with their pod elsewhere.
func TestComponentsFindThePod(t *testing.T) {
	t.Parallel()
	const pod = `{initContainers: [{name: migrate, image: "app:1"}], volumes: [{name: own, emptyDir: {}}], containers: [{name: app, image: "app:1"}]}`
	for name, manifest := range map[string]string{
		"v1 Pod":                    `spec: POD`,
		"v1 PodTemplate":            `template: {metadata: {labels: {app: app}}, spec: POD}`,
		"batch/v1 CronJob":          `spec: {schedule: "* * * * *", jobTemplate: {spec: {template: {spec: POD}}}}`,
		"batch/v1beta1 CronJob":     `spec: {schedule: "* * * * *", jobTemplate: {spec: {template: {spec: POD}}}}`,
		"keda.sh/v1 ScaledJob":      `spec: {triggers: [], jobTargetRef: {parallelism: 1, template: {spec: POD}}}`,
		"keda.sh/v2beta1 ScaledJob": `spec: {jobTargetRef: {template: {spec: POD}}}`,
	} {
		version, kind, _ := strings.Cut(name, " ")
		manifest = "apiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: app, labels: {wxtoken: sidecar}}\n" + manifest
		checkComponents(t, "flow", strings.ReplaceAll(manifest, "POD", pod), kind)
	}
}

// A workload that asks for a sidecar, and does not get one, is an error.
func TestComponentsRefuseWhatTheyCannotPatch(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"argoproj.io/v1alpha1 Workflow":            "wxtoken cannot add its sidecar to this kind",
		"argoproj.io/v1alpha1 CronWorkflow":        "wxtoken cannot add its sidecar to this kind",
		"apps.kruise.io/v1alpha1 UnitedDeployment": "wxtoken cannot add its sidecar to this kind",
		"serving.knative.dev/v1 Service":           "wxtoken cannot add its sidecar to this kind",
		"batch.volcano.sh/v1alpha1 Job":            "wxtoken cannot add its sidecar to this kind",
		"kubeflow.org/v1 PyTorchJob":               "wxtoken cannot add its sidecar to this kind",
		"argoproj.io/v1alpha1 Rollout":             "missing from path: /spec/template/spec/containers",
	} {
		version, kind, _ := strings.Cut(name, " ")
		manifest := "apiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: app, labels: {wxtoken: sidecar}}\nspec: {workloadRef: {name: web}}\n"
		for _, component := range []string{"sidecar", "sidecar-classic"} {
			_, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay(t, manifest, component))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v, want %q", component, name, err, want)
			}
		}
	}
}

// checkComponents renders manifest without a component and with each, which must add the sidecar
// and nothing else. Twice makes no difference.
func checkComponents(t *testing.T, style, manifest, kind string) {
	t.Helper()
	before := built(t, overlay(t, manifest), kind)
	for _, components := range [][]string{{"sidecar"}, {"sidecar-classic"}, {"sidecar", "sidecar"}} {
		t.Run(strings.Join(components, " and ")+", "+kind+", "+style, func(t *testing.T) {
			after := built(t, overlay(t, manifest, components...), kind)
			native := components[0] == "sidecar"
			list := after.pod.Spec.Containers
			if native {
				list = after.pod.Spec.InitContainers
			}
			if len(list) == 0 || !isSidecar(list[0]) {
				t.Fatalf("the sidecar does not come first:\n%s", toYAML(t, after.pod))
			}
			want := rendered(t)[components[0]+" Deployment app"]
			if strings.Contains(kind, "Job") || kind == "Pod" { // what may have to end, and then ends its sidecar
				want = rendered(t)[components[0]+" Job app"]
			}
			if diff := cmp.Diff(want, list[0]); diff != "" {
				t.Errorf("-sidecar of testdata +this:\n%s", diff)
			}
			if after.pod.Labels["wxtoken"] != "sidecar" {
				t.Errorf("labels of the pod: %v", after.pod.Labels)
			}
			if diff := cmp.Diff(withoutSidecar(before.pod), withoutSidecar(after.pod), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-before +without the sidecar:\n%s", diff)
			}
			if diff := cmp.Diff(before.rest, after.rest); diff != "" {
				t.Errorf("around the pod (-before +after):\n%s", diff)
			}
		})
	}
}

// rendered returns the sidecars of testdata/bare, by component and workload.
var rendered = func() func(t *testing.T) map[string]corev1.Container {
	var once sync.Once
	all := map[string]corev1.Container{}
	return func(t *testing.T) map[string]corev1.Container {
		once.Do(func() {
			for component, dir := range map[string]string{"sidecar": "testdata/bare-native", "sidecar-classic": "testdata/bare-classic"} {
				for name, pod := range pods(t, dir) {
					c, _ := sidecar(pod.Spec)
					all[component+" "+name] = *c
				}
			}
		})
		return all
	}
}()

// parts is a workload, taken apart.
type parts struct {
	pod  *corev1.PodTemplateSpec
	rest map[string]any // without the pod
}

// built renders dir, which has one object of the kind.
func built(t *testing.T, dir, kind string) parts {
	t.Helper()
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Resources() {
		if r.GetKind() != kind {
			continue
		}
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		var rest map[string]any
		if err := yaml.UnmarshalStrict(text, &rest); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return takeApart(t, kind, rest)
	}
	t.Fatalf("no %s comes out", kind)
	return parts{}
}

func takeApart(t *testing.T, kind string, object map[string]any) parts {
	t.Helper()
	var pod corev1.PodTemplateSpec
	if kind == "Pod" {
		pod.Labels = map[string]string{"wxtoken": "sidecar"} // of the object itself
		convert(t, object["spec"], &pod.Spec)
		delete(object, "spec")
		return parts{&pod, object}
	}
	path := []string{"spec"}
	switch kind {
	case "PodTemplate":
		path = nil
	case "CronJob":
		path = []string{"spec", "jobTemplate", "spec"}
	case "ScaledJob":
		path = []string{"spec", "jobTargetRef"}
	}
	at := object
	for _, name := range path {
		at, _ = at[name].(map[string]any)
	}
	convert(t, at["template"], &pod)
	delete(at, "template")
	return parts{&pod, object}
}

func convert(t *testing.T, from, to any) {
	t.Helper()
	text, err := yaml.Marshal(from)
	if err == nil {
		err = yaml.UnmarshalStrict(text, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// overlay makes a kustomization of a manifest and components, each a directory.
func overlay(t *testing.T, manifest string, components ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	kustomization := "resources: [app.yaml]\n"
	for i, component := range components {
		here, err := filepath.Abs("components/" + component)
		if err != nil {
			t.Fatal(err)
		}
		to, err := filepath.Rel(dir, here)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			kustomization += "components:\n"
		}
		kustomization += "  - " + to + "\n"
	}
	for name, text := range map[string]string{"app.yaml": manifest, "kustomization.yaml": kustomization} {
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
