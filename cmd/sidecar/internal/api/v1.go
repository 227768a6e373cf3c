package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/vault"
)

// v1 is the face for programs written for this sidecar.
func (h *handler) v1(m *web.Mux) {
	h.readToken = endpoint(h, noInput, h.token)
	m.Handle(http.MethodGet, pathV1Token, h.readToken.byPath)
	m.Handle(http.MethodPost, "/v1/apps/{app}/token/report", endpoint(h, readReport, h.report).byPath)
}

const pathV1Token = "/v1/apps/{app}/token"

// readsToken reports whether r is GET [pathV1Token], and of which app, for what the guard lets pass.
func readsToken(r *http.Request) (app string, reads bool) {
	app, below := strings.CutPrefix(r.URL.Path, "/v1/apps/")
	app, reads = strings.CutSuffix(app, "/token")
	return app, below && reads && r.Method == http.MethodGet && !strings.Contains(app, "/")
}

// token returns the value to use now.
func (h *handler) token(ctx context.Context, k tokencache.Key, _ none) (tokenAnswer, error) {
	t, err := h.read(ctx, k, 0)
	return tokenAnswer{t}, err
}

// report passes on that upstream rejected a value, and returns the one to use instead.
func (h *handler) report(ctx context.Context, k tokencache.Key, rejected secret.String) (tokenAnswer, error) {
	t, err := h.replace(ctx, k, rejected)
	return tokenAnswer{t}, err
}

// tokenAnswer is the answer with an access token.
type tokenAnswer struct{ tokencache.Token }

func (a tokenAnswer) AppendBody(buf []byte, f web.Format) ([]byte, []string) {
	if f == web.FormatText {
		return append(buf, a.Value.Reveal()...), web.TypeText
	}
	buf = append(buf, `{"access_token":`...)
	buf = web.AppendString(buf, a.Value.Reveal())
	buf = appendLife(buf, a.Token)
	return append(buf, "}\n"...), web.TypeJSON
}

// appendLife appends what every answer with a value says about it.
func appendLife(buf []byte, t tokencache.Token) []byte {
	buf = append(buf, `,"expires_in":`...)
	buf = strconv.AppendInt(buf, int64(t.ExpiresIn/time.Second), 10)
	buf = append(buf, `,"expires_at":`...)
	buf = strconv.AppendInt(buf, t.ExpiresAt.Unix(), 10)
	buf = append(buf, `,"version":`...)
	buf = strconv.AppendInt(buf, t.Version, 10)
	buf = append(buf, `,"stale":`...)
	return strconv.AppendBool(buf, t.Stale)
}

// maxBody bounds the body of a call, where it is not a list.
const maxBody = 8 << 10

// readReport reads the body of a report. It ignores unknown keys. Its errors repeat nothing of the
// body.
func readReport(ctx context.Context, w http.ResponseWriter, r *http.Request) (secret.String, error) {
	var in struct {
		AccessToken string      `json:"access_token"`
		Errcode     json.Number `json:"errcode"` // a number, or one in quotes
	}
	if err := readJSON(ctx, w, r, maxBody, &in); err != nil {
		return secret.String{}, err
	}
	if in.AccessToken == "" {
		return secret.String{}, web.BadRequest(`access_token is missing: the body is {"access_token": the value that was rejected, "errcode": 40001}.`)
	}
	if code := in.Errcode.String(); code != "" {
		n, err := strconv.Atoi(code)
		if err != nil {
			return secret.String{}, web.BadRequest("errcode is not a whole number.")
		}
		if !rejectsToken(n) {
			return secret.String{}, &web.Problem{Kind: "not-about-the-token", Status: http.StatusBadRequest,
				Title: "This errcode is not about the token", Errcode: n,
				Detail: "Only 40001, 40014 and 42001 say that upstream rejects the token; a new one does not help against any other."}
		}
	}
	return secret.New(in.AccessToken), nil
}

// rejectsToken reports whether code is one with which upstream rejects a token, or 0 for no code.
func rejectsToken(code int) bool {
	switch code {
	case 0, 40001, 40014, 42001:
		return true
	}
	return false
}

// readJSON decodes a body of one JSON object into v, within the bounds of size and time.
func readJSON(ctx context.Context, w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := readBody(ctx, w, r, limit)
	if err != nil {
		return err
	}
	if !utf8.Valid(body) {
		return web.BadRequest("The body is not UTF-8.") // the decoder would put U+FFFD in the place of what it cannot read
	}
	if json.Unmarshal(body, v) != nil {
		return web.BadRequest("The body is not the JSON object that this path takes.")
	}
	return nil
}

// readBody reads a body of at most limit bytes, within the budget of the call.
func readBody(ctx context.Context, w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok {
		// A caller that does not finish its body holds a connection no longer than any other.
		_ = http.NewResponseController(w).SetReadDeadline(deadline)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, &web.Problem{Kind: "too-large", Status: http.StatusRequestEntityTooLarge, Title: "The body is too large",
				Detail: "A body has at most " + strconv.FormatInt(limit, 10) + " bytes."}
		}
		return nil, web.BadRequest("The body could not be read.")
	}
	return body, nil
}

// v1Platforms is the part of the face /v1 that is about third-party platforms and suites.
func (h *handler) v1Platforms(m *web.Mux) {
	if h.opts.Callback != nil {
		m.Handle(http.MethodGet, "/v1/apps/{app}/callback", h.ofPlatform(h.opts.Callback))
		m.Handle(http.MethodPost, "/v1/apps/{app}/callback", h.ofPlatform(h.opts.Callback))
	}
	m.Handle(http.MethodPost, "/v1/apps/{app}/authorizations", h.ofPlatform(h.answer(h.authorize)))
	m.Handle(http.MethodGet, "/v1/apps/{app}/authorizers", h.ofPlatform(h.answer(h.authorizers)))
}

// ofPlatform finds the platform that a path names.
func (h *handler) ofPlatform(serve func(http.ResponseWriter, *http.Request, *platform.Platform)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.authorized(r) {
			h.fail(w, r, web.Unauthorized())
			return
		}
		app := h.apps().Named(r.PathValue("app"))
		if app == nil || !app.HasAccounts() {
			h.fail(w, r, &web.Problem{Kind: "unknown-app", Status: http.StatusNotFound, Title: "No such platform",
				Detail: "No third-party platform or suite of this name is configured here: see platforms in the configuration of the sidecar."})
			return
		}
		p := h.opts.Platform(app.ID)
		if p == nil {
			h.fail(w, r, web.UnknownApp()) // the configuration has just changed
			return
		}
		serve(w, r, p)
	}
}

// answer makes a call of what returns an answer or an error.
func (h *handler) answer(call func(http.ResponseWriter, *http.Request, *platform.Platform) (web.Answer, error)) func(http.ResponseWriter, *http.Request, *platform.Platform) {
	return func(w http.ResponseWriter, r *http.Request, p *platform.Platform) {
		answer, err := call(w, r, p)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		web.Write(w, r, http.StatusOK, answer)
	}
}

func vaultProblem() error {
	return &web.Problem{Kind: "vault", Status: http.StatusServiceUnavailable, Title: "The vault does not answer",
		Detail: "Nothing was stored. A code can be sent again."}
}

func notAuthorized() error {
	return &web.Problem{Kind: "not-authorized", Status: http.StatusNotFound, Title: "The account has not authorised the platform",
		Detail: "No app of the configuration has this id or alias. The vault has no such account, and WeChat names none. If it has just authorised, send the code of the redirect to /v1/apps/{platform}/authorizations."}
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
	ctx, cancel = context.WithTimeout(ctx, platform.ExchangeTime)
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
	return web.JSON{V: answer}, nil
}

// How many accounts a list has: at most, and unless the caller says.
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
	return web.JSON{V: entries}, nil
}
