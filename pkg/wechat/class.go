package wechat

import "strconv"

// API names who was asked. The same errcode means different things in different places: 40001 is a
// bad token on an API call, but a wrong secret on a token endpoint and everywhere on WeCom.
type API int

const (
	// APIToken is a token endpoint of api.weixin.qq.com, which takes a secret.
	APIToken API = iota + 1
	// APICall is any call of api.weixin.qq.com that takes a token, tickets included.
	APICall
	// APICorpToken is a token endpoint of WeCom.
	APICorpToken
	// APICorpCall is any call of WeCom that takes a token, tickets included.
	APICorpCall
	// APIComponentToken is a call of a third-party platform that takes the platform's secret.
	APIComponentToken
	// APIComponent is any call that takes the token of a third-party platform. Calls with an
	// authorizer's token are of APICall.
	APIComponent
	// APISuiteToken is a call of WeCom that takes the secret of a suite or of a provider.
	APISuiteToken
	// APISuite is any call of WeCom that takes the token of a suite or of a provider. Calls with a
	// corp's token are of APICorpCall.
	APISuite
)

// onWeCom reports whether qyapi.weixin.qq.com answers.
func (a API) onWeCom() bool {
	switch a {
	case APICorpToken, APICorpCall, APISuiteToken, APISuite:
		return true
	}
	return false
}

// String returns "token", "call", "corp_token", "corp_call", "component_token", "component",
// "suite_token" or "suite".
func (a API) String() string {
	switch a {
	case APIToken:
		return "token"
	case APICall:
		return "call"
	case APICorpToken:
		return "corp_token"
	case APICorpCall:
		return "corp_call"
	case APIComponentToken:
		return "component_token"
	case APIComponent:
		return "component"
	case APISuiteToken:
		return "suite_token"
	case APISuite:
		return "suite"
	}
	return "API(" + strconv.Itoa(int(a)) + ")"
}

// Class is what a failure means for the program that keeps the credential.
type Class int

const (
	// ClassOther is not about the credential. Codes that are not in the table are of this class.
	ClassOther Class = iota
	// ClassBadToken says that the token in the call does not work: replaced, expired or garbage.
	ClassBadToken
	// ClassRetry passes by itself: try again with backoff, keep what there is.
	ClassRetry
	// ClassMinute is a limit per minute: try again in the next one.
	ClassMinute
	// ClassQuota is a daily limit or a rolling block: stop, keep what there is.
	ClassQuota
	// ClassConfig lasts until a person acts: wrong id or secret, frozen account, missing
	// permission, an authorisation that was withdrawn, a code that is spent.
	ClassConfig
	// ClassEgress concerns the address this host calls from; another host may succeed at once.
	ClassEgress
)

// String returns "other", "bad_token", "retry", "minute", "quota", "config" or "egress", and
// nothing else, so that it can label a metric.
func (c Class) String() string {
	switch c {
	case ClassBadToken:
		return "bad_token"
	case ClassRetry:
		return "retry"
	case ClassMinute:
		return "minute"
	case ClassQuota:
		return "quota"
	case ClassConfig:
		return "config"
	case ClassEgress:
		return "egress"
	}
	return "other"
}

// Classify says what an errcode of the given API means. Codes that are not about a credential,
// unknown ones, and 0 are [ClassOther].
func Classify(api API, code int) Class {
	m := codes[code].meaning
	switch api {
	case APIToken, APIComponentToken:
		return m.token
	case APICall, APIComponent:
		return m.call
	case APICorpToken, APISuiteToken:
		return m.corpToken
	case APICorpCall, APISuite:
		return m.corpCall
	}
	return ClassOther
}
