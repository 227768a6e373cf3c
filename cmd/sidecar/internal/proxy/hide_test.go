package proxy

import "testing"

// What WeChat returns of its own accord, and what it might.
func TestNoRefreshTokenIsPassedOn(t *testing.T) {
	for body, want := range map[string]string{
		`{"total_count":2,"list":[{"authorizer_appid":"a","refresh_token":"SECRET","auth_time":1},{"authorizer_appid":"b","auth_time":2}]}`: `{"total_count":2,"list":[{"authorizer_appid":"a","refresh_token":"wxtoken","auth_time":1},{"authorizer_appid":"b","auth_time":2}]}`,
		`{"authorization_info" : { "authorizer_refresh_token" : "SECRET" , "func_info":[{"x":{"id":1.50}}]}}`:                               `{"authorization_info" : { "authorizer_refresh_token" : "wxtoken" , "func_info":[{"x":{"id":1.50}}]}}`,
		`{"refresh\u005ftoken":"SEC\"RET","a":"refresh_token","b":"kept"}`:                                                                  `{"refresh\u005ftoken":"wxtoken","a":"refresh_token","b":"kept"}`,
		`{"refresh_token":17,"b":["refresh_token","kept"]}`:                                                                                 `{"refresh_token":"wxtoken","b":["refresh_token","kept"]}`,
		`{"refresh_token":"","authorizer_refresh_token":null,"b":[[],{}]}`:                                                                  `{"refresh_token":"","authorizer_refresh_token":null,"b":[[],{}]}`,
		"\xef\xbb\xbf" + `{"errcode":61003,"errmsg":"no"}`:                                                                                  `{"errcode":61003,"errmsg":"no"}`,
		`{"refresh_token":{"value":"SECRET"}}`:                                                                                              "",
		`{"refresh_token":["SECRET"]}`:                                                                                                      "",
		`{"refresh_token":"SECRET"`:                                                                                                         "",
		"\x1f\x8b compressed":                                                                                                               "",
		``:                                                                                                                                  "",
	} {
		got, err := withoutRefreshTokens([]byte(body))
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", body, got, err, want)
		}
	}
}
