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

	platformPage = "open.weixin.qq.com, the third-party platform"
	providerPage = "open.work.weixin.qq.com, the suite or template of the provider"
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
	noGrantSet   = Explanation{"the account has not granted the permission set of this call; its authorisation as such is in force", "let the account's administrator authorise again, with this permission set", ""}
	oldTicket    = Explanation{"the ticket that WeChat pushes every 10 minutes is too old or not this platform's", "check that pushes arrive at the callback address", ""}
	spentCode    = Explanation{"the authorisation code was used before, has expired, or is not one", "if the authorisation is not in force, let the account's administrator authorise again", ""}
	none         = Explanation{}
	refusedFor   = func(time string) Explanation {
		return Explanation{"the account's administrator refused this host's address: WeChat blocks it for " + time, "put the address on the IP whitelist, or wait and let the administrator confirm it", secretPage}
	}
)

// wordsOf returns the explanations of an API where they differ from those in codes.
func wordsOf(api API) map[int]Explanation {
	switch api {
	case APICorpToken, APICorpCall:
		return corpWords
	case APIComponentToken, APIComponent:
		return componentWords
	case APISuiteToken, APISuite:
		return suiteWords
	}
	return nil
}

// corpWords are the explanations of WeCom.
var corpWords = map[int]Explanation{
	40001: {"the secret is wrong, or of another app of the corporation", "configure the secret of this agent", corpPage},
	40013: {"the corpid is wrong", "copy it from the console", "work.weixin.qq.com, 我的企业"},
	40091: {"the secret is wrong, or of another app of the corporation", "configure the secret of this agent", corpPage},
	40125: {"the secret is wrong, or of another app of the corporation", "configure the secret of this agent", corpPage},
	60020: {"WeCom takes no calls from this host's egress address", "add it to the trusted addresses (企业可信IP) of the app", corpPage},
}

// componentWords are the explanations of calls that a third-party platform makes for itself.
var componentWords = map[int]Explanation{
	40001: {"the platform's AppSecret is wrong: mistyped, or reset in the console since", "configure the present AppSecret", platformPage},
	40013: {"the appid of the platform or of the authorizer is wrong", "copy it from the console; upper and lower case matter", platformPage},
	40125: {"the platform's AppSecret is wrong: mistyped, or reset in the console since", "configure the present AppSecret", platformPage},
	40164: {"the platform takes no calls from this host's egress address", "put it on the platform's IP whitelist; every address that pods leave the cluster by has to be there", platformPage},
	61004: {"the platform takes no calls from this host's egress address", "put it on the platform's IP whitelist; every address that pods leave the cluster by has to be there", platformPage},
}

// suiteWords are the explanations of calls that a WeCom provider makes for a suite.
var suiteWords = map[int]Explanation{
	40001: {"the secret of the suite or of the provider is wrong", "configure the present one", providerPage},
	40013: {"the corpid is wrong, or the corp's id at another provider", "use the corpid that this provider's pushes and calls have", ""},
	60020: {"WeCom takes no calls from this host's egress address", "add it to the provider's trusted addresses", providerPage},
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

	// Third-party platforms. Their sources are the errcode tables of the component calls [T].
	40170: {weixin(ClassConfig), Explanation{"a page of more than 500 authorizers was asked for", "ask for less", ""}},
	61003: {weixin(ClassConfig), Explanation{"the account has withdrawn its authorisation, or never gave it; this answer alone is no proof, an outage of WeChat gave it for hours", "if it lasts, ask the account's administrator to authorise again", ""}}, // the outage: [U]
	61005: {weixin(ClassRetry), oldTicket},
	61006: {weixin(ClassRetry), oldTicket},
	61007: {weixin(ClassConfig), noGrantSet}, // no withdrawal
	61009: {weixin(ClassConfig), spentCode},  // a pre_auth_code in its place gives it, too [U]
	61010: {weixin(ClassConfig), spentCode},
	61011: {weixin(ClassConfig), wrongParent},
	61014: {weixin(ClassConfig), Explanation{"the call wants the third-party platform's token, not an account's", "", ""}},
	61015: {weixin(ClassConfig), Explanation{"the call wants an account's token, not the third-party platform's", "", ""}},
	61016: {weixin(ClassConfig), Explanation{"the permission set of this call has yet to be confirmed", "let the account's administrator confirm it", ""}},
	61017: {weixin(ClassConfig), noGrantSet},
	// Most often the parameter was empty, which WeChat's staff says [U].
	61023: {weixin(ClassConfig), Explanation{"the refresh token is not, or no longer, the account's", "read it from WeChat again (api_get_authorizer_info); if it is the same, let the account's administrator authorise again", ""}},
	61024: {weixin(ClassConfig), Explanation{"this appid is a third-party platform's", "configure the appid of an account: a platform gets its token from api_component_token", ""}},
	61028: {weixin(ClassConfig), Explanation{"the third-party platform is not published", "publish it, or use an account of its test list", platformPage}},
	61029: {weixin(ClassConfig), Explanation{"the third-party platform has changes that are not published", "publish it again", platformPage}},
	61030: {weixin(ClassConfig), Explanation{"this authorisation cannot be cancelled", "", ""}},

	// WeCom's suites and providers [T][SDK].
	40078:  {corp(ClassConfig), spentCode},
	40080:  {corp(ClassConfig), Explanation{"the suite's secret is wrong", "configure the present one", providerPage}},
	40082:  {corp(ClassBadToken), none}, // the suite or provider token; on WeChat it is about a picture
	40083:  {corp(ClassConfig), Explanation{"the suite's id is wrong", "copy it from the console", providerPage}},
	40084:  {corp(ClassConfig), Explanation{"the permanent code is not, or no longer, the corp's for this suite", "let the corp's administrator install the suite again", ""}},
	40085:  {corp(ClassRetry), oldTicket},                                                                         // another suite's ticket gives it, too
	42007:  {corp(ClassConfig), Explanation{"the pre_auth_code has expired", "begin the installation again", ""}}, // on WeChat it is about a user's token
	42009:  {corp(ClassBadToken), none},
	710000: {corp(ClassConfig), Explanation{"the open_corpid is wrong", "use the corpid that this provider's pushes and calls have", ""}},

	// What is missing differs: the component token on WeChat, where a new one would change nothing;
	// on WeCom the suite's id, token, ticket, secret and the permanent code, in this order.
	41021: {everywhere(ClassConfig), badRequest},
	41022: {corp(ClassConfig), badRequest},
	41023: {corp(ClassConfig), badRequest},
	41024: {corp(ClassConfig), badRequest},
	41025: {corp(ClassConfig), badRequest},

	// An illegal secret on WeCom; on WeChat a component ticket, which the next push replaces.
	40091: {meaning{token: ClassRetry, call: ClassRetry, corpToken: ClassConfig, corpCall: ClassConfig}, wrongSecret},
	40094: {weixin(ClassConfig), wrongParent},

	85105: {weixin(ClassConfig), noCloudRun},
	85107: {weixin(ClassConfig), noCloudRun},
	85112: {weixin(ClassConfig), noCloudRun},
	85113: {weixin(ClassRetry), none}, // cloudbase_token is not ready yet
}
