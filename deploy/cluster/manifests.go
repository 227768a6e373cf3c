package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	enforced = "pod-security.kubernetes.io/enforce=restricted"
	warned   = "pod-security.kubernetes.io/warn=restricted"
)

// manifests applies every directory that a user could apply. The namespaces enforce the Pod Security
// Standard "restricted"; only those of testdata, whose apps are loose on purpose, warn instead, and then
// no warning may be about the sidecar.
func (c *checks) manifests() error {
	dirs, err := c.kustomizations()
	if err != nil {
		return err
	}
	namespaces := map[string]string{} // of each directory
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(c.k8s, dir, "kustomization.yaml"))
		if err != nil {
			return err
		}
		namespace := strings.ReplaceAll(dir, "/", "-")
		if set := regexp.MustCompile(`(?m)^namespace: (\S+)$`).FindSubmatch(text); set != nil {
			namespace = string(set[1])
		}
		test := strings.HasPrefix(dir, "testdata/")
		if !slices.Contains(slices.Collect(maps.Values(namespaces)), namespace) {
			level := enforced
			if test {
				level = warned
			}
			if err := c.namespace(namespace, level); err != nil {
				return err
			}
		}
		namespaces[dir] = namespace
		c.apply(dir, namespace, test)
	}
	for _, dir := range dirs { // the pods of one example may use the ServiceAccount of another
		c.pods(dir, namespaces[dir], strings.HasPrefix(dir, "testdata/"))
	}
	return nil
}

// kustomizations returns the directories that can be built by themselves, but for the injection, which
// is tried apart.
func (c *checks) kustomizations() (dirs []string, err error) {
	err = filepath.WalkDir(c.k8s, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Base(path) != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(c.k8s, filepath.Dir(path))
		if err == nil && dir != "injection" && !strings.Contains(string(text), "\nkind: Component\n") {
			dirs = append(dirs, filepath.ToSlash(dir))
		}
		return err
	})
	if err == nil && len(dirs) < 10 {
		err = fmt.Errorf("only %d kustomizations found: %v", len(dirs), dirs)
	}
	return dirs, err
}

// apply tries a directory: a dry run, the real thing, no difference afterwards, and nothing to do the
// second time.
func (c *checks) apply(dir, namespace string, loose bool) {
	at := filepath.Join(c.k8s, dir)
	in := func(args ...string) (answer, error) {
		return c.api.kubectl(c.ctx, nil, append([]string{"-n", namespace}, args...)...)
	}
	a, err := in("apply", "-k", at, "--dry-run=server")
	c.check(dir+": dry run", warning(a, err, loose))
	a, err = in("apply", "-k", at)
	c.check(dir+": apply", warning(a, err, loose))
	_, err = in("diff", "-k", at)
	c.check(dir+": no difference afterwards", err)
	a, err = in("apply", "-k", at)
	for line := range strings.Lines(a.out) {
		if err == nil && !strings.HasSuffix(strings.TrimSpace(line), " unchanged") {
			err = errors.New(strings.TrimSpace(line))
		}
	}
	c.check(dir+": the second time, all is unchanged", err)
}

// warning makes an error of a warning of the API server; of one about loose apps, only if it names the
// sidecar.
func warning(a answer, err error, loose bool) error {
	for _, w := range a.warnings {
		if err == nil && (!loose || strings.Contains(w, `"wxtoken"`)) {
			err = errors.New(w)
		}
	}
	return err
}

// pods sends the pods of a directory's workloads, which no controller makes here, to the API server,
// which says whether it would take them.
func (c *checks) pods(dir, namespace string, loose bool) {
	templates, err := c.templates(namespace, "-k", filepath.Join(c.k8s, dir))
	if err == nil && len(templates) == 0 && dir != "base" && dir != "redis/production" {
		err = errors.New("no workload")
	}
	if err != nil {
		c.check(dir+": its pods", err)
		return
	}
	for name, template := range templates {
		_, a, err := c.create(namespace, template)
		if err == nil && loose && len(a.warnings) == 0 {
			err = errors.New("no warning about its app: the namespace does not warn")
		}
		c.check(dir+": a pod of "+name+" is admitted, and restricted has nothing against the sidecar", warning(a, err, loose))
	}
}

// templates returns the pod templates of the stored objects that which selects, by kind and name.
func (c *checks) templates(namespace string, which ...string) (map[string]map[string]any, error) {
	a, err := c.api.kubectl(c.ctx, nil, append([]string{"-n", namespace, "get", "-o", "json"}, which...)...)
	if err != nil {
		return nil, err
	}
	type object struct {
		Kind     string
		Metadata struct{ Name string }
		Spec     struct {
			Template    map[string]any
			JobTemplate struct {
				Spec struct{ Template map[string]any }
			}
		}
	}
	var list struct {
		Kind  string
		Items []json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.out), &list); err != nil {
		return nil, err
	}
	if list.Kind != "List" { // there is only one
		list.Items = []json.RawMessage{json.RawMessage(a.out)}
	}
	found := map[string]map[string]any{}
	for _, item := range list.Items {
		var head struct{ Kind string }
		if err := json.Unmarshal(item, &head); err != nil {
			return nil, err
		}
		switch head.Kind {
		case "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob":
		default:
			continue
		}
		var o object
		if err := json.Unmarshal(item, &o); err != nil {
			return nil, err
		}
		template := o.Spec.Template
		if template == nil {
			template = o.Spec.JobTemplate.Spec.Template
		}
		found[o.Kind+" "+o.Metadata.Name] = template
	}
	return found, nil
}

// pod is as much of a pod as is looked at.
type pod struct {
	Spec struct {
		InitContainers []map[string]any
		Volumes        []map[string]any
	}
}

// create sends a pod of a template for a dry run and returns what would be stored.
func (c *checks) create(namespace string, template map[string]any) (pod, answer, error) {
	meta := map[string]any{}
	if of, ok := template["metadata"].(map[string]any); ok {
		meta["labels"], meta["annotations"] = of["labels"], of["annotations"]
	}
	meta["name"] = "tried"
	body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
	if err != nil {
		return pod{}, answer{}, err
	}
	a, err := c.api.kubectl(c.ctx, body, "-n", namespace, "create", "--dry-run=server", "-o", "json", "-f", "-")
	if err != nil {
		return pod{}, a, err
	}
	var stored pod
	err = json.Unmarshal([]byte(a.out), &stored)
	return stored, a, err
}
