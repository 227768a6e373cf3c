// Package webtest calls handlers and checks their answers, for the tests of this program.
package webtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Serve sends a request to h as a program of the pod does, and returns the answer. headers are
// names and values in turn.
func Serve(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:7200", "127.0.0.1:40000"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Problem is the body of an answer without a value.
type Problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Errcode    int    `json:"errcode"`
	RetryAfter int    `json:"retry_after"`
}

// WantProblem checks that w is a whole problem of one kind, and returns it.
func WantProblem(t testing.TB, w *httptest.ResponseRecorder, status int, kind string) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("status %d, body %q: %v", w.Code, w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Type != "urn:wxtoken:problem:"+kind {
		t.Fatalf("got %d %d %s, want %d %s", w.Code, p.Status, p.Type, status, kind)
	}
	if p.Title == "" || p.Detail == "" {
		t.Errorf("%s: a problem without a title or a detail: %+v", kind, p)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: Content-Type %q", kind, got)
	}
	if got, want := w.Header().Get("Retry-After"), ""; p.RetryAfter == 0 && got != want {
		t.Errorf("%s: Retry-After %q, none in the body", kind, got)
	} else if p.RetryAfter != 0 && got != fmt.Sprint(p.RetryAfter) {
		t.Errorf("%s: Retry-After %q, %d in the body", kind, got, p.RetryAfter)
	}
	return p
}
