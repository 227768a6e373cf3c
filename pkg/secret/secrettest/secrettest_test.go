package secrettest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
)

const value = `HUSH+/=se"cret-_~<é>`

func TestAValueIsFoundWhateverWasDoneToIt(t *testing.T) {
	for _, before := range []string{"", "a", "ab", "abc", "Bearer ", "wx1:"} {
		for _, after := range []string{"", "z", "yz", "xyz"} {
			text := before + value + after
			asJSON, err := json.Marshal(text)
			if err != nil {
				t.Fatal(err)
			}
			for name, said := range map[string]string{
				"raw": text, "query": url.QueryEscape(text), "path": url.PathEscape(text), "JSON": string(asJSON), "Go": strconv.Quote(text), "ASCII": strconv.QuoteToASCII(text),
				"twice": url.QueryEscape(url.QueryEscape(text)), "small": strings.ReplaceAll(url.QueryEscape(text), "%2F", "%2f"),
				"hex": fmt.Sprintf("%x", text), "HEX": fmt.Sprintf("%X", text), "HTML": template.HTMLEscapeString(text), "URL": (&url.URL{Host: "h", Path: "/", RawQuery: url.Values{"q": {text}}.Encode()}).String(),
				"std": base64.StdEncoding.EncodeToString([]byte(text)), "raw std": base64.RawStdEncoding.EncodeToString([]byte(text)),
				"base64url": base64.URLEncoding.EncodeToString([]byte(text)), "raw base64url": base64.RawURLEncoding.EncodeToString([]byte(text)),
			} {
				if name == "small" {
					said = strings.NewReplacer("%2B", "%2b", "%3D", "%3d", "%3C", "%3c", "%3E", "%3e", "%C3%A9", "%c3%a9").Replace(said)
				}
				if secrettest.Find("say "+said+" end", "another one", value) == "" {
					t.Errorf("%s of %q: not found in %s", name, text, said)
				}
			}
		}
	}
	for _, innocent := range []string{"", "HUSH", "[redacted]", base64.StdEncoding.EncodeToString([]byte("HUSH+/=something else")), value[:len(value)-3]} {
		if form := secrettest.Find(innocent, value, ""); form != "" {
			t.Errorf("%q is found in %q", form, innocent)
		}
	}
}
