// Package api is the value listener of the sidecar: [New] returns its handler.
//
// # The listener of values
//
//	GET  /v1/apps/{app}/token          {"access_token","expires_in","expires_at","version","stale"}
//	POST /v1/apps/{app}/token/report   {"access_token","errcode"} gets the value to use now, as above
//	GET  /v1/apps/{app}/tickets/{type} {"ticket",...}, as above; type is jsapi, wx_card or agent_config
//	POST /v1/apps/{app}/jssdk          {"url"} gets {"appId","timestamp","nonceStr","signature"} for wx.config
//
// {app} is an id or an alias. expires_in is the remaining true life in whole seconds, rounded down.
// expires_at is the same moment in Unix seconds, as WeChat gives every time: an integer that any
// client compares with its own clock without parsing, on the host that answered. With "Accept:
// text/plain" the answer is the bare value; a client that takes JSON just as well gets JSON.
//
// A report refreshes only if the reported value is the current one. errcode, if given, is one of
// the codes with which WeChat rejects a token (40001, 40014, 42001); any other is refused, because
// a new token does not help there.
//
// jssdk signs {"urls": [...]}, at most 100, too, and answers with a list in the same order. With
// {"ticket":"agent_config"} the answer is for wx.agentConfig: {"corpid","agentid",...}. A fragment
// is cut; the rest of the address is signed as it is.
//
// Errors are RFC 9457 application/problem+json. The type says what is wrong:
//
//	404 unknown-app, no-such-ticket, not-found
//	400 bad-request, not-about-the-token
//	401 unauthorized                403 forbidden-host, forwarded, cross-origin
//	405 method-not-allowed          413 too-large
//	429 overloaded                  500 internal
//	502 upstream-refuses            503 upstream, allowance-spent, redis, timeout, stopping, unavailable
//
// No value is a 503: it says "come back", and Retry-After says when. One is a 502: upstream refuses
// the app until a human acts (a wrong secret), so a client's retry is pointless and an alarm on 502
// finds the one who must act. It has a Retry-After too, the moment at which upstream is asked
// again. A caller whose time ran out gets 503 and not 504, because the refresh that it waited for
// goes on and the next call finds its result.
//
// # The drop-in paths
//
// These answer as WeChat and WeCom do, byte for byte, so that an SDK needs only another base URL:
//
//	GET or POST /cgi-bin/token            POST /cgi-bin/stable_token
//	GET /cgi-bin/gettoken                 GET  /cgi-bin/ticket/getticket
//	GET /cgi-bin/get_jsapi_ticket         GET  /cgi-bin/ticket/get
//
// Every app can be asked for on either token path, whichever endpoint its own token comes from. The
// secret may be anything, or absent, unless the app has RequireSecret. A corpid with one agent
// means that agent; with several, the corpsecret decides, or corpid:agent or an alias is sent as
// the corpid. The app of a ticket is, in this order, the one that the query's appid names, whose
// token is sent, that the header X-Wxtoken-App names, or the only one on the platform. With
// RequireSecret it takes a current or lately replaced token.
//
// Below /proxy/{app} the same paths are answered for that app, whatever token is sent. Another
// appid or corpid gets 40013.
//
// Where third-party platforms are configured, the calls with which their SDKs get tokens are answered
// as well: package dropin says which, and how.
//
// expires_in is more than 1500 on token and gettoken, and more than 300 on stable_token, as long as
// upstream is well and has a better value to give: SDKs subtract that much. A stable token asked
// for on /cgi-bin/token, and a WeCom token that WeCom repeats to its end, have the life that they
// have. Of a value in doubt, at least a minute is said. A value that upstream was found to reject
// is not handed out here, nor one that ends within 2 s: the answer is -1, or WeChat's errcode, and
// Retry-After.
//
// force_refresh is a report of the present value: if the probe finds that upstream accepts it, it
// stays. It is replaced once for the whole cluster, and within the budget of reports; beyond that,
// the answer is the present value.
//
// Errors are HTTP 200 with WeChat's errcode: 40013, 40002, 41002, 41004, 40125, 43002, 45002 for
// the call; 40001, 41001, 47001, 48001 for a ticket's; WeCom's 40014 and 40001. If there is no
// value, it is WeChat's own errcode where it gave one; 45009 when the sidecar's allowance of calls
// is spent; else -1. What the sidecar says itself ends in "(wxtoken: ...)", and has no rid, because
// WeChat knows nothing of it. Who may not call at all, see below, gets an HTTP error on these paths
// as on the others.
//
// # Who may call it
//
// Programs of the same pod. Whatever only others send is refused, with an answer that repeats
// nothing of the request: a foreign Host (DNS rebinding), a header that a forwarding proxy adds, an
// Origin or cross-site fetch metadata (browsers), a request target that is not a plain path. An
// upgrade to HTTP/2 is not offered but not refused either: Java's client asks for one each time and
// goes on with HTTP/1.1. A bearer token can be demanded on top, and then is on every path:
// RequireSecret does not stand for it.
//
// A pod that maps WeChat's name to this listener calls it by that name. On the https face any name
// of WeChat's is let in, and on the plain one with allow_upstream_host, together with the hosts of
// the apps' upstreams; but not on /v1, which has no use for it. A page that is led here by its own
// site's DNS has its own site's name, so this opens nothing to it.
//
// The limits that belong to an http.Server (size of the headers, time to read them) are not set
// here.
//
// # A new face
//
// A face is a method of handler that registers its paths on a mux. An endpoint is one call of
// endpoint, which owns everything but its purpose: authorize, find the app, decode, call, answer.
// web.ProblemOf is the one place where an error becomes a status, and web.Write the one that
// writes.
package api
