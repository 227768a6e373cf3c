package api

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

// No secret at all is never the right one, not even for an app that came without.
func TestNoSecretIsNeverTheRightOne(t *testing.T) {
	set := apps.New("",
		apps.App{Key: tokencache.Key{App: "wx1", Kind: "access_token"}, ID: "wx1", RequireSecret: true},
		apps.App{Key: tokencache.Key{App: "ww1:1", Kind: "access_token"}, ID: "ww1", Agent: "1", Platform: apps.WeCom, RequireSecret: true},
	)
	h := &handler{opts: Options{Apps: func() *apps.Set { return set }}}
	if app, err := h.admit(nil, credentials{GrantType: "client_credential", AppID: "wx1"}); err == nil {
		t.Errorf("%s was handed out", app.Key)
	}
	if app, err := h.admitCorp(nil, "", "ww1", secret.String{}); err == nil {
		t.Errorf("%s was handed out", app.Key)
	}
}

// A configuration may be missing for a moment; then there is no app.
func TestNoAppsIsNoPanic(t *testing.T) {
	for _, set := range []*apps.Set{nil, {}, apps.New("")} {
		h := &handler{opts: Options{Apps: func() *apps.Set { return set }}}
		if _, err := h.admit(nil, credentials{GrantType: "client_credential", AppID: "wx1"}); err == nil {
			t.Error("an app out of nothing")
		}
		if _, ok := set.Lookup("wx1"); ok {
			t.Error("an app out of nothing")
		}
	}
}

// 40001 on a fetch is a wrong secret. On a drop-in path it would tell an SDK to ask for a token
// again.
func TestAWrongSecretIsNoBadToken(t *testing.T) {
	cause := &tokencache.FetchError{Class: tokencache.ClassPermanent, Code: 40001, Message: "invalid credential"}
	for path := range dropInPlatform {
		e, _, ok := inWeChatsShape(web.ProblemOf(&tokencache.UnavailableError{Err: cause}), path)
		if !ok || e.code != 40125 {
			t.Errorf("%s: errcode %d, want 40125", path, e.code)
		}
	}
}
