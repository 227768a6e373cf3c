package source

import (
	"errors"
	"testing"

	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

func TestWhatWeChatAnswersDecidesWhoWaits(t *testing.T) {
	for _, test := range []struct {
		code  int
		class tokencache.Class
	}{
		{-1, tokencache.ClassTransient}, {45011, tokencache.ClassTransient}, {45009, tokencache.ClassQuota},
		{40001, tokencache.ClassPermanent}, {40013, tokencache.ClassPermanent}, {40125, tokencache.ClassPermanent}, {40243, tokencache.ClassPermanent},
		{40164, tokencache.ClassLocal}, {61004, tokencache.ClassLocal}, {89503, tokencache.ClassLocal},
	} {
		f, ok := errors.AsType[*tokencache.FetchError](fetchError(&wechat.Error{API: wechat.APIToken, Code: test.code, Status: 200, Sent: true}))
		if !ok || f.Class != test.class || f.Code != test.code || f.Unclear {
			t.Errorf("errcode %d: %+v, want %s and surely nothing issued", test.code, f, test.class)
		}
	}
	f, _ := errors.AsType[*tokencache.FetchError](fetchError(&wechat.Error{API: wechat.APIToken, Status: 502, Sent: true}))
	if f.Class != tokencache.ClassTransient || !f.Unclear {
		t.Errorf("a 502: %+v, want transient and unclear", f)
	}
}
