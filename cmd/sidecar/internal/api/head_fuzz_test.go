package api_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/api"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// FuzzHead: whatever the head of a request says, a value goes only to a program of the pod that has
// the bearer token, if there is one; and no refusal repeats what was sent.
func FuzzHead(f *testing.F) {
	for _, host := range []string{"127.0.0.1:7200", "localhost", "LOCALHOST:1", "[::1]:7200", "[::ffff:127.0.0.1]", "api.weixin.qq.com", "evil.example", "127.0.0.1.evil.example", "localhost.", "2130706433", "0177.0.0.1",
		"", ":", "::1", "[::1", "127.1", "localhost:x:y", "[fe80::1%25lo]", "a\x00b"} {
		f.Add(host, "X-A", "b", "")
	}
	for _, name := range []string{"Origin", "X-Forwarded-For", "forwarded", "Sec-Fetch-Site", "Authorization", "Accept", "X-Real-Ip", "Content-Type"} {
		f.Add("localhost", name, "cross-site", "")
		f.Add("localhost", name, "Bearer CANARY-bearer", "CANARY-bearer")
		f.Add("evil.example", name, "bearer  CANARY-bearer", "CANARY-bearer")
	}
	bearer := secret.String{}
	s := newStack(f, api.Options{Bearer: func() secret.String { return bearer }}, nil, plain)
	value := s.call("GET", tokenPath, "", "Accept", "text/plain").Body.String()
	f.Fuzz(func(t *testing.T, host, name, text, token string) {
		if !validName(name) || strings.ContainsAny(token, " \r\n") {
			return // net/http, and the configuration, let neither through
		}
		bearer = secret.New(token)
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.Host = tokenPath, host
		r.Header.Set(name, text)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		has := strings.Contains(w.Body.String(), value)
		if has != (w.Code == http.StatusOK) || w.Code != http.StatusOK && (w.Code < 400 || w.Code > 499) {
			t.Errorf("%q %q: %q: got %d %s", host, name, text, w.Code, w.Body)
		}
		if !has {
			return
		}
		canonical := http.CanonicalHeaderKey(name)
		switch canonical {
		case "Origin", "X-Forwarded-For", "Forwarded", "X-Real-Ip", "X-Forwarded-Host":
			t.Errorf("%s was let in", canonical)
		}
		if token != "" {
			scheme, sent, _ := strings.Cut(text, " ")
			if canonical != "Authorization" || !strings.EqualFold(scheme, "Bearer") || strings.TrimLeft(sent, " ") != token {
				t.Errorf("%q %q was let in with %q", canonical, text, token)
			}
			return
		}
		bare := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			bare = h
		}
		ip, err := netip.ParseAddr(strings.Trim(bare, "[]"))
		if !strings.EqualFold(bare, "localhost") && (err != nil || !ip.Unmap().IsLoopback()) && !strings.EqualFold(strings.Trim(bare, "[]"), "localhost") {
			t.Errorf("the host %q was let in", host)
		}
	})
}

// validName reports whether net/http would let a header of this name in.
func validName(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// FuzzSignBody: a body is answered with signatures that WeChat would verify, of the addresses as
// they were sent, or refused without a word of it. Neither shows the ticket.
func FuzzSignBody(f *testing.F) {
	for _, body := range []string{
		`{"url":"https://shop.example/a?b=c#d"}`, `{"urls":["https://a/","HTTP://b"]}`, `{"url":"https://a","ticket":"jsapi"}`, `{"url":"https://a","ticket":"agent_config"}`,
		``, `{}`, `null`, `[]`, `{"url":null}`, `{"urls":[]}`, `{"url":"https://a","urls":["https://a"]}`, `{"url":["https://a"]}`, `{"url":"javascript://x"}`, `{"url":"https://a/ x"}`, `{"url":"https://\ud800"}`,
		`{"url":"https://a","url":"https://b"}`, "{\"url\":\"https://\xff\"}", `{"url":"https://a","ticket":1}`, `{"urls":[null]}`, `{"url":"https://a"} x`, `{"URL":"https://a"}`, strings.Repeat("[", 20000),
	} {
		f.Add(body)
	}
	s := newStack(f, api.Options{}, nil, plain)
	ticket := s.Ticket(f, plain, "jsapi")
	f.Fuzz(func(t *testing.T, body string) {
		w := s.call("POST", "/v1/apps/shop/jssdk", body)
		if strings.Contains(w.Body.String(), ticket) || s.WeChat.Calls(plain.ID).Tickets != 1 {
			t.Errorf("%q: %s", body, w.Body)
		}
		if w.Code != http.StatusOK {
			if w.Code != 400 && w.Code != 404 && w.Code != 413 || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%q: got %d %s", body, w.Code, w.Body)
			}
			return
		}
		var in struct {
			URL  *string
			URLs []string
		}
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatalf("%q is signed: %v", body, err)
		}
		type signature struct {
			NonceStr, Signature string
			Timestamp           int64
		}
		var got []signature
		if in.URL != nil {
			in.URLs, got = []string{*in.URL}, make([]signature, 1)
			_ = json.Unmarshal(w.Body.Bytes(), &got[0])
		} else {
			_ = json.Unmarshal(w.Body.Bytes(), &got)
		}
		if len(got) != len(in.URLs) || len(got) > 100 {
			t.Fatalf("%q: %d signatures", body, len(got))
		}
		for i, page := range in.URLs {
			page, _, _ = strings.Cut(page, "#")
			if want := wechat.Sign(secret.New(ticket), got[i].NonceStr, got[i].Timestamp, page); got[i].Signature != want || !strings.Contains(page, "://") {
				t.Errorf("%q: page %d has %q, want %q", body, i, got[i].Signature, want)
			}
		}
	})
}
