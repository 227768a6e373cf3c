package wechattest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// ask sends one request straight into the handler. Host "" is api.weixin.qq.com.
func ask(sim http.Handler, method, target, body string) *httptest.ResponseRecorder {
	host := "https://api.weixin.qq.com"
	if strings.HasPrefix(target, "http") {
		host = ""
	}
	r := httptest.NewRequest(method, host+target, strings.NewReader(body))
	r.RemoteAddr = "58.213.199.30:1024"
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, r)
	return w
}

// issue returns a fresh classic or WeCom token.
func issue(sim *wechattest.Server, app string) string {
	how := wechattest.FetchClassic
	if strings.HasPrefix(app, "ww") {
		how = wechattest.FetchCorp
	}
	return sim.ForeignRefresh(app, how).Value
}

const (
	get, post  = "GET", "POST"
	classicOK  = "/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=s1"
	stableOK   = `{"grant_type":"client_credential","appid":"wx1","secret":"s1"}`
	corp       = "https://qyapi.weixin.qq.com"
	notLatest  = "invalid credential, access_token is invalid or not latest"
	stableHint = ", could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
	fromIP     = `, hint: [HINT], from ip: 58.213.199.30, more info at https://open.work.weixin.qq.com/devtool/query?e=`
)

// shapes are requests and the whole answers that are known of WeChat: RID replaces a rid of now,
// VALUE for a credential, HINT for a hint of WeCom; in the targets, {app} for a token of the app.
var shapes = []struct{ method, target, body, want string }{
	{get, classicOK, "", `{"access_token":"VALUE","expires_in":7200}`},
	{get, "/cgi-bin/token", "", `{"errcode":40013,"errmsg":"invalid appid rid: RID"}`},
	{get, "/cgi-bin/token?appid=WX1&secret=s1", "", `{"errcode":40013,"errmsg":"invalid appid rid: RID"}`},
	{get, "/cgi-bin/token?appid=wx1&secret=s1", "", `{"errcode":40002,"errmsg":"invalid grant_type rid: RID"}`},
	{get, "/cgi-bin/token?grant_type=client_credential&appid=wx1", "", `{"errcode":41004,"errmsg":"appsecret missing rid: RID"}`},
	{get, classicOK + "x", "", `{"errcode":40125,"errmsg":"invalid appsecret rid: RID"}`},
	{get, "/cgi-bin/token?grant_type=client_credential&appid=ww1&secret=a", "", `{"errcode":40013,"errmsg":"invalid appid rid: RID"}`},
	{post, "/cgi-bin/stable_token", stableOK, `{"access_token":"VALUE","expires_in":7200}`},
	{get, "/cgi-bin/stable_token", "", `{"errcode":43002,"errmsg":"require POST method rid: RID"}`},
	{post, "/cgi-bin/stable_token", "appid=wx1&secret=s1", `{"errcode":41002,"errmsg":"appid missing rid: RID"}`},
	{post, "/cgi-bin/stable_token", `{"appid":"unknown"}`, `{"errcode":40013,"errmsg":"invalid appid rid: RID"}`},

	{get, "/cgi-bin/getcallbackip?access_token={wx1}", "", `{"ip_list":["106.55.206.146","106.55.206.211"]}`},
	{get, "/cgi-bin/get_api_domain_ip?access_token={wx2}", "", `{"ip_list":["106.55.206.146","106.55.206.211"]}`},
	{get, "/cgi-bin/getcallbackip?access_token=2", "", `{"errcode":40001,"errmsg":"` + notLatest + stableHint + ` rid: RID"}`},
	{get, "/cgi-bin/getcallbackip", "", `{"errcode":41001,"errmsg":"access_token missing rid: RID"}`},
	{get, "/cgi-bin/getcallbackip?access_token=user-token", "", `{"errcode":40001,"errmsg":"` + notLatest + stableHint + ` rid: RID"}`},
	{get, "/cgi-bin/menu/get?access_token={wx1}", "", `{"menu":{"button":[]}}`},
	{get, "/cgi-bin/menu/get?access_token={wx2}", "", `{"errcode":48001,"errmsg":"api unauthorized rid: RID"}`},
	{get, "/cgi-bin/menu/get?access_token={wx3}", "", `{"errcode":46003,"errmsg":"menu no exist rid: RID"}`},
	{post, "/cgi-bin/menu/create?access_token={wx2}", "{}", `{"errcode":48001,"errmsg":"api unauthorized rid: RID"}`},
	{get, "/cgi-bin/menu/create?access_token={wx1}", "", `{"errcode":43002,"errmsg":"require POST method rid: RID"}`},
	{post, "/cgi-bin/menu/create?access_token={wx1}", "", `{"errcode":44002,"errmsg":"empty post data rid: RID"}`},
	{post, "/cgi-bin/menu/create?access_token={wx1}", "a=b", `{"errcode":47001,"errmsg":"data format error rid: RID"}`},
	{get, "/cgi-bin/ticket/getticket?access_token={wx1}&type=jsapi", "", `{"errcode":0,"errmsg":"ok","ticket":"VALUE","expires_in":7200}`},
	{get, "/cgi-bin/ticket/getticket?access_token=2&type=jsapi", "", `{"errcode":40001,"errmsg":"` + notLatest + stableHint + ` rid: RID"}`},
	{post, "/cgi-bin/message/custom/send?access_token={wx1}", `{"touser":"x"}`, `{"errcode":0,"errmsg":"ok"}`},
	{post, "/cgi-bin/message/custom/send?access_token={wx1}", "", `{"errcode":44002,"errmsg":"empty post data rid: RID"}`},
	{get, "/cgi-bin/message/custom/send?access_token={wx1}", "", `{"errcode":43002,"errmsg":"require POST method rid: RID"}`},
	{post, "/cgi-bin/message/custom/send?access_token=2", "", `{"errcode":40001,"errmsg":"` + notLatest + stableHint + ` rid: RID"}`},
	{post, "/wxa/anything?access_token={wx1}", "{", `{"errcode":47001,"errmsg":"data format error rid: RID"}`},
	{post, "/wxa/anything?access_token={wx1}", "{}", `{"errcode":0,"errmsg":"ok"}`},
	{post, "/cgi-bin/openapi/quota/get?access_token={wx1}", `{"cgi_path":"/cgi-bin/token"}`,
		`{"errcode":0,"errmsg":"ok","quota":{"daily_limit":2000,"used":1,"remain":1999},"rate_limit":{"call_count":0,"refresh_second":60},"component_rate_limit":{"call_count":0,"refresh_second":0}}`},
	{post, "/cgi-bin/openapi/quota/get?access_token={wx1}", `{"cgi_path":"https://api"}`, `{"errcode":76003,"errmsg":"rid error rid: RID"}`},
	{post, "/cgi-bin/openapi/quota/get?access_token={wx1}", `{"cgi_path":"/nothing"}`, `{"errcode":76021,"errmsg":"cgi_path not found rid: RID"}`},
	{post, "/cgi-bin/openapi/quota/get?access_token={wx1}", `{"cgi_path":"/sns/auth"}`, `{"errcode":76022,"errmsg":"no permission rid: RID"}`},
	{post, "/cgi-bin/clear_quota?access_token={wx1}", `{"appid":"wx2"}`, `{"errcode":40013,"errmsg":"invalid appid rid: RID"}`},

	{get, "/wxaapi/newtmpl/gettemplate?access_token={wx2}", "", `{"errcode":0,"errmsg":"ok","data":[{"priTmplId":"sim-template","title":"sim","content":"{{thing1.DATA}}","example":"sim","type":2}]}`},
	{post, "/wxa/getwxacodeunlimit?access_token={wx2}", "", `{"errcode":44002,"errmsg":"empty post data rid: RID"}`},
	{post, "/wxa/getwxacode?access_token={wx2}", "{", `{"errcode":47001,"errmsg":"data format error rid: RID"}`},
	{get, "/cgi-bin/wxaapp/createwxaqrcode?access_token={wx2}", "", `{"errcode":43002,"errmsg":"require POST method rid: RID"}`},
	{post, "/wxa/getwxacodeunlimit?access_token=2", "{}", `{"errcode":40001,"errmsg":"` + notLatest + stableHint + ` rid: RID"}`},

	{get, "/sns/userinfo?access_token=user-token&openid=o", "", `{"openid":"o","nickname":"sim"}`},
	{get, "/sns/auth?access_token=user-token&openid=o", "", `{"errcode":0,"errmsg":"ok"}`},
	{get, "/sns/userinfo?access_token={wx1}&openid=o", "", `{"errcode":40001,"errmsg":"` + notLatest + `, rid: RID"}`},
	{get, "/sns/jscode2session?appid=unknown&secret=s1", "", `{"errcode":40013,"errmsg":"invalid appid, rid: RID"}`},

	{get, corp + "/cgi-bin/gettoken?corpid=ww1&corpsecret=a", "", `{"errcode":0,"errmsg":"ok","access_token":"VALUE","expires_in":7200}`},
	{get, corp + "/cgi-bin/gettoken", "", `{"errcode":41004,"errmsg":"corpsecret missing` + fromIP + `41004"}`},
	{get, corp + "/cgi-bin/gettoken?corpid=ww9&corpsecret=a", "", `{"errcode":40013,"errmsg":"invalid corpid` + fromIP + `40013"}`},
	{get, corp + "/cgi-bin/gettoken?corpid=ww1&corpsecret=c", "", `{"errcode":40001,"errmsg":"invalid credential` + fromIP + `40001"}`},
	{get, corp + "/cgi-bin/getcallbackip?access_token={ww1:A}", "", `{"errcode":0,"errmsg":"ok","ip_list":["106.55.206.146","106.55.206.211"]}`},
	{get, corp + "/cgi-bin/getcallbackip?access_token=2", "", `{"errcode":40014,"errmsg":"invalid access_token","ip_list":[]}`},
	{get, corp + "/cgi-bin/getcallbackip?access_token={wx1}", "", `{"errcode":40014,"errmsg":"invalid access_token","ip_list":[]}`},
	{get, corp + "/cgi-bin/getcallbackip", "", `{"errcode":41001,"errmsg":"access_token missing` + fromIP + `41001"}`},
	{get, corp + "/cgi-bin/get_jsapi_ticket?access_token=2", "", `{"errcode":40014,"errmsg":"invalid access_token","ticket":"","expires_in":0}`},
	{get, corp + "/cgi-bin/ticket/get?access_token={ww1:B}&type=agent_config", "", `{"errcode":0,"errmsg":"ok","ticket":"VALUE","expires_in":7200}`},
	{post, corp + "/cgi-bin/message/send?access_token={ww1:A}", `{"touser":"x"}`, `{"errcode":0,"errmsg":"ok"}`},
	{get, corp + "/cgi-bin/department/list?access_token={ww1:A}", "",
		`{"errcode":0,"errmsg":"ok","department":[{"id":1,"name":"sim","parentid":0,"order":1}]}`},
	{get, corp + "/cgi-bin/department/list?access_token=2", "", `{"errcode":40014,"errmsg":"invalid access_token"}`},
}

func TestShapes(t *testing.T) {
	for _, tt := range shapes {
		name := tt.method + " " + tt.target + " " + tt.body
		t.Run(name, func(t *testing.T) {
			sim := wechattest.New(official, mini, agentA, agentB, wechattest.App{ID: "wx3", Secret: "s3"})
			ask(sim, get, classicOK, "") // so that a quota is in use
			target := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllStringFunc(tt.target, func(app string) string {
				return issue(sim, strings.Trim(app, "{}"))
			})
			before := time.Now().Unix()
			w := ask(sim, tt.method, target, tt.body)
			pattern := strings.NewReplacer(
				"VALUE", `[\w-]{86,214}`, "HINT", `\d{22}`, "RID", `([0-9a-f]{8})-[0-9a-f]{8}-[0-9a-f]{8}`,
			).Replace(regexp.QuoteMeta(tt.want))
			m := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(w.Body.String())
			if w.Code != http.StatusOK || m == nil {
				t.Fatalf("%d %s\nwant %s", w.Code, w.Body, tt.want)
			}
			var unix int64
			if len(m) == 2 {
				if _, err := fmt.Sscanf(m[1], "%x", &unix); err != nil || unix < before || unix > time.Now().Unix() {
					t.Errorf("the rid begins with the time %d, want about %d (%v)", unix, before, err)
				}
			}
			isCorp := strings.HasPrefix(tt.target, corp)
			wantType := "application/json; encoding=utf-8"
			if isCorp {
				wantType = "application/json; charset=UTF-8"
			}
			if got := w.Header().Get("Content-Type"); got != wantType {
				t.Errorf("Content-Type %q, want %q", got, wantType)
			}
			if got := w.Header().Get("error-code") != ""; got != isCorp {
				t.Errorf("has an error-code header: %v, want %v", got, isCorp)
			}
		})
	}
}

func TestAnswersWithoutABody(t *testing.T) {
	sim := wechattest.New(official, agentA)
	if w := ask(sim, "GET", "https://qyapi.weixin.qq.com/cgi-bin/token", ""); w.Code != 404 || w.Body.Len() != 0 {
		t.Errorf("unknown path of WeCom: %d %q", w.Code, w.Body)
	}
	chunked := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/cgi-bin/stable_token", io.MultiReader(strings.NewReader(
			`{"grant_type":"client_credential","appid":"wx1","secret":"s1"}`)))
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		return w
	}
	if w := chunked(); w.Code != 412 || w.Body.Len() != 0 {
		t.Errorf("chunked: %d %q, want an empty 412", w.Code, w.Body)
	}
	if got := sim.Calls("wx1").Fetches(); got != 0 {
		t.Errorf("%d fetches counted: the gateway refuses first", got)
	}
	sim.Tune(func(k *wechattest.Knobs) { k.AcceptChunked = true })
	if w := chunked(); w.Code != 200 {
		t.Errorf("chunked with the knob: %d", w.Code)
	}
}

// TestAloneWeComIsRecognisedOnAnyHost: there are only WeCom apps, and no host name to go by.
func TestAloneWeComIsRecognisedOnAnyHost(t *testing.T) {
	sim := wechattest.New(agentA)
	w := ask(sim, "GET", "http://127.0.0.1/cgi-bin/getcallbackip?access_token=2", "")
	if !strings.Contains(w.Body.String(), "40014") {
		t.Errorf("garbage token: %s", w.Body)
	}
}

func TestMedia(t *testing.T) {
	sim := wechattest.New(official)
	token := issue(sim, "wx1")
	content := make([]byte, 100_000)
	_, _ = io.ReadFull(wechattest.MediaBody(100_000), content)

	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("media", "a.jpg")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = part.Write(content)
	form.Close()
	r := httptest.NewRequest("POST", "/cgi-bin/media/upload?type=image&access_token="+token, &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	w := httptest.NewRecorder()
	sim.ServeHTTP(w, r)
	var answer struct {
		Type    string
		MediaID string `json:"media_id"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Type != "image" {
		t.Fatalf("upload: %s, %v", w.Body, err)
	}
	sum := sha256.Sum256(content)
	want := wechattest.Upload{Size: 100_000, SHA256: hex.EncodeToString(sum[:]), Filename: "a.jpg", Type: "image"}
	got, ok := sim.Uploaded(answer.MediaID)
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("Uploaded differs (-want +got):\n%s", diff)
	}

	w = ask(sim, "GET", "/cgi-bin/media/get?media_id=size-100000&access_token="+token, "")
	if !bytes.Equal(w.Body.Bytes(), content) || w.Header().Get("Content-Type") != "image/jpeg" {
		t.Errorf("download: %d bytes of %s", w.Body.Len(), w.Header().Get("Content-Type"))
	}
	if w = ask(sim, "GET", "/cgi-bin/media/get?media_id=video&access_token="+token, ""); !strings.HasPrefix(w.Body.String(), `{"video_url":`) {
		t.Errorf("video: %s", w.Body)
	}
	if w = ask(sim, "POST", "/cgi-bin/media/upload?access_token="+token, "no form"); !strings.Contains(w.Body.String(), `"errcode":44001`) {
		t.Errorf("upload without a form: %s", w.Body)
	}
}

func TestCodeIsAPicture(t *testing.T) {
	sim := wechattest.New(mini)
	w := ask(sim, "POST", "/wxa/getwxacodeunlimit?access_token="+issue(sim, mini.ID), `{"scene":"a=1"}`)
	if !bytes.Equal(w.Body.Bytes(), wechattest.Code()) || w.Header().Get("Content-Type") != "image/jpeg" {
		t.Errorf("%d bytes of %s, %q", w.Body.Len(), w.Header().Get("Content-Type"), w.Body.Bytes()[:min(w.Body.Len(), 99)])
	}
	if img, err := jpeg.Decode(w.Body); err != nil || img.Bounds().Dx() != 430 {
		t.Errorf("no picture: %v", err)
	}
}
