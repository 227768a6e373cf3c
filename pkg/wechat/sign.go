package wechat

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// Sign returns the JS-SDK signature of a page: 40 hex digits, to be given to wx.config together
// with nonce (there called nonceStr) and timestamp, in Unix seconds. A fragment of url is cut; the
// rest must be exactly the address the browser shows, because it is signed as it is, not encoded
// again [T].
func Sign(ticket secret.String, nonce string, timestamp int64, url string) string {
	url, _, _ = strings.Cut(url, "#")
	// The order of the keys and the spelling "noncestr" are WeChat's. SHA-1 is too.
	sum := sha1.Sum(fmt.Appendf(nil, "jsapi_ticket=%s&noncestr=%s&timestamp=%d&url=%s",
		ticket.Reveal(), nonce, timestamp, url))
	return hex.EncodeToString(sum[:])
}
