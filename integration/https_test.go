package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/wxtoken/sidecar/integration/rig"
)

// pinned is an app whose SDK has https://api.weixin.qq.com written in, in a pod whose hosts file
// leads that name to the sidecar. It trusts what the file says, and has read it once.
type pinned struct {
	t    *testing.T
	http *http.Client
}

func newPinned(t *testing.T, p *rig.Sidecar, trusted string, protocols func(*http.Protocols)) *pinned {
	t.Helper()
	pems, err := os.ReadFile(trusted)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}, Protocols: new(http.Protocols)}
	transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pems)
	protocols(transport.Protocols)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, p.TLS)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &pinned{t: t, http: &http.Client{Transport: transport, Timeout: rig.Patience}}
}

func http1(p *http.Protocols) { p.SetHTTP1(true) }
func http2(p *http.Protocols) { p.SetHTTP2(true) }

// call makes one call of https://host/path, and returns the status and what it answers.
func (p *pinned) call(method, host, path, contentType string, body io.Reader) (int, map[string]any) {
	p.t.Helper()
	r, err := http.NewRequest(method, "https://"+host+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	res, err := p.http.Do(r)
	if err != nil {
		p.t.Fatalf("%s%s: %v", host, path, err)
	}
	defer res.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		p.t.Fatalf("%s%s: %v", host, path, err)
	}
	return res.StatusCode, answer
}

// token asks for a token as an SDK does, whose secret is any text.
func (p *pinned) token(host string) string {
	p.t.Helper()
	_, answer := p.call("GET", host, "/cgi-bin/token?grant_type=client_credential&secret=none&appid="+appID, "", nil)
	token, _ := answer["access_token"].(string)
	if token == "" {
		p.t.Fatalf("%s gave no token: %v", host, answer)
	}
	return token
}

// An SDK that pins WeChat's address works unchanged: tokens, calls, uploads, and the call after the
// token was killed, over HTTP/1.1 and HTTP/2.
func TestAPinnedSDKWorksOverTheHTTPSFace(t *testing.T) {
	t.Parallel()
	trust, state := t.TempDir(), t.TempDir()
	c := newCluster(t, startMiniredis(t), "WXTOKEN_TLS_LISTEN=127.0.0.1:0", "WXTOKEN_TLS_TRUST_DIR="+trust, "WXTOKEN_TLS_STATE_DIR="+state)
	sidecar := c.Add(1)[0]
	for name, protocols := range map[string]func(*http.Protocols){"HTTP/1.1": http1, "HTTP/2": http2} {
		app := newPinned(t, sidecar, filepath.Join(trust, "bundle.pem"), protocols)
		for _, host := range []string{"api.weixin.qq.com", "api2.weixin.qq.com", "sh.api.weixin.qq.com", "sz.api.weixin.qq.com", "hk.api.weixin.qq.com"} {
			if token := app.token(host); !c.Upstream.Works(token) {
				t.Errorf("%s, %s: the token does not work", name, host)
			}
		}
		token := app.token("api.weixin.qq.com")
		for _, killed := range []bool{false, true} {
			if killed {
				c.Upstream.KillTokens(appID)
			}
			if _, answer := app.call("GET", "api.weixin.qq.com", "/cgi-bin/getcallbackip?access_token="+token, "", nil); answer["ip_list"] == nil {
				t.Errorf("%s, killed %t: a call: %v", name, killed, answer)
			}
			file, contentType := upload(t, 300<<10)
			if _, answer := app.call("POST", "api.weixin.qq.com", "/cgi-bin/media/upload?type=image&access_token="+token, contentType, file); answer["media_id"] == nil {
				t.Errorf("%s, killed %t: an upload: %v", name, killed, answer)
			}
		}
		for _, host := range []string{"api.weixin.qq.com", "qyapi.weixin.qq.com"} {
			if status, answer := app.call("GET", host, "/v1/apps/"+appID+"/token", "", nil); status != http.StatusForbidden {
				t.Errorf("%s: /v1 under WeChat's name: %d %v", name, status, answer)
			}
		}
		if _, answer := app.call("GET", "qyapi.weixin.qq.com", "/cgi-bin/gettoken?corpid=none&corpsecret=none", "", nil); answer["errcode"] != float64(40013) {
			t.Errorf("%s: a corp that is not configured: %v", name, answer)
		}
	}
	// A name service that lies must not open the plain listener.
	ask, err := http.NewRequest("GET", sidecar.Base()+"cgi-bin/token?grant_type=client_credential&appid="+appID, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Host = "api.weixin.qq.com"
	res, err := rig.HTTP.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("the plain listener answers by WeChat's name: %s", res.Status)
	}
}

// The container of the sidecar is restarted and that of the app is not, which has read what it
// trusts before.
func TestAnAppTrustsTheSidecarAfterARestart(t *testing.T) {
	t.Parallel()
	trust, state := t.TempDir(), t.TempDir()
	c := newCluster(t, startMiniredis(t), "WXTOKEN_TLS_LISTEN=127.0.0.1:0", "WXTOKEN_TLS_TRUST_DIR="+trust, "WXTOKEN_TLS_STATE_DIR="+state)
	first := c.Add(1)[0]
	pems := filepath.Join(t.TempDir(), "read-once.pem")
	text, err := os.ReadFile(filepath.Join(trust, "bundle.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, pems, string(text))
	before := newPinned(t, first, pems, http2).token("api.weixin.qq.com")
	first.Kill()
	if after := newPinned(t, c.Add(1)[0], pems, http2).token("api.weixin.qq.com"); after != before {
		t.Error("after the restart it is another token")
	}
}

// upload is a file of so many bytes as SDKs send it.
func upload(t *testing.T, size int) (io.Reader, string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("media", "photo.jpg")
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, size)
	_, _ = rand.Read(content)
	_, _ = part.Write(content)
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(body.Bytes()), form.FormDataContentType()
}
