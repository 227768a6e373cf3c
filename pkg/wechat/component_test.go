package wechat_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/secret/secrettest"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// codeCanary is what a call sends besides a secret or a token: a ticket, a code, a refresh token.
const codeCanary = "code@@@CODEcanary9876543210"

var oneCode = secret.New(codeCanary)

// The calls of platforms and suites, as in allCalls.
var (
	callComponent = func(c *wechat.Client) (wechat.Credential, error) {
		return c.ComponentToken(context.Background(), "wxp", appSecret, oneCode)
	}
	callStartPush = func(c *wechat.Client) (wechat.Credential, error) {
		return wechat.Credential{}, c.StartPush(context.Background(), "wxp", appSecret)
	}
	callAuthorizer = func(c *wechat.Client) (wechat.Credential, error) {
		cred, _, err := c.AuthorizerToken(context.Background(), token, "wxp", "wxa", oneCode)
		return cred, err
	}
	callQueryAuth = func(c *wechat.Client) (wechat.Credential, error) {
		return asCredential(c.QueryAuth(context.Background(), token, "wxp", oneCode))
	}
	callInfo = func(c *wechat.Client) (wechat.Credential, error) {
		return asCredential(c.AuthorizerInfo(context.Background(), token, "wxp", "wxa"))
	}
	callList = func(c *wechat.Client) (wechat.Credential, error) {
		total, page, err := c.AuthorizerList(context.Background(), token, "wxp", 1000, 500)
		if err != nil && (total != 0 || page != nil) {
			panic("an error and a list")
		}
		for _, entry := range page {
			mustBeUsable(entry.Authorizer, entry.RefreshToken)
		}
		return wechat.Credential{}, err
	}
	callSuite = func(c *wechat.Client) (wechat.Credential, error) {
		return c.SuiteToken(context.Background(), "wws", appSecret, oneCode)
	}
	callProvider = func(c *wechat.Client) (wechat.Credential, error) {
		return c.ProviderToken(context.Background(), "wwp", appSecret)
	}
	callPermanentCode = func(c *wechat.Client) (wechat.Credential, error) {
		auth, err := c.PermanentCode(context.Background(), token, oneCode)
		if err == nil && auth.Secret.Empty() {
			panic("a permanent code that is empty")
		}
		return asCredential(auth, err)
	}
	callCorpInfo      = corpInfo(wechat.CorpInfoFull)
	callShortCorpInfo = corpInfo(wechat.CorpInfoShort)
	callSuiteCorp     = func(c *wechat.Client) (wechat.Credential, error) {
		return c.CorpTokenBySuite(context.Background(), token, "wwc", oneCode)
	}
)

func corpInfo(form wechat.InfoCall) func(c *wechat.Client) (wechat.Credential, error) {
	return func(c *wechat.Client) (wechat.Credential, error) {
		info, err := c.CorpInfo(context.Background(), form, token, "wwc", oneCode)
		if err != nil && info != nil {
			panic("an error and an installation")
		}
		return wechat.Credential{}, err
	}
}

// sentBy says which secrets a call of allCalls sends.
var sentBy = map[string][]string{
	"token": {secretCanary}, "stable": {secretCanary}, "forced": {secretCanary}, "corp": {secretCanary},
	"ticket": {tokenCanary}, "card": {tokenCanary}, "corp ticket": {tokenCanary}, "agent ticket": {tokenCanary},
	"probe": {tokenCanary}, "menu probe": {tokenCanary}, "corp probe": {tokenCanary},
	"component": {secretCanary, codeCanary}, "start push": {secretCanary}, "authorizer": {tokenCanary, codeCanary},
	"query auth": {tokenCanary, codeCanary}, "info": {tokenCanary}, "list": {tokenCanary},
	"suite": {secretCanary, codeCanary}, "provider": {secretCanary},
	"permanent code": {tokenCanary, codeCanary}, "suite corp": {tokenCanary, codeCanary},
	"corp info": {tokenCanary, codeCanary}, "short corp info": {tokenCanary, codeCanary},
}

// asCredential drops an authorisation after checking what its doc promises.
func asCredential(auth wechat.Authorization, err error) (wechat.Credential, error) {
	if err == nil {
		mustBeUsable(auth.Authorizer, auth.Secret)
	} else if auth.Authorizer != "" || !auth.Secret.Empty() || auth.Info != nil {
		panic("an error and an authorisation")
	}
	return wechat.Credential{}, err
}

func mustBeUsable(id string, s secret.String) {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if id == "" || strings.ContainsFunc(id+s.Reveal(), odd) || len(s.Reveal()) > 4096 {
		panic(fmt.Sprintf("authorizer %q with a secret of %d bytes", id, len(s.Reveal())))
	}
}

// answeringAt is answering with a Date.
func answeringAt(date, body string) *wechat.Client {
	c := answering(200, "", body)
	next := c.HTTP.Transport
	c.HTTP.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Header.Set("Date", date)
		}
		return resp, err
	})
	return c
}

// same compares results, secrets included.
var same = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(secret.String.Equal)}

// TestCredentialsOfPlatforms reads documented answers. WeCom leaves errcode out of a success.
func TestCredentialsOfPlatforms(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
	}{
		{"component", `{"component_access_token":"61W3mEpU66027wgNZ_MhGHNQDHnFATkDa9","expires_in":7200}`, "61W3mEpU66027wgNZ_MhGHNQDHnFATkDa9"},
		{"authorizer", `{"authorizer_access_token":"some-access-token","expires_in":7200,"authorizer_refresh_token":"refresh_token_value"}`, "some-access-token"},
		{"suite", `{"errcode":0,"errmsg":"ok","suite_access_token":"61W3mEpU66027wgNZ","expires_in":7200}`, "61W3mEpU66027wgNZ"},
		{"suite", `{"suite_access_token":"61W3mEpU66027wgNZ","expires_in":7200}`, "61W3mEpU66027wgNZ"},
		{"provider", `{"errcode":0,"errmsg":"ok","provider_access_token":"enLSZ5xxxxxxJRL","expires_in":7200}`, "enLSZ5xxxxxxJRL"},
		{"suite corp", `{"access_token":"xxxxxx","expires_in":7200}`, "xxxxxx"},
		// That of another call is none.
		{"component", `{"access_token":"x","expires_in":7200}`, ""},
		{"suite", `{"access_token":"x","expires_in":7200}`, ""},
		{"authorizer", `{"authorizer_access_token":"x"}`, ""},
		{"authorizer", `{"authorizer_access_token":"x","expires_in":7200,"authorizer_refresh_token":1}`, ""},
		{"authorizer", `{"authorizer_access_token":"x","expires_in":7200,"authorizer_refresh_token":"a b"}`, ""},
	} {
		cred, err := allCalls[tt.name](answering(200, "", tt.body))
		if tt.want != "" && (err != nil || cred.Value.Reveal() != tt.want || cred.ExpiresIn != 2*time.Hour) {
			t.Errorf("%s, %s: %q for %v, %v", tt.name, tt.body, cred.Value.Reveal(), cred.ExpiresIn, err)
		}
		if tt.want == "" && (err == nil || !describe(t, err).MayIssued) {
			t.Errorf("%s, %s: error = %v, want one that may have issued", tt.name, tt.body, err)
		}
	}
}

func TestRefreshTokenOfARefresh(t *testing.T) {
	for member, want := range map[string]string{
		`,"authorizer_refresh_token":"refreshtoken@@@new"`: "refreshtoken@@@new",
		`,"authorizer_refresh_token":""`:                   "",
		`,"authorizer_refresh_token":null`:                 "",
		``:                                                 "",
	} {
		c := answering(200, "", `{"authorizer_access_token":"x","expires_in":7200`+member+`}`)
		_, next, err := c.AuthorizerToken(t.Context(), token, "wxp", "wxa", oneCode)
		if err != nil || next.Reveal() != want {
			t.Errorf("%s: refresh token %q, %v; want %q", member, next.Reveal(), err, want)
		}
	}
}

func TestAuthorizations(t *testing.T) {
	const date = "Fri, 17 May 2024 10:55:29 GMT"
	at := time.Date(2024, 5, 17, 10, 55, 29, 0, time.UTC)
	const funcs = `[{"funcscope_category":{"id":1}},{"funcscope_category":{"id":2}}]`
	type want = wechat.Authorization
	for _, tt := range []struct {
		name, date, body string
		want             want
	}{
		{"query auth", date, `{"authorization_info":{"authorizer_appid":"wxa","authorizer_access_token":"dropped","expires_in":7200,"authorizer_refresh_token":"dTo-YCXPL4llX","func_info":` + funcs + `}}`,
			want{"wxa", secret.New("dTo-YCXPL4llX"), []byte(funcs), at}},
		// Without API permissions there is neither token.
		{"query auth", "", `{"authorization_info":{"authorizer_appid":"wxa","func_info":[]}}`, want{Authorizer: "wxa", Info: []byte("[]")}},
		{"query auth", "yesterday", `{"authorization_info":{"authorizer_appid":"wxa","authorizer_refresh_token":"","func_info":null}}`, want{Authorizer: "wxa"}},
		{"info", date, `{"authorizer_info":{"nick_name":"美妆饰品"},"authorization_info":{"authorizer_appid":"wxa","authorizer_refresh_token":"r","func_info":[]}}`,
			want{"wxa", secret.New("r"), []byte("[]"), at}},
		{"info", date, `{"authorization_info":{"authorizer_appid":"wxa"}}`, want{Authorizer: "wxa", Date: at}},
		{"permanent code", date, `{"errcode":0,"errmsg":"ok","access_token":"dropped","expires_in":7200,"permanent_code":"p","auth_corp_info":{"corpid":"wwc","corp_name":"n"},"auth_info":{"agent":[{"agentid":1}]}}`,
			want{"wwc", secret.New("p"), []byte(`{"auth_corp_info":{"corpid":"wwc","corp_name":"n"},"auth_info":{"agent":[{"agentid":1}]}}`), at}},
		// An app developed on behalf of the corp: no token; and WeCom leaves errcode out.
		{"permanent code", "", `{"permanent_code":"p","auth_corp_info":{"corpid":"wwc"},"new_secret":"s"}`,
			want{Authorizer: "wwc", Secret: secret.New("p"), Info: []byte(`{"auth_corp_info":{"corpid":"wwc"}}`)}},
	} {
		c := answeringAt(tt.date, tt.body)
		var got wechat.Authorization
		var err error
		switch tt.name {
		case "query auth":
			got, err = c.QueryAuth(t.Context(), token, "wxp", oneCode)
		case "info":
			got, err = c.AuthorizerInfo(t.Context(), token, "wxp", "wxa")
		case "permanent code":
			got, err = c.PermanentCode(t.Context(), token, oneCode)
		}
		if diff := cmp.Diff(tt.want, got, same); diff != "" || err != nil {
			t.Errorf("%s, %s: %v\n%s", tt.name, tt.body, err, diff)
		}
	}
}

// TestAuthorizationsThatAreNone: an answer that does not say whose authorisation it is, or what for,
// may have spent a code all the same.
func TestAuthorizationsThatAreNone(t *testing.T) {
	for name, bodies := range map[string][]string{
		"query auth": {``, `<html>`, `[]`, `{}`, `{"authorization_info":null}`, `{"authorization_info":[]}`, `{"authorization_info":{}}`,
			`{"authorization_info":{"authorizer_appid":""}}`, `{"authorization_info":{"authorizer_appid":7}}`, `{"authorization_info":{"authorizer_appid":"wx a"}}`,
			`{"authorization_info":{"authorizer_appid":"wxa","authorizer_refresh_token":{}}}`,
			`{"authorization_info":{"authorizer_appid":"wxa","authorizer_refresh_token":"` + strings.Repeat("r", 4097) + `"}}`},
		"info":           {`{}`, `{"authorization_info":{"authorizer_appid":"wxother","authorizer_refresh_token":"r"}}`},
		"permanent code": {`{}`, `{"errcode":0}`, `{"permanent_code":"p"}`, `{"permanent_code":"p","auth_corp_info":{}}`, `{"auth_corp_info":{"corpid":"wwc"}}`, `{"permanent_code":"","auth_corp_info":{"corpid":"wwc"}}`},
		"list": {`{}`, `{"total_count":1}`, `{"list":[]}`, `{"total_count":"many","list":[]}`, `{"total_count":-1,"list":[]}`, `{"total_count":1e18,"list":[]}`, `{"total_count":1,"list":{}}`,
			`{"total_count":1,"list":[{}]}`, `{"total_count":1,"list":[null]}`, `{"total_count":1,"list":[{"authorizer_appid":"wxa","refresh_token":1}]}`, `{"total_count":1,"list":[{"authorizer_appid":"wxa","auth_time":"x"}]}`},
		"start push": {``, `{}`, `ok`},
	} {
		for _, body := range bodies {
			_, err := allCalls[name](answering(200, "", body))
			if err == nil {
				t.Errorf("%s: %s is a success", name, body)
			} else if got := describe(t, err); !got.MayIssued || got.Class != wechat.ClassRetry {
				t.Errorf("%s, %s: %+v, want an unclear failure", name, body, got)
			}
		}
	}
}

func TestAuthorizerList(t *testing.T) {
	c := answering(200, "", `{"total_count":33,"list":[{"authorizer_appid":"wxa","refresh_token":"r","auth_time":1558000607},{"authorizer_appid":"wxb","auth_time":"1558000608"},{"authorizer_appid":"wxc","refresh_token":""}]}`)
	total, page, err := c.AuthorizerList(t.Context(), token, "wxp", 0, 500)
	want := []wechat.ListedAuthorizer{{"wxa", secret.New("r"), 1558000607}, {"wxb", secret.String{}, 1558000608}, {"wxc", secret.String{}, 0}}
	if diff := cmp.Diff(want, page, same); diff != "" || total != 33 || err != nil {
		t.Errorf("total %d, %v\n%s", total, err, diff)
	}
	if total, page, err = answering(200, "", `{"total_count":0,"list":[]}`).AuthorizerList(t.Context(), token, "wxp", 0, 500); total != 0 || len(page) != 0 || err != nil {
		t.Errorf("without authorizers: %d, %v, %v", total, page, err)
	}
	full := `{"authorizer_appid":"wx0123456789abcdef","refresh_token":"` + strings.Repeat("r", 90) + `","auth_time":1558000607}`
	full = `{"total_count":5000,"list":[` + strings.Repeat(full+",", 499) + full + `]}`
	if _, page, err = answering(200, "", full).AuthorizerList(t.Context(), token, "wxp", 0, 500); len(page) != 500 || err != nil {
		t.Errorf("%d of 500 authorizers in %d bytes: %v", len(page), len(full), err)
	}
}

func TestStartPush(t *testing.T) {
	for _, body := range []string{`{"errcode":0,"errmsg":"ok"}`, `{"errcode":0,"errmsg":"in a normal state"}`} {
		if err := answering(200, "", body).StartPush(t.Context(), "wxp", appSecret); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestIncompleteRequestsAreNotSent: an empty refresh token is answered by 61023, as if the account
// had withdrawn its authorisation.
func TestIncompleteRequestsAreNotSent(t *testing.T) {
	c := &wechat.Client{HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		t.Errorf("%s was sent", r.URL.Path)
		return nil, errors.New("sent")
	})}}
	ctx, empty := t.Context(), secret.String{}
	for name, call := range map[string]func() error{
		"ticket":          func() error { _, err := c.ComponentToken(ctx, "wxp", appSecret, empty); return err },
		"secret":          func() error { return c.StartPush(ctx, "wxp", empty) },
		"refresh token":   func() error { _, _, err := c.AuthorizerToken(ctx, token, "wxp", "wxa", empty); return err },
		"component token": func() error { _, _, err := c.AuthorizerToken(ctx, empty, "wxp", "wxa", oneCode); return err },
		"code":            func() error { _, err := c.QueryAuth(ctx, token, "wxp", empty); return err },
		"auth code":       func() error { _, err := c.PermanentCode(ctx, token, empty); return err },
		"permanent code":  func() error { _, err := c.CorpTokenBySuite(ctx, token, "wwc", empty); return err },
		"suite's secret":  func() error { _, err := c.SuiteToken(ctx, "wws", empty, oneCode); return err },
		"suite's ticket":  func() error { _, err := c.SuiteToken(ctx, "wws", appSecret, empty); return err },
		"suite's token":   func() error { _, err := c.CorpTokenBySuite(ctx, empty, "wwc", oneCode); return err },
		"provider secret": func() error { _, err := c.ProviderToken(ctx, "wwp", empty); return err },
		"token for info":  func() error { _, err := c.AuthorizerInfo(ctx, empty, "wxp", "wxa"); return err },
		"token for list":  func() error { _, _, err := c.AuthorizerList(ctx, empty, "wxp", 0, 1); return err },
		"code for info": func() error {
			_, err := c.CorpInfo(ctx, wechat.CorpInfoFull, token, "wwc", empty)
			return err
		},
		"no page":         func() error { _, _, err := c.AuthorizerList(ctx, token, "wxp", 0, 0); return err },
		"page of 501":     func() error { _, _, err := c.AuthorizerList(ctx, token, "wxp", 0, 501); return err },
		"negative offset": func() error { _, _, err := c.AuthorizerList(ctx, token, "wxp", -1, 1); return err },
	} {
		e, ok := errors.AsType[*wechat.Error](call())
		if !ok || e.Sent || e.MayHaveIssued() || e.Class() != wechat.ClassConfig {
			t.Errorf("%s: %v, want a mistake that was never sent", name, e)
		}
	}
}

// TestWhatAPlatformAsksOfAnError: the questions that decide what a platform does next.
func TestWhatAPlatformAsksOfAnError(t *testing.T) {
	type kind struct{ ticket, code, authorization bool }
	ticket, code, authorization := kind{ticket: true}, kind{code: true}, kind{authorization: true}
	for _, tt := range []struct {
		api   wechat.API
		codes []int
		want  kind
	}{
		{wechat.APIComponentToken, []int{61005, 61006}, ticket},
		{wechat.APISuiteToken, []int{40085}, ticket},
		{wechat.APIComponent, []int{61009, 61010}, code},
		{wechat.APISuite, []int{40078}, code},
		{wechat.APIComponent, []int{61003, 61023}, authorization},
		{wechat.APICall, []int{61003}, authorization},
		{wechat.APISuite, []int{40084}, authorization},
		// A permission set, the wrong kind of token, the platform itself, and the other family.
		{wechat.APIComponent, []int{61007, 61014, 61015, 61016, 61017, 61011, 45009, 40085, 40078, 40084, 0}, kind{}},
		{wechat.APISuite, []int{61003, 61005, 61009, 40082, 42009, 42007, 0}, kind{}},
	} {
		for _, c := range tt.codes {
			e := &wechat.Error{API: tt.api, Code: c}
			if got := (kind{e.BadTicket(), e.BadCode(), e.BadAuthorization()}); got != tt.want {
				t.Errorf("%v, %d: %+v, want %+v", tt.api, c, got, tt.want)
			}
		}
	}
}

// TestErrmsgsOfPlatformsAreScrubbed: an errmsg that repeats all that was sent.
func TestErrmsgsOfPlatformsAreScrubbed(t *testing.T) {
	for name, call := range allCalls {
		sent := sentBy[name]
		_, err := call(answering(200, "", fmt.Sprintf(`{"errcode":47001,"errmsg":%q}`, "data format error in "+strings.Join(sent, " and "))))
		if err == nil || len(sent) == 0 {
			t.Errorf("%s: error %v, sent %v", name, err, sent)
		}
		if form := secrettest.Find(err.Error(), sent...); form != "" {
			t.Errorf("%s: %v shows %s", name, err, form)
		}
	}
}
