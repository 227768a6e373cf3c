package doctor_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/doctor"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// newProviderPatient is a patient with a provider and nothing else: it has no vault, no keys of a
// callback and no tickets.
func newProviderPatient(t *testing.T, redisArgs ...string) *platformPatient {
	t.Helper()
	p := newPlatformPatient(t, "wecom_provider", redisArgs...)
	p.env["WXTOKEN_CONFIG"] = p.file(t, "c.yaml", fmt.Sprintf("platforms:\n- {id: %s, kind: wecom_provider, alias: shops, api_base: %q, secret_file: %s/secret}\n", p.id, p.client.BaseURL, p.dir), 0o600)
	p.do(t, "FLUSHALL")
	return p
}

// A provider has a token, and neither accounts nor pushes: what those need is not asked for.
func TestDoctorLooksOnlyAtTheTokenOfAProvider(t *testing.T) {
	t.Parallel()
	p := newProviderPatient(t, "--appendonly", "no", "--save", "3600 1") // which no vault could be in
	p.do(t, "ACL", "SETUSER", "default", "-zadd")                        // which a vault needs
	token, err := p.client.ProviderToken(t.Context(), p.id, secret.New(canarySecret))
	if err != nil {
		t.Fatal(err)
	}
	p.do(t, "SET", "wxtoken:{"+p.id+"}:provider_access_token", token.Value.Reveal())
	before := p.sim.Calls(p.id).Issued
	p.until(t, func(findings []doctor.Finding, text string, code int) (objections []string) {
		about := 0
		for _, f := range findings {
			if f.State != doctor.OK {
				objections = append(objections, fmt.Sprintf("%+v", f))
			}
			if strings.HasPrefix(f.Check, "platform") || f.Check == "vault" {
				about++
			}
		}
		if about != 1 || !strings.Contains(text, "platform shops token: Redis has one") || strings.Contains(text, "list") || code != 0 {
			objections = append(objections, fmt.Sprintf("%d findings about the provider, exit status %d", about, code))
		}
		return objections
	}, "--start-push", "--fetch", "--callback", "http://127.0.0.1:1/{platform}")
	if n := p.sim.Calls(p.id).Issued; n != before {
		t.Errorf("the doctor fetched %d tokens of a provider that has one", n-before)
	}
}

func TestDoctorNamesTheFaultOfAProvider(t *testing.T) {
	t.Parallel()
	p := newProviderPatient(t)
	p.check(t, want{"platform shops token", doctor.Skipped, "Redis has none", ""})
	if n := p.sim.Calls(p.id).Fetches(); n != 0 {
		t.Errorf("without --fetch, the doctor fetched %d times", n)
	}
	p.check(t, want{"platform shops token", doctor.OK, "WeCom accepts id, secret and address", ""}, "--fetch")
	p.sim.SetWhitelist(p.id, "198.51.100.1")
	p.check(t, want{"platform shops token", doctor.Fail, "no calls from this host's egress address, 127.0.0.1", "trusted addresses"}, "--fetch")
	p.sim.SetWhitelist(p.id)
	p.sim.SetSecret(p.id, "another")
	p.check(t, want{"platform shops token", doctor.Fail, "errcode 40001", ""}, "--fetch")
}
