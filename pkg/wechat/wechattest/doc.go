// Package wechattest is a WeChat that behaves: an [net/http.Handler] with the endpoints, the error
// shapes, the 5-minute overlap, the quotas and the accidents of api.weixin.qq.com and
// qyapi.weixin.qq.com, as far as they are known. It is for tests and for running a sidecar without
// an account; it does not import package testing.
//
//	sim := wechattest.New(wechattest.App{ID: "wx1", Secret: "s1"})
//	transport := sim.Transport()
//	defer transport.Close()
//	client := &wechat.Client{HTTP: &http.Client{Transport: transport}}
//
// The transport is a real HTTP server over in-memory connections; mount the [Server] on any other
// server just as well. It knows no time but [time.Now] and holds no lock while it waits, so in a
// testing/synctest bubble, where a Server and its transport have to be made inside, it lives in
// virtual time.
//
// What it does where the documentation says nothing, or two things, is in [Knobs]; the defaults
// are the more likely reading. [Fault] makes calls fail, [Server.Status] says what a token is worth
// without counting as a call, and [Server.Calls] and [Server.Issued] say what happened.
//
// [Server.AddPlatform] adds a third-party platform or a WeCom suite: its calls, its authorizers, whose
// tokens work like those of apps, and the pushes of tickets and events, which [Server.RunPushes]
// signs, encrypts and sends to a callback.
//
// Marks such as [T] in the comments are those of package wechat.
//
// Not simulated: users' messages to an authorizer, https, and what any API does beyond checking the
// token.
//
// It is a test kit: its API is not under semantic versioning and may change in any release.
package wechattest
