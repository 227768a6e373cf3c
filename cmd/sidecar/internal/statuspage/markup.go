package statuspage

import (
	"html"
	"strings"
)

// markup is HTML that this program's source holds. A literal becomes one by itself; a string that
// comes from elsewhere does not compile as one, and can enter a page as a text only.
type markup string

// pageWriter writes HTML. Its zero value is an empty page.
type pageWriter struct{ body []byte }

// put writes form with each {} in it replaced by the next text, escaped. That holds where a text
// can stand: between tags, and in an attribute between quotes. It panics unless there are as many
// texts as {}.
func (w *pageWriter) put(form markup, texts ...string) {
	if strings.Count(string(form), "{}") != len(texts) {
		panic("api: not one text for each {} of " + string(form))
	}
	rest := string(form)
	for _, text := range texts {
		before, after, _ := strings.Cut(rest, "{}")
		w.body = append(append(w.body, before...), html.EscapeString(text)...)
		rest = after
	}
	w.body = append(w.body, rest...)
}
