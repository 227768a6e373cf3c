package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
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
		// An SDK with its base URL under /proxy/{app} that fetches tokens and tickets by itself must
		// get the sidecar's, and not make WeChat end them.
		if name, path, is := namedDropIn(r.URL.Path); is && h.answers(path) {
			app := h.apps().Named(name)
			if app == nil {
				h.fail(w, r, noSuchApp())
				return
			}
			inner := r.Clone(context.WithValue(r.Context(), namedApp{}, app))
			inner.URL.Path, inner.URL.RawPath = path, ""
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

// answers reports whether the calls of a drop-in path are answered here. Those of third-party
// platforms are WeChat's where none is configured.
func (h *handler) answers(dropIn string) bool {
	_, ofAccounts := accountPlatform[dropIn]
	return h.opts.Apps != nil && (ofAccounts || h.opts.Platform != nil && h.apps().HasThirdParties())
}

// headerApp names the app of a call by its id or alias.
const headerApp = "X-Wxtoken-App"

// namedApp is the key, in the context of a call of a drop-in path, of the app that the path
// /proxy/{app} names: an *apps.App.
type namedApp struct{}

// namedBy returns the app that the path of a call names, or nil if the path names none.
func namedBy(ctx context.Context) *apps.App {
	app, _ := ctx.Value(namedApp{}).(*apps.App)
	return app
}

// namedDropIn takes a path below /proxy/{app} apart, if it is a drop-in path.
func namedDropIn(path string) (app, dropIn string, is bool) {
	rest, below := strings.CutPrefix(path, "/proxy/")
	app, rest, _ = strings.Cut(rest, "/")
	dropIn = dropInPath("/" + rest)
	return app, dropIn, below && dropIn != ""
}

func noSuchApp() *web.Problem {
	return refusal("unknown-app", 40013, "invalid appid", "no app of this name is configured: the base URL ends in /proxy/ and an id or alias of the configuration")
}

// otherApp is the answer to a call whose path names one app, and whose parameters another one.
func otherApp(text string) *web.Problem {
	return refusal("unknown-app", 40013, text, "the path names another app, or one of another platform")
}
