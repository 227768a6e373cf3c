package build

import "testing"

func TestWhatTheLinkerSaysGoesFirst(t *testing.T) {
	if Version() == "" || Revision() == "" {
		t.Errorf("without the linker: version %q, revision %q", Version(), Revision())
	}
	version, revision = "v1.2.3", "0123abc"
	defer func() { version, revision = "", "" }()
	if Version() != "v1.2.3" || Revision() != "0123abc" {
		t.Errorf("got %q, %q", Version(), Revision())
	}
}
