package wechattest

import "testing"

// The vectors are Tencent's: the Java sample, and the answer on the page of the open platform.
func TestSealMatchesTencentsVectors(t *testing.T) {
	const k1 = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	const zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	const reply = "hE8R6mGXHkJJjU72KxzKUd1GEkKJaEZq7vRL8XgK3o+00k8JGq6+pZJUIlTSyhsX+bxIBQ72g3GyvDdIZcr6+3HAZbSvPT9t/o11MI7d6WELwqrGd7jMnV0zv3Zc9Nq7"
	for _, tt := range []struct{ key, receiver, random, message, want string }{
		{k1, "wxb11529c136998cb6", "aaaabbbbccccdddd", "我是中文abcd123",
			"jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg=="},
		{zeros, "wx134c8103faa5a59e", "999951349e8ee746", "<xml><demo_resp>[CDATA[good luck]]</demo_resp></xml>", reply},
	} {
		if got, err := sealText(tt.key, tt.receiver, tt.random, tt.message); got != tt.want || err != nil {
			t.Errorf("%q sealed as %s, %v; want %s", tt.message, got, err, tt.want)
		}
	}
	if got := signText("AAAAA", "1713424427", "415670741", reply); got != "03e0812039325c2712ef5f0f980fd14c70d6e307" {
		t.Errorf("signature %s", got)
	}
	for _, key := range []string{"", k1[1:], k1 + "H", "!" + k1[1:]} {
		if _, err := sealText(key, "", "aaaabbbbccccdddd", ""); err == nil {
			t.Errorf("key %q is accepted", key)
		}
	}
}
