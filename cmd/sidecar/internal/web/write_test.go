package web_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/web"
)

// A text of any bytes becomes a JSON string that means the same.
func TestAppendStringIsWhatADecoderReads(t *testing.T) {
	var texts []string
	for c := range 256 {
		texts = append(texts, string(rune(c)), "a"+string(rune(c))+"z")
	}
	for _, text := range append(texts, "", "86_plain-TOKEN", "\u2028", "汉字") {
		quoted := web.AppendString([]byte("{"), text)
		var got string
		if err := json.Unmarshal(quoted[1:], &got); err != nil || got != text || quoted[0] != '{' {
			t.Errorf("%q: %s, %v", text, quoted, err)
		}
	}
	if quoted := web.AppendString(nil, "a\x80z"); !utf8.Valid(quoted) {
		t.Errorf("%q is no JSON", quoted)
	}
}

// A client knows the length of an answer before it comes, however long it is: some take no chunks.
func TestEveryAnswerSaysItsLength(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.Write(w, r, http.StatusOK, web.Text(strings.Repeat("x", len(r.URL.Path))))
	}))
	defer s.Close()
	for _, n := range []int{1, 2048, 2049, 8000} {
		path := "/" + strings.Repeat("a", n-1)
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if want := map[string]int{http.MethodGet: n}[method]; len(body) != want || err != nil {
				t.Errorf("%s: %d bytes, %v, want %d", method, len(body), err, want)
			}
			if answer.ContentLength != int64(n) || answer.TransferEncoding != nil {
				t.Errorf("%s of %d bytes: Content-Length %d, %v", method, n, answer.ContentLength, answer.TransferEncoding)
			}
		}
	}
}
