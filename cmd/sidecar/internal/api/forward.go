package api

import (
	"net/http"
	"strings"
)

// forward is the face of calls that go on to WeChat. They have no budget here: an upload may take its
// time, and the proxy watches over it.
func (h *handler) forward(m *mux) {
	m.handle(anyMethod, "/proxy/", h.forwarding(h.opts.Proxy))
	m.handle(anyMethod, "/v1/", m.rest) // never WeChat's
	m.rest = h.forwarding(h.opts.Plain)
}

func (h *handler) forwarding(to http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.authorized(r) {
			h.fail(w, r, unauthorized())
			return
		}
		// An SDK with its base URL under /proxy/{app} that fetches tokens by itself must get ours, and
		// not make WeChat end it.
		if path, is := tokenPath(r.URL.Path); is && h.opts.Apps != nil {
			inner := r.Clone(r.Context())
			inner.URL.Path, inner.URL.RawPath = path, ""
			h.mux.ServeHTTP(w, inner)
			return
		}
		to.ServeHTTP(w, r)
	}
}

// tokenPath returns the drop-in path of a token below /proxy/{app}.
func tokenPath(path string) (string, bool) {
	_, rest, _ := strings.Cut(strings.TrimPrefix(path, "/proxy/"), "/")
	switch rest = "/" + rest; rest {
	case pathToken, pathStable, pathCorpToken:
		return rest, strings.HasPrefix(path, "/proxy/")
	}
	return "", false
}
