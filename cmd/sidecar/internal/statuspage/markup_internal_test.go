package statuspage

import "testing"

func TestATextEntersMarkupEscapedAndInItsPlaceOnly(t *testing.T) {
	var w pageWriter
	w.put(`<p class="{}">{}</p>`, `"{}'`, `<b>&{}`)
	w.put(`<br>`)
	if got, want := string(w.body), `<p class="&#34;{}&#39;">&lt;b&gt;&amp;{}</p><br>`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, texts := range [][]string{{}, {"1"}, {"1", "2", "3"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d texts were put in two places", len(texts))
				}
			}()
			w.put(`{} {}`, texts...)
		}()
	}
}
