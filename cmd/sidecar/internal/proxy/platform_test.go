package proxy

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
)

// Which token a call of a third-party platform takes, under which name.
func TestTheTokenOfAThirdPartyPlatform(t *testing.T) {
	component := &apps.App{TokenParam: "component_access_token"}
	provider := &apps.App{TokenParam: "provider_access_token", Platform: apps.WeCom}
	suite := &apps.App{TokenParam: "suite_access_token", Platform: apps.WeCom}
	for _, c := range []struct {
		app         *apps.App
		path, query string
		want        string
	}{
		{component, "/cgi-bin/component/api_get_authorizer_list", "", "component_access_token"},
		{component, "/CGI-BIN/component/api_create_preauthcode", "access_token=x&component_access_token=y", "component_access_token"},
		{component, "/cgi-bin/component/api_create_preauthcode", "access_token=x", "access_token"},
		{component, "/sns/component/jscode2session", "appid=wx1", "component_access_token"},
		{component, "/sns/oauth2/component/access_token", "", "component_access_token"},
		{component, "/wxa/gettemplatelist", "", "access_token"},
		{component, "/sns/userinfo", "access_token=of-a-user", ""},
		{component, "/cgi-bin/token", "", ""},
		{component, "/wxa/gettemplatelist", "cloudbase_access_token=x", ""},
		{suite, "/cgi-bin/service/get_pre_auth_code", "", "suite_access_token"},
		{suite, "/cgi-bin/gettoken", "", ""},
		{suite, "/cgi-bin/user/get", "provider_access_token=x", ""},
		{suite, "/cgi-bin/user/get", "", "access_token"},
		{provider, "/cgi-bin/service/corpid_to_opencorpid", "", "provider_access_token"},
		{provider, "/cgi-bin/license/create_new_order", "", "provider_access_token"},
		{provider, "/cgi-bin/service/GET_login_info/", "", "access_token"},
		{provider, "/cgi-bin/service/get_login_info", "provider_access_token=x", "provider_access_token"},
		{&apps.App{}, "/cgi-bin/component/api_get_authorizer_list", "", ""},
		{&apps.App{}, "/cgi-bin/menu/get", "", "access_token"},
	} {
		if got := tokenParam(c.app, c.path, c.query); got != c.want {
			t.Errorf("%s?%s: %q, want %q", c.path, c.query, got, c.want)
		}
	}
	for path := range ownCalls {
		if ownCall(component, path+"/") == nil || ownCall(&apps.App{}, path) != nil {
			t.Errorf("%s: only a platform's is refused", path)
		}
	}
}

// Which platform a call is of that names none by its path: by what it carries, in this order.
func TestWhosePlatformAPlainCallIs(t *testing.T) {
	for _, c := range []struct{ path, query, want string }{
		{"/cgi-bin/component/api_create_preauthcode", "", "component_access_token"},
		{"/SNS/component/jscode2session", "appid=wx1", "component_access_token"},
		{"/cgi-bin/service/get_pre_auth_code", "", "suite_access_token"},
		{"/cgi-bin/service/get_pre_auth_code", "provider_access_token=x", "provider_access_token"},
		{"/cgi-bin/service/get_login_info", "access_token=x", "provider_access_token"},
		{"/cgi-bin/license/list_order", "", "provider_access_token"},
		{"/cgi-bin/menu/get", "component_access_token=x", ""},
		{"/sns/jscode2session", "", ""},
	} {
		if got := platformParam(c.path, c.query); got != c.want {
			t.Errorf("%s?%s: %q, want %q", c.path, c.query, got, c.want)
		}
	}
}
