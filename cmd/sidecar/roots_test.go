package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The root of api.weixin.qq.com's certificate since October 2024.
const wechatRoot = "DigiCert Global Root G2"

// As in the image, where there is no file of roots: the program must bring its own. A process loads
// its roots once, so another one is asked.
func TestWeChatsRootIsTrustedOnAHostWithoutRoots(t *testing.T) {
	if os.Getenv("WXTOKEN_TEST_NO_ROOTS") != "1" {
		t.Parallel()
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		child.Env = append(os.Environ(), "WXTOKEN_TEST_NO_ROOTS=1", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.CommonName != wechatRoot {
			continue
		}
		// No Roots in the options: whatever this process trusts.
		if _, err := cert.Verify(x509.VerifyOptions{}); err != nil {
			t.Errorf("%s is not trusted: %v", wechatRoot, err)
		}
		return
	}
	t.Errorf("%s is not among the roots", wechatRoot)
}
