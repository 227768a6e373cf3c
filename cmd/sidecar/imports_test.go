package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wxtoken/sidecar/"

// imports says what each package may import of this module. A package that is not listed fails the
// test: a new package gets its place here.
var imports = map[string][]string{
	"pkg/secret":                               {},
	"pkg/secret/secrettest":                    {},
	"pkg/lock":                                 {},
	"pkg/tokencache":                           {"pkg/lock", "pkg/secret", "pkg/tokencache/acl"},
	"pkg/tokencache/acl":                       {},
	"pkg/tokencache/tokencachetest":            {"pkg/secret", "pkg/tokencache"},
	"pkg/vault":                                {"pkg/secret"},
	"pkg/vault/sqlvault":                       {"pkg/secret", "pkg/vault"},
	"pkg/vault/vaulttest":                      {"pkg/secret", "pkg/vault"},
	"pkg/wechat":                               {"pkg/secret"},
	"pkg/wechat/wechattest":                    {},
	"cmd/sidecar/internal/apps":                {"pkg/secret", "pkg/tokencache", "pkg/wechat"},
	"cmd/sidecar/internal/api":                 {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/dropin", "cmd/sidecar/internal/observe", "cmd/sidecar/internal/platform", "cmd/sidecar/internal/web", "pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/build":               {},
	"cmd/sidecar/internal/callback":            {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/observe", "cmd/sidecar/internal/platform", "cmd/sidecar/internal/web", "pkg/wechat"},
	"cmd/sidecar/internal/config":              {"pkg/secret", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/dropin":              {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/platform", "pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/dev":                 {"cmd/sidecar/internal/config", "pkg/secret", "pkg/vault", "pkg/wechat/wechattest"},
	"cmd/sidecar/internal/doctor":              {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/cli", "cmd/sidecar/internal/config", "cmd/sidecar/internal/platform", "cmd/sidecar/internal/redisclient", "cmd/sidecar/internal/source", "cmd/sidecar/internal/text", "cmd/sidecar/internal/vaultstore", "pkg/secret", "pkg/tokencache", "pkg/tokencache/acl", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/observe":             {"cmd/sidecar/internal/build", "cmd/sidecar/internal/platform", "pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/observe/observetest": {},
	"cmd/sidecar/internal/ops":                 {"cmd/sidecar/internal/statuspage", "cmd/sidecar/internal/web"},
	"cmd/sidecar/internal/platform":            {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/config", "cmd/sidecar/internal/source", "pkg/lock", "pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/proxy":               {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/text", "pkg/secret", "pkg/tokencache", "pkg/wechat"},
	"cmd/sidecar/internal/source":              {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/config", "pkg/secret", "pkg/tokencache", "pkg/wechat"},
	"cmd/sidecar/internal/source/sourcetest":   {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/config", "cmd/sidecar/internal/source", "pkg/tokencache", "pkg/tokencache/tokencachetest", "pkg/wechat", "pkg/wechat/wechattest"},
	"cmd/sidecar/internal/statuspage":          {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/build", "cmd/sidecar/internal/platform", "cmd/sidecar/internal/text", "cmd/sidecar/internal/web", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/tlsface":             {},
	"cmd/sidecar/internal/text":                {"pkg/tokencache"},
	"cmd/sidecar/internal/vaultcmd":            {"cmd/sidecar/internal/apps", "cmd/sidecar/internal/cli", "cmd/sidecar/internal/config", "cmd/sidecar/internal/platform", "cmd/sidecar/internal/redisclient", "cmd/sidecar/internal/text", "cmd/sidecar/internal/vaultstore", "pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"cmd/sidecar/internal/vaultstore":          {"cmd/sidecar/internal/config", "pkg/secret", "pkg/vault"},
	"cmd/sidecar/internal/web":                 {"cmd/sidecar/internal/text", "pkg/tokencache"},
	"cmd/sidecar/internal/web/webtest":         {},
	"cmd/sidecar/internal/cli":                 {"cmd/sidecar/internal/build", "cmd/sidecar/internal/config", "cmd/sidecar/internal/statuspage", "cmd/sidecar/internal/text"},
	"cmd/sidecar/internal/heap":                {},
	"cmd/sidecar/internal/listener":            {},
	"cmd/sidecar/internal/redisclient":         {"cmd/sidecar/internal/config", "pkg/secret"},
	"cmd/sidecar/internal/resident":            {},
	"cmd/sidecar":                              {"cmd/sidecar/internal/api", "cmd/sidecar/internal/apps", "cmd/sidecar/internal/build", "cmd/sidecar/internal/callback", "cmd/sidecar/internal/cli", "cmd/sidecar/internal/config", "cmd/sidecar/internal/doctor", "cmd/sidecar/internal/heap", "cmd/sidecar/internal/listener", "cmd/sidecar/internal/observe", "cmd/sidecar/internal/ops", "cmd/sidecar/internal/platform", "cmd/sidecar/internal/proxy", "cmd/sidecar/internal/redisclient", "cmd/sidecar/internal/resident", "cmd/sidecar/internal/source", "cmd/sidecar/internal/statuspage", "cmd/sidecar/internal/tlsface", "cmd/sidecar/internal/vaultcmd", "cmd/sidecar/internal/vaultstore", "pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat"},
	"integration":                              {},
	"integration/faults":                       {},
	"integration/rig":                          {"pkg/secret/secrettest", "pkg/tokencache/tokencachetest", "pkg/vault/vaulttest", "pkg/wechat/wechattest"},
	"integration/simulator":                    {"pkg/wechat/wechattest"},
	"integration/model":                        {},
	"integration/shape":                        {},
	"integration/figures":                      {"pkg/secret", "pkg/tokencache", "pkg/vault", "pkg/wechat/wechattest"},
}

func TestPackagesImportOnlyWhatTheTreeAllows(t *testing.T) {
	type pkg struct {
		ImportPath string
		Imports    []string
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var p pkg
		if err := decoder.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, listed := imports[name]
		if !listed {
			t.Errorf("%s is not in the list of this test", name)
		}
		for _, i := range p.Imports {
			if inner, ours := strings.CutPrefix(i, module); ours && !slices.Contains(allowed, inner) {
				t.Errorf("%s must not import %s", name, inner)
			}
			if i == "testing" && !strings.HasSuffix(name, "test") && name != "integration/rig" {
				t.Errorf("%s must not import testing", name)
			}
		}
	}
	if seen < len(imports)-1 {
		t.Errorf("saw %d packages, the list has %d", seen, len(imports))
	}
}

// A template calls methods by name (reflect.MethodByName), so a program with one keeps every
// exported method of all its types: 9 MB, in every pod.
func TestTheProgramHasNoTemplates(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"cmd/sidecar").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	if !slices.Contains(all, module+"cmd/sidecar/internal/api") {
		t.Fatalf("the list is not that of the program: %q", all)
	}
	for _, name := range []string{"html/template", "text/template"} {
		if slices.Contains(all, name) {
			t.Errorf("the program imports %s", name)
		}
	}
}
