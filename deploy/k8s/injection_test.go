package k8s

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
)

// cluster is what of an API server decides about a pod: its own evaluators of the policies, with two
// namespaces. Defaulting, the plugins for ServiceAccounts and limits, and the second run after a
// change are not a part of it.
type cluster struct {
	mutating   *mutating.Plugin
	validating *validating.Plugin
}

// client is the fake one, with the API server's own schema, which the fake does not have.
type client struct{ *fake.Clientset }

func (c client) Discovery() discovery.DiscoveryInterfaces {
	return schemas{c.Clientset.Discovery()}
}

type schemas struct{ discovery.DiscoveryInterfaces }

func (schemas) OpenAPIV3() openapi.Client { return openapitest.NewEmbeddedFileClient() }

const (
	injecting = "shop"  // the namespace with the label
	unlabeled = "other" // and one without
)

func newAPIServer(t *testing.T) *cluster {
	t.Helper()
	objects := []runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: injecting, Labels: map[string]string{"wxtoken.io/injection": "enabled"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: unlabeled}},
	}
	for _, o := range render(t, "injection") {
		objects = append(objects, defaulted(t, o))
	}
	clients := client{fake.NewClientset(objects...)}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	factory := informers.NewSharedInformerFactory(clients, 0)

	c := &cluster{}
	var err error
	if c.mutating, err = mutating.NewPlugin(nil); err != nil {
		t.Fatal(err)
	}
	if c.validating, err = validating.NewPlugin(nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range []interface {
		SetEnabled(bool)
		SetExternalKubeInformerFactory(informers.SharedInformerFactory)
		SetExternalKubeClientSet(kubernetes.Interface)
		SetRESTMapper(meta.RESTMapper)
		SetDynamicClient(dynamic.Interface)
		SetDrainedNotification(<-chan struct{})
		SetUnconditionalAuthorizer(authorizer.UnconditionalAuthorizer)
		ValidateInitialization() error
	}{c.mutating, c.validating} {
		p.SetEnabled(true)
		p.SetExternalKubeInformerFactory(factory)
		p.SetExternalKubeClientSet(clients)
		p.SetRESTMapper(mapper)
		p.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
		p.SetDrainedNotification(t.Context().Done())
		p.SetUnconditionalAuthorizer(authorizerfactory.NewAlwaysAllowAuthorizer())
		if err := p.ValidateInitialization(); err != nil {
			t.Fatal(err)
		}
	}
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	return c
}

// defaulted fills in what the API server fills in when it stores a policy or its binding.
func defaulted(t *testing.T, o runtime.Object) runtime.Object {
	t.Helper()
	match := func(m *admissionregistrationv1.MatchResources) {
		m.MatchPolicy = new(admissionregistrationv1.Equivalent)
		if m.NamespaceSelector == nil {
			m.NamespaceSelector = &metav1.LabelSelector{}
		}
		if m.ObjectSelector == nil {
			m.ObjectSelector = &metav1.LabelSelector{}
		}
	}
	switch p := o.(type) {
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		match(p.Spec.MatchConstraints)
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		match(p.Spec.MatchConstraints)
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		match(p.Spec.MatchResources)
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		if p.Spec.MatchResources != nil {
			match(p.Spec.MatchResources)
		}
	default:
		t.Fatalf("no policy: %T", o)
	}
	return o
}

// admit returns the pod as the API server would store it, or why it refuses it.
func (c *cluster) admit(namespace string, pod *corev1.Pod) (*corev1.Pod, error) {
	stored := pod.DeepCopy()
	stored.Namespace = namespace
	attributes := admission.NewAttributesRecord(stored, nil, corev1.SchemeGroupVersion.WithKind("Pod"), namespace, stored.Name,
		corev1.SchemeGroupVersion.WithResource("pods"), "", admission.Create, &metav1.CreateOptions{}, false, &user.DefaultInfo{Name: "developer"})
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	if err := c.mutating.Admit(context.Background(), attributes, interfaces); err != nil {
		return nil, fmt.Errorf("mutating: %w", err)
	}
	if err := c.validating.Validate(context.Background(), attributes, interfaces); err != nil {
		return nil, err
	}
	return attributes.GetObject().(*corev1.Pod), nil
}

// asking is a pod that asks for a sidecar.
func asking(change func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Labels: map[string]string{"wxtoken.io/inject": "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

// What is injected is what the component adds: the same container, the same volumes, the same label.
func TestTheInjectedSidecarIsThatOfTheComponent(t *testing.T) {
	t.Parallel()
	pod, err := newAPIServer(t).admit(injecting, asking(nil))
	if err != nil {
		t.Fatal(err)
	}
	component := pods(t, "testdata/bare-native")["Deployment app"]
	want, _ := sidecar(component.Spec)
	got, native := sidecar(pod.Spec)
	if got == nil || !native {
		t.Fatalf("no sidecar among the init containers: %+v", pod.Spec)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the container (-component +policy):\n%s", diff)
	}
	ours := slices.DeleteFunc(slices.Clone(component.Spec.Volumes), func(v corev1.Volume) bool { return !strings.HasPrefix(v.Name, "wxtoken-") })
	if diff := cmp.Diff(ours, pod.Spec.Volumes); diff != "" {
		t.Errorf("the volumes (-component +policy):\n%s", diff)
	}
	if pod.Labels["wxtoken"] != component.Labels["wxtoken"] || pod.Labels["wxtoken"] == "" {
		t.Errorf("the pod's labels: %v, the component's: %v", pod.Labels, component.Labels)
	}
}

// The pod keeps what it has, the sidecar is first, and nothing is injected twice or unasked.
func TestInjectionGoesByLabelAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t)
	full := asking(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "registry.example.com/migrate:1"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "work"}}
		p.Annotations = map[string]string{"team": "a"}
	})
	injected, err := server.admit(injecting, full)
	if err != nil {
		t.Fatal(err)
	}
	if names := containerNames(injected.Spec.InitContainers); !slices.Equal(names, []string{"wxtoken", "migrate"}) {
		t.Errorf("the init containers are %v", names)
	}
	if len(injected.Spec.Volumes) != 4 || injected.Spec.Volumes[0].Name != "work" || injected.Annotations["team"] != "a" {
		t.Errorf("the pod lost something: %+v", injected)
	}
	again, err := server.admit(injecting, injected)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(injected, again); diff != "" {
		t.Errorf("a second run changes the pod:\n%s", diff)
	}
	empty, err := server.admit(injecting, asking(func(p *corev1.Pod) { p.Spec.InitContainers, p.Spec.Volumes = []corev1.Container{}, []corev1.Volume{} }))
	if err != nil || len(empty.Spec.InitContainers) != 1 {
		t.Errorf("with empty lists: %v", err)
	}
	for name, pod := range map[string]*corev1.Pod{
		"without the label":       asking(func(p *corev1.Pod) { p.Labels = map[string]string{"app": "x"} }),
		"with the label at false": asking(func(p *corev1.Pod) { p.Labels["wxtoken.io/inject"] = "false" }),
	} {
		for _, namespace := range []string{injecting, unlabeled} {
			if got, err := server.admit(namespace, pod); err != nil || len(got.Spec.InitContainers) > 0 || len(got.Spec.Volumes) > 0 {
				t.Errorf("%s, in %s: %v, %+v", name, namespace, err, got)
			}
		}
	}
}

// A pod that asked and has no sidecar would run an app that meets a closed port.
func TestAPodThatAskedAndGotNoSidecarIsRefused(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t)
	onHost := asking(func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	for _, c := range []struct {
		namespace string
		pod       *corev1.Pod
		says      string
	}{
		{unlabeled, asking(nil), "label the namespace wxtoken.io/injection=enabled"},
		{injecting, onHost, "not for pods with hostNetwork"},
		{unlabeled, onHost, "not for pods with hostNetwork"},
	} {
		if _, err := server.admit(c.namespace, c.pod); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("in %s, hostNetwork %t: %v, want %q", c.namespace, c.pod.Spec.HostNetwork, err, c.says)
		}
	}
	// With the component's sidecar, or an ordinary one, the namespace needs no label.
	component := pods(t, "testdata/bare-native")["Deployment app"]
	component.Labels["wxtoken.io/inject"] = "true"
	if _, err := server.admit(unlabeled, &corev1.Pod{ObjectMeta: component.ObjectMeta, Spec: component.Spec}); err != nil {
		t.Errorf("with the component's sidecar: %v", err)
	}
}

func containerNames(list []corev1.Container) (names []string) {
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}
