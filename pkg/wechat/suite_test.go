package wechat_test

import (
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

// TestCorpInfoHasNoSecret: what WeCom adds to an installation is passed on only if it is known to
// hold none.
func TestCorpInfoHasNoSecret(t *testing.T) {
	const body = `{"errcode":0,"errmsg":"ok","permanent_code":"CANARY-p","access_token":"CANARY-t","new_secret":"CANARY-n",
		"auth_corp_info":{"corpid":"wwc","corp_name":"n"},"auth_info":{"agent":[{"agentid":1}]},"dealer_corp_info":{"corpid":"wwd"},"edition_info":{"agent":[]},"state":"s"}`
	for _, form := range []wechat.InfoCall{wechat.CorpInfoFull, wechat.CorpInfoShort} {
		info, err := answering(200, "", body).CorpInfo(t.Context(), form, token, "wwc", oneCode)
		if err != nil || strings.Contains(string(info), "CANARY") {
			t.Errorf("%s: %s, %v", form, info, err)
		}
		want := `{"auth_corp_info":{"corpid":"wwc","corp_name":"n"},"auth_info":{"agent":[{"agentid":1}]},"dealer_corp_info":{"corpid":"wwd"},"edition_info":{"agent":[]},"state":"s"}`
		if string(info) != want {
			t.Errorf("%s: %s\nwant %s", form, info, want)
		}
	}
}

// TestCorpInfoOfACorpThatHasLeft keeps WeCom's errcode: it is what tells a withdrawal from a fault.
func TestCorpInfoOfACorpThatHasLeft(t *testing.T) {
	_, err := answering(200, "", `{"errcode":40084,"errmsg":"invalid permanent_code"}`).CorpInfo(t.Context(), wechat.CorpInfoFull, token, "wwc", oneCode)
	if got := describe(t, err); got.Code != 40084 || got.API != wechat.APISuite || got.Endpoint != "/cgi-bin/service/get_auth_info" {
		t.Errorf("%+v", got)
	}
}

// TestReleaseTests: the accounts of WeChat's own test are no customers, and no customer is one.
func TestReleaseTests(t *testing.T) {
	for id, want := range map[string]bool{
		"wx570bc396a51b8ff8": true, "wx9252c5e0bb1836fc": true, "wx8e1097c5bc82cde9": true, "wx14550af28c71a144": true, "wxa35b9c23cfe664eb": true,
		"wxd101a85aa106f53e": true, "wxc39235c15087f6f3": true, "wx7720d01d4b2a4500": true, "wx05d483572dcd5d8b": true, "wx5910277cae6fd970": true,
		"": false, "wx570bc396a51b8ff": false, "wx570bc396a51b8ff80": false, "WX570BC396A51B8FF8": false, "wxba5fad812f8e6fb9": false,
	} {
		if got := wechat.IsReleaseTest(id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
}
