package wechattest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// deliver sends a push as often as the knobs say.
func (s *Server) deliver(ctx context.Context, p *platform, push Push, deliveries *sync.WaitGroup) {
	knobs := s.PlatformKnobs(p.ID)
	ways := []Delivery{{}}
	if knobs.Deliver != nil {
		ways = knobs.Deliver(push)
	}
	for _, way := range ways {
		deliveries.Go(func() {
			if !sleep(ctx, way.After) {
				return
			}
			for range 1 + knobs.Repeats {
				if s.attempt(ctx, p, push, way) || !sleep(ctx, knobs.RepeatAfter) {
					return
				}
			}
		})
	}
}

// attempt makes one request, notes how it ended, and reports whether it need not be repeated.
func (s *Server) attempt(ctx context.Context, p *platform, push Push, way Delivery) bool {
	s.mu.Lock()
	to, silent := p.Platform, time.Now().Before(p.silentUntil) // because of earlier failures [T*]
	text := p.text(push)
	s.mu.Unlock()
	if to.Callback == "" || silent {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, answerIn(push.InfoType))
	defer cancel()
	done := Pushed{Push: push}
	done.Status, done.Answer = to.post(limited, text, way)
	done.OK = done.Status == http.StatusOK && done.Answer == "success"
	s.mu.Lock()
	defer s.mu.Unlock()
	done.At = time.Now()
	p.pushed = append(p.pushed, done)
	if done.OK {
		p.failures = 0
	} else if p.failures++; p.knobs.MarkFailAfter > 0 && p.failures >= p.knobs.MarkFailAfter {
		p.failures, p.silentUntil = 0, done.At.Add(time.Minute)
	}
	return done.OK
}

// post sends the text of a push, and returns the status and the beginning of the answer.
func (p Platform) post(ctx context.Context, text string, way Delivery) (int, string) {
	key := p.AESKey
	if way.PreviousKey {
		key = p.PreviousAESKey
	}
	sealed, err := sealText(key, p.ID, randomText(16), text)
	if err != nil {
		return 0, ""
	}
	query := p.signed(sealed)
	query.Set("encrypt_type", "aes")
	body := "<xml><AppId><![CDATA[" + p.ID + "]]></AppId><Encrypt><![CDATA[" + sealed + "]]></Encrypt></xml>"
	if p.onWeCom() {
		query.Del("encrypt_type")
		body = "<xml><ToUserName><![CDATA[" + p.ID + "]]></ToUserName><Encrypt><![CDATA[" + sealed + "]]></Encrypt><AgentID><![CDATA[]]></AgentID></xml>"
	}
	if way.Empty {
		body = ""
	}
	return p.request(ctx, http.MethodPost, query, body)
}

// signed returns the query that goes with an encrypted text.
func (p Platform) signed(sealed string) url.Values {
	timestamp, nonce := strconv.FormatInt(time.Now().Unix(), 10), randomText(10)
	query := url.Values{"timestamp": {timestamp}, "nonce": {nonce}, "msg_signature": {signText(p.Token, timestamp, nonce, sealed)}}
	if !p.onWeCom() {
		query.Set("signature", signText(p.Token, timestamp, nonce, "")) // does not cover the body
	}
	return query
}

// request calls the callback.
func (p Platform) request(ctx context.Context, method string, query url.Values, body string) (int, string) {
	callback, err := url.Parse(p.Callback)
	if err != nil {
		return 0, ""
	}
	all := callback.Query()
	for name, values := range query {
		all[name] = values
	}
	callback.RawQuery = all.Encode()
	req, err := http.NewRequestWithContext(ctx, method, callback.String(), strings.NewReader(body))
	if err != nil {
		return 0, ""
	}
	req.Header.Set("Content-Type", "text/xml")
	resp, err := p.Transport.RoundTrip(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(answer)
}

// text is the XML of a push before it is encrypted. Caller holds s.mu.
func (p *platform) text(push Push) string {
	var b strings.Builder
	member := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "<%s><![CDATA[%s]]></%[1]s>", name, value)
		}
	}
	number := func(name string, n int64) { fmt.Fprintf(&b, "<%s>%d</%[1]s>", name, n) }
	b.WriteString("<xml>")
	if p.onWeCom() {
		member("SuiteId", p.ID)
		member("InfoType", push.InfoType)
		number("TimeStamp", push.Order)
		member("SuiteTicket", push.Ticket)
		member("AuthCode", push.Code)
		if push.Code == "" {
			member("AuthCorpId", push.Authorizer)
		}
	} else {
		member("AppId", p.ID)
		number("CreateTime", push.Order)
		member("InfoType", push.InfoType)
		member("ComponentVerifyTicket", push.Ticket)
		member("AuthorizerAppid", push.Authorizer)
		member("AuthorizationCode", push.Code)
		if push.Code != "" {
			number("AuthorizationCodeExpiredTime", push.Order+int64(p.knobs.CodeLife/time.Second))
		}
	}
	b.WriteString("</xml>")
	return b.String()
}

// CheckURL checks a callback as WeCom does when it is configured: a GET whose echostr has to come
// back decrypted within a second.
func (s *Server) CheckURL(ctx context.Context, platform string) error {
	s.mu.Lock()
	p := s.platform(platform).Platform
	s.mu.Unlock()
	want := randomText(19)
	echo, err := sealText(p.AESKey, p.CorpID, randomText(16), want)
	if err != nil {
		return err
	}
	query := p.signed(echo)
	query.Set("echostr", echo)
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if status, answer := p.request(ctx, http.MethodGet, query, ""); status != http.StatusOK || answer != want {
		return errors.New("wechattest: the callback does not echo")
	}
	return nil
}
