package proxy

import (
	"testing"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
)

// Which token a call of a third-party platform takes, under which name.
func TestTheTokenOfAThirdPartyPlatform(t *testing.T) {
	component := &apps.App{TokenParam: "component_access_token"}
	suite := &apps.App{TokenParam: "suite_access_token", Platform: apps.WeCom}
	for _, c := range []struct {
		app         *apps.App
		path, query string
		want        string
	}{
		{component, "/cgi-bin/component/api_get_authorizer_list", "", "component_access_token"},
		{component, "/CGI-BIN/component/api_create_preauthcode", "access_token=x", "component_access_token"},
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
