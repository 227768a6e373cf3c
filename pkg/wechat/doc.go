// Package wechat speaks the wire format of WeChat's credential endpoints: fetch a token or a
// ticket, ask whether a token still works, know what an error code means, sign for the JS-SDK. For
// third-party platforms and WeCom's suites it exchanges codes, lists authorizers, and opens and
// seals what WeChat pushes to a callback address.
//
// It makes one HTTP request per call. It does not cache, retry, log or schedule; that is for the
// caller, who finds in [*Error] what is needed to decide: what class of failure it was, whether
// WeChat may have issued a credential all the same, how long to wait, and what a person should do.
//
// No text that leaves the package contains a secret, a token, a URL's query or a body: what was
// sent is scrubbed from what came back, and transport errors are rebuilt rather than wrapped,
// because [net/url.Error] prints the whole URL.
//
// Facts about WeChat carry their source in the comments:
//
//   - [T] documented by Tencent, [T*] the same through a third party's copy of the page
//   - [SDK] seen in the source of an SDK
//   - [U] reported by users
//
// What no source documents is marked as an assumption.
package wechat
