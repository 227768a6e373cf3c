package wechat

// meaning is the class of one errcode for each [API].
type meaning struct{ token, call, corpToken, corpCall Class }

func everywhere(c Class) meaning { return meaning{c, c, c, c} }
func weixin(c Class) meaning     { return meaning{token: c, call: c} }
func corp(c Class) meaning       { return meaning{corpToken: c, corpCall: c} }
func calls(c Class) meaning      { return meaning{call: c, corpCall: c} }

// Advice that several codes share. Each is one sentence for an operator.
const (
	adviceSecret   = "The secret is wrong, was reset, or belongs to another account or app: configure the right one."
	adviceID       = "The appid or corpid is wrong (upper and lower case count): configure the right one."
	adviceIP       = "Add this host's egress address to the IP whitelist (WeCom: trusted IPs) in the account's console."
	adviceAccount  = "The account is frozen, punished, cancelled or migrated: look at its notices in the console."
	adviceQuota    = "The quota is used up: find who else calls, or raise or clear the quota in the account's console."
	adviceGrant    = "The account lacks the permission for this call: enable it in the console, or leave the call out."
	adviceBug      = "The request was incomplete: this is a bug, or something on the way to WeChat alters requests."
	adviceConfirm  = "The account's administrator has to confirm this host's egress address in WeChat."
	adviceCloudRun = "Enable this API for the service in the console of WeChat Cloud Run."
	adviceParent   = "The third-party platform's own credentials are wrong: check its id and secret."
	adviceRevoked  = "The merchant has revoked the authorisation or never gave it: ask for it again."
)

// codes says what each errcode means for a credential, and what a person should do where a person
// is needed and the class does not already say it ([Error.Advice]). Codes left out, and [API]s left
// out of a line, are [ClassOther]. The sources are the endpoints' errcode tables [T*], the global
// lists of WeChat and WeCom [T], the list of shops, and WxJava's enums WxOpenErrorMsgEnum and
// WxCpErrorMsgEnum [SDK]; what has another source says so. The map never changes.
var codes = map[int]struct {
	meaning
	advice string
}{
	-1:    {everywhere(ClassRetry), ""},
	-1000: {everywhere(ClassRetry), ""}, // a variant of -1 [U]

	// A secret that is wrong, or on a call of api.weixin.qq.com a token that is not the current
	// one.
	40001: {meaning{token: ClassConfig, call: ClassBadToken, corpToken: ClassConfig, corpCall: ClassConfig}, adviceSecret},
	40002: {everywhere(ClassConfig), adviceBug},
	40013: {everywhere(ClassConfig), adviceID},
	// How it differs from 40001 on WeChat is not documented, and it is rare there; on WeCom it is
	// the code for a bad token.
	40014: {calls(ClassBadToken), ""},
	40125: {everywhere(ClassConfig), adviceSecret},
	40243: {everywhere(ClassConfig), "The AppSecret is frozen: unfreeze it in the console, which takes about 10 minutes to act."},

	// Not ClassBadToken: no token was sent, so a new one would change nothing.
	41001: {everywhere(ClassConfig), adviceBug},
	41002: {everywhere(ClassConfig), adviceBug},
	41004: {everywhere(ClassConfig), adviceBug},
	41018: {weixin(ClassConfig), adviceBug},
	42001: {calls(ClassBadToken), ""},
	43001: {everywhere(ClassConfig), adviceBug},
	43002: {everywhere(ClassConfig), adviceBug},
	43003: {everywhere(ClassConfig), "WeChat wants https: check the base URL."},

	45009: {everywhere(ClassQuota), ""},
	45011: {everywhere(ClassMinute), ""},
	45033: {corp(ClassQuota), ""},
	// The shop's list has it as an IP error, WeCom as concurrent calls on one object [T].
	45035: {meaning{token: ClassEgress, call: ClassEgress, corpToken: ClassQuota, corpCall: ClassQuota}, ""},
	48006: {weixin(ClassQuota), "The quota was cleared 10 times this month: wait for the next one."},

	48001: {everywhere(ClassConfig), adviceGrant},
	48002: {corp(ClassConfig), adviceGrant},
	48004: {everywhere(ClassConfig), adviceAccount},
	48017: {weixin(ClassConfig), "This entry address was retired: use WeChat's domain as the base URL."},
	50002: {everywhere(ClassConfig), adviceAccount},
	50003: {corp(ClassConfig), "The app is disabled: enable it in the console of WeCom."},
	50004: {weixin(ClassConfig), adviceAccount},
	50007: {weixin(ClassConfig), adviceAccount},

	// The address this host calls from. WeChat's pages name three codes for one thing.
	40164: {weixin(ClassEgress), ""},
	61004: {weixin(ClassEgress), ""},
	60020: {corp(ClassEgress), ""},
	89501: {weixin(ClassEgress), adviceConfirm}, // a confirmation is pending [SDK]
	89503: {weixin(ClassEgress), adviceConfirm},
	89506: {weixin(ClassEgress), "The administrator refused this host's egress address; WeChat blocks it for 24 hours."},
	89507: {weixin(ClassEgress), "The administrator refused this host's egress address; WeChat blocks it for 1 hour."},

	// Third-party platforms, and WeCom's suites and providers.
	40080: {corp(ClassConfig), adviceParent},
	40082: {corp(ClassBadToken), ""}, // the suite or provider token; on WeChat it is about a picture
	40083: {corp(ClassConfig), adviceParent},
	40084: {corp(ClassConfig), adviceRevoked},
	40085: {corp(ClassRetry), ""},
	// An illegal secret on WeCom; on WeChat a component ticket, which the next push replaces.
	40091: {meaning{token: ClassRetry, call: ClassRetry, corpToken: ClassConfig, corpCall: ClassConfig}, adviceSecret},
	40094: {weixin(ClassConfig), adviceParent},
	42009: {corp(ClassBadToken), ""},
	61003: {weixin(ClassConfig), adviceRevoked},
	61005: {weixin(ClassRetry), ""},
	61006: {weixin(ClassRetry), ""},
	61007: {weixin(ClassConfig), adviceRevoked},
	61011: {weixin(ClassConfig), adviceParent},
	61014: {weixin(ClassConfig), "The call wants the third-party platform's token, not an account's."},
	61015: {weixin(ClassConfig), "The call wants an account's token, not the third-party platform's."},
	61023: {weixin(ClassConfig), adviceRevoked},
	61024: {weixin(ClassConfig), "This appid is a third-party platform's: it gets its token from api_component_token."},

	85105: {weixin(ClassConfig), adviceCloudRun},
	85107: {weixin(ClassConfig), adviceCloudRun},
	85112: {weixin(ClassConfig), adviceCloudRun},
	85113: {weixin(ClassRetry), ""}, // cloudbase_token is not ready yet
}
