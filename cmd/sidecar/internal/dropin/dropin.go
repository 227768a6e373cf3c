// Package dropin answers the calls with which an SDK of a third-party platform, a suite or a provider
// gets its tokens, in WeChat's shapes: the SDK needs only another base URL.
//
// The sidecar has the tickets and the secrets, so those that are sent are ignored. A refresh token or
// a permanent code that is sent is returned as it came, and [apps.Placeholder] is in its place where
// WeChat would return one: the vault's own never leave. A code is exchanged as package platform
// does, once in the cluster, and the answer says what WeChat said.
package dropin

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Server answers calls. It is for one call or many, and safe for concurrent use.
type Server struct {
	Apps  *apps.Set
	Cache *tokencache.Cache
	// Platform returns a platform by its id, or nil.
	Platform func(id string) *platform.Platform
	// Obtain returns a value to hand out, with the life to report to the caller.
	Obtain func(context.Context, tokencache.Key) (tokencache.Token, error)
}

// Call is one call.
type Call struct {
	Path  string    // one of Paths
	Named *apps.App // the app that the path before it names, or nil
	Name  string    // the header X-Wxtoken-App
	Query url.Values
	Body  []byte
}

// Refusal is an error with an errcode that WeChat itself would have given. Text is WeChat's wording,
// and Hint says what a person can do here. It repeats nothing of the call.
type Refusal struct {
	Errcode    int
	Text, Hint string
}

func (r *Refusal) Error() string { return "dropin: " + r.Text + ": " + r.Hint }

const (
	component = "/cgi-bin/component/"
	service   = "/cgi-bin/service/"
)

// Paths are the paths that are answered, and the platforms whose words each of them speaks. The map
// must not be changed.
var Paths = map[string]apps.Platform{
	component + "api_component_token": apps.WeChat, component + "api_authorizer_token": apps.WeChat,
	component + "api_query_auth": apps.WeChat, component + "api_start_push_ticket": apps.WeChat,
	service + "get_suite_token": apps.WeCom, service + "get_corp_token": apps.WeCom,
	service + "get_permanent_code": apps.WeCom, service + "v2/get_permanent_code": apps.WeCom,
	service + "get_auth_info": apps.WeCom, service + "v2/get_auth_info": apps.WeCom,
	service + "get_provider_token": apps.WeCom,
}

// Answer returns the answer to a call, as JSON. The error is a [*Refusal], the cache's, or that of the
// vault.
func (s Server) Answer(ctx context.Context, c Call) ([]byte, error) {
	r := request{Server: s, call: c}
	_ = json.Unmarshal(c.Body, &r.in) // what cannot be read is missing, and said to be
	serve := r.suite
	switch name := strings.TrimPrefix(c.Path, service); {
	case strings.HasPrefix(c.Path, component):
		serve = r.component
	case name == "get_provider_token":
		serve = r.provider
	}
	answer, err := serve(ctx)
	return answer, r.inWeChatsWords(err)
}

// request is a call that is served.
type request struct {
	Server
	call Call
	in   struct {
		Component    string `json:"component_appid"`
		Authorizer   string `json:"authorizer_appid"`
		RefreshToken string `json:"authorizer_refresh_token"`
		Code         string `json:"authorization_code"`
		Suite        string `json:"suite_id"`
		AuthCode     string `json:"auth_code"`
		AuthCorp     string `json:"auth_corpid"`
		Corp         string `json:"corpid"`
	}
	app      *apps.App // of the platform
	platform *platform.Platform
}

// find finds the platform of a call: the one that the path before it names, or as the set says.
// Another id than the platform's own is refused.
func (r *request) find(kind, id string) bool {
	app := r.call.Named
	if app == nil || app.TokenParam != kind {
		token := r.call.Query.Get(kind)
		if token == "" {
			token = r.call.Query.Get("access_token")
		}
		app = r.Apps.ThirdParty(kind, apps.Call{ID: id, Token: secret.New(token), Name: r.call.Name}, r.Cache)
	}
	if app == nil || id != "" && id != app.ID && id != app.Alias {
		return false
	}
	r.app, r.platform = app, r.Platform(app.ID)
	return r.platform != nil
}

// account returns the key of the token of an account.
func (r *request) account(id string) tokencache.Key {
	return tokencache.Key{App: apps.AccountName(r.app.Key.App, id), Kind: "access_token"}
}

// token appends a token to an answer, in a member of the given name, and its life.
func (r *request) token(ctx context.Context, answer *object, member string, key tokencache.Key) error {
	t, err := r.Obtain(ctx, key)
	if err != nil {
		return err
	}
	answer.text(member, t.Value.Reveal())
	answer.raw("expires_in", strconv.AppendInt(nil, int64(t.ExpiresIn/time.Second), 10))
	return nil
}

// exchange exchanges a code, and returns the id of the account and what the vault has of it.
func (r *request) exchange(ctx context.Context, code string) (id string, account platform.Authorization, err error) {
	wait, cancel := context.WithTimeout(ctx, platform.ExchangeTime)
	defer cancel()
	got, err := r.platform.Exchange(wait, secret.New(code))
	switch {
	case err != nil:
		return "", account, err
	case got.State == vault.StateLost:
		return "", account, errCode
	case got.State != vault.StateDone:
		return "", account, &Refusal{-1, "system error", "the exchange goes on: send the same code again"}
	}
	account, err = r.platform.Authorization(ctx, got.Authorizer)
	return got.Authorizer, account, err
}

// errCode says that WeChat does not accept a code.
var errCode = errors.New("WeChat does not accept the code")

// inWeChatsWords returns an error as WeChat says it, where it has a code for it.
func (r *request) inWeChatsWords(err error) error {
	code, withdrawn := 61009, &Refusal{61003, "component is not authorized by this account", notAuthorized}
	if Paths[r.call.Path] == apps.WeCom {
		code, withdrawn = 40078, &Refusal{40084, "invalid permanent_code", notAuthorized}
	}
	fetch, failed := errors.AsType[*tokencache.FetchError](err)
	said, answered := errors.AsType[*wechat.Error](err)
	switch {
	case errors.Is(err, errCode):
		return &Refusal{code, "code is invalid", "it has expired, or was exchanged before, by another program or without an answer"}
	case failed && fetch.Class == tokencache.ClassEnded, errors.Is(err, apps.ErrNotAuthorized):
		return withdrawn
	case !failed && answered && said.Code != 0:
		return &Refusal{said.Code, said.Message, "this is WeChat's answer"}
	}
	return err
}

const notAuthorized = "the account has not authorised this platform, has withdrawn that, or authorised no API permission"
