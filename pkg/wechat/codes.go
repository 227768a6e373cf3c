package wechat

// meaning is the class of one errcode for each [API].
type meaning struct{ token, call, corpToken, corpCall Class }

func everywhere(c Class) meaning { return meaning{c, c, c, c} }
func weixin(c Class) meaning     { return meaning{token: c, call: c} }
func corp(c Class) meaning       { return meaning{corpToken: c, corpCall: c} }
func calls(c Class) meaning      { return meaning{call: c, corpCall: c} }

// Explanation says in words what an errcode means for an operator.
type Explanation struct {
	Meaning string // what is wrong, without a full stop
	Fix     string // what to do; empty: nothing
	Where   string // the place in the consoles; empty: none
}

// Where in the consoles things are, as WeChat's pages say in 2026: the settings of official and
// service accounts have moved from mp.weixin.qq.com to the developers' platform.
const (
	secretPage = "official or service account: developers.weixin.qq.com/platform, 我的业务 > 公众号/服务号 > 基础信息 > 开发密钥; " +
		"mini program: mp.weixin.qq.com, 管理 > 开发管理 > 开发设置"
	quotaPage  = "developers.weixin.qq.com/platform, 我的业务 > 公众号/服务号 > 接口管理 > 接口权限与额度"
	noticePage = "mp.weixin.qq.com, after logging in: its notices say why"
	corpPage   = "work.weixin.qq.com, 应用管理 > the app"
)

// Explanations that several codes share.
var (
	wrongSecret  = Explanation{"the AppSecret is wrong: mistyped, or reset in the console since", "configure the present AppSecret; WeChat shows none again, so if it is lost, reset it", secretPage}
	wrongID      = Explanation{"the appid is wrong", "copy the appid from the console; upper and lower case matter", secretPage}
	wrongAddress = Explanation{"WeChat takes no calls from this host's egress address", "put it on the IP whitelist (API IP 白名单), which acts after some minutes; every address that pods leave the cluster by has to be there", secretPage}
	badAccount   = Explanation{"the account is frozen, punished, cancelled or migrated", "look at its notices in the console", noticePage}
	spentQuota   = Explanation{"the quota of this call is used up", "find who else calls, or raise or clear the quota in the account's console", quotaPage}
	noGrant      = Explanation{"the account lacks the permission for this call", "enable it in the console, or leave the call out", ""}
	badRequest   = Explanation{"the request was incomplete", "this is a bug, or something on the way to WeChat alters requests", ""}
	unconfirmed  = Explanation{"the account's administrator has yet to confirm this host's address", "let the administrator confirm it in the message that WeChat sent; or put it on the IP whitelist", secretPage}
	noCloudRun   = Explanation{"this API is not enabled for the service", "enable it in the console of WeChat Cloud Run", ""}
	wrongParent  = Explanation{"the third-party platform's own credentials are wrong", "check its id and secret", ""}
	revoked      = Explanation{"the merchant has revoked the authorisation or never gave it", "ask for it again", ""}
	none         = Explanation{}
	refusedFor   = func(time string) Explanation {
		return Explanation{"the account's administrator refused this host's address: WeChat blocks it for " + time, "put the address on the IP whitelist, or wait and let the administrator confirm it", secretPage}
	}
)

// corpWords are the explanations of WeCom, where they differ.
var corpWords = map[int]Explanation{
	40001: {"the secret is wrong, or of another app of the corporation", "configure the secret of this agent", corpPage},
	40013: {"the corpid is wrong", "copy it from the console", "work.weixin.qq.com, 我的企业"},
	40091: {"the secret is wrong, or of another app of the corporation", "configure the secret of this agent", corpPage},
	40125: {"the secret is wrong, or of another app of the corporation", "configure the secret of this agent", corpPage},
	60020: {"WeCom takes no calls from this host's egress address", "add it to the trusted addresses (企业可信IP) of the app", corpPage},
}

// codes says what each errcode means for a credential, and what a person should do where a person
// is needed and the class does not already say it ([Error.Explain]). Codes left out, and [API]s
// left out of a line, are [ClassOther]. The sources are the endpoints' errcode tables [T*], the
// global lists of WeChat and WeCom [T], the list of shops, and WxJava's enums WxOpenErrorMsgEnum
// and WxCpErrorMsgEnum [SDK]; what has another source says so. The map never changes.
var codes = map[int]struct {
	meaning
	explanation Explanation
}{
	-1:    {everywhere(ClassRetry), Explanation{"WeChat is busy", "", ""}},
	-1000: {everywhere(ClassRetry), none}, // a variant of -1 [U]

	// A secret that is wrong, or on a call of api.weixin.qq.com a token that is not the current
	// one.
	40001: {meaning{token: ClassConfig, call: ClassBadToken, corpToken: ClassConfig, corpCall: ClassConfig},
		Explanation{"the AppSecret is wrong or of another account", "configure the AppSecret of this appid; if it is lost, reset it", secretPage}},
	40002: {everywhere(ClassConfig), badRequest},
	40013: {everywhere(ClassConfig), wrongID},
	// How it differs from 40001 on WeChat is not documented, and it is rare there; on WeCom it is
	// the code for a bad token.
	40014: {calls(ClassBadToken), none},
	40125: {everywhere(ClassConfig), wrongSecret},
	40243: {everywhere(ClassConfig), Explanation{"the AppSecret is frozen", "unfreeze it (解冻), which takes about 10 minutes to act", secretPage}},

	// Not ClassBadToken: no token was sent, so a new one would change nothing.
	41001: {everywhere(ClassConfig), badRequest},
	41002: {everywhere(ClassConfig), badRequest},
	41004: {everywhere(ClassConfig), Explanation{"no secret arrived at WeChat", "look at what lies between here and WeChat: it alters requests", ""}},
	41018: {weixin(ClassConfig), badRequest},
	42001: {calls(ClassBadToken), none},
	43001: {everywhere(ClassConfig), badRequest},
	43002: {everywhere(ClassConfig), badRequest},
	43003: {everywhere(ClassConfig), Explanation{"WeChat wants https", "check the base URL", ""}},

	45009: {everywhere(ClassQuota), spentQuota},
	45011: {everywhere(ClassMinute), Explanation{"too many calls in this minute", "", ""}},
	45033: {corp(ClassQuota), spentQuota},
	// The shop's list has it as an IP error, WeCom as concurrent calls on one object [T].
	45035: {meaning{token: ClassEgress, call: ClassEgress, corpToken: ClassQuota, corpCall: ClassQuota}, none},
	48006: {weixin(ClassQuota), Explanation{"the quota was cleared 10 times this month", "wait for the next one", ""}},

	48001: {everywhere(ClassConfig), noGrant},
	48002: {corp(ClassConfig), noGrant},
	48004: {everywhere(ClassConfig), badAccount},
	48017: {weixin(ClassConfig), Explanation{"this entry address was retired", "use WeChat's domain as the base URL", ""}},
	50002: {everywhere(ClassConfig), badAccount},
	50003: {corp(ClassConfig), Explanation{"the app is disabled", "enable it", corpPage}},
	50004: {weixin(ClassConfig), badAccount},
	50007: {weixin(ClassConfig), badAccount},

	// The address this host calls from. WeChat's pages name three codes for one thing.
	40164: {weixin(ClassEgress), wrongAddress},
	61004: {weixin(ClassEgress), wrongAddress},
	60020: {corp(ClassEgress), wrongAddress},
	89501: {weixin(ClassEgress), unconfirmed}, // a confirmation is pending [SDK]
	89503: {weixin(ClassEgress), unconfirmed},
	89506: {weixin(ClassEgress), refusedFor("24 hours")},
	89507: {weixin(ClassEgress), refusedFor("1 hour")},

	// Third-party platforms, and WeCom's suites and providers.
	40080: {corp(ClassConfig), wrongParent},
	40082: {corp(ClassBadToken), none}, // the suite or provider token; on WeChat it is about a picture
	40083: {corp(ClassConfig), wrongParent},
	40084: {corp(ClassConfig), revoked},
	40085: {corp(ClassRetry), none},
	// An illegal secret on WeCom; on WeChat a component ticket, which the next push replaces.
	40091: {meaning{token: ClassRetry, call: ClassRetry, corpToken: ClassConfig, corpCall: ClassConfig}, wrongSecret},
	40094: {weixin(ClassConfig), wrongParent},
	42009: {corp(ClassBadToken), none},
	61003: {weixin(ClassConfig), revoked},
	61005: {weixin(ClassRetry), none},
	61006: {weixin(ClassRetry), none},
	61007: {weixin(ClassConfig), revoked},
	61011: {weixin(ClassConfig), wrongParent},
	61014: {weixin(ClassConfig), Explanation{"the call wants the third-party platform's token, not an account's", "", ""}},
	61015: {weixin(ClassConfig), Explanation{"the call wants an account's token, not the third-party platform's", "", ""}},
	61023: {weixin(ClassConfig), revoked},
	61024: {weixin(ClassConfig), Explanation{"this appid is a third-party platform's", "configure the appid of an account: a platform gets its token from api_component_token", ""}},

	85105: {weixin(ClassConfig), noCloudRun},
	85107: {weixin(ClassConfig), noCloudRun},
	85112: {weixin(ClassConfig), noCloudRun},
	85113: {weixin(ClassRetry), none}, // cloudbase_token is not ready yet
}
