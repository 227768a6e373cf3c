package wechat_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const (
	secretCanary = "SECRETcanary0123456789abcdef"
	tokenCanary  = "97_TOKENcanary-_0123456789"
)

var (
	appSecret = secret.New(secretCanary)
	token     = secret.New(tokenCanary)
)

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answering is a client whose every call gets this answer.
func answering(status int, contentType, body string) *wechat.Client {
	return &wechat.Client{HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Request: r, Header: http.Header{"Content-Type": {contentType}},
			Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	})}}
}

// The calls of the client, each as a function of the client alone.
var (
	callToken = func(c *wechat.Client) (wechat.Credential, error) {
		return c.Token(context.Background(), "wx1", appSecret)
	}
	callStable = func(c *wechat.Client) (wechat.Credential, error) {
		return c.StableToken(context.Background(), "wx1", appSecret, wechat.Normal)
	}
	callForced = func(c *wechat.Client) (wechat.Credential, error) {
		return c.StableToken(context.Background(), "wx1", appSecret, wechat.Forced)
	}
	callCorp = func(c *wechat.Client) (wechat.Credential, error) {
		return c.CorpToken(context.Background(), "ww1", appSecret)
	}
	callTicket = func(c *wechat.Client) (wechat.Credential, error) {
		return c.Ticket(context.Background(), token, wechat.TicketJSAPI)
	}
	callCard = func(c *wechat.Client) (wechat.Credential, error) {
		return c.Ticket(context.Background(), token, wechat.TicketWXCard)
	}
	callCorpTicket = func(c *wechat.Client) (wechat.Credential, error) {
		return c.CorpTicket(context.Background(), token, wechat.TicketJSAPI)
	}
	callAgentTicket = func(c *wechat.Client) (wechat.Credential, error) {
		return c.CorpTicket(context.Background(), token, wechat.TicketAgentConfig)
	}
	callProbe     = probe(wechat.ProbeCallbackIP)
	callProbeMenu = probe(wechat.ProbeMenu)
	callProbeCorp = probe(wechat.ProbeCorpCallbackIP)
)

func probe(p wechat.Probe) func(c *wechat.Client) (wechat.Credential, error) {
	return func(c *wechat.Client) (wechat.Credential, error) {
		return wechat.Credential{}, c.Probe(context.Background(), token, p)
	}
}

// allCalls are all requests the client can make.
var allCalls = map[string]func(c *wechat.Client) (wechat.Credential, error){
	"token": callToken, "stable": callStable, "forced": callForced, "corp": callCorp,
	"ticket": callTicket, "card": callCard, "corp ticket": callCorpTicket, "agent ticket": callAgentTicket,
	"probe": callProbe, "menu probe": callProbeMenu, "corp probe": callProbeCorp,
	"component": callComponent, "start push": callStartPush, "authorizer": callAuthorizer,
	"query auth": callQueryAuth, "info": callInfo, "list": callList,
	"suite": callSuite, "provider": callProvider, "permanent code": callPermanentCode, "suite corp": callSuiteCorp,
	"corp info": callCorpInfo, "short corp info": callShortCorpInfo,
}

// failure is what a test expects of an [*wechat.Error].
type failure struct {
	API       wechat.API
	Endpoint  string
	Code      int
	Status    int
	Class     wechat.Class
	MayIssued bool
	EgressIP  string
}

func describe(t *testing.T, err error) failure {
	t.Helper()
	e, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		t.Fatalf("error is a %T, want *wechat.Error", err)
	}
	return failure{e.API, e.Endpoint, e.Code, e.Status, e.Class(), e.MayHaveIssued(), e.EgressIP()}
}

// TestGoldenAnswers reads recorded and documented answers, and what gateways put in their place.
func TestGoldenAnswers(t *testing.T) {
	const long = wechat.MaxExpiresIn
	at := func(path string) failure {
		return failure{API: wechat.APIToken, Endpoint: path, Status: 200, Class: wechat.ClassRetry, MayIssued: true}
	}
	unreadable := at("/cgi-bin/token")
	code := func(api wechat.API, path string, code int, class wechat.Class, ip string) failure {
		return failure{API: api, Endpoint: path, Code: code, Status: 200, Class: class, EgressIP: ip}
	}
	for _, tt := range []struct {
		file string
		call func(*wechat.Client) (wechat.Credential, error)
		want string // the value; "" for a failure
		life time.Duration
		fail failure
	}{
		{"token_ok.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"stable_remaining.json", callStable, "97_goldenTOKEN-_x", 345 * time.Second, failure{}},
		{"token_string_number.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"token_float.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"token_exponent.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"token_extra_and_duplicate_keys.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"token_bom.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"token_errcode_string_zero.json", callToken, "97_goldenTOKEN-_x", 2 * time.Hour, failure{}},
		{"token_life_huge.json", callToken, "97_goldenTOKEN-_x", long, failure{}},
		{"token_512.json", callToken, strings.Repeat("a", 512), 2 * time.Hour, failure{}},
		{"corp_ok.json", callCorp, "corpGOLDEN", 2 * time.Hour, failure{}},
		{"ticket_ok.json", callTicket, "bxLdikRXVbTPdHSM05e5u5sUoXNKd8-41ZO3MhKoyN5OfkWITDGgnr2fwJ0m9E8NYzWKVZvdVtaUgWvsdshFKA", 2 * time.Hour, failure{}},

		{"token_life_zero.json", callToken, "", 0, unreadable},
		{"token_life_negative.json", callToken, "", 0, unreadable},
		{"token_life_missing.json", callToken, "", 0, unreadable},
		{"token_life_inf.json", callToken, "", 0, unreadable},
		{"token_life_bool.json", callToken, "", 0, unreadable},
		{"token_empty_value.json", callToken, "", 0, unreadable},
		{"token_missing_value.json", callToken, "", 0, unreadable},
		{"token_number_value.json", callToken, "", 0, unreadable},
		{"token_space.json", callToken, "", 0, unreadable},
		{"token_newline.json", callToken, "", 0, unreadable},
		{"token_4097.json", callToken, "", 0, unreadable},
		{"truncated.json", callStable, "", 0, at("/cgi-bin/stable_token")},
		{"empty.json", callToken, "", 0, unreadable},
		{"null.json", callToken, "", 0, unreadable},
		{"array.json", callToken, "", 0, unreadable},
		{"gateway.html", callToken, "", 0, unreadable},
		{"errcode_bool.json", callToken, "", 0, unreadable},

		{"40013.json", callToken, "", 0, code(wechat.APIToken, "/cgi-bin/token", 40013, wechat.ClassConfig, "")},
		{"40125_string.json", callToken, "", 0, code(wechat.APIToken, "/cgi-bin/token", 40125, wechat.ClassConfig, "")},
		{"minus_1.json", callToken, "", 0, code(wechat.APIToken, "/cgi-bin/token", -1, wechat.ClassRetry, "")},
		{"40001.json", callToken, "", 0, code(wechat.APIToken, "/cgi-bin/token", 40001, wechat.ClassConfig, "")},
		{"40001.json", callTicket, "", 0, code(wechat.APICall, "/cgi-bin/ticket/getticket", 40001, wechat.ClassBadToken, "")},
		{"40164.json", callToken, "", 0, code(wechat.APIToken, "/cgi-bin/token", 40164, wechat.ClassEgress, "58.213.199.30")},
		{"45009.json", callToken, "", 0, code(wechat.APIToken, "/cgi-bin/token", 45009, wechat.ClassQuota, "")},
		{"45011.json", callStable, "", 0, code(wechat.APIToken, "/cgi-bin/stable_token", 45011, wechat.ClassMinute, "")},
		{"corp_40013.json", callCorp, "", 0, code(wechat.APICorpToken, "/cgi-bin/gettoken", 40013, wechat.ClassConfig, "")},
		{"corp_60020.json", callCorp, "", 0, code(wechat.APICorpToken, "/cgi-bin/gettoken", 60020, wechat.ClassEgress, "139.227.136.148")},
		{"corp_40014.json", callCorpTicket, "", 0, code(wechat.APICorpCall, "/cgi-bin/get_jsapi_ticket", 40014, wechat.ClassBadToken, "")},
	} {
		t.Run(tt.file, func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join("testdata", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			// The content type is deliberately none that JSON should have.
			got, err := tt.call(answering(200, "text/plain", string(body)))
			if tt.want == "" {
				if diff := cmp.Diff(tt.fail, describe(t, err)); diff != "" {
					t.Errorf("failure differs (-want +got):\n%s", diff)
				}
				return
			}
			if err != nil || got.Value.Reveal() != tt.want || got.ExpiresIn != tt.life {
				t.Errorf("got %q for %v, error %v; want %q for %v", got.Value.Reveal(), got.ExpiresIn, err, tt.want, tt.life)
			}
		})
	}
}

func TestProbeTellsAcceptedFromRejectedFromUnclear(t *testing.T) {
	golden := func(name string) string {
		body, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, tt := range []struct {
		name   string
		status int
		body   string
		probe  func(*wechat.Client) (wechat.Credential, error)
		want   string // the class; "" for accepted
	}{
		{"addresses", 200, golden("callbackip_ok.json"), callProbe, ""},
		{"addresses of WeCom", 200, `{"ip_list":["1.2.3.4"],"errcode":0,"errmsg":"ok"}`, callProbeCorp, ""},
		{"menu", 200, golden("menu_ok.json"), callProbeMenu, ""},
		{"no menu", 200, golden("46003.json"), callProbeMenu, ""},
		{"no permission", 200, golden("48001.json"), callProbeMenu, ""},
		{"40001", 200, golden("40001.json"), callProbe, "bad_token"},
		{"42001", 200, `{"errcode":42001,"errmsg":"access_token expired rid: 1"}`, callProbe, "bad_token"},
		{"40014 of WeCom", 200, golden("corp_40014.json"), callProbeCorp, "bad_token"},
		{"40001 of WeCom is about a secret", 200, golden("40001.json"), callProbeCorp, "config"},
		{"busy", 200, golden("minus_1.json"), callProbe, "retry"},
		{"an empty object accepts nothing", 200, `{}`, callProbe, "retry"},
		{"addresses are no menu", 200, golden("callbackip_ok.json"), callProbeMenu, "retry"},
		{"gateway", 502, golden("gateway.html"), callProbe, "retry"},
		{"a page that happens to be JSON", 403, golden("callbackip_ok.json"), callProbe, "config"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.probe(answering(tt.status, "text/html", tt.body))
			if tt.want == "" {
				if err != nil {
					t.Errorf("Probe = %v, want nil", err)
				}
				return
			}
			if got := describe(t, err).Class.String(); got != tt.want {
				t.Errorf("class = %s, want %s", got, tt.want)
			}
		})
	}
}

// TestCallWithoutDeadlineGetsOne: WeChat never answers; the caller sets no deadline, or a short
// one.
func TestCallWithoutDeadlineGetsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &wechat.Client{HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}}
		start := time.Now()
		_, err := callToken(c)
		if got := time.Since(start); got != wechat.DefaultTimeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v, want DeadlineExceeded after %v", got, err, wechat.DefaultTimeout)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // longer than the default, too
		defer cancel()
		start = time.Now()
		_, err = c.Token(ctx, "wx1", appSecret)
		if got := time.Since(start); got != 30*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v, want DeadlineExceeded after 30s", got, err)
		}
	})
}

func TestAnswerOverTheBoundIsRefused(t *testing.T) {
	padded := func(n int) string {
		body := `{"access_token":"97_x","expires_in":7200}`
		return body + strings.Repeat(" ", n-len(body))
	}
	if _, err := callToken(answering(200, "", padded(64<<10))); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	_, err := callToken(answering(200, "", padded(64<<10+1)))
	if err == nil || !describe(t, err).MayIssued {
		t.Errorf("64 KiB and a byte: %v, want an error that may have issued", err)
	}
}

// TestHTTPStatus covers answers that are not 200: what they mean and whether a token may exist.
func TestHTTPStatus(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		class  wechat.Class
		may    bool
	}{
		{301, "", wechat.ClassConfig, false},
		{403, "<html>", wechat.ClassConfig, false},
		{404, "", wechat.ClassConfig, false},
		{408, "", wechat.ClassRetry, false},
		{412, "", wechat.ClassConfig, false},
		{429, "", wechat.ClassRetry, false},
		{500, "", wechat.ClassRetry, true},
		{502, `{"errcode":-1}`, wechat.ClassRetry, true},
		{504, "<html>", wechat.ClassRetry, true},
		{201, `{"access_token":"97_x","expires_in":7200}`, wechat.ClassRetry, true},
		{400, `{"errcode":40013,"errmsg":"invalid appid"}`, wechat.ClassConfig, false},
	} {
		_, err := callToken(answering(tt.status, "", tt.body))
		got := describe(t, err)
		if got.Class != tt.class || got.MayIssued != tt.may || got.Status != tt.status {
			t.Errorf("%d %s: class %v, may have issued %v; want %v, %v", tt.status, tt.body, got.Class, got.MayIssued, tt.class, tt.may)
		}
	}
}
