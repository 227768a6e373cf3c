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

const (
	// DefaultBaseURL serves official accounts, mini programs and most other kinds of app.
	DefaultBaseURL = "https://api.weixin.qq.com"
	// DefaultCorpBaseURL serves WeCom.
	DefaultCorpBaseURL = "https://qyapi.weixin.qq.com"
	// DefaultTimeout bounds a call whose context has no deadline. It covers everything from
	// looking up the name to the last byte of the answer.
	DefaultTimeout = 8 * time.Second
	// MaxExpiresIn is the longest life a [Credential] can have; a longer expires_in is cut to it.
	// WeChat says 7200 seconds and that it may change [T]; a month is beyond any plausible change,
	// and keeps a typing error upstream from becoming a token that is never renewed.
	MaxExpiresIn = 30 * 24 * time.Hour
)

// A Client calls WeChat. The zero value is ready for use. It is safe for concurrent use as long as
// its fields do not change.
//
// Every error of its methods is an [*Error].
type Client struct {
	// BaseURL is the scheme and host to call, with an optional path prefix, without a query.
	// Empty means [DefaultBaseURL], and [DefaultCorpBaseURL] for the methods that call WeCom.
	BaseURL string

	// HTTP makes the requests. Nil means a client of this package: no redirects, no reuse of
	// connections, proxy from the environment, 3 s each to connect and for the TLS handshake.
	//
	// Redirects are never followed, whatever the client says. Its transport should not share
	// connections with others: net/http silently sends a GET once more when a reused connection
	// breaks, and every GET of /cgi-bin/token replaces the token.
	HTTP *http.Client
}

// A Credential is a token or a ticket as WeChat issued it.
type Credential struct {
	// Value is 1 to 4096 printable ASCII characters without spaces. Tencent asks to reserve at
	// least 512 [T] and promises nothing else about the form.
	Value secret.String
	// ExpiresIn is the remaining life as WeChat stated it: a whole number of seconds, more than 0,
	// at most [MaxExpiresIn]. Count it from before the call.
	ExpiresIn time.Duration
}

// Mode says which token [Client.StableToken] asks for.
type Mode int

const (
	// Normal returns the current token; a new one only in the last 5 minutes of its life, when
	// both work [T].
	Normal Mode = iota
	// Forced replaces the current token, which becomes invalid. 20 a day, 30 seconds apart,
	// otherwise "no refresh" [T]; what the call then answers is not documented.
	Forced
)

// TicketType names a ticket. It is the value of the query parameter "type".
type TicketType string

const (
	// TicketJSAPI signs JS-SDK pages, on WeChat and WeCom.
	TicketJSAPI TicketType = "jsapi"
	// TicketWXCard signs card and coupon calls, on WeChat only.
	TicketWXCard TicketType = "wx_card"
	// TicketAgentConfig signs wx.agentConfig, on WeCom only.
	TicketAgentConfig TicketType = "agent_config"
)

// Token fetches an access token with GET /cgi-bin/token. Every success replaces the app's previous
// token of this endpoint; WeChat says that the replaced one works for 5 more minutes [T].
func (c *Client) Token(ctx context.Context, appid string, appSecret secret.String) (Credential, error) {
	return c.credential(ctx, "access_token", request{
		api: APIToken, method: http.MethodGet, path: "/cgi-bin/token",
		// The parameter table of the current page has a request body; its example and every SDK
		// use the query.
		query:   url.Values{"grant_type": {"client_credential"}, "appid": {appid}, "secret": {appSecret.Reveal()}},
		secrets: []secret.String{appSecret},
	})
}

// StableToken fetches an access token with POST /cgi-bin/stable_token. Its tokens and those of
// [Client.Token] do not affect each other [T].
func (c *Client) StableToken(ctx context.Context, appid string, appSecret secret.String, mode Mode) (Credential, error) {
	body, err := json.Marshal(struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh"`
	}{"client_credential", appid, appSecret.Reveal(), mode == Forced})
	req := request{
		api: APIToken, method: http.MethodPost, path: "/cgi-bin/stable_token",
		body: body, secrets: []secret.String{appSecret},
	}
	if err != nil {
		return Credential{}, req.refuse("cannot encode the request")
	}
	return c.credential(ctx, "access_token", req)
}

// CorpToken fetches an access token of one WeCom app with GET /cgi-bin/gettoken. Each app of a corp
// has its own secret and its own token [T]. Whether a repeated call returns the same token while it
// is valid is no longer documented.
func (c *Client) CorpToken(ctx context.Context, corpid string, corpSecret secret.String) (Credential, error) {
	return c.credential(ctx, "access_token", request{
		api: APICorpToken, method: http.MethodGet, path: "/cgi-bin/gettoken",
		query:   url.Values{"corpid": {corpid}, "corpsecret": {corpSecret.Reveal()}},
		secrets: []secret.String{corpSecret},
	})
}

// Ticket fetches a [TicketJSAPI] or [TicketWXCard] with GET /cgi-bin/ticket/getticket. It does not
// invalidate the previous ticket; the same one comes back, with 7200 for ExpiresIn whatever its
// age, until shortly before its end [U]. So a ticket must be asked for again well before ExpiresIn
// has passed.
func (c *Client) Ticket(ctx context.Context, token secret.String, t TicketType) (Credential, error) {
	req := request{
		api: APICall, method: http.MethodGet, path: "/cgi-bin/ticket/getticket",
		query:   url.Values{"access_token": {token.Reveal()}, "type": {string(t)}},
		secrets: []secret.String{token},
	}
	if t != TicketJSAPI && t != TicketWXCard {
		return Credential{}, req.refuse("WeChat has no ticket of this type")
	}
	return c.credential(ctx, "ticket", req)
}

// CorpTicket fetches a [TicketJSAPI] of the corp with GET /cgi-bin/get_jsapi_ticket, or a
// [TicketAgentConfig] of the app with GET /cgi-bin/ticket/get. WeCom allows 400 an hour for a corp
// and 100 for an app [T].
func (c *Client) CorpTicket(ctx context.Context, token secret.String, t TicketType) (Credential, error) {
	req := request{
		api: APICorpCall, method: http.MethodGet, path: "/cgi-bin/get_jsapi_ticket",
		query:   url.Values{"access_token": {token.Reveal()}},
		secrets: []secret.String{token},
	}
	switch t {
	case TicketJSAPI:
	case TicketAgentConfig:
		req.path = "/cgi-bin/ticket/get"
		req.query.Set("type", string(t))
	default:
		return Credential{}, req.refuse("WeCom has no ticket of this type")
	}
	return c.credential(ctx, "ticket", req)
}

// A Probe is a call that shows whether a token works. An answer holds for one moment and one of
// WeChat's servers: during an overlap, two calls can disagree [U].
type Probe int

const (
	// ProbeCallbackIP is GET /cgi-bin/getcallbackip: every kind of account and token may call it.
	ProbeCallbackIP Probe = iota
	// ProbeMenu is GET /cgi-bin/menu/get: official accounts only, 10 000 a day [T].
	ProbeMenu
	// ProbeCorpCallbackIP is GET /cgi-bin/getcallbackip on WeCom.
	ProbeCorpCallbackIP
)

// Probe asks WeChat whether token works. Nil means that WeChat accepted it; an [*Error] of
// [ClassBadToken], that WeChat rejected it; any other error, that the question is open.
func (c *Client) Probe(ctx context.Context, token secret.String, p Probe) error {
	req := request{
		api: APICall, method: http.MethodGet, path: "/cgi-bin/getcallbackip",
		query:   url.Values{"access_token": {token.Reveal()}},
		secrets: []secret.String{token},
	}
	// Neither endpoint sends an errcode with a success [T], so the field that makes it one has to
	// be there: an empty object from a gateway accepts nothing.
	field := "ip_list"
	switch p {
	case ProbeCallbackIP:
	case ProbeMenu:
		req.path, field = "/cgi-bin/menu/get", "menu"
	case ProbeCorpCallbackIP:
		req.api = APICorpCall
	default:
		return req.refuse("no such probe")
	}
	a, err := c.do(ctx, req)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok && acceptsToken(e.Code) {
			return nil
		}
		return err
	}
	if _, ok := a.fields[field]; !ok {
		return req.unreadable("the answer has no " + field)
	}
	return nil
}

// acceptsToken reports whether an errcode shows that the token was accepted: there is no menu
// (46003), or the account may not call this (48001) [T].
func acceptsToken(code int) bool { return code == 46003 || code == 48001 }

// credential makes a call whose answer holds a credential in the given field.
func (c *Client) credential(ctx context.Context, field string, req request) (Credential, error) {
	a, err := c.do(ctx, req)
	if err != nil {
		return Credential{}, err
	}
	cred, err := a.credential(field)
	if err != nil {
		return Credential{}, req.unreadable(err.Error())
	}
	return cred, nil
}
