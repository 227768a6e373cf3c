// Command go is an app that uses silenceper/wechat v2 through a sidecar. It keeps its tokens and its
// tickets in memory, until 1500 s before their end, and does nothing about 40001: whatever kills its
// token breaks it for up to 95 minutes. ../node/commands.mjs says what it does.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
)

// All that a user needs: where the sidecar is, and the appid. The secret stays with the sidecar.
var (
	base  = os.Getenv("WXTOKEN_BASE") // http://127.0.0.1:7200/
	appID = os.Getenv("WXTOKEN_APPID")
	agent = os.Getenv("WXTOKEN_AGENT")
)

const (
	secret  = "the-sidecar-has-it"
	mediaID = "size-70000"
)

// throughSidecar is the one setting: a transport that sends to the sidecar what is for WeChat.
type throughSidecar struct{ sidecar *url.URL }

func (t throughSidecar) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Host, ".weixin.qq.com") {
		r = r.Clone(r.Context())
		r.URL.Scheme, r.URL.Host, r.Host = t.sidecar.Scheme, t.sidecar.Host, ""
	}
	return http.DefaultTransport.RoundTrip(r)
}

// dialSidecar is the other way, for an SDK that takes no http.Client but uses http.DefaultTransport.
// It needs allow_upstream_host.
func dialSidecar(sidecar string) {
	t := http.DefaultTransport.(*http.Transport)
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasSuffix(addr, ".weixin.qq.com:443") {
			return new(net.Dialer).DialContext(ctx, network, sidecar)
		}
		return new(tls.Dialer).DialContext(ctx, network, addr)
	}
}

// commands are by name, and take one text.
type commands map[string]func(string) (any, error)

func main() {
	out := os.Stdout
	os.Stdout = os.Stderr // the SDK may log
	sidecar, err := url.Parse(base)
	if err != nil {
		panic(err)
	}
	wc := wechat.NewWechat()
	wc.SetCache(cache.NewMemory())
	switch os.Getenv("WXTOKEN_HOW") {
	case "transport":
		wc.SetHTTPClient(&http.Client{Transport: throughSidecar{sidecar}})
	case "dial":
		dialSidecar(sidecar.Host)
	}
	do := map[string]func(*wechat.Wechat) commands{"oa": official, "mini": mini, "work": work, "open": open}[os.Getenv("WXTOKEN_KIND")](wc)
	do["ping"] = func(string) (any, error) { return "pong", nil }

	answers := json.NewEncoder(out)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var command []string
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			panic(err)
		}
		name, arg := command[0], strings.Join(command[1:], "")
		f := do[name]
		if f == nil {
			f = func(string) (any, error) { return nil, errors.New("no such call") }
		}
		var answer struct {
			Result any    `json:"result,omitempty"`
			Error  string `json:"error,omitempty"`
		}
		if result, err := f(arg); err != nil {
			answer.Error = name + ": " + err.Error()
		} else {
			answer.Result = result
		}
		if err := answers.Encode(answer); err != nil {
			panic(err)
		}
	}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// signed is what a page gets, in the members that the other SDKs have.
func signed(nonce string, at int64, signature string) any {
	return map[string]any{"appId": appID, "nonceStr": nonce, "timestamp": at, "signature": signature}
}

// done is what the SDK's calls return that report nothing but errors.
func done(err error) (any, error) { return "ok", err }
