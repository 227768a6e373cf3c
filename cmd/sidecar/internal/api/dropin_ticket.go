package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
)

// The tickets that each platform has.
var ticketTypes = map[apps.Platform][]string{
	apps.WeChat: {ticketJSAPI, ticketCard},
	apps.WeCom:  {ticketJSAPI, ticketAgentConfig},
}

// WeChat's names of the tickets.
const (
	ticketJSAPI       = "jsapi"
	ticketCard        = "wx_card"
	ticketAgentConfig = "agent_config"
)

// dropInTicket understands the paths that hand out tickets.
func (h *handler) dropInTicket(ctx context.Context, w http.ResponseWriter, r *http.Request) (wanted, error) {
	q, err := parameters(ctx, w, r)
	if err != nil {
		return wanted{}, err
	}
	platform, name := dropInPlatform[r.URL.Path], q.Get("type")
	if r.URL.Path == pathCorpJSAPI {
		name = ticketJSAPI
	}
	app, err := h.ticketApp(namedBy(ctx), platform, q, r.Header.Get(headerApp)) // WeChat looks at the token before the rest
	if err != nil {
		return wanted{}, err
	}
	if key, ok := app.Ticket(name); ok {
		return wanted{key: key, field: fieldTicket}, nil
	}
	// A code that says that the token is fine, so that no SDK fetches another one because of it.
	return wanted{}, refusal("no-such-ticket", 47001, "data format error", "there is no ticket of this type")
}

// ticketApp returns the app whose ticket is meant: the one that the path names, if it does. Else,
// in this order: the appid of the query; the token of the query, if it is a current or lately
// replaced token of a configured app; the header X-Wxtoken-App; the only app that it can be. That
// is how the proxy finds the app, too.
func (h *handler) ticketApp(named *apps.App, platform apps.Platform, q url.Values, header string) (*apps.App, error) {
	apps := h.apps()
	sent := secret.New(q.Get("access_token"))
	owner := apps.Owner(h.cache, platform, sent)
	app := owner
	if named != nil && named.IsThirdParty() {
		if owner == nil || !named.HasAccount(owner) {
			return nil, badToken(platform, sent)
		}
		return owner, nil
	}
	if named != nil {
		if named.Platform != platform {
			return nil, otherApp("invalid appid")
		}
		if id := q.Get("appid"); id != "" {
			if other := apps.Find(platform, id); other == nil || other.Key != named.Key {
				return nil, otherApp("invalid appid")
			}
		}
		if named.RequireSecret && named != owner {
			return nil, badToken(platform, sent)
		}
		return named, nil
	}
	if name := q.Get("appid"); name != "" {
		// A call that names an account must not be answered as another one.
		if app = apps.Find(platform, name); app == nil {
			return nil, refusal("unknown-app", 40013, "invalid appid", "no app of this platform with this appid is configured in the sidecar")
		}
	}
	if app == nil {
		app = apps.Find(platform, header)
	}
	if app == nil {
		app = apps.Only(platform)
	}
	// Where a secret is demanded for a token, a token is demanded for a ticket.
	if app == nil || app.RequireSecret && app != owner {
		return nil, badToken(platform, sent)
	}
	return app, nil
}

// badToken is what the platforms say of a token that they do not know.
func badToken(platform apps.Platform, sent secret.String) *web.Problem {
	const hint = "not a current or lately replaced token of an app that is configured in the sidecar; appid in the query or the header X-Wxtoken-App names one, unless it has require_secret"
	switch {
	case sent.Empty():
		return refusal("unknown-token", 41001, "access_token missing", hint)
	case platform == apps.WeCom:
		return refusal("unknown-token", 40014, "invalid access_token", hint)
	}
	return refusal("unknown-token", 40001, "invalid credential, access_token is invalid or not latest", hint)
}
