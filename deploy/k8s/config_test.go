package k8s

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// volume lays files out as kubelet does: through ..data, with the mode of the manifests.
func volume(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..2026_11_22"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..2026_11_22", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "..data", name), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mounted starts the program with a configuration that names the pod's paths, and the Secret's
// files. env is the rest of the environment.
func mounted(t *testing.T, config string, secrets map[string]string, env ...string) (*process, error) {
	t.Helper()
	paths := strings.NewReplacer("/etc/wxtoken/secrets/", volume(t, secrets)+"/")
	dir := volume(t, map[string]string{"wxtoken.yaml": paths.Replace(config)})
	return start(t, append([]string{"WXTOKEN_CONFIG=" + filepath.Join(dir, "wxtoken.yaml")}, env...))
}

// secrets are values for every app and URL that a configuration here names.
var secrets = map[string]string{
	"wx0123456789abcdef": "0123456789abcdef0123456789abcdef\n",
	"wx0000000000000001": "0123456789abcdef0123456789abcdef\n",
	"redis-url":          "redis://wxtoken:secret@127.0.0.1:1/0\n",
	"platform-secret":    "0123456789abcdef0123456789abcdef\n",
	"callback-token":     "token\n",
	"callback-aes-key":   "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG\n",
	"vault-key":          "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n",
}

func TestTheProgramTakesEveryConfigMap(t *testing.T) {
	t.Parallel()
	found := 0
	for _, dir := range kustomizations(t) {
		for _, o := range render(t, dir) {
			config, ok := o.(*corev1.ConfigMap)
			if !ok || config.Name != "wxtoken" {
				continue
			}
			found++
			t.Run(dir, func(t *testing.T) {
				t.Parallel()
				p, err := mounted(t, config.Data["wxtoken.yaml"], secrets)
				if err != nil {
					t.Fatal(err)
				}
				if status, answer := do(t, "GET", "http://"+p.ops+"/healthz", ""); status != 200 {
					t.Errorf("/healthz: %d %s", status, answer)
				}
				if strings.Contains(p.log.String(), "configuration:") {
					t.Errorf("it warns: %s", p.log)
				}
			})
		}
	}
	if found < 3 {
		t.Errorf("only %d ConfigMaps called wxtoken", found)
	}
}

func TestTheProgramRefusesWhatTheTemplatesHold(t *testing.T) {
	t.Parallel()
	template := decode(t, "template", []byte(read(t, "base/secret.template.yaml"))).(*corev1.Secret)
	if template.Name != "wxtoken" {
		t.Fatalf("its name is %s", template.Name)
	}
	config := one[*corev1.ConfigMap](t, "base").Data["wxtoken.yaml"]
	_, err := mounted(t, config, template.StringData)
	if !refused(err) {
		t.Fatalf("want status 2, got %v", err)
	}
	for _, path := range []string{"redis.url_file", "apps[0].secret_file"} {
		if !strings.Contains(err.Error(), path) {
			t.Errorf("nothing is said of %s: %v", path, err)
		}
	}
	if strings.Contains(err.Error(), "goes here") {
		t.Errorf("the message repeats the content of a secret: %v", err)
	}
}

func TestTheProgramTakesEveryExampleOfARedisURL(t *testing.T) {
	t.Parallel()
	config := one[*corev1.ConfigMap](t, "base").Data["wxtoken.yaml"]
	forms := 0
	for line := range strings.Lines(read(t, "redis/production/redis-url.examples")) {
		if strings.HasPrefix(line, "#") || line == "\n" {
			continue
		}
		forms++
		t.Run(strings.TrimSpace(line), func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"wx0123456789abcdef": secrets["wx0123456789abcdef"], "redis-url": line}
			if _, err := mounted(t, config, files); err != nil {
				t.Error(err)
			}
		})
	}
	if forms != 4 {
		t.Errorf("%d forms, want 4", forms)
	}
}

// What examples/api-host says of names: the configured upstream's is taken, but not for /v1, and no
// other.
func TestTheHostOfTheExampleIsTaken(t *testing.T) {
	t.Parallel()
	alias := pods(t, "examples/api-host")["Deployment legacy"].Spec.HostAliases[0].Hostnames[0]
	setting := corev1.EnvVar{Name: "WXTOKEN_ALLOW_UPSTREAM_HOST", Value: "true"}
	if env := pods(t, "examples/api-host")["Deployment legacy"].Spec.InitContainers[0].Env; !slices.Contains(env, setting) {
		t.Errorf("the example does not set %s: %v", setting.Name, env)
	}
	without, err := mounted(t, one[*corev1.ConfigMap](t, "base").Data["wxtoken.yaml"], secrets)
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := do(t, "GET", "http://"+without.values+"/cgi-bin/token?appid=wxunknown", "", "Host", alias); status != 403 {
		t.Errorf("without the setting, Host %s gets %d %s", alias, status, answer)
	}
	p, err := mounted(t, one[*corev1.ConfigMap](t, "base").Data["wxtoken.yaml"]+"\nallow_upstream_host: true\n", secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host, path string
		taken      bool
	}{
		{alias, "/cgi-bin/token?grant_type=client_credential&appid=wxunknown", true},
		{alias, "/v1/apps/shop/token", false},
		{"evil.example.com", "/cgi-bin/token?grant_type=client_credential&appid=wxunknown", false},
	} {
		status, answer := do(t, "GET", "http://"+p.values+c.path, "", "Host", c.host)
		if taken := status != 403; taken != c.taken {
			t.Errorf("%s%s: %d %s", c.host, c.path, status, answer)
		}
	}
}
