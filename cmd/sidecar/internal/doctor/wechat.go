package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/text"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

const baseNamed = "WECHAT_API_BASE (or api_base)"

// wechat looks at the way to each upstream, and then at what it says to each app.
func (e *examination) wechat(ctx context.Context) {
	for _, app := range e.cfg.Apps {
		if !e.answersAt(ctx, app.APIBase, app.Platform == config.PlatformWeCom) {
			e.skipped(appCheck(app), "not looked at: "+app.APIBase+" does not answer as WeChat does")
			continue
		}
		e.app(ctx, app)
	}
}

// answersAt reports whether WeChat, or WeCom, answers at a base. It is looked at once.
func (e *examination) answersAt(ctx context.Context, base string, weCom bool) bool {
	good, seen := e.answers[base]
	if !seen {
		app := config.App{APIBase: base}
		if weCom {
			app.Platform = config.PlatformWeCom
		}
		good = e.base(ctx, app)
		e.answers[base] = good
	}
	return good
}

func appCheck(app config.App) string {
	if app.Alias != "" {
		return "app " + app.Alias
	}
	return "app " + app.CredentialID()
}

// base reports whether WeChat answers at an app's base. It is asked what it answers without any
// credential: that the token is missing.
func (e *examination) base(ctx context.Context, app config.App) bool {
	u, err := url.Parse(app.APIBase)
	if err != nil {
		e.fail("wechat", "the API base is no URL", "correct "+baseNamed) // the configuration was checked
		return false
	}
	if conn := e.reach(ctx, "wechat", upstream(u)); conn == nil {
		return false
	} else {
		_ = conn.Close()
	}
	const check = "wechat answer"
	ctx, cancel := context.WithTimeout(ctx, wechat.DefaultTimeout)
	defer cancel()
	err = client(app).Probe(ctx, secret.String{}, probe(app))
	w, ok := errors.AsType[*wechat.Error](err)
	switch {
	case err == nil, ok && w.Code != 0:
		e.ok(check, app.APIBase+" answers as WeChat does")
		return true
	}
	e.fail(check, app.APIBase+" answers, but not as WeChat does: "+text.OneLine(err.Error()),
		"correct "+baseNamed+" (normally it is left out); or a proxy, gateway or captive portal on the way answers in WeChat's place: let it pass")
	return false
}

// upstream is the address that a call of u dials: itself, or the proxy that the environment names.
func upstream(u *url.URL) target {
	t := target{who: "WeChat", network: "tcp", named: baseNamed, plain: "write http:// for https:// in " + baseNamed + ", or make it speak TLS"}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		u, t.who, t.named = proxy, "the proxy", "HTTPS_PROXY, HTTP_PROXY or NO_PROXY"
		t.plain = "write http:// for https:// in " + t.named
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "https" {
		t.tls = &tls.Config{ServerName: u.Hostname()}
	}
	return t
}

func client(app config.App) *wechat.Client { return &wechat.Client{BaseURL: app.APIBase} }

func probe(app config.App) wechat.Probe {
	if app.Platform == config.PlatformWeCom {
		return wechat.ProbeCorpCallbackIP
	}
	return wechat.ProbeCallbackIP
}

// app asks WeChat what it says to the credentials: on stable_token by asking for the token, which
// comes back unchanged. On the other endpoints that could invalidate the present token, so the
// token in Redis is tried out instead.
func (e *examination) app(ctx context.Context, app config.App) {
	ctx, cancel := context.WithTimeout(ctx, wechat.DefaultTimeout)
	defer cancel()
	check := appCheck(app)
	if app.Endpoint == config.EndpointStable {
		cred, err := client(app).StableToken(ctx, app.ID, app.Secret, wechat.Normal)
		e.fetched(check, cred, err)
		return
	}
	token, err := e.standing(ctx, app)
	switch {
	case err == nil:
		e.secrets = append(e.secrets, token)
		e.tried(ctx, check, app, token)
	case !errors.Is(err, redis.Nil):
		e.skipped(check, "it is unknown whether Redis has a token, and fetching one from WeChat would invalidate it")
	case !e.opts.Fetch:
		e.skipped(check, "Redis has no token, and fetching one from WeChat invalidates any in use elsewhere: if there is none, use --fetch")
	case app.Platform == config.PlatformWeCom:
		cred, err := client(app).CorpToken(ctx, app.ID, app.Secret)
		e.fetched(check, cred, err)
	default:
		cred, err := client(app).Token(ctx, app.ID, app.Secret)
		e.fetched(check, cred, err)
	}
}

// standing returns the token in Redis; redis.Nil if there is none.
func (e *examination) standing(ctx context.Context, app config.App) (secret.String, error) {
	if e.rdb == nil {
		return secret.String{}, errors.New("no Redis to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	value, err := e.rdb.Get(ctx, e.valueKey(app)).Result()
	return secret.New(value), err
}

func (e *examination) fetched(check string, cred wechat.Credential, err error) {
	if err == nil {
		e.secrets = append(e.secrets, cred.Value)
		e.ok(check, "WeChat accepts id, secret and address; the token has "+cred.ExpiresIn.Round(time.Second).String()+" left")
		return
	}
	e.refused(check, err)
}

// tried tries out a token that is in use.
func (e *examination) tried(ctx context.Context, check string, app config.App, token secret.String) {
	err := client(app).Probe(ctx, token, probe(app))
	w, ok := errors.AsType[*wechat.Error](err)
	switch {
	case err == nil:
		e.ok(check, "WeChat accepts the token in Redis; the secret was not tried, because that would invalidate this token")
	case ok && w.Class() == wechat.ClassBadToken:
		e.fail(check, "WeChat rejects the token in Redis: "+says(w),
			"find out who else fetches tokens of this app and stop them; the next report by an app replaces this one")
	default:
		e.refused(check, err)
	}
}
