package integration

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What docs/sdks.md tells users to do is what the tests do: the versions, and the code to copy.
func TestTheTableOfSDKsSaysWhatIsTested(t *testing.T) {
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	must := map[string]string{} // text by where it comes from
	for _, pin := range []struct{ file, pattern string }{
		{"sdk/node/package.json", `"(?:co-wechat-api|nest-wechat|node-easywechat|wechat-api|wechat-enterprise-api)": "([^"]+)"`},
		{"sdk/go/go.mod", `silenceper/wechat/v2 (v\S+)`},
		{"sdk/python/requirements.txt", `wechatpy==(\S+)`},
		{"sdk/java/pom.xml", `<wxjava.version>([^<]+)<`},
	} {
		found := regexp.MustCompile(pin.pattern).FindAllStringSubmatch(read(pin.file), -1)
		if len(found) == 0 {
			t.Fatalf("%s names no version", pin.file)
		}
		for _, f := range found {
			must["the version of "+f[0]] = f[1]
		}
	}
	_, preload, _ := strings.Cut(read("sdk/node/preload.cjs"), "\n") // after its comment
	must["sdk/node/preload.cjs"] = strings.TrimSpace(preload)
	_, dial, _ := strings.Cut(read("sdk/go/main.go"), "func dialSidecar(sidecar string) {\n")
	dial, _, _ = strings.Cut(dial, "\n}\n")
	must["dialSidecar"] = strings.TrimSpace(strings.ReplaceAll("\n"+dial, "\n\t", "\n"))
	for _, file := range []string{"../docs/sdks.md", "../docs/sdks.zh-CN.md"} {
		text := read(file)
		for name, want := range must {
			if want == "" || !strings.Contains(text, want) {
				t.Errorf("%s lacks %s: %q", file, name, want)
			}
		}
	}
}
