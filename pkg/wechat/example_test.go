package wechat_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/wechat"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

func Example() {
	sim := wechattest.New(wechattest.App{ID: "wx0123456789abcdef", Secret: "hush"})
	transport := sim.Transport()
	defer transport.Close()

	client := &wechat.Client{HTTP: &http.Client{Transport: transport}} // in production: new(wechat.Client)
	ctx := context.Background()
	token, err := client.StableToken(ctx, "wx0123456789abcdef", secret.New("hush"), wechat.Normal)
	fmt.Println(token.Value, token.ExpiresIn, err)
	fmt.Println("probe:", client.Probe(ctx, token.Value, wechat.ProbeCallbackIP))
	// Output:
	// [redacted] 2h0m0s <nil>
	// probe: <nil>
}

func ExampleError() {
	sim := wechattest.New(wechattest.App{ID: "wx0123456789abcdef", Secret: "hush"})
	transport := sim.Transport()
	defer transport.Close()
	client := &wechat.Client{HTTP: &http.Client{Transport: transport}}

	_, err := client.Token(context.Background(), "wx0123456789abcdef", secret.New("wrong"))
	if e, ok := errors.AsType[*wechat.Error](err); ok {
		fmt.Println(e.Code, e.Class(), e.MayHaveIssued())
		fmt.Println(e.Advice())
	}
	// Output:
	// 40125 config false
	// The AppSecret is wrong: mistyped, or reset in the console since. Configure the present AppSecret; WeChat shows none again, so if it is lost, reset it.
}

// A third-party platform: from the ticket that WeChat pushes, and the code of an authorisation, to
// the token of the account that authorised.
func ExampleClient_AuthorizerToken() {
	sim := wechattest.New()
	sim.AddPlatform(wechattest.Platform{ID: "wxplatform", Secret: "hush"})
	transport := sim.Transport()
	defer transport.Close()
	client := &wechat.Client{HTTP: &http.Client{Transport: transport}}
	ctx := context.Background()

	ticket := secret.New(sim.Ticket("wxplatform")) // see Envelope and ParsePush
	component, err := client.ComponentToken(ctx, "wxplatform", secret.New("hush"), ticket)
	if err != nil {
		fmt.Println(err)
		return
	}
	code := secret.New(sim.Authorize("wxplatform", "wxshop"))
	auth, err := client.QueryAuth(ctx, component.Value, "wxplatform", code)
	if err != nil {
		fmt.Println(err)
		return
	}
	// Here the program stores auth.Secret, before it fetches a token with it.
	token, refreshToken, err := client.AuthorizerToken(ctx, component.Value, "wxplatform", auth.Authorizer, auth.Secret)
	fmt.Println(auth.Authorizer, token.Value, token.ExpiresIn, refreshToken.Equal(auth.Secret), err)
	// Output: wxshop [redacted] 2h0m0s true <nil>
}

// The example of WeChat's own documentation.
func ExampleSign() {
	ticket := secret.New("sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg")
	fmt.Println(wechat.Sign(ticket, "Wm3WZYTPz0wzccnW", 1414587457, "http://mp.weixin.qq.com?params=value"))
	fmt.Println(wechat.Sign(ticket, "Wm3WZYTPz0wzccnW", 1414587457, "http://mp.weixin.qq.com?params=value#top"))
	// Output:
	// 0f9de62fce790f9a083d5c99e95740ceb90c27ed
	// 0f9de62fce790f9a083d5c99e95740ceb90c27ed
}

// A callback address: its check, a push and the answer. The values are those of WeCom's
// documentation.
func ExampleEnvelope() {
	envelope, err := wechat.NewEnvelope(secret.New("QDG6eK"), "wx5823bf96d3bd56c7", secret.New("jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"))
	if err != nil {
		fmt.Println(err)
		return
	}
	query, _ := url.ParseQuery("timestamp=1409659589&nonce=263014780&msg_signature=5c45ff5e21c57e6ad56bac8758b79b1d9ac89fd3" +
		"&echostr=P9nAzCzyDtyTWESHep1vC5X9xho%2FqYX3Zpb4yKa9SKld1DsH3Iyt3tP3zNdtp%2B4RPcs8TgAE7OaBO%2BFZXvnaqQ%3D%3D")
	answer, err := envelope.Echo(query)
	fmt.Printf("%s %v\n", answer, err)
	// Output: 1616140317555161061 <nil>
}
