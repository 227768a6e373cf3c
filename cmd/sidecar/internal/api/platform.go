package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// v1Platforms is the part of the face /v1 that is about third-party platforms and suites.
func (h *handler) v1Platforms(m *web.Mux) {
	m.Handle(http.MethodGet, "/v1/apps/{app}/callback", h.ofPlatform(h.echo))
	m.Handle(http.MethodPost, "/v1/apps/{app}/callback", h.ofPlatform(h.push))
	m.Handle(http.MethodPost, "/v1/apps/{app}/authorizations", h.ofPlatform(h.authorize))
	m.Handle(http.MethodGet, "/v1/apps/{app}/authorizers", h.ofPlatform(h.authorizers))
}

// ofPlatform finds the platform that a path names.
func (h *handler) ofPlatform(serve func(http.ResponseWriter, *http.Request, *platform.Platform) (web.Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.authorized(r) {
			h.fail(w, r, web.Unauthorized())
			return
		}
		app := h.apps().Named(r.PathValue("app"))
		if app == nil || !app.IsThirdParty() {
			h.fail(w, r, &web.Problem{Kind: "unknown-app", Status: http.StatusNotFound, Title: "No such platform",
				Detail: "No third-party platform or suite of this name is configured here: see platforms in the configuration of the sidecar."})
			return
		}
		p := h.opts.Platform(app.ID)
		if p == nil {
			h.fail(w, r, web.UnknownApp()) // the configuration has just changed
			return
		}
		answer, err := serve(w, r, p)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		web.Write(w, r, http.StatusOK, answer)
	}
}

const (
	// pushTime is how long a push may take: WeCom waits 1 s for the answer to some.
	pushTime = 800 * time.Millisecond
	// exchangeTime is how long a caller waits for what becomes of a code.
	exchangeTime = 5 * time.Second
)

// echo answers the check of a callback's address.
func (h *handler) echo(_ http.ResponseWriter, r *http.Request, p *platform.Platform) (web.Answer, error) {
	text, err := p.Echo(r.URL.Query())
	if err != nil {
		return nil, forged(err)
	}
	return web.Text(text), nil
}

// push takes what WeChat has pushed to the app's own address, and answers what the app is to
// return.
func (h *handler) push(w http.ResponseWriter, r *http.Request, p *platform.Platform) (web.Answer, error) {
	ctx, cancel := h.budget(r.Context())
	defer cancel()
	body, err := readBody(ctx, w, r, wechat.MaxPush)
	if err != nil {
		return nil, err
	}
	ctx, cancel = context.WithTimeout(ctx, pushTime)
	defer cancel()
	got, err := p.Receive(ctx, r.URL.Query(), body)
	switch {
	case platform.IsForged(err):
		return nil, forged(err)
	case err != nil:
		return nil, vaultProblem()
	case !strings.Contains(r.Header.Get("Accept"), "application/json"):
		return web.Text("success"), nil
	}
	return jsonAnswer{map[string]any{"reply": "success", "info_type": got.InfoType, "authorizer": got.Authorizer, "order": got.Order, "event": string(got.Event)}}, nil
}

// forged refuses a push. The error holds nothing of it.
func forged(err error) error {
	return &web.Problem{Kind: "forged-push", Status: http.StatusForbidden, Title: "The push is not from WeChat, or not for this platform", Detail: err.Error()}
}

func vaultProblem() error {
	return &web.Problem{Kind: "vault", Status: http.StatusServiceUnavailable, Title: "The vault does not answer",
		Detail: "Nothing was stored. WeChat pushes again what is not answered by success; a code can be sent again."}
}

func notAuthorized() error {
	return &web.Problem{Kind: "not-authorized", Status: http.StatusNotFound, Title: "The account has not authorised the platform",
		Detail: "The vault has no such account, and WeChat names none. If it has just authorised, send the code of the redirect to /v1/apps/{platform}/authorizations."}
}

// authorize exchanges a code that came by the redirect of the browser.
func (h *handler) authorize(w http.ResponseWriter, r *http.Request, p *platform.Platform) (web.Answer, error) {
	ctx, cancel := h.budget(r.Context())
	defer cancel()
	var in struct {
		Code string `json:"code"`
	}
	if err := readJSON(ctx, w, r, maxBody, &in); err != nil {
		return nil, err
	}
	if in.Code == "" {
		return nil, web.BadRequest(`code is missing: the body is {"code": the auth_code of the redirect}.`)
	}
	ctx, cancel = context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	got, err := p.Exchange(ctx, secret.New(in.Code))
	switch {
	case err != nil:
		return nil, vaultProblem()
	case got.State == vault.StateLost:
		return nil, &web.Problem{Kind: "code-spent", Status: http.StatusGone, Title: "WeChat does not accept the code",
			Detail: "It has expired, or was exchanged before, by another program or without an answer: the account has to authorise again."}
	}
	answer := map[string]any{"state": got.State, "authorizer": got.Authorizer}
	if got.Authorizer != "" {
		answer["app"] = apps.AccountName(p.ID(), got.Authorizer)
	}
	return jsonAnswer{answer}, nil
}

const (
	mostListed = 1000
	listed     = 100
)

// authorizers lists the accounts that have authorised the platform.
func (h *handler) authorizers(_ http.ResponseWriter, r *http.Request, p *platform.Platform) (web.Answer, error) {
	ctx, cancel := h.budget(r.Context())
	defer cancel()
	n := listed
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > mostListed {
			return nil, web.BadRequest("limit is a whole number from 1 to " + strconv.Itoa(mostListed) + ".")
		}
	}
	list, err := p.Authorizers(ctx, r.URL.Query().Get("after"), n)
	if errors.Is(err, vault.ErrSealed) {
		return nil, &web.Problem{Kind: "vault", Status: http.StatusServiceUnavailable, Title: "The vault cannot be read", Detail: err.Error()}
	}
	if err != nil {
		return nil, vaultProblem()
	}
	type entry struct {
		Authorizer string      `json:"authorizer"`
		State      vault.State `json:"state"`
		Since      int64       `json:"since"` // Unix seconds, by WeChat's clock
		Rev        int64       `json:"rev"`
	}
	entries := make([]entry, len(list))
	for i, a := range list {
		entries[i] = entry{a.ID, a.State, a.Order, a.Rev}
	}
	return jsonAnswer{entries}, nil
}

// jsonAnswer is an answer that has one form.
type jsonAnswer struct{ v any }

func (a jsonAnswer) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	body, err := json.Marshal(a.v)
	if err != nil {
		return buf, web.TypeJSON // cannot be: texts and numbers
	}
	return append(append(buf, body...), '\n'), web.TypeJSON
}
