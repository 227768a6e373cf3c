package callback_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/callback"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Whatever is sent without the signature gets a status and nothing else. The platform has neither a
// vault nor a cache, so a push that was believed would panic, and be answered by 500.
func FuzzPublic(f *testing.F) {
	envelope, err := wechat.NewEnvelope(secret.New("token"), id, secret.New(aesKey))
	if err != nil {
		f.Fatal(err)
	}
	p, err := platform.New(platform.Options{ID: id, Kind: platform.OpenPlatform, Envelope: envelope})
	if err != nil {
		f.Fatal(err)
	}
	h := callback.New(callback.Options{Platforms: []callback.Platform{{Platform: p, Alias: "shops", Forward: "http://127.0.0.1:1"}}}).Public()
	f.Add("POST", "/callback/shops?msg_signature="+strings.Repeat("a", 40)+"&timestamp=1&nonce=2", "<xml><Encrypt>AAAA</Encrypt></xml>")
	f.Add("GET", "/callback/"+id+"?msg_signature=x&echostr=y", "")
	f.Add("GET", "//callback/shops/%2e%2e/?;", "")
	f.Add("POST", "http://shops/callback/shops/"+shop+"#x", "x")
	f.Add("OPTIONS", "*", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			return
		}
		r.Body = http.NoBody
		if body != "" {
			r.Body = httptest.NewRequest("POST", "/", strings.NewReader(body)).Body
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 403, 404, 405, 413:
		default:
			t.Errorf("%q %q: %d", method, target, w.Code)
		}
		if w.Body.Len() != 0 || w.Header().Get("Location") != "" {
			t.Errorf("%q %q: %q %v", method, target, w.Body, w.Header())
		}
	})
}
