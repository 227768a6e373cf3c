package k8s

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kustomizations returns every directory here that can be built by itself: components cannot.
func kustomizations(t *testing.T) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Base(path) != "kustomization.yaml" {
			return err
		}
		if text := read(t, path); !strings.Contains(text, "\nkind: Component\n") {
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) < 10 {
		t.Fatalf("only %d kustomizations found: %v", len(dirs), dirs)
	}
	return dirs
}

// render builds a kustomization as kubectl does and decodes what comes out; an unknown or a
// repeated field is an error.
func render(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	var objects []runtime.Object
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, decode(t, dir+", "+r.GetKind()+" "+r.GetName(), text))
	}
	return objects
}

var strict = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistrationv1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

func decode(t *testing.T, name string, text []byte) runtime.Object {
	t.Helper()
	object, _, err := strict.Decode(text, nil, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return object
}

// one returns the only object of a type among those rendered from dir.
func one[T runtime.Object](t *testing.T, dir string) T {
	t.Helper()
	var found []T
	for _, o := range render(t, dir) {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s: %d of %T, want 1", dir, len(found), found)
	}
	return found[0]
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEveryKustomizationRendersAndDecodesStrictly(t *testing.T) {
	t.Parallel()
	for _, dir := range kustomizations(t) {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			if len(render(t, dir)) == 0 {
				t.Error("nothing comes out")
			}
		})
	}
}

// Rendering keeps the last of two equal keys, so the files are read as well, and the templates,
// which are in no kustomization.
func TestEveryFileIsStrictYAML(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		for doc := range bytes.SplitSeq([]byte(read(t, path)), []byte("\n---\n")) {
			if _, err := yaml.YAMLToJSONStrict(doc); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if strings.HasSuffix(path, ".template.yaml") {
			decode(t, path, []byte(read(t, path)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// toYAML shows an object of a failed test, and compares two of them.
func toYAML(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
