package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// v1 is the face for programs written for this sidecar.
func (h *handler) v1(m *web.Mux) {
	m.Handle(http.MethodGet, "/v1/apps/{app}/token", endpoint(h, noInput, h.token))
	m.Handle(http.MethodPost, "/v1/apps/{app}/token/report", endpoint(h, readReport, h.report))
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

// readReport reads the body of a report. It ignores unknown keys. Its
// errors repeat nothing of the body.
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
