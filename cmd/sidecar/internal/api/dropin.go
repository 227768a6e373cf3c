package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/dropin"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// The paths of WeChat and WeCom that are answered here, so that an SDK needs only another base URL.
const (
	pathToken      = "/cgi-bin/token"
	pathStable     = "/cgi-bin/stable_token"
	pathTicket     = "/cgi-bin/ticket/getticket"
	pathCorpToken  = "/cgi-bin/gettoken"
	pathCorpJSAPI  = "/cgi-bin/get_jsapi_ticket"
	pathCorpTicket = "/cgi-bin/ticket/get"
)

// accountPlatform says whose words each of these paths speaks.
var accountPlatform = map[string]apps.Platform{
	pathToken: apps.WeChat, pathStable: apps.WeChat, pathTicket: apps.WeChat,
	pathCorpToken: apps.WeCom, pathCorpJSAPI: apps.WeCom, pathCorpTicket: apps.WeCom,
}

// dropInPlatform is accountPlatform for all drop-in paths, those of third-party platforms included.
// It is not changed.
var dropInPlatform = func() map[string]apps.Platform {
	all := maps.Clone(dropin.Paths)
	maps.Copy(all, accountPlatform)
	return all
}()

// SDKs subtract a reserve from expires_in, and break, or ask each time, if nothing is left: up to
// 1500 s where WeChat gives a new token whenever it is asked, up to 300 s where it does so in the
// last 5 minutes only. expires_in is rounded down, hence a second more.
const (
	leastClassic = 1501 * time.Second
	leastStable  = 301 * time.Second
)

const (
	// A value with less life than shortest is over before its caller can use it.
	shortest = 2 * time.Second
	// saidInDoubt is the least life that is reported of a value in doubt. Such a value may have no
	// certain life left, and mostly works. SDKs take a minute or less for an error, or ask again at
	// each call.
	saidInDoubt = 61 * time.Second
)

// dropIn registers the paths for SDKs, which take this listener for WeChat.
func (h *handler) dropIn(m *web.Mux) {
	m.Handle(http.MethodGet, pathToken, h.asWeChat(h.classicToken))
	m.Handle(http.MethodPost, pathToken, h.asWeChat(h.classicToken))
	m.Handle(web.AnyMethod, pathStable, h.asWeChat(h.stableToken))
	for path, decode := range map[string]func(context.Context, http.ResponseWriter, *http.Request) (wanted, error){
		pathTicket: h.dropInTicket, pathCorpToken: h.corpToken, pathCorpJSAPI: h.dropInTicket, pathCorpTicket: h.dropInTicket,
	} {
		m.Handle(http.MethodGet, path, h.asWeChat(decode))
		m.Handle(http.MethodPost, path, h.asWeChat(decode)) // as some SDKs do, and WeChat takes
	}
	for path := range dropin.Paths {
		m.Handle(web.AnyMethod, path, h.asPlatform)
	}
}

// asPlatform serves the calls with which an SDK of a third-party platform gets its tokens. Where no
// platform is configured they are WeChat's.
func (h *handler) asPlatform(w http.ResponseWriter, r *http.Request) {
	if h.opts.Platform == nil || !h.apps().HasThirdParties() {
		h.mux.Rest(w, r)
		return
	}
	if !h.authorized(r) {
		h.fail(w, r, web.Unauthorized())
		return
	}
	if r.Method != http.MethodPost {
		h.fail(w, r, refusal("bad-request", 43002, "require POST method", "the parameters are a JSON body"))
		return
	}
	ctx, cancel := h.budget(r.Context())
	defer cancel()
	body, err := understand(h, ctx, w, r, readDropIn)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answer, err := dropin.Server{Apps: h.apps(), Cache: h.cache, Platform: h.opts.Platform, Obtain: h.obtainForPlatform}.Answer(ctx,
		dropin.Call{Path: r.URL.Path, Named: namedBy(ctx), Name: r.Header.Get(headerApp), Query: r.URL.Query(), Body: body})
	if no, ok := errors.AsType[*dropin.Refusal](err); ok {
		err = refusal("refused", no.Errcode, no.Text, no.Hint)
	}
	if err != nil {
		h.noValue(r, tokencache.Key{}, err)
		h.fail(w, r, err)
		return
	}
	web.Write(w, r, http.StatusOK, said{dropInPlatform[r.URL.Path], answer})
}

// obtainForPlatform returns a value with the life to report to an SDK.
func (h *handler) obtainForPlatform(ctx context.Context, k tokencache.Key) (tokencache.Token, error) {
	t, err := h.obtain(ctx, wanted{key: k, least: leastClassic})
	t.ExpiresIn = lifeToSay(t)
	return t, err
}

// said is an answer that is written already.
type said struct {
	platform apps.Platform
	body     []byte
}

func (a said) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	return append(buf, a.body...), typeWeChat[a.platform]
}

// dropInPath returns the drop-in path that a path means: WeChat takes a slash at the end, and upper
// case must not lead a caller's secret past the drop-in to WeChat, where it would end the shared
// token. "" if it is none.
func dropInPath(path string) string {
	if strings.HasPrefix(path, "/v1/") {
		return "" // which most calls ask for
	}
	path = strings.ToLower(strings.TrimRight(path, "/"))
	if _, ok := dropInPlatform[path]; ok {
		return path
	}
	return ""
}

// asWeChatReads returns the request with its path as WeChat reads it: several slashes are one.
func asWeChatReads(r *http.Request) *http.Request {
	path := collapse(r.URL.Path)
	if dropIn := dropInPath(path); dropIn != "" {
		path = dropIn
	}
	if path == r.URL.Path {
		return r
	}
	read := new(http.Request)
	*read = *r
	u := *r.URL
	u.Path, u.RawPath = path, collapse(r.URL.RawPath)
	if dropInPath(path) != "" {
		u.RawPath = ""
	}
	read.URL = &u
	return read
}

// collapse makes one slash of several.
func collapse(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// wanted is what a call of a drop-in path asks for.
type wanted struct {
	key   tokencache.Key
	field string        // of the answer that holds the value
	least time.Duration // how much life the value should have
	// force is set if the caller takes the present value for a bad one.
	force bool
}

// asWeChat makes one endpoint of the face. decode finds out what is wanted, or returns a refusal.
func (h *handler) asWeChat(decode func(context.Context, http.ResponseWriter, *http.Request) (wanted, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !h.authorized(r) {
			h.fail(w, r, web.Unauthorized())
			return
		}
		ctx, cancel := h.bodyBudget(r)
		defer cancel()
		want, err := understand(h, ctx, w, r, decode)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		token, err := h.obtain(ctx, want)
		if err != nil {
			h.noValue(r, want.key, err)
			h.fail(w, r, err)
			return
		}
		web.Write(w, r, http.StatusOK, issued{platform: dropInPlatform[r.URL.Path], field: want.field, token: token})
	}
}

// obtain returns the value to hand out.
//
// A forced refresh is a report of the present value: upstream is asked whether it rejects it, at
// most one replica replaces it, and only within the budget of reports. A value that works stays,
// because it is not the caller's alone; WeChat itself would replace it, and that of all other
// callers with it.
//
// A value that upstream rejects is not handed out: an SDK would call with it, be refused and ask
// again, without an end. /v1 hands it out as stale.
func (h *handler) obtain(ctx context.Context, want wanted) (tokencache.Token, error) {
	t, err := h.read(ctx, want.key, want.least)
	if err == nil && want.force {
		t, err = h.replace(ctx, want.key, t.Value)
	}
	switch {
	case err == nil && t.Rejected && t.Stale:
		err = t.Err
	case err == nil && !t.Stale && t.ExpiresIn < shortest:
		err = &tokencache.UnavailableError{Key: want.key, RetryAfter: shortest, Err: errEnds}
	}
	return t, err
}

// errEnds is why a value is not handed out any more.
var errEnds = errors.New("the value ends now, and upstream has given no other yet")

// issued is a value as WeChat hands it out: the same keys in the same order.
type issued struct {
	platform apps.Platform
	field    string
	token    tokencache.Token
}

// typeWeChat is how the platforms spell the type of their JSON ("encoding" is WeChat's own).
var typeWeChat = map[apps.Platform][]string{
	apps.WeChat: {"application/json; encoding=utf-8"},
	apps.WeCom:  {"application/json; charset=UTF-8"},
}

func (a issued) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	buf = append(buf, '{')
	if a.platform == apps.WeCom || a.field == fieldTicket {
		buf = append(buf, `"errcode":0,"errmsg":"ok",`...)
	}
	buf = append(buf, '"')
	buf = append(buf, a.field...)
	buf = append(buf, `":`...)
	buf = web.AppendString(buf, a.token.Value.Reveal())
	buf = append(buf, `,"expires_in":`...)
	buf = strconv.AppendInt(buf, int64(lifeToSay(a.token)/time.Second), 10)
	return append(buf, '}'), typeWeChat[a.platform]
}

// lifeToSay is the life to report to an SDK.
func lifeToSay(t tokencache.Token) time.Duration {
	if t.Stale {
		return max(t.ExpiresIn, saidInDoubt)
	}
	return t.ExpiresIn
}

// The fields that hold a value.
const (
	fieldToken  = "access_token"
	fieldTicket = "ticket"
)

// refusal is a problem with an errcode that WeChat itself would have given. text is WeChat's
// wording, and hint says what a person can do here. It has no rid: that names a request in WeChat's
// own log.
func refusal(kind string, errcode int, text, hint string) *web.Problem {
	return &web.Problem{Kind: kind, Status: http.StatusOK, Errcode: errcode, Detail: text + " (wxtoken: " + hint + ")"}
}

// wechatError is an error in WeChat's shape.
type wechatError struct {
	platform apps.Platform
	code     int
	text     string
}

func (e wechatError) AppendBody(buf []byte, _ web.Format) ([]byte, []string) {
	buf = append(buf, `{"errcode":`...)
	buf = strconv.AppendInt(buf, int64(e.code), 10)
	buf = append(buf, `,"errmsg":`...)
	buf = web.AppendString(buf, e.text)
	return append(buf, '}'), typeWeChat[e.platform]
}

// inWeChatsShape returns p as WeChat says it, and false for a path that is not WeChat's. status
// is 200, as WeChat's is, unless WeChat would not serve such a caller either.
func inWeChatsShape(p *web.Problem, path string) (e wechatError, status int, ok bool) {
	path = collapse(path)
	// All of WeChat's paths have two segments and more. One that leads nowhere here is none of
	// them.
	if strings.HasPrefix(path, "/v1/") || strings.Count(path, "/") < 2 || p.Kind == web.KindNotFound {
		return wechatError{}, 0, false
	}
	e, status = wechatError{platform: dropInPlatform[dropInPath(path)], code: p.Errcode, text: p.Detail}, http.StatusOK
	switch p.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
		status = p.Status
	}
	switch {
	case p.Status == http.StatusMethodNotAllowed && strings.Contains(p.Allow, http.MethodGet):
		e.code, e.text = 43001, "require GET method (wxtoken: "+p.Detail+")"
	case p.Status == http.StatusMethodNotAllowed:
		e.code, e.text = 43002, "require POST method (wxtoken: "+p.Detail+")"
	case status != http.StatusOK:
		e.code, e.text = -1, "system error (wxtoken: "+p.Detail+")"
	case p.Kind == web.KindLimited:
		e.code, e.text = 45009, "reach max api daily quota limit (wxtoken: "+p.Detail+")"
	case p.Status != http.StatusOK && e.code != 0 && rejectsToken(e.code):
		// WeChat says so of a wrong secret; here it would tell an SDK that its token is bad, and to
		// ask again.
		e.code = 40125
	case e.code == 0:
		e.code, e.text = -1, "system error (wxtoken: "+p.Detail+")"
	}
	return e, status, true
}
