package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	// doctorsPush is the InfoType of the doctor's own push: sidecars answer it as every kind that
	// they do not know, and change nothing.
	doctorsPush = "wxtoken_doctor"
	// answerWithin is how long WeChat waits for an answer; WeCom waits a second for some.
	answerWithin     = 5 * time.Second
	answerWithinCorp = time.Second
	// longestAnswer bounds what is read of an answer.
	longestAnswer = 4 << 10
)

// sealed returns the query of a push and its encrypted content.
func sealed(sealer *wechat.Envelope, message []byte, timestamp string) (query url.Values, encrypted string) {
	nonce := rand.Text()
	var parts struct{ Encrypt, MsgSignature string }
	_ = xml.Unmarshal(sealer.Seal(message, timestamp, nonce), &parts) // it was made here
	return url.Values{"timestamp": {timestamp}, "nonce": {nonce}, "msg_signature": {parts.MsgSignature}, "encrypt_type": {"aes"}}, parts.Encrypt
}

// callback sends a push of its own to the callback's address; on WeCom also the check that comes
// when the address is entered in the console.
func (p *patientPlatform) callback(ctx context.Context, address string) {
	check := p.check + " callback"
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		p.fail(check, "--callback is no URL that begins with https:// or http://", "name the address as it is in the console")
		return
	}
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		p.warn(check, "WeChat pushes to the ports 80 (http) and 443 (https) only, not to "+port, "let the address in the console have none")
	}
	query, body := p.push(p.c.Envelope)
	p.deliver(ctx, check, u, http.MethodPost, query, body, "success", answerWithin)
	if p.c.Kind == config.KindOpenPlatform {
		return
	}
	text := rand.Text()
	query, echo := sealed(p.c.Echo, []byte(text), query.Get("timestamp"))
	query.Set("echostr", echo)
	p.deliver(ctx, p.check+" echo", u, http.MethodGet, query, nil, text, answerWithinCorp)
}

// deliver makes one request as WeChat does, and judges the answer.
func (p *patientPlatform) deliver(ctx context.Context, check string, u *url.URL, method string, query url.Values, body []byte, want string, within time.Duration) {
	shown := u.Scheme + "://" + u.Host + u.Path // a query may hold a secret
	address := *u
	values := address.Query()
	for name := range query {
		values.Set(name, query.Get(name))
	}
	address.RawQuery = values.Encode()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address.String(), bytes.NewReader(body))
	if err != nil {
		p.fail(check, "the address is not valid", "name it as it is in the console")
		return
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "text/xml")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	begun := time.Now()
	res, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the query
		}
		p.fail(check, shown+" cannot be reached from here: "+err.Error(), "let the name, the load balancer and the certificate lead to the callback; if only this pod cannot reach it, run the doctor elsewhere")
		return
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, longestAnswer)) // what came is judged
	took := time.Since(begun).Round(time.Millisecond)
	wrong, fix := misanswered(res.StatusCode, string(answer), want)
	switch {
	case wrong != "":
		p.fail(check, shown+" "+wrong, fix)
	case took > within:
		p.warn(check, fmt.Sprintf("%s answers right, but after %v: WeChat waits %v", shown, took, within), "look for what is slow on the way: the sidecar answers within a second")
	default:
		p.ok(check, fmt.Sprintf("%s takes a push, and answered right within %v", shown, took))
	}
}

// misanswered says what is wrong with an answer, and what to do; "" if nothing is.
func misanswered(status int, answer, want string) (wrong, fix string) {
	shown := text.OneLine(answer)
	if len(shown) > 80 {
		shown = strings.ToValidUTF8(shown[:80], "") + "..."
	}
	switch {
	case status == http.StatusForbidden:
		return "refuses the push (403)", "the sidecars there have another Token, EncodingAESKey or platform: compare token_file and aes_key_file; or a gateway on the way refuses it"
	case status == http.StatusNotFound:
		return "knows no such path (404)", "the app, or the listener of callbacks, has another path, or no platform of this id"
	case status == http.StatusServiceUnavailable:
		return "cannot store what is pushed (503)", "look at the vault of the sidecars there, and at the app that relays"
	case status >= 300 && status < 400:
		return fmt.Sprintf("answers with a redirect (%d), which WeChat does not follow", status), "enter the address that it leads to"
	case status != http.StatusOK:
		return fmt.Sprintf("answers %d: %s", status, shown), "look at what is on the way: the load balancer, the app that relays, the sidecar"
	case answer != want:
		return fmt.Sprintf("answers %q, and WeChat wants %s to the byte", shown, wanted(want)), "let the app return the sidecar's answer as it is: no quotes, no newline, no JSON"
	}
	return "", ""
}

func wanted(want string) string {
	if want == "success" {
		return want
	}
	return "the decrypted echostr"
}
