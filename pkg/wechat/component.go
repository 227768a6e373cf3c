package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// MaxAuthorizers is the most that [Client.AuthorizerList] can ask for at once; WeChat answers 40170
// to more [T].
const MaxAuthorizers = 500

// Authorization is what WeChat says about one authorisation of a third-party platform or a suite.
type Authorization struct {
	// Authorizer is the appid or the corpid that authorised. It is never empty.
	Authorizer string
	// Secret fetches the authorizer's tokens: the refresh token, or the permanent code of a suite.
	// A refresh token is empty if the account has no API permissions, or if WeChat leaves it out
	// [T]; an empty one never means that an earlier one is void. A permanent code is never empty.
	Secret secret.String
	// Info is JSON: func_info as WeChat sent it; of a suite an object with auth_corp_info, auth_info,
	// which has the agents, and the other members of the answer that describe the installation. Nil
	// if there is none. It has no secret.
	Info json.RawMessage
	// Date is when WeChat answered, by its own clock in whole seconds; zero if it did not say.
	Date time.Time
}

// ListedAuthorizer is one entry of [Client.AuthorizerList].
type ListedAuthorizer struct {
	// Authorizer is the appid. It is never empty.
	Authorizer string
	// RefreshToken is empty if the code of the authorisation was never exchanged [U].
	RefreshToken secret.String
	// AuthTime is when the account authorised, in Unix seconds by WeChat's clock; 0 if the list
	// does not say.
	AuthTime int64
}

// ComponentToken fetches the token of a third-party platform with POST
// /cgi-bin/component/api_component_token. ticket is the newest component_verify_ticket. Every
// success replaces the previous token, which works for 5 more minutes [U].
func (c *Client) ComponentToken(ctx context.Context, component string, appSecret, ticket secret.String) (Credential, error) {
	req, err := post(APIComponentToken, "/cgi-bin/component/api_component_token", struct {
		Component string `json:"component_appid"`
		Secret    string `json:"component_appsecret"`
		Ticket    string `json:"component_verify_ticket"`
	}{component, appSecret.Reveal(), ticket.Reveal()}, appSecret, ticket)
	if err != nil {
		return Credential{}, err
	}
	return c.credential(ctx, "component_access_token", req)
}

// StartPush asks WeChat to push component_verify_tickets again, with POST
// /cgi-bin/component/api_start_push_ticket. It needs no token. It is a success if they were never
// stopped, so it may be called as a check [T].
func (c *Client) StartPush(ctx context.Context, component string, appSecret secret.String) error {
	req, err := post(APIComponentToken, "/cgi-bin/component/api_start_push_ticket", struct {
		Component string `json:"component_appid"`
		Secret    string `json:"component_secret"` // not component_appsecret [T]
	}{component, appSecret.Reveal()}, appSecret)
	if err != nil {
		return err
	}
	a, err := c.do(ctx, req)
	if err != nil {
		return err
	}
	if _, ok := a.fields["errcode"]; !ok {
		return req.unreadable("the answer has no errcode")
	}
	return nil
}

// AuthorizerToken fetches the token of an account that authorised a third-party platform, with POST
// /cgi-bin/component/api_authorizer_token. Every success replaces the account's previous token;
// that it works for 5 more minutes is an assumption.
//
// The second result is the refresh token from now on. It can be another one than was given, which
// the caller has to keep before it uses the token; empty means that the given one stays.
func (c *Client) AuthorizerToken(ctx context.Context, componentToken secret.String, component, authorizer string, refreshToken secret.String) (Credential, secret.String, error) {
	req, err := componentCall("api_authorizer_token", componentToken, struct {
		Component    string `json:"component_appid"`
		Authorizer   string `json:"authorizer_appid"`
		RefreshToken string `json:"authorizer_refresh_token"`
	}{component, authorizer, refreshToken.Reveal()}, refreshToken)
	if err != nil {
		return Credential{}, secret.String{}, err
	}
	a, err := c.do(ctx, req)
	if err != nil {
		return Credential{}, secret.String{}, err
	}
	cred, err := a.credential("authorizer_access_token")
	if err != nil {
		return Credential{}, secret.String{}, req.unreadable(err.Error())
	}
	next, err := text(a.fields, "authorizer_refresh_token")
	if err != nil {
		return Credential{}, secret.String{}, req.unreadable(err.Error())
	}
	return cred, secret.New(next), nil
}

// QueryAuth exchanges an authorization_code, which works once, with POST
// /cgi-bin/component/api_query_auth. The access token that WeChat sends along is dropped: fetch one
// with [Client.AuthorizerToken].
//
// If the error says [Error.MayHaveIssued], the code may be spent; [Client.AuthorizerInfo] then has
// what the exchange would have returned.
func (c *Client) QueryAuth(ctx context.Context, componentToken secret.String, component string, code secret.String) (Authorization, error) {
	req, err := componentCall("api_query_auth", componentToken, struct {
		Component string `json:"component_appid"`
		Code      string `json:"authorization_code"`
	}{component, code.Reveal()}, code)
	if err != nil {
		return Authorization{}, err
	}
	return c.authorization(ctx, req)
}

// AuthorizerInfo returns what WeChat has about one authorisation, the refresh token included, with
// POST /cgi-bin/component/api_get_authorizer_info.
func (c *Client) AuthorizerInfo(ctx context.Context, componentToken secret.String, component, authorizer string) (Authorization, error) {
	req, err := componentCall("api_get_authorizer_info", componentToken, struct {
		Component  string `json:"component_appid"`
		Authorizer string `json:"authorizer_appid"`
	}{component, authorizer})
	if err != nil {
		return Authorization{}, err
	}
	auth, err := c.authorization(ctx, req)
	if err == nil && auth.Authorizer != authorizer {
		return Authorization{}, req.unreadable("the answer is about another authorizer")
	}
	return auth, err
}

// AuthorizerList returns how many accounts have authorised a third-party platform, and up to count
// of them from offset on, with POST /cgi-bin/component/api_get_authorizer_list. The set can change
// between two pages, and an entry that leaves it hides another one from the next page.
func (c *Client) AuthorizerList(ctx context.Context, componentToken secret.String, component string, offset, count int) (total int, page []ListedAuthorizer, err error) {
	req, err := componentCall("api_get_authorizer_list", componentToken, struct {
		Component string `json:"component_appid"`
		Offset    int    `json:"offset"`
		Count     int    `json:"count"`
	}{component, offset, count})
	switch {
	case err != nil:
		return 0, nil, err
	case offset < 0, count < 1, count > MaxAuthorizers:
		return 0, nil, req.refuse("WeChat has no such page of authorizers")
	}
	a, err := c.do(ctx, req)
	if err != nil {
		return 0, nil, err
	}
	total, page, err = a.authorizers()
	if err != nil {
		return 0, nil, req.unreadable(err.Error())
	}
	return total, page, nil
}

// authorizers reads a page of the list. A list that is absent is none: unlike an empty one, it can
// be another answer.
func (a answer) authorizers() (int, []ListedAuthorizer, error) {
	total, err := integer(a.fields["total_count"])
	if raw := a.fields["total_count"]; err != nil || raw == nil || total < 0 || total != int64(int32(total)) {
		return 0, nil, errors.New("the answer has no total_count")
	}
	var list []map[string]json.RawMessage
	if json.Unmarshal(a.fields["list"], &list) != nil || list == nil {
		return 0, nil, errors.New("the answer has no list")
	}
	page := make([]ListedAuthorizer, 0, len(list))
	for _, entry := range list {
		id, err := text(entry, "authorizer_appid")
		if err == nil && id == "" {
			err = errors.New("the list has an entry without authorizer_appid")
		}
		if err != nil {
			return 0, nil, err
		}
		refreshToken, err := text(entry, "refresh_token")
		if err != nil {
			return 0, nil, err
		}
		authTime, err := integer(entry["auth_time"])
		if err != nil {
			return 0, nil, errors.New("the list has an auth_time that is no number")
		}
		page = append(page, ListedAuthorizer{id, secret.New(refreshToken), authTime})
	}
	return int(total), page, nil
}

// authorization makes a call whose answer holds authorization_info.
func (c *Client) authorization(ctx context.Context, req request) (Authorization, error) {
	a, err := c.do(ctx, req)
	if err != nil {
		return Authorization{}, err
	}
	info, err := object(a.fields, "authorization_info")
	if err != nil {
		return Authorization{}, req.unreadable(err.Error())
	}
	id, err := text(info, "authorizer_appid")
	if err == nil && id == "" {
		err = errors.New("the answer has no authorizer_appid")
	}
	if err != nil {
		return Authorization{}, req.unreadable(err.Error())
	}
	refreshToken, err := text(info, "authorizer_refresh_token")
	if err != nil {
		return Authorization{}, req.unreadable(err.Error())
	}
	return Authorization{Authorizer: id, Secret: secret.New(refreshToken), Info: raw(info, "func_info"), Date: a.date}, nil
}

// componentCall is a call of /cgi-bin/component with the platform's token. Current pages name the
// parameter access_token, older ones and the SDKs component_access_token [T][SDK].
func componentCall(name string, componentToken secret.String, body any, secrets ...secret.String) (request, error) {
	req, err := post(APIComponent, "/cgi-bin/component/"+name, body, append(secrets, componentToken)...)
	req.query = url.Values{"component_access_token": {componentToken.Reveal()}}
	req.limit = maxDetails
	return req, err
}

// post is a call with a JSON body. It refuses an empty secret: WeChat's answer to one says that the
// secret is wrong, which would be taken for a withdrawal [U].
func post(api API, path string, body any, secrets ...secret.String) (request, error) {
	req := request{api: api, method: http.MethodPost, path: path, secrets: secrets}
	for _, s := range secrets {
		if s.Empty() {
			return req, req.refuse("a secret, token or code of the request is empty")
		}
	}
	var err error
	if req.body, err = json.Marshal(body); err != nil {
		return req, req.refuse("cannot encode the request")
	}
	return req, nil
}
