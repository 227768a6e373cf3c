package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// The namespaces of the injection: with the label and the Pod Security Standard, with the label alone,
// and with neither.
const (
	injected = "injected"
	loose    = "injected-loose"
	bypassed = "not-injected"
)

// asking is the template of a pod that asks for a sidecar. Its app meets the Pod Security Standard; more
// is added to its spec.
func asking(more map[string]any) map[string]any {
	spec := map[string]any{"containers": []any{app("app")}}
	for key, value := range more {
		spec[key] = value
	}
	return map[string]any{"metadata": map[string]any{"labels": map[string]any{"wxtoken.io/inject": "true"}}, "spec": spec}
}

func app(name string) map[string]any {
	return map[string]any{"name": name, "image": "registry.example.com/app:1", "securityContext": map[string]any{
		"runAsNonRoot": true, "runAsUser": 10001, "allowPrivilegeEscalation": false,
		"capabilities": map[string]any{"drop": []any{"ALL"}}, "seccompProfile": map[string]any{"type": "RuntimeDefault"},
	}}
}

// injection tries the policy on the real server: with its defaulting, its ServiceAccount plugin and its
// second run after that.
func (c *checks) injection() error {
	for _, n := range [][]string{{injected, "wxtoken.io/injection=enabled", enforced}, {loose, "wxtoken.io/injection=enabled"}, {bypassed, enforced}} {
		if err := c.namespace(n[0], n[1:]...); err != nil {
			return err
		}
	}
	c.apply("injection", injected, false)

	c.soon("injection: a bare pod gets the sidecar, and restricted admits it", func() error {
		return c.gives(injected, asking(nil), "wxtoken")
	})
	c.soon("injection: refused in a namespace without the label", func() error {
		return c.refuses(bypassed, asking(nil), "label the namespace wxtoken.io/injection=enabled")
	})
	// Not where restricted is enforced, which would refuse it first.
	c.check("injection: refused with hostNetwork", c.refuses(loose, asking(map[string]any{"hostNetwork": true}), "127.0.0.1 would be the node's"))
	c.check("injection: a volume of the app with the sidecar's name is refused", c.refuses(injected,
		asking(map[string]any{"volumes": []any{map[string]any{"name": "wxtoken-config", "emptyDir": map[string]any{}}}}), "Duplicate value"))
	full := asking(map[string]any{
		"initContainers": []any{app("migrate")},
		"volumes":        []any{map[string]any{"name": "work", "emptyDir": map[string]any{}}},
	})
	c.check("injection: the sidecar is the first of the init containers", c.gives(injected, full, "wxtoken", "migrate"))
	c.check("injection: with empty lists", c.gives(injected, asking(map[string]any{"initContainers": []any{}, "volumes": []any{}}), "wxtoken"))
	unasked := asking(nil)
	delete(unasked, "metadata")
	c.check("injection: not without the label", c.gives(injected, unasked))
	c.check("injection: what is stored is what the component makes", c.likeTheComponent())
	c.check("injection: no difference after a bare pod was applied", c.barePod())

	limits := []byte(`{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"limits"},"spec":{"limits":[{"type":"Container","default":{"cpu":"300m"}}]}}`)
	_, err := c.api.kubectl(c.ctx, limits, "-n", loose, "create", "-f", "-")
	if err == nil {
		err = c.gives(loose, asking(nil), "wxtoken")
	}
	c.check("injection: beside a LimitRange", err)
	c.upgrade()
	c.mesh(full)
	return nil
}

// gives tries whether a pod would be stored with these init containers.
func (c *checks) gives(namespace string, template map[string]any, names ...string) error {
	p, _, err := c.create(namespace, template)
	if err != nil {
		return err
	}
	if got := p.initContainers(); !slices.Equal(got, names) {
		return fmt.Errorf("the init containers are %q, want %q", got, names)
	}
	return nil
}

func (p pod) initContainers() (names []string) {
	for _, c := range p.Spec.InitContainers {
		names = append(names, fmt.Sprint(c["name"]))
	}
	return names
}

// refuses tries whether a pod would be refused with a sentence.
func (c *checks) refuses(namespace string, template map[string]any, sentence string) error {
	_, _, err := c.create(namespace, template)
	switch {
	case err == nil:
		return errors.New("it was admitted")
	case !strings.Contains(err.Error(), sentence):
		return err
	}
	return nil
}

// likeTheComponent compares a pod that has the component's sidecar, which the policy leaves alone, with
// one that gets it from the policy: after defaulting, and after the ServiceAccount plugin has mounted
// its token wherever nothing is mounted already.
func (c *checks) likeTheComponent() error {
	templates, err := c.templates("testdata-bare-native", "deployment", "app")
	if err != nil {
		return err
	}
	template := templates["Deployment app"]
	labels := template["metadata"].(map[string]any)["labels"].(map[string]any)
	labels["wxtoken.io/inject"] = "true"
	component, _, err := c.create(loose, template)
	if err != nil {
		return err
	}
	policy, _, err := c.create(loose, asking(nil))
	if err != nil {
		return err
	}
	own := func(p pod) pod {
		p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v map[string]any) bool { return !strings.HasPrefix(fmt.Sprint(v["name"]), "wxtoken-") })
		return p
	}
	if a, b := own(component), own(policy); len(b.Spec.Volumes) == 0 || !reflect.DeepEqual(a, b) {
		return fmt.Errorf("by the component: %v\nby the policy: %v", a, b)
	}
	return nil
}

// barePod stores a pod; what the policy added is no difference from its manifest.
func (c *checks) barePod() error {
	manifest := asking(nil)
	manifest["apiVersion"], manifest["kind"] = "v1", "Pod"
	manifest["metadata"].(map[string]any)["name"] = "bare"
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	for _, command := range []string{"apply", "diff"} {
		if _, err := c.api.kubectl(c.ctx, text, "-n", injected, command, "-f", "-"); err != nil {
			return err
		}
	}
	return nil
}

// upgrade changes the image as the README says. New pods have the new one.
func (c *checks) upgrade() {
	const image = "registry.example.com/mirror/wxtoken:9.9.9"
	if err := c.do([]string{"patch", "mutatingadmissionpolicy", "wxtoken-sidecar", "--type=json",
		"-p", fmt.Sprintf(`[{"op":"replace","path":"/spec/variables/0/expression","value":%q}]`, `"`+image+`"`)}); err != nil {
		c.check("injection: another image", err)
		return
	}
	c.soon("injection: another image", func() error {
		p, _, err := c.create(injected, asking(nil))
		if err == nil && (len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0]["image"] != image) {
			err = fmt.Errorf("the init containers are %v", p.Spec.InitContainers)
		}
		return err
	})
	c.check("injection: the image of the manifest again", c.do([]string{"apply", "-k", filepath.Join(c.k8s, "injection")}))
}

// mesh adds a policy of another, which changes the pod, too. Each makes the API server run the other
// again, in an order that it does not promise.
func (c *checks) mesh(template map[string]any) {
	const policies = `apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: mesh}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}
  matchConditions:
    - {name: has-none, expression: '!object.spec.?initContainers.orValue([]).exists(c, c.name == "mesh")'}
  failurePolicy: Fail
  reinvocationPolicy: IfNeeded
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: >-
          [JSONPatch{op: "add", path: "/spec/initContainers/-", value: Object.spec.initContainers{
            name: "mesh", image: "registry.example.com/mesh:1"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: mesh}
spec:
  policyName: mesh
  matchResources: {namespaceSelector: {matchLabels: {wxtoken.io/injection: enabled}}}
`
	if _, err := c.api.kubectl(c.ctx, []byte(policies), "apply", "-f", "-"); err != nil {
		c.check("injection: beside another policy", err)
		return
	}
	c.soon("injection: beside another policy there is one sidecar, before the app's init containers", func() error {
		p, _, err := c.create(loose, template)
		if err != nil {
			return err
		}
		if got := p.initContainers(); !slices.Equal(got, []string{"wxtoken", "migrate", "mesh"}) {
			return fmt.Errorf("the init containers are %q", got)
		}
		return nil
	})
}
