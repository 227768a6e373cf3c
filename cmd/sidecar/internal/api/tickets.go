package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// v1Tickets is the part of the face /v1 that is about tickets.
func (h *handler) v1Tickets(m *web.Mux) {
	m.Handle(http.MethodGet, "/v1/apps/{app}/tickets/{ticket}", endpoint(h, ticketName, h.ticket).byPath)
	m.Handle(http.MethodPost, "/v1/apps/{app}/jssdk", endpoint(h, readSign, h.sign).byPath)
}

func ticketName(_ context.Context, _ http.ResponseWriter, r *http.Request) (string, error) {
	return r.PathValue("ticket"), nil
}

// ticket returns a ticket of the app with this access token.
func (h *handler) ticket(ctx context.Context, token tokencache.Key, name string) (ticketAnswer, error) {
	t, err := h.readTicket(ctx, token, name)
	return ticketAnswer{t}, err
}

func (h *handler) readTicket(ctx context.Context, token tokencache.Key, name string) (tokencache.Token, error) {
	app := h.apps().ByKey(token)
	if app == nil {
		return tokencache.Token{}, web.UnknownApp() // the configuration has just changed
	}
	key, ok := app.Ticket(name)
	if !ok {
		return tokencache.Token{}, noSuchTicket(app.Platform)
	}
	return h.read(ctx, key, 0)
}

// noSuchTicket says which tickets there are.
func noSuchTicket(p apps.Platform) *web.Problem {
	return &web.Problem{Kind: "no-such-ticket", Status: http.StatusNotFound, Title: "The app has no such ticket",
		Detail: "The tickets of this platform are " + strings.Join(ticketTypes[p], " and ") + "."}
}

// ticketAnswer is the answer with a ticket.
type ticketAnswer struct{ tokencache.Token }

func (a ticketAnswer) AppendBody(buf []byte, f web.Format) ([]byte, []string) {
	if f == web.FormatText {
		return append(buf, a.Value.Reveal()...), web.TypeText
	}
	buf = append(buf, `{"ticket":`...)
	buf = web.AppendString(buf, a.Value.Reveal())
	buf = appendLife(buf, a.Token)
	return append(buf, "}\n"...), web.TypeJSON
}

const (
	// maxPages is how many pages one call can have signed.
	maxPages = 100
	// maxURL bounds the address of a page, in bytes.
	maxURL = 4096
	// maxSignBody has room for both, and for some escapes.
	maxSignBody = maxPages*maxURL + 64<<10
)

// signRequest is what to sign: pages with a ticket.
type signRequest struct {
	ticket string
	urls   []string
	shape  signShape
}

// signShape is how the signatures go back.
type signShape int

const (
	onePage signShape = iota // an object
	pages                    // a list of them, in the order of the pages
)

// readSign reads {"url"} or {"urls"}. Its errors repeat nothing of the body.
func readSign(ctx context.Context, w http.ResponseWriter, r *http.Request) (signRequest, error) {
	var in struct {
		URL    *string  `json:"url"`
		URLs   []string `json:"urls"`
		Ticket string   `json:"ticket"`
	}
	if err := readJSON(ctx, w, r, maxSignBody, &in); err != nil {
		return signRequest{}, err
	}
	req := signRequest{ticket: first(in.Ticket, ticketJSAPI), urls: in.URLs, shape: pages}
	switch {
	case in.URL != nil && in.URLs != nil, in.URL == nil && len(in.URLs) == 0, len(in.URLs) > maxPages:
		return signRequest{}, web.BadRequest(`The body is {"url": the address of the page} or {"urls": [1 to ` + strconv.Itoa(maxPages) + ` of them]}.`)
	case req.ticket != ticketJSAPI && req.ticket != ticketAgentConfig:
		return signRequest{}, web.BadRequest("Pages are signed with the ticket jsapi, which is the default, or agent_config.")
	case in.URL != nil:
		req.urls, req.shape = []string{*in.URL}, onePage
	}
	for i, u := range req.urls {
		if !isPage(u) {
			return signRequest{}, web.BadRequest("Page " + strconv.Itoa(i+1) + " is not an address as the browser's location.href has it: http or https, a host, no space, no broken character, at most " + strconv.Itoa(maxURL) + " bytes.")
		}
	}
	return req, nil
}

// isPage reports whether u can be the address of a page. Package net/url is not asked: it refuses
// addresses that browsers show, and the bytes are signed as they are.
func isPage(u string) bool {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") || len(u) > maxURL {
		return false
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	// U+FFFD is what a decoder made of something that is no character: the page has another
	// address.
	return rest != "" && !strings.ContainsFunc(u, func(c rune) bool { return c <= ' ' || c == 0x7f || c == utf8.RuneError })
}

// sign signs pages for the app with this access token.
func (h *handler) sign(ctx context.Context, token tokencache.Key, in signRequest) (signatures, error) {
	ticket, err := h.readTicket(ctx, token, in.ticket)
	if err != nil {
		return signatures{}, err
	}
	app := h.apps().ByKey(token)
	if app == nil {
		return signatures{}, web.UnknownApp()
	}
	out := signatures{shape: in.shape, list: make([]any, len(in.urls))}
	for i, u := range in.urls {
		s := signPage(app.ID, ticket.Value, rand.Text()[:16], time.Now().Unix(), u)
		out.list[i] = s
		if in.ticket == ticketAgentConfig {
			out.list[i] = agentSignature{CorpID: s.AppID, AgentID: app.Agent, Timestamp: s.Timestamp, NonceStr: s.NonceStr, Signature: s.Signature}
		}
	}
	return out, nil
}

// signature is what wx.config wants.
type signature struct {
	AppID     string `json:"appId"`
	Timestamp int64  `json:"timestamp"`
	NonceStr  string `json:"nonceStr"`
	Signature string `json:"signature"`
}

// agentSignature is what wx.agentConfig wants.
type agentSignature struct {
	CorpID    string `json:"corpid"`
	AgentID   string `json:"agentid"`
	Timestamp int64  `json:"timestamp"`
	NonceStr  string `json:"nonceStr"`
	Signature string `json:"signature"`
}

func signPage(appID string, ticket secret.String, nonce string, timestamp int64, page string) signature {
	return signature{AppID: appID, Timestamp: timestamp, NonceStr: nonce, Signature: wechat.Sign(ticket, nonce, timestamp, page)}
}

// signatures is the answer with signatures.
type signatures struct {
	shape signShape
	list  []any // signature or agentSignature
}

func (a signatures) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	var v any = a.list
	if a.shape == onePage {
		v = a.list[0]
	}
	body, err := json.Marshal(v)
	if err != nil {
		return buf, web.TypeJSON // cannot be: strings and numbers
	}
	return append(append(buf, body...), '\n'), web.TypeJSON
}
