package dropin

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/platform"
	"github.com/wxtoken/sidecar/pkg/wechat"
)

// component serves the calls of a third-party platform of WeChat.
func (r *request) component(ctx context.Context) ([]byte, error) {
	switch {
	case r.find(apps.ComponentToken, r.in.Component):
	case r.in.Component == "":
		return nil, &Refusal{41002, "appid missing", "the body is a JSON object with component_appid"}
	default:
		return nil, &Refusal{40013, "invalid appid", "no third-party platform with this component_appid is configured in the sidecar, or the path names another one"}
	}
	var answer object
	switch strings.TrimPrefix(r.call.Path, component) {
	case "api_component_token":
		err := r.token(ctx, &answer, apps.ComponentToken, r.app.Key)
		return answer.end(), err
	case "api_start_push_ticket":
		answer.ok()
		return answer.end(), r.platform.StartPush(ctx)
	case "api_authorizer_token":
		if !apps.IsAccount(r.in.Authorizer) {
			return nil, &Refusal{40013, "invalid appid", "authorizer_appid is missing, or none"}
		}
		err := r.token(ctx, &answer, "authorizer_access_token", r.account(r.in.Authorizer))
		answer.text("authorizer_refresh_token", cmp.Or(r.in.RefreshToken, apps.Placeholder))
		return answer.end(), err
	}
	return r.queryAuth(ctx)
}

// queryAuth serves api_query_auth. An account without API permissions has no tokens, as at WeChat.
func (r *request) queryAuth(ctx context.Context) ([]byte, error) {
	if r.in.Code == "" {
		return nil, errCode
	}
	id, account, err := r.exchange(ctx, r.in.Code)
	if err != nil {
		return nil, err
	}
	var answer, auth object
	auth.text("authorizer_appid", id)
	if account.HasTokens {
		if err := r.token(ctx, &auth, "authorizer_access_token", r.account(id)); err != nil {
			return nil, err
		}
		auth.text("authorizer_refresh_token", apps.Placeholder)
	}
	if account.Info == nil {
		account.Info = json.RawMessage("[]")
	}
	auth.raw("func_info", account.Info)
	answer.raw("authorization_info", auth.end())
	return answer.end(), nil
}

// provider serves the call of a provider.
func (r *request) provider(ctx context.Context) ([]byte, error) {
	if !r.find(apps.ProviderToken, r.in.Corp) {
		return nil, &Refusal{40013, "invalid corpid", "no provider with this corpid is configured in the sidecar, or the path names another one"}
	}
	var answer object
	answer.ok()
	err := r.token(ctx, &answer, apps.ProviderToken, r.app.Key)
	return answer.end(), err
}

// suite serves the calls of a suite of WeCom, and those of a template.
func (r *request) suite(ctx context.Context) ([]byte, error) {
	name := strings.TrimPrefix(r.call.Path, service)
	switch found := r.find(apps.SuiteToken, r.in.Suite); {
	case found:
	case name == "get_suite_token" && r.in.Suite == "":
		return nil, &Refusal{41021, "suite_id missing", "the body is a JSON object with suite_id"}
	case name == "get_suite_token":
		return nil, &Refusal{40083, "invalid suite_id", "no suite with this suite_id is configured in the sidecar, or the path names another one"}
	default:
		return nil, &Refusal{40082, "invalid suite_token", "it is no current or lately replaced token of a suite that is configured in the sidecar, which has none or several"}
	}
	var answer object
	answer.ok()
	switch name {
	case "get_suite_token":
		err := r.token(ctx, &answer, apps.SuiteToken, r.app.Key)
		return answer.end(), err
	case "get_permanent_code", "v2/get_permanent_code":
		return r.permanentCode(ctx, &answer, name)
	}
	if !apps.IsAccount(r.in.AuthCorp) {
		return nil, &Refusal{40013, "invalid corpid", "auth_corpid is missing, or none"}
	}
	if name == "get_corp_token" {
		err := r.token(ctx, &answer, "access_token", r.account(r.in.AuthCorp))
		return answer.end(), err
	}
	info, err := r.platform.CorpInfo(ctx, wechat.InfoCall(name), r.in.AuthCorp)
	answer.members(info)
	return answer.end(), err
}

// permanentCode serves both forms of get_permanent_code. The newer one brings no token, and a
// template's neither.
func (r *request) permanentCode(ctx context.Context, answer *object, name string) ([]byte, error) {
	if r.in.AuthCode == "" {
		return nil, errCode
	}
	corp, account, err := r.exchange(ctx, r.in.AuthCode)
	if err != nil {
		return nil, err
	}
	if name == "get_permanent_code" && r.platform.Kind() == platform.Suite {
		if err := r.token(ctx, answer, "access_token", r.account(corp)); err != nil {
			return nil, err
		}
	}
	answer.text("permanent_code", apps.Placeholder)
	if account.Info == nil { // it was longer than what is kept
		var only object
		only.text("corpid", corp)
		answer.raw("auth_corp_info", only.end())
	}
	answer.members(account.Info)
	return answer.end(), nil
}

// object is a JSON object that is being written. The zero value is an empty one.
type object struct{ buf []byte }

func (o *object) raw(name string, value []byte) {
	separator := byte(',')
	if o.buf == nil {
		separator = '{'
	}
	o.buf = append(append(o.buf, separator, '"'), name...)
	o.buf = append(append(o.buf, `":`...), value...)
}

func (o *object) text(name, value string) {
	quoted, err := json.Marshal(value)
	if err != nil {
		quoted = []byte(`""`) // cannot be: a text
	}
	o.raw(name, quoted)
}

// ok begins an answer as WeCom does.
func (o *object) ok() {
	o.raw("errcode", []byte("0"))
	o.text("errmsg", "ok")
}

// members adds those of another object.
func (o *object) members(of json.RawMessage) {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(of, &all) // what is not an object adds no member
	for _, name := range slices.Sorted(maps.Keys(all)) {
		o.raw(name, all[name])
	}
}

func (o *object) end() []byte {
	if o.buf == nil {
		return []byte("{}")
	}
	return append(o.buf, '}')
}
