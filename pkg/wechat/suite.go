package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// SuiteToken fetches the token of a WeCom suite with POST /cgi-bin/service/get_suite_token. ticket
// is the newest suite_ticket. Whether a repeated call returns the same token is not documented.
func (c *Client) SuiteToken(ctx context.Context, suite string, suiteSecret, ticket secret.String) (Credential, error) {
	req, err := post(APISuiteToken, "/cgi-bin/service/get_suite_token", struct {
		Suite  string `json:"suite_id"`
		Secret string `json:"suite_secret"`
		Ticket string `json:"suite_ticket"`
	}{suite, suiteSecret.Reveal(), ticket.Reveal()}, suiteSecret, ticket)
	if err != nil {
		return Credential{}, err
	}
	return c.credential(ctx, "suite_access_token", req)
}

// ProviderToken fetches the token of a WeCom provider with POST /cgi-bin/service/get_provider_token.
// Repeated calls return the same one while it is valid [T].
func (c *Client) ProviderToken(ctx context.Context, corpid string, providerSecret secret.String) (Credential, error) {
	req, err := post(APISuiteToken, "/cgi-bin/service/get_provider_token", struct {
		CorpID string `json:"corpid"`
		Secret string `json:"provider_secret"`
	}{corpid, providerSecret.Reveal()}, providerSecret)
	if err != nil {
		return Credential{}, err
	}
	return c.credential(ctx, "provider_access_token", req)
}

// PermanentCode exchanges an auth_code, which works once, with POST
// /cgi-bin/service/get_permanent_code. It is the same for suites and for templates of apps developed
// on behalf of corps. The access token that WeCom sends along for suites is dropped. The newer
// v2/get_permanent_code is faster and does not say which agents the corp has installed [T].
//
// WeCom never returns a permanent code twice. If the error says [Error.MayHaveIssued], the code may
// be spent and what it was for lost.
func (c *Client) PermanentCode(ctx context.Context, suiteToken, code secret.String) (Authorization, error) {
	req, err := suiteCall("get_permanent_code", suiteToken, struct {
		Code string `json:"auth_code"`
	}{code.Reveal()}, code)
	if err != nil {
		return Authorization{}, err
	}
	a, err := c.do(ctx, req)
	if err != nil {
		return Authorization{}, err
	}
	auth, err := a.installation()
	if err != nil {
		return Authorization{}, req.unreadable(err.Error())
	}
	return auth, nil
}

// installation reads the answer to an auth_code.
func (a answer) installation() (Authorization, error) {
	corpInfo, err := object(a.fields, "auth_corp_info")
	if err != nil {
		return Authorization{}, err
	}
	id, err := text(corpInfo, "corpid")
	if err == nil && id == "" {
		err = errors.New("the answer has no corpid")
	}
	if err != nil {
		return Authorization{}, err
	}
	code, err := text(a.fields, "permanent_code")
	if err == nil && code == "" {
		err = errors.New("the answer has no permanent_code")
	}
	if err != nil {
		return Authorization{}, err
	}
	return Authorization{Authorizer: id, Secret: secret.New(code), Info: a.details(), Date: a.date}, nil
}

// details are the members of an answer that describe an installation, as an object. They are listed
// here, so that no secret is among them which WeCom may add.
func (a answer) details() json.RawMessage {
	known := map[string]json.RawMessage{}
	for _, name := range []string{"auth_corp_info", "auth_info", "auth_user_info", "dealer_corp_info", "edition_info", "register_code_info", "state"} {
		if value := raw(a.fields, name); value != nil {
			known[name] = value
		}
	}
	object, err := json.Marshal(known)
	if err != nil {
		return nil // cannot be: they were decoded
	}
	return object
}

// InfoCall is a form of [Client.CorpInfo].
type InfoCall string

// The forms. The newer one is faster, and leaves out what some of its users do not need [T].
const (
	CorpInfoFull  InfoCall = "get_auth_info"
	CorpInfoShort InfoCall = "v2/get_auth_info"
)

// CorpInfo returns what WeCom says of the installation of a suite, as [Authorization] has it in Info,
// with POST /cgi-bin/service/get_auth_info or /cgi-bin/service/v2/get_auth_info.
func (c *Client) CorpInfo(ctx context.Context, call InfoCall, suiteToken secret.String, corpid string, permanentCode secret.String) (json.RawMessage, error) {
	req, err := suiteCall(string(call), suiteToken, struct {
		CorpID string `json:"auth_corpid"`
		Code   string `json:"permanent_code"`
	}{corpid, permanentCode.Reveal()}, permanentCode)
	if err != nil {
		return nil, err
	}
	a, err := c.do(ctx, req)
	if err != nil {
		return nil, err
	}
	return a.details(), nil
}

// CorpTokenBySuite fetches the token of a corp that installed a suite, with POST
// /cgi-bin/service/get_corp_token. For an app developed on behalf of a corp, the permanent code is
// the secret of [Client.CorpToken] instead [T].
func (c *Client) CorpTokenBySuite(ctx context.Context, suiteToken secret.String, corpid string, permanentCode secret.String) (Credential, error) {
	req, err := suiteCall("get_corp_token", suiteToken, struct {
		CorpID string `json:"auth_corpid"`
		Code   string `json:"permanent_code"`
	}{corpid, permanentCode.Reveal()}, permanentCode)
	if err != nil {
		return Credential{}, err
	}
	return c.credential(ctx, "access_token", req)
}

// suiteCall is a call of /cgi-bin/service with the suite's token.
func suiteCall(name string, suiteToken secret.String, body any, secrets ...secret.String) (request, error) {
	req, err := post(APISuite, "/cgi-bin/service/"+name, body, append(secrets, suiteToken)...)
	req.query = url.Values{"suite_access_token": {suiteToken.Reveal()}}
	req.limit = maxDetails
	return req, err
}
