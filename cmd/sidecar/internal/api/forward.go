package api

import (
	"net/http"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

// forward is the face of calls that go on to WeChat. They have no budget here: an upload may take
// its time, and the proxy watches over it.
func (h *handler) forward(m *web.Mux) {
	m.Handle(web.AnyMethod, "/proxy/", h.forwarding(h.opts.Proxy))
	m.Handle(web.AnyMethod, "/v1/", m.Rest) // never WeChat's
	m.Rest = h.forwarding(h.opts.Plain)
}

func (h *handler) forwarding(to http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.authorized(r) {
			h.fail(w, r, web.Unauthorized())
			return
		}
		// An SDK with its base URL under /proxy/{app} that fetches tokens by itself must get the
		// sidecar's, and not make WeChat end it.
		if app, path, is := tokenPath(r.URL.Path); is && h.opts.Apps != nil {
			inner := r.Clone(r.Context())
			inner.URL.Path, inner.URL.RawPath = path, ""
			inner.Header.Set(headerApp, app)
			h.mux.ServeHTTP(w, inner)
			return
		}
		err := h.wait(&h.forwarded, func() error {
			to.ServeHTTP(w, r)
			return nil
		})
		if err != nil {
			h.fail(w, r, err)
		}
	}
}

// headerApp names the app of a call by its id or alias.
const headerApp = "X-Wxtoken-App"

// tokenPath takes a path below /proxy/{app} apart, if it is the drop-in path of a token.
func tokenPath(path string) (app, dropIn string, is bool) {
	rest, below := strings.CutPrefix(path, "/proxy/")
	app, rest, _ = strings.Cut(rest, "/")
	switch dropIn = dropInPath("/" + rest); dropIn {
	case pathToken, pathStable, pathCorpToken:
		return app, dropIn, below
	}
	return "", "", false
}
