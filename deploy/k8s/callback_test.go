package k8s

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const callbackExample = "examples/callback"

// named returns the object of a type with the name of the callback.
func named[T interface{ GetName() string }](t *testing.T, dir string) (found T) {
	t.Helper()
	n := 0
	for _, o := range render(t, dir) {
		if o, ok := o.(T); ok && o.GetName() == "wxtoken-callback" {
			found = o
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%s: %d of %T are called wxtoken-callback", dir, n, found)
	}
	return found
}

// From the Ingress to the listener: each object leads to the next, and a node that is drained leaves a
// pod.
func TestTheIngressLeadsToTheCallback(t *testing.T) {
	t.Parallel()
	deployment := named[*appsv1.Deployment](t, callbackExample)
	service := named[*corev1.Service](t, callbackExample)
	budget := named[*policyv1.PodDisruptionBudget](t, callbackExample)
	pod := deployment.Spec.Template
	own := labels.Set(pod.Labels)
	paths := named[*networkingv1.Ingress](t, callbackExample).Spec.Rules[0].HTTP.Paths
	backend := paths[0].Backend.Service
	if len(paths) != 1 || paths[0].Path != "/callback/" || backend.Name != service.Name || backend.Port.Name != service.Spec.Ports[0].Name {
		t.Errorf("the Ingress has %+v", paths)
	}
	if !labels.SelectorFromSet(service.Spec.Selector).Matches(own) || labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set{"wxtoken": "sidecar"}) {
		t.Errorf("the Service selects %v", service.Spec.Selector)
	}
	if !labels.SelectorFromSet(budget.Spec.Selector.MatchLabels).Matches(own) || budget.Spec.MinAvailable.IntValue() != 1 || *deployment.Spec.Replicas != 2 {
		t.Errorf("of %d pods %v stay", *deployment.Spec.Replicas, budget.Spec.MinAvailable)
	}
	if own["wxtoken"] != "sidecar" || deployment.Labels["wxtoken"] != "" {
		t.Error("its pods are to be seen by the PodMonitor and the policies, and get no sidecar")
	}
	c := pod.Spec.Containers[0]
	port := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == service.Spec.Ports[0].TargetPort.StrVal })
	if port < 0 || c.Ports[port].ContainerPort != 7202 || !slices.Contains(c.Env, corev1.EnvVar{Name: "WXTOKEN_CALLBACK_LISTEN", Value: ":7202"}) {
		t.Errorf("the Service leads to %v of %v", service.Spec.Ports[0].TargetPort, c.Ports)
	}
	if got := goMemLimit(t, &c) * 100 / c.Resources.Limits.Memory().Value(); got < 85 || got > 92 {
		t.Errorf("GOMEMLIMIT is %d %% of the limit", got)
	}
	// The configuration and the secrets are those of a sidecar.
	like, _ := sidecar(pods(t, "testdata/bare-native")["Deployment app"].Spec)
	want := without(like.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "wxtoken-no-api-token" })
	if diff := cmp.Diff(want, c.VolumeMounts); diff != "" {
		t.Errorf("mounts (-sidecar +callback):\n%s", diff)
	}
	if diff := cmp.Diff(like.SecurityContext, c.SecurityContext); diff != "" {
		t.Errorf("security context (-sidecar +callback):\n%s", diff)
	}
}

// The callback's port is open to the ingress controller and to no other, whether pods of its own have
// it or those of the app.
func TestOnlyTheIngressControllerReachesTheCallback(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{callbackExample, "testdata/callback-on-app-pods"} {
		policy := named[*networkingv1.NetworkPolicy](t, dir)
		opens := 0
		for _, rule := range policy.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) == 0 {
				t.Errorf("%s: a rule for all peers or all ports: %+v", dir, rule)
			}
			for _, p := range rule.Ports {
				if p.Port.IntValue() != 7202 {
					continue
				}
				opens++
				if len(rule.From) != 1 || rule.From[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "ingress-nginx" {
					t.Errorf("%s: 7202 is open to %+v", dir, rule.From)
				}
			}
		}
		if opens != 1 || !slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
			t.Errorf("%s: %d rules are about 7202", dir, opens)
		}
		service := named[*corev1.Service](t, dir)
		if diff := cmp.Diff(service.Spec.Selector, policy.Spec.PodSelector.MatchLabels); diff != "" {
			t.Errorf("%s: the Service and the policy select other pods:\n%s", dir, diff)
		}
	}
	// Alone, or beside components/network-policy, the pods of their own may ask the same.
	mine, all := named[*networkingv1.NetworkPolicy](t, callbackExample).Spec.Egress, one[*networkingv1.NetworkPolicy](t, "testdata/network-policy").Spec.Egress
	forward := slices.IndexFunc(mine, func(r networkingv1.NetworkPolicyEgressRule) bool { return len(r.Ports) == 0 })
	if forward < 0 || mine[forward].To[0].PodSelector.MatchLabels["wxtoken"] != "sidecar" {
		t.Fatalf("no rule for forward in %+v", mine)
	}
	if diff := cmp.Diff(all, slices.Delete(mine, forward, forward+1)); diff != "" {
		t.Errorf("-network-policy +callback:\n%s", diff)
	}
}

// Both ways to run it open the listener with the configuration as it is rendered.
func TestTheProgramServesTheCallback(t *testing.T) {
	t.Parallel()
	config := one[*corev1.ConfigMap](t, callbackExample).Data["wxtoken.yaml"]
	c := named[*appsv1.Deployment](t, callbackExample).Spec.Template.Spec.Containers[0]
	var env []string
	for _, e := range c.Env {
		if e.Name != "WXTOKEN_CONFIG" {
			env = append(env, e.Name+"="+strings.Replace(e.Value, ":7202", "127.0.0.1:0", 1))
		}
	}
	for name, start := range map[string]func() (*process, error){
		"pods of its own": func() (*process, error) { return mounted(t, config, secrets, env...) },
		"the app's pods":  func() (*process, error) { return mounted(t, config+"\ncallback_listen: 127.0.0.1:0\n", secrets) },
	} {
		p, err := start()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for path, want := range map[string]int{"/callback/shops": 403, "/metrics": 404, "/v1/apps/shops/token": 404} {
			if status, answer := do(t, "GET", "http://"+p.callback+path, "", "Host", "callback.example.com", "X-Forwarded-For", "203.0.113.7"); status != want || answer != "" {
				t.Errorf("%s, %s: %d %q, want %d and nothing", name, path, status, answer, want)
			}
		}
	}
}
