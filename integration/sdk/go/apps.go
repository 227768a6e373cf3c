package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/credential"
	miniconfig "github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/qrcode"
	"github.com/silenceper/wechat/v2/miniprogram/subscribe"
	oaconfig "github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/officialaccount/material"
	"github.com/silenceper/wechat/v2/officialaccount/message"
	openconfig "github.com/silenceper/wechat/v2/openplatform/config"
)

func official(wc *wechat.Wechat) commands {
	oa := wc.GetOfficialAccount(&oaconfig.Config{AppID: appID, AppSecret: secret})
	return commands{
		"token": func(string) (any, error) { return oa.GetAccessToken() },
		"call": func(string) (any, error) {
			got, err := oa.GetMenu().GetMenu()
			if err != nil {
				return nil, err
			}
			buttons := got.Menu.Button
			return fmt.Sprintf("%s %s", buttons[0].Name, buttons[1].URL), nil
		},
		"send": func(text string) (any, error) {
			return done(oa.GetCustomerMessageManager().Send(message.NewCustomerTextMessage("oOpenID", text)))
		},
		"upload": func(path string) (any, error) {
			m, err := oa.GetMaterial().MediaUpload(material.MediaTypeImage, path)
			return m.MediaID, err
		},
		"sign": func(page string) (any, error) {
			_ = oa.GetContext().Cache.Delete(credential.CacheKeyOfficialAccountPrefix + "_jsapi_ticket_" + appID)
			got, err := oa.GetJs().GetConfig(page)
			if err != nil {
				return nil, err
			}
			return signed(got.NonceStr, got.Timestamp, got.Signature), nil
		},
	}
}

func mini(wc *wechat.Wechat) commands {
	app := wc.GetMiniProgram(&miniconfig.Config{AppID: appID, AppSecret: secret})
	return commands{
		"token": func(string) (any, error) { return app.GetContext().GetAccessToken() },
		"call": func(string) (any, error) {
			got, err := app.GetSubscribe().ListTemplates()
			if err != nil {
				return nil, err
			}
			return got.Data[0].Title, nil
		},
		"send": func(text string) (any, error) {
			return done(app.GetSubscribe().Send(&subscribe.Message{
				ToUser: "oOpenID", TemplateID: "t", Data: map[string]*subscribe.DataItem{"thing1": {Value: text}},
			}))
		},
		"download": func(string) (any, error) {
			picture, err := app.GetQRCode().GetWXACodeUnlimit(qrcode.QRCoder{Scene: "a=1"})
			return digest(picture), err
		},
		"login": func(code string) (any, error) {
			got, err := app.GetAuth().Code2Session(code)
			return got.OpenID, err
		},
	}
}

// configured calls get with the configuration that it takes, as an app reads it from a file.
func configured[C, T any](get func(C) T, members map[string]any) T { return get(decoded[C](members)) }

// sent calls send with the message that it takes.
func sent[M, A any](send func(M) (A, error), members map[string]any) (any, error) {
	_, err := send(decoded[M](members))
	return done(err)
}

func decoded[T any](members map[string]any) (v T) {
	text, err := json.Marshal(members)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		panic(err) // a member has another type than in the SDK
	}
	return v
}

func work(wc *wechat.Wechat) commands {
	corp := configured(wc.GetWork, map[string]any{"corp_id": appID, "corp_secret": secret, "agent_id": agent})
	tickets := credential.CacheKeyWorkPrefix
	return commands{
		"token": func(string) (any, error) { return corp.GetContext().GetAccessToken() },
		"call": func(string) (any, error) {
			got, err := corp.GetAddressList().DepartmentList()
			if err != nil {
				return nil, err
			}
			return got[0].Name, nil
		},
		"send": func(text string) (any, error) {
			return sent(corp.GetMessage().SendText, map[string]any{
				"touser": "@all", "msgtype": "text", "agentid": agent, "text": map[string]any{"content": text},
			})
		},
		"upload": func(path string) (any, error) {
			got, err := corp.GetMaterial().UploadTempFile(path, "image")
			if err != nil {
				return nil, err
			}
			return got.MediaID, nil
		},
		"download": func(string) (any, error) {
			picture, err := corp.GetMaterial().GetTempFile(mediaID)
			return digest(picture), err
		},
		"sign": func(page string) (any, error) {
			_ = corp.GetContext().Cache.Delete(tickets + "_corp_jsapi_ticket_" + appID)
			got, err := corp.JsSdk().GetConfig(page)
			if err != nil {
				return nil, err
			}
			return signed(got.NonceStr, got.Timestamp, got.Signature), nil
		},
		"agentsign": func(page string) (any, error) {
			_ = corp.GetContext().Cache.Delete(tickets + "_agent_jsapi_ticket_" + appID + "_" + agent)
			got, err := corp.JsSdk().GetAgentConfig(page)
			if err != nil {
				return nil, err
			}
			return signed(got.NonceStr, got.Timestamp, got.Signature), nil
		},
	}
}

// open is a third-party platform that keeps what it has of its accounts in its own cache.
func open(wc *wechat.Wechat) commands {
	platform, account := wc.GetOpenPlatform(&openconfig.Config{AppID: appID, AppSecret: secret}), os.Getenv("WXTOKEN_ACCOUNT")
	token := func() (string, error) {
		if kept, err := platform.GetComponentAccessToken(); err == nil {
			return kept, nil
		}
		got, err := platform.SetComponentAccessToken(context.Background(), "any")
		if err != nil {
			return "", err
		}
		return got.AccessToken, nil
	}
	return commands{
		"token":        func(string) (any, error) { return token() },
		"platformcall": func(string) (any, error) { return platform.GetPreCode() },
		"exchange": func(code string) (any, error) {
			got, err := platform.QueryAuthCode(code)
			if err != nil {
				return nil, err
			}
			return map[string]any{"account": got.Appid, "token": got.AccessToken, "secret": got.RefreshToken}, nil
		},
		"refresh": func(string) (any, error) {
			got, err := platform.RefreshAuthrToken(account, "of-this-app")
			if err != nil {
				return nil, err
			}
			return map[string]any{"token": got.AccessToken, "secret": got.RefreshToken}, nil
		},
		"accountcall": func(string) (any, error) {
			got, err := platform.GetOfficialAccount(account).GetBasic().GetCallbackIP()
			if err != nil {
				return nil, err
			}
			return got[0], nil
		},
	}
}
