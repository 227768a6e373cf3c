package proxy

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/wxtoken/sidecar/pkg/secret"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// secretName returns the name of the parameter in which a call sends the AppSecret, or "" if it
// sends none. These are the calls that a program makes although it has no use for a token: the
// login of a mini program or of a web page, and the reset of a quota.
func secretName(api wechat.API, path string) string {
	if api != wechat.APICall {
		return ""
	}
	switch strings.ToLower(strings.TrimSuffix(path, "/")) {
	case "/sns/jscode2session", "/sns/oauth2/access_token":
		return "secret"
	case "/cgi-bin/clear_quota/v2": // documented with its parameters in the query and in the body
		return "appsecret"
	}
	return ""
}

// putSecret puts the AppSecret into a call that sends another one in its place, so that no program
// but the sidecar has it. The app is the one that the call's own appid names, or the path where no
// appid is sent. One that demands its secret from callers keeps it.
func (c *call) putSecret() {
	name := secretName(c.app.API(), c.path)
	if name == "" {
		return
	}
	id, ok := param(c.query, "appid")
	if !ok && c.named() && len(c.kept) == 0 {
		id = c.app.ID // which the path names
	}
	if ok || id != "" {
		sent, _ := param(c.query, name)
		if !c.wantsSecret(id, sent) {
			return
		}
		c.query = withParam(c.query, name, c.app.Secret)
		if !ok {
			c.query = withParam(c.query, "appid", secret.New(id))
		}
		return
	}
	if name != "appsecret" {
		return
	}
	if bytes.HasPrefix(bytes.TrimSpace(c.kept), []byte("{")) {
		var body map[string]json.RawMessage
		var id, sent string
		if json.Unmarshal(c.kept, &body) != nil || json.Unmarshal(body["appid"], &id) != nil {
			return // WeChat says what is wrong
		}
		_ = json.Unmarshal(body[name], &sent) // anything but a text stays as it was sent
		if c.wantsSecret(id, sent) {
			body[name], _ = json.Marshal(c.app.Secret.Reveal()) // a text is always JSON
			c.kept, _ = json.Marshal(body)
		}
		return
	}
	form, err := url.ParseQuery(string(c.kept))
	if err == nil && c.wantsSecret(form.Get("appid"), form.Get(name)) {
		form.Set(name, c.app.Secret.Reveal())
		c.kept = []byte(form.Encode())
	}
}

// wantsSecret reports whether the secret of the app with this appid takes the place of the one that
// was sent. If so, that is the app of the call, whose upstream alone gets it.
func (c *call) wantsSecret(id, sent string) bool {
	app := c.app
	if app.ID != id && !c.named() {
		app = c.p.apps().Account(id)
	}
	if app == nil || app.ID != id || app.Platform != apps.WeChat || app.RequireSecret || app.Secret.Empty() || app.Secret.Equal(secret.New(sent)) {
		return false
	}
	c.app, c.result.App, c.result.Secret = app, app.Key, true
	return true
}
