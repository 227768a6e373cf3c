package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// v1Tickets is the part of the face /v1 that is about tickets.
func (h *handler) v1Tickets(m *web.Mux) {
	m.Handle(http.MethodGet, "/v1/apps/{app}/tickets/{ticket}", endpoint(h, ticketName, h.ticket))
	m.Handle(http.MethodPost, "/v1/apps/{app}/jssdk", endpoint(h, readSign, h.sign))
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
	key, ok := app.Tickets[name]
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
	buf = appendLife(buf, a.Token, time.Now())
	return append(buf, "}\n"...), web.TypeJSON
}
