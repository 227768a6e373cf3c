package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// credentials are the parameters of a call that asks for a token, of WeChat's two endpoints.
type credentials struct {
	GrantType    string `json:"grant_type"`
	AppID        string `json:"appid"`
	Secret       string `json:"secret"`
	ForceRefresh bool   `json:"force_refresh"`
}

// classicToken understands /cgi-bin/token. SDKs send the parameters in the query; Tencent's present
// page lists them as a body, so a form or a JSON object fills in what the query lacks.
func (h *handler) classicToken(ctx context.Context, w http.ResponseWriter, r *http.Request) (wanted, error) {
	q := r.URL.Query()
	in := credentials{GrantType: q.Get("grant_type"), AppID: q.Get("appid"), Secret: q.Get("secret")}
	if r.Method == http.MethodPost {
		body, err := readDropIn(ctx, w, r)
		if err != nil {
			return wanted{}, err
		}
		more := parseCredentials(body)
		in.GrantType = first(in.GrantType, more.GrantType)
		in.AppID = first(in.AppID, more.AppID)
		in.Secret = first(in.Secret, more.Secret)
	}
	app, err := h.admit(namedBy(ctx), in)
	if err != nil {
		return wanted{}, err
	}
	return wanted{key: app.Key, field: fieldToken, least: leastClassic}, nil
}

// stableToken understands /cgi-bin/stable_token, which takes a JSON body and nothing else.
func (h *handler) stableToken(ctx context.Context, w http.ResponseWriter, r *http.Request) (wanted, error) {
	if r.Method != http.MethodPost {
		return wanted{}, refusal("bad-request", 43002, "require POST method", "the parameters are a JSON body")
	}
	body, err := readDropIn(ctx, w, r)
	if err != nil {
		return wanted{}, err
	}
	var in credentials
	_ = json.Unmarshal(body, &in) // a body that is not JSON names no appid, as at WeChat
	app, err := h.admit(namedBy(ctx), in)
	if err != nil {
		return wanted{}, err
	}
	return wanted{key: app.Key, field: fieldToken, least: leastStable, force: in.ForceRefresh}, nil
}

// admit returns the app of a caller: the one that the path names, if it does, else that of the
// appid. It checks what WeChat checks, in WeChat's order, except that the secret may be anything
// unless the app demands it.
func (h *handler) admit(named *apps.App, in credentials) (*apps.App, error) {
	if in.AppID == "" && named == nil {
		return nil, refusal("bad-request", 41002, "appid missing", "no appid in the query, or for stable_token in a JSON body")
	}
	app := h.apps().Find(apps.WeChat, in.AppID)
	if in.AppID == "" && named.Platform == apps.WeChat {
		app = named
	}
	switch {
	case named != nil && named.IsThirdParty():
		return nil, refusal("bad-request", 61024, "must use api_component_token", "the path names a third-party platform: its token is at /cgi-bin/component/api_component_token")
	case named != nil && (app == nil || app.Key != named.Key):
		return nil, otherApp("invalid appid")
	case app == nil:
		return nil, refusal("unknown-app", 40013, "invalid appid", "no WeChat app with this appid is configured in the sidecar")
	case in.GrantType != "client_credential":
		return nil, refusal("bad-request", 40002, "invalid grant_type", "it is client_credential")
	case !app.RequireSecret:
		return app, nil
	case in.Secret == "":
		return nil, refusal("wrong-secret", 41004, "appsecret missing", "the configuration of the sidecar says require_secret for this app")
	case !app.Secret.Equal(secret.New(in.Secret)):
		return nil, refusal("wrong-secret", 40125, "invalid appsecret", "it is not the secret that the sidecar is configured with, which this app requires")
	}
	return app, nil
}

// corpToken understands WeCom's /cgi-bin/gettoken.
func (h *handler) corpToken(ctx context.Context, w http.ResponseWriter, r *http.Request) (wanted, error) {
	q, err := parameters(ctx, w, r)
	if err != nil {
		return wanted{}, err
	}
	app, err := h.admitCorp(namedBy(ctx), r.Header.Get(headerApp), q.Get("corpid"), secret.New(q.Get("corpsecret")))
	if err != nil {
		return wanted{}, err
	}
	return wanted{key: app.Key, field: fieldToken, least: leastClassic}, nil
}

// admitCorp returns the agent of a caller: the one that the call names by its path, or by the
// header X-Wxtoken-App; else the one whose secret it sent; or, whatever it sent, the only one of
// the corp. One that demands its secret is given for nothing else. WeCom looks at the secret first.
func (h *handler) admitCorp(named *apps.App, header, corpid string, sent secret.String) (*apps.App, error) {
	agents := h.apps().Agents(corpid)
	if named != nil && named.IsThirdParty() { // a template, whose apps of corps get their tokens here
		if named = h.apps().Find(apps.WeCom, apps.AccountName(named.Key.App, corpid)); named == nil {
			return nil, otherApp("invalid corpid")
		}
	}
	app := named
	if app == nil {
		app = h.apps().Find(apps.WeCom, header)
	}
	if app != nil {
		// The corpid must not be another's. A placeholder in its place, which is no corp here,
		// names none.
		if app.Platform != apps.WeCom || len(agents) > 0 && !slices.Contains(agents, app) && corpid != app.ID {
			return nil, otherApp("invalid corpid")
		}
		agents = []*apps.App{app}
	}
	var match *apps.App
	for _, a := range agents { // all of them, so that the time does not tell which one it was
		if a.Secret.Equal(sent) && !sent.Empty() {
			match = a
		}
	}
	switch {
	case match != nil:
		return match, nil
	case len(agents) == 1 && !agents[0].RequireSecret:
		return agents[0], nil
	case sent.Empty():
		return nil, refusal("wrong-secret", 41004, "corpsecret missing",
			"with an unknown corpid, with several agents of one corp, or with require_secret, the corpsecret decides")
	case len(agents) == 0:
		return nil, refusal("unknown-app", 40013, "invalid corpid", "no WeCom app with this corpid is configured in the sidecar")
	}
	return nil, refusal("wrong-secret", 40001, "invalid credential",
		"it is not the secret of an agent of this corp that the sidecar is configured with; corpid:agent or an alias as corpid names one, too")
}

// readDropIn reads the body of a call, within the bounds of size and time.
func readDropIn(ctx context.Context, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := readBody(ctx, w, r, maxBody)
	if p, ok := errors.AsType[*web.Problem](err); ok {
		if p.Kind == "too-large" {
			return nil, refusal(p.Kind, 45002, "content size out of limit", p.Detail)
		}
		return nil, refusal(p.Kind, 47001, "data format error", p.Detail)
	}
	return body, nil
}

// parseCredentials reads a body that is a JSON object or a form.
func parseCredentials(body []byte) credentials {
	var in credentials
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		_ = json.Unmarshal(body, &in) // what cannot be read is missing, and said to be
		return in
	}
	form, _ := url.ParseQuery(string(body)) // likewise
	return credentials{GrantType: form.Get("grant_type"), AppID: form.Get("appid"), Secret: form.Get("secret")}
}

// parameters are those of the query; of a POST, a form or a JSON object fills in what the query
// lacks.
func parameters(ctx context.Context, w http.ResponseWriter, r *http.Request) (url.Values, error) {
	q := r.URL.Query()
	if r.Method != http.MethodPost {
		return q, nil
	}
	body, err := readDropIn(ctx, w, r)
	if err != nil {
		return nil, err
	}
	more := url.Values{}
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		var object map[string]any
		_ = json.Unmarshal(body, &object) // what cannot be read is missing, and said to be
		for name, value := range object {
			if text, ok := value.(string); ok {
				more.Set(name, text)
			}
		}
	} else {
		more, _ = url.ParseQuery(string(body)) // likewise
	}
	for name := range more {
		if !q.Has(name) {
			q.Set(name, more.Get(name))
		}
	}
	return q, nil
}

// first returns a, or b if a is empty.
func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
