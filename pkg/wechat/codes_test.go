package wechat_test

import (
	"strings"
	"testing"

	"github.com/wxtoken/sidecar/pkg/wechat"
)

// table is what every known code means, written down a second time: its class on a token endpoint,
// on a call, on WeCom's token endpoint and on a call of WeCom.
const table = `
	     0 other     other     other     other
	    -1 retry     retry     retry     retry
	 -1000 retry     retry     retry     retry
	 40001 config    bad_token config    config
	 40002 config    config    config    config
	 40013 config    config    config    config
	 40014 other     bad_token other     bad_token
	 40030 other     other     other     other
	 40066 other     other     other     other
	 40078 other     other     config    config
	 40080 other     other     config    config
	 40082 other     other     bad_token bad_token
	 40083 other     other     config    config
	 40084 other     other     config    config
	 40085 other     other     retry     retry
	 40091 retry     retry     config    config
	 40094 config    config    other     other
	 40125 config    config    config    config
	 40164 egress    egress    other     other
	 40170 config    config    other     other
	 40201 other     other     other     other
	 40202 other     other     other     other
	 40203 other     other     other     other
	 40234 other     other     other     other
	 40243 config    config    config    config
	 41001 config    config    config    config
	 41002 config    config    config    config
	 41004 config    config    config    config
	 41018 config    config    other     other
	 41021 config    config    config    config
	 41022 other     other     config    config
	 41023 other     other     config    config
	 41024 other     other     config    config
	 41025 other     other     config    config
	 42001 other     bad_token other     bad_token
	 42002 other     other     other     other
	 42003 other     other     other     other
	 42007 other     other     config    config
	 42009 other     other     bad_token bad_token
	 43001 config    config    config    config
	 43002 config    config    config    config
	 43003 config    config    config    config
	 44001 other     other     other     other
	 44002 other     other     other     other
	 45002 other     other     other     other
	 45009 quota     quota     quota     quota
	 45011 minute    minute    minute    minute
	 45033 other     other     quota     quota
	 45035 egress    egress    quota     quota
	 46003 other     other     other     other
	 47001 other     other     other     other
	 48001 config    config    config    config
	 48002 other     other     config    config
	 48004 config    config    config    config
	 48006 quota     quota     other     other
	 48017 config    config    other     other
	 50001 other     other     other     other
	 50002 config    config    config    config
	 50003 other     other     config    config
	 50004 config    config    other     other
	 50007 config    config    other     other
	 60020 other     other     egress    egress
	 61003 config    config    other     other
	 61004 egress    egress    other     other
	 61005 retry     retry     other     other
	 61006 retry     retry     other     other
	 61007 config    config    other     other
	 61009 config    config    other     other
	 61010 config    config    other     other
	 61011 config    config    other     other
	 61014 config    config    other     other
	 61015 config    config    other     other
	 61016 config    config    other     other
	 61017 config    config    other     other
	 61023 config    config    other     other
	 61024 config    config    other     other
	 61028 config    config    other     other
	 61029 config    config    other     other
	 61030 config    config    other     other
	 76001 other     other     other     other
	 76002 other     other     other     other
	 76003 other     other     other     other
	 76004 other     other     other     other
	 76021 other     other     other     other
	 76022 other     other     other     other
	 85105 config    config    other     other
	 85107 config    config    other     other
	 85112 config    config    other     other
	 85113 retry     retry     other     other
	 89501 egress    egress    other     other
	 89503 egress    egress    other     other
	 89506 egress    egress    other     other
	 89507 egress    egress    other     other
	710000 other     other     config    config
	999999 other     other     other     other
`

func TestClassify(t *testing.T) {
	apis := [][]wechat.API{
		{wechat.APIToken, wechat.APIComponentToken}, {wechat.APICall, wechat.APIComponent},
		{wechat.APICorpToken, wechat.APISuiteToken}, {wechat.APICorpCall, wechat.APISuite},
	}
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		code := atoi(t, words[0])
		for i, column := range apis {
			for _, api := range column {
				checkMeaning(t, api, code, words[1+i])
			}
		}
	}
	for _, api := range []wechat.API{0, 9, -1} {
		if got := wechat.Classify(api, 40013); got != wechat.ClassOther {
			t.Errorf("Classify(%v, 40013) = %v, want other", api, got)
		}
	}
}

// checkMeaning checks the class of a code, and that a person who has to act is advised.
func checkMeaning(t *testing.T, api wechat.API, code int, want string) {
	t.Helper()
	got := wechat.Classify(api, code)
	if got.String() != want {
		t.Errorf("Classify(%v, %d) = %v, want %s", api, code, got, want)
	}
	advice := (&wechat.Error{API: api, Code: code, Status: 200, Sent: true}).Advice()
	needed := got == wechat.ClassConfig || got == wechat.ClassEgress || got == wechat.ClassQuota
	if (advice != "") != needed {
		t.Errorf("%v, %d: the advice for class %v is %q", api, code, got, advice)
	}
	if strings.Contains(advice, "base URL") && code != 43003 && code != 48017 {
		t.Errorf("%v, %d has no advice of its own", api, code)
	}
}

func TestLabelsComeFromClosedSets(t *testing.T) {
	classes := make(map[string]bool)
	for c := wechat.Class(-3); c < 20; c++ {
		classes[c.String()] = true
	}
	if len(classes) != 7 {
		t.Errorf("%d different labels for classes, want 7: %v", len(classes), classes)
	}
	for api, want := range map[wechat.API]string{
		wechat.APIToken: "token", wechat.APICall: "call", wechat.APICorpToken: "corp_token",
		wechat.APICorpCall: "corp_call", wechat.APIComponentToken: "component_token", wechat.APIComponent: "component",
		wechat.APISuiteToken: "suite_token", wechat.APISuite: "suite", 0: "API(0)",
	} {
		if got := api.String(); got != want {
			t.Errorf("String = %q, want %q", got, want)
		}
	}
}
