package vault_test

import (
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

func TestKeyFiles(t *testing.T) {
	for name, c := range map[string]struct{ file, err string }{
		"one":                {vaulttest.Key, ""},
		"two, and a comment": {"# of 2026\n" + vaulttest.Key + "\r\n\n" + vaulttest.OtherKey + "\n", ""},
		"empty":              {"\n# nothing\n", "no key"},
		"no base64":          {vaulttest.Key + "\nnot-a-key-but-secret", "line 2"},
		"too short":          {"c2hvcnQ=", "line 1"},
	} {
		_, err := vault.ParseKeys(secret.New(c.file))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "not-a-key") || strings.Contains(err.Error(), "c2hvcnQ")) {
			t.Errorf("%s: the error repeats the line: %v", name, err)
		}
	}
}
