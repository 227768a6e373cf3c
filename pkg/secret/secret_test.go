package secret_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/secret"
)

const hush = "HUSH+/=secret"

type nested struct {
	inner secret.String // unexported: fmt cannot call its methods
}

func TestNoVerbNorEncoderNorNestingPrintsTheText(t *testing.T) {
	s := secret.New(hush)
	for _, v := range []any{s, &s, nested{s}, &nested{s}, []secret.String{s}, map[string]secret.String{"k": s}, errors.Join(fmt.Errorf("x %v", s))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %[1]v"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "HUSH") || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", "HUSH")) {
				t.Errorf("Sprintf(%q, %T) = %s", verb, v, got)
			}
		}
		if got, err := json.Marshal(v); err == nil && strings.Contains(string(got), "HUSH") {
			t.Errorf("json.Marshal(%T) = %s", v, got)
		}
	}
}

func TestRevealAndEqual(t *testing.T) {
	a, b, empty := secret.New(hush), secret.New(hush), secret.New("")
	if a.Reveal() != hush || !a.Equal(b) || a.Equal(empty) || !empty.Equal(secret.String{}) || !empty.Empty() || a.Empty() {
		t.Error("Reveal, Equal or Empty is wrong")
	}
	if got := a.Fingerprint(); len(got) != 6 || got != b.Fingerprint() || empty.Fingerprint() != "none" {
		t.Errorf("Fingerprint = %q", got)
	}
}

func TestScrubFindsEncodedForms(t *testing.T) {
	for _, text := range []string{hush, url.QueryEscape(hush), url.PathEscape(hush), "SFVTSCsvPXNlY3JldA==", "SFVTSCsvPXNlY3JldA", fmt.Sprintf("%x", hush), fmt.Sprintf("%X", hush)} {
		if got := secret.Scrub("a "+text+" b", secret.String{}, secret.New(hush)); got != "a [redacted] b" {
			t.Errorf("Scrub(%q) = %q", text, got)
		}
	}
}
