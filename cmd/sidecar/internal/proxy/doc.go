// Package proxy is the reverse proxy that puts the access token in: a program calls WeChat's API
// through it and never sees a token.
//
//	curl http://127.0.0.1:7200/proxy/shop/cgi-bin/menu/get
//
// [Proxy.ServeHTTP] takes /proxy/{app}/<WeChat path>, where {app} is an id or an alias. The path
// decides: another appid in the query is refused, with 40013.
// [Proxy.Plain] takes WeChat's own paths, from an SDK with another base URL or in a pod that maps
// api.weixin.qq.com to this listener, and finds the app by, in this order: the query parameter
// appid; the access_token of the query, if it is a current or lately replaced token of a configured
// app; the header X-Wxtoken-App (id or alias); the default app. An appid that is not configured
// here rules the default out: a call that names an account must not be sent as another one. An
// unknown token does not, because that is what an old one looks like after a restart; so think
// twice about a default where plain calls may be for several accounts.
//
// # What happens to a call
//
// The query gets access_token=<the app's> in front, and loses any that the caller sent; everything
// else of it stays byte for byte. If WeChat answers that the token is bad, the token is reported to
// the cache (which compares: an old one costs nothing) and the call is repeated once with the new
// one; or with the same one, if a probe finds that WeChat accepts it, because WeChat's servers may
// disagree for a moment. After that WeChat's answer goes back whatever it says. If the report
// brings nothing that may work, and until something may, the answer is -1 with Retry-After: 40001
// would make an SDK ask for a token, get the same one and call again, without an end.
//
// A token of the caller's that is neither a current nor a lately replaced one of a configured app
// may be another account's: it is sent as it came. If WeChat rejects it, the app's takes its place
// and the call is repeated; for 10 minutes that token is then replaced at once, as is a placeholder
// of fewer than 32 characters.
//
// A body that can be repeated is one of at most [Options.MaxReplay] bytes; it is read to its end
// before the call is made, as long as all bodies that are kept have no more than [Options.MaxKept]
// together. A longer one, or one without room, is streamed and sent once, after a probe of the
// token: up to 20 probes at once and one every 5 s for each app, beyond which it counts that
// another call was answered within the last 5 s. When the token turns out to be bad all the same,
// the caller gets WeChat's answer, and its own retry finds the new token. WeChat refuses chunked
// requests, so what goes out always has a Content-Length: a chunked body that fits is measured, a
// longer one is refused with 411.
//
// Three calls carry the AppSecret: /sns/jscode2session, /sns/oauth2/access_token and
// /cgi-bin/clear_quota/v2. If the appid is that of a configured app and the secret that was sent is
// not its own, the app's takes its place, so that no other program needs to have it. It goes to
// that app's upstream and to no other host. An app with RequireSecret keeps it.
//
// A call of a third-party platform, a suite or a provider that is configured gets its token, in the
// parameter that the path has for it, or in access_token if the caller says so. [Proxy.Plain] finds
// the platform by component_appid, by the token, by the header, or as the only one of its kind. The
// answers of api_get_authorizer_info and api_get_authorizer_list have refresh tokens, which are
// replaced by "wxtoken" where a platform is configured: no other body is altered.
//
// Other calls carry other credentials, or none, and are passed on as they are, without a look at
// the answer: the rest of /sns/*, the calls that fetch a token, platforms that are not configured.
// That includes /cgi-bin/token: a call of it through the proxy with the true secret replaces the
// token that the sidecar keeps. Route the drop-in endpoints before this package.
//
// Of the caller's headers, those between two hosts do not go on, nor Authorization (it is for this
// listener), Cookie, Expect, X-Forwarded-*, X-Real-Ip and X-Wxtoken-*; Accept-Encoding becomes
// identity where a token is injected, because an answer must be readable to be looked at and must
// not change on the way. Signed calls (Wechatmp-*) go on unchanged, body bytes included.
//
// # What comes back
//
// WeChat's status, headers and body, without 1xx answers and trailers. Redirects are not followed.
// Errors are looked for in answers of at most 64 KiB whose first bytes begin a JSON object,
// whatever their media type; everything else is streamed as it comes and never kept. The proxy
// adds:
//
//	X-Wxtoken-Version: 1764000000000   the version of the token that was sent
//	X-Wxtoken-Retried: 1               WeChat rejected the first token, and the call was repeated
//	X-Wxtoken-Foreign: 1               the first token was the caller's, of no app that is configured here
//	X-Wxtoken-Stale: 1                 the token may no longer have worked, and there was no better one
//
// No header holds the token: where WeChat repeats it (a redirect repeats the query), it is replaced
// by [redacted]. Other bodies than those above are not altered, so /cgi-bin/openapi/rid/get shows the address of the call
// it is asked about, token included: to a program that could have asked for that token itself.
//
// What the proxy says itself has WeChat's shape, {"errcode":-1,"errmsg":"wxtoken: ..."}, and the
// header X-Wxtoken-Error with one of the words of [Outcome]. The status says whether it is safe to
// call again, because SDKs take errcode -1 for "busy" and some repeat the call by themselves:
//
//	200  nothing was sent: no token now, no room for a chunked body, WeChat cannot be reached, no such app (40013, 41002; 40001 for an
//	     unknown token, so that an SDK fetches another one). The errcode
//	     is WeChat's own where the token could not be fetched; Retry-After where waiting helps
//	502  the call was sent and broke off; WeChat may have acted on it
//	504  the call was sent and not answered in time; WeChat may have acted on it
//	4xx  no WeChat client sends this: 400 for a path with tricks, 404 for /proxy/ and an app that is
//	     not there, 405 for CONNECT and TRACE, 408 for a body that does not come, 411 see above
//
// # Where it goes
//
// To the app's configured upstream and nowhere else. Nothing of a request chooses a host: a target
// with a scheme or host, an upgrade, and any path that is not made of letters, digits and - . _ ~
// is refused; WeChat has no other paths, so nothing encoded can mean one thing here and another
// there. If no connection to the upstream comes about, its fallbacks are tried, whatever the
// method, since nothing was sent; the host is then left for last for half a minute.
//
// A handler of this package must see the path as it was sent: http.ServeMux answers "//" and ".."
// with a redirect before it gets there.
package proxy
