package k8s

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The names that the pod leads to the sidecar are those that the program answers by.
func TestThePodLeadsEveryNameOfWeChatToTheSidecar(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range regexp.MustCompile(`"([a-z0-9.]+\.weixin\.qq\.com)":`).FindAllStringSubmatch(read(t, "../../cmd/sidecar/internal/apps/apps.go"), -1) {
		names = append(names, m[1])
	}
	if len(names) < 6 {
		t.Fatalf("the program knows only %q", names)
	}
	slices.Sort(names)
	for name, pod := range pods(t, "testdata/full-https") {
		if len(pod.Spec.HostAliases) != 1 || pod.Spec.HostAliases[0].IP != "127.0.0.1" {
			t.Fatalf("%s: %v", name, pod.Spec.HostAliases)
		}
		got := slices.Sorted(slices.Values(pod.Spec.HostAliases[0].Hostnames))
		if !slices.Equal(got, names) {
			t.Errorf("%s: the pod leads %q here, the program answers by %q", name, got, names)
		}
		c, _ := sidecar(pod.Spec)
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/hosts" }) {
			t.Errorf("%s: the sidecar would find itself and not WeChat", name)
		}
	}
}

// The app gets what it needs to trust the sidecar, keeps what it had, and does not see the key.
func TestTheFirstContainerTrustsTheSidecar(t *testing.T) {
	t.Parallel()
	all := pods(t, "testdata/full-https")
	if len(all) < 4 {
		t.Fatalf("only %d pods", len(all))
	}
	for name, pod := range all {
		app := pod.Spec.Containers[0]
		for _, want := range []corev1.EnvVar{
			{Name: "SSL_CERT_FILE", Value: "/run/wxtoken/trust/bundle.pem"}, {Name: "REQUESTS_CA_BUNDLE", Value: "/run/wxtoken/trust/bundle.pem"},
			{Name: "CURL_CA_BUNDLE", Value: "/run/wxtoken/trust/bundle.pem"}, {Name: "NODE_EXTRA_CA_CERTS", Value: "/run/wxtoken/trust/ca.pem"},
			{Name: "PHP_INI_SCAN_DIR", Value: ":/run/wxtoken/trust"},
		} {
			if !slices.Contains(app.Env, want) {
				t.Errorf("%s: no %+v", name, want)
			}
		}
		trust := slices.IndexFunc(app.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "wxtoken-trust" })
		if trust < 0 || !app.VolumeMounts[trust].ReadOnly || app.VolumeMounts[trust].MountPath != "/run/wxtoken/trust" || !slices.ContainsFunc(app.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "work" }) {
			t.Errorf("%s: mounts %+v", name, app.VolumeMounts)
		}
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			sees := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "wxtoken-authority" })
			if sees != isSidecar(c) {
				t.Errorf("%s: %s sees the key of the authority: %t", name, c.Name, sees)
			}
		}
	}
	if env := all["Deployment app"].Spec.Containers[0].Env; !slices.Contains(env, corev1.EnvVar{Name: "APP", Value: "a"}) {
		t.Errorf("the app lost a variable of its own: %v", env)
	}
}

// The files that the variables name are the ones that the program writes.
func TestTheProgramWritesWhatTheAppTrusts(t *testing.T) {
	t.Parallel()
	trust := t.TempDir()
	p, err := mounted(t, one[*corev1.ConfigMap](t, "base").Data["wxtoken.yaml"]+"\ntls_listen: 127.0.0.1:0\ntls_trust_dir: "+trust+"\n", secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range pods(t, "examples/https")["Deployment pinned"].Spec.Containers[0].Env {
		if e.Name == "PHP_INI_SCAN_DIR" {
			e.Value = "wxtoken.ini" // of which PHP reads all in the directory
		}
		if info, err := os.Stat(filepath.Join(trust, filepath.Base(e.Value))); err != nil || info.Size() == 0 || info.Mode().Perm() != 0o644 {
			t.Errorf("%s names %s, which the program did not write for all to read: %v\n%s", e.Name, e.Value, err, p.log)
		}
	}
}
