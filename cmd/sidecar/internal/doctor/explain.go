package doctor

import (
	"errors"
	"fmt"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// Where in WeChat's consoles things are, as its pages say in 2026: the settings of official and
// service accounts have moved from mp.weixin.qq.com to the developers' platform.
const (
	secretPage = "official or service account: developers.weixin.qq.com/platform, 我的业务 > 公众号/服务号 > 基础信息 > 开发密钥; " +
		"mini program: mp.weixin.qq.com, 管理 > 开发管理 > 开发设置"
	quotaPage  = "developers.weixin.qq.com/platform, 我的业务 > 公众号/服务号 > 接口管理 > 接口权限与额度"
	noticePage = "mp.weixin.qq.com, after logging in: its notices say why"

	corpPage = "work.weixin.qq.com, 应用管理 > the app"
)

// explanation is what an errcode of a fetch or a probe means, in plain words.
type explanation struct {
	state State
	text  string
	fix   string
}

// explanations are those of WeChat's own endpoints.
var explanations = map[int]explanation{
	-1:    {Warn, "WeChat is busy", "nothing: it passes, and the sidecar tries again; if it stays for hours, ask WeChat's support"},
	40001: {Fail, "the AppSecret is wrong or of another account", "configure the AppSecret of this appid; if it is lost, reset it (" + secretPage + ")"},
	40013: {Fail, "the appid is wrong", "copy the appid from the console; upper and lower case matter (" + secretPage + ")"},
	40125: {Fail, "the AppSecret is wrong: mistyped, or reset in the console since", "configure the present AppSecret; WeChat shows none again, so if it is lost, reset it (" + secretPage + ")"},
	40243: {Fail, "the AppSecret is frozen", "unfreeze it (解冻), which takes about 10 minutes to act (" + secretPage + ")"},
	41004: {Fail, "no secret arrived at WeChat", "look at what lies between here and WeChat: it alters requests"},
	45009: {Fail, "the day's quota of this call is used up", "find who else fetches tokens of this app, and stop them; the quota can be seen and cleared at " + quotaPage},
	45011: {Warn, "too many calls in this minute", "nothing: the next minute has a new quota, and the sidecar waits; if it stays, find who else fetches tokens of this app"},
	50002: {Fail, "the account is frozen, cancelled or migrated", noticePage},
	50004: {Fail, "the account may not fetch tokens: it is punished or inactive", noticePage},
	50007: {Fail, "the account is frozen", noticePage},
	61024: {Fail, "this appid is a third-party platform's", "configure the appid of an account: platforms get tokens another way, which the sidecar does not know"},
	89501: {Fail, "the account's administrator has yet to confirm this host's address", "let the administrator confirm it in the message that WeChat sent to them"},
	89503: {Fail, "the account's administrator has yet to confirm this host's address", "let the administrator confirm it in the message that WeChat sent to them; or put it on the IP whitelist (" + secretPage + ")"},
	89506: {Fail, "the account's administrator refused this host's address twice: WeChat blocks it for 24 hours", "put the address on the IP whitelist (" + secretPage + "), or wait and let the administrator confirm it"},
	89507: {Fail, "the account's administrator refused this host's address: WeChat blocks it for 1 hour", "put the address on the IP whitelist (" + secretPage + "), or wait and let the administrator confirm it"},
}

// corpExplanations are those of WeCom, where they differ.
var corpExplanations = map[int]explanation{
	40001: {Fail, "the secret is wrong, or of another app of the corporation", "configure the secret of this agent (" + corpPage + ")"},
	40013: {Fail, "the corpid is wrong", "copy it from the console (work.weixin.qq.com, 我的企业)"},
	50003: {Fail, "the app is disabled", "enable it (" + corpPage + ")"},
}

// refused explains why WeChat gave nothing.
func (e *examination) refused(check string, app config.App, err error) {
	w, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		e.fail(check, oneLine(err.Error()), "")
		return
	}
	x := explain(app, w)
	e.found(Finding{check, x.state, x.text + ": " + says(w), x.fix})
}

func explain(app config.App, w *wechat.Error) explanation {
	corp := app.Platform == config.PlatformWeCom
	if ip := w.EgressIP(); ip != "" || w.Code == 40164 || w.Code == 61004 || w.Code == 60020 {
		return outsider(corp, ip)
	}
	if x, ok := corpExplanations[w.Code]; ok && corp {
		return x
	}
	if x, ok := explanations[w.Code]; ok && (!corp || w.Code == -1) {
		return x
	}
	x := explanation{Fail, "WeChat refuses", w.Advice()}
	switch w.Class() {
	case wechat.ClassRetry, wechat.ClassMinute:
		x = explanation{Warn, "WeChat gives no answer that can be used", "nothing, if it passes: the sidecar tries again"}
	}
	return x
}

// outsider explains that WeChat takes no calls from this address.
func outsider(corp bool, ip string) explanation {
	address := ip
	if address == "" {
		address = "this host's egress address"
	}
	x := explanation{Fail, "WeChat takes no calls from this address, " + address,
		fmt.Sprintf("put %s on the IP whitelist (API IP 白名单), which acts after some minutes (%s); every address that pods leave the cluster by has to be there", address, secretPage)}
	if corp {
		x.fix = fmt.Sprintf("add %s to the trusted addresses (企业可信IP) of the app (%s)", address, corpPage)
	}
	return x
}

// says repeats WeChat's own words. They hold nothing of what was sent.
func says(w *wechat.Error) string {
	if w.Code == 0 {
		return oneLine(w.Error())
	}
	return fmt.Sprintf("errcode %d, %s", w.Code, oneLine(w.Message))
}
