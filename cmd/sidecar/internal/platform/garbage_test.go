package platform

import (
	"fmt"
	"net/url"
	"regexp"
	"testing"
	"testing/synctest"
)

// P6: pushes that are forged cost neither WeChat nor the vault anything.
func TestForgedPushesCostNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newRig(t, 1, OpenPlatform)
		x.start()
		calls := x.calls()
		x.faults.away.Store(true) // so that a look at the vault would be another error
		// What a listener on the way could have recorded, so that only the signature tells.
		recorded := regexp.MustCompile(`<Encrypt>.*</Encrypt>`).FindString(string(x.envelope(id).Seal([]byte(
			"<xml><AppId>"+id+"</AppId><CreateTime>1</CreateTime><InfoType>unauthorized</InfoType><AuthorizerAppid>"+shop+"</AuthorizerAppid></xml>"), "1", "n")))
		for i := range atFullSize(100_000, 1000) {
			query := url.Values{"timestamp": {fmt.Sprint(i)}, "nonce": {"n"}, "msg_signature": {fmt.Sprintf("%040x", i)}}
			encrypted := recorded
			if i%2 == 0 {
				encrypted = fmt.Sprintf("<Encrypt><![CDATA[%064d]]></Encrypt>", i)
			}
			body := "<xml><AppId><![CDATA[" + id + "]]></AppId>" + encrypted + "</xml>"
			if _, err := x.replicas[0].Receive(t.Context(), query, []byte(body)); !IsForged(err) {
				t.Fatalf("the %d-th: %v", i, err)
			}
		}
		if n := x.calls() - calls; n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}
