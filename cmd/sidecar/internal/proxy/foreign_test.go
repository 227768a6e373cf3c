package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/proxy"
)

// accepting makes WeChat accept the given tokens besides the sidecar's own.
func (r *rig) accepting(tokens ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for _, token := range tokens {
			if req.URL.Query().Get("access_token") == token {
				_, _ = io.WriteString(w, `{"errcode":0,"account":"the caller's"}`)
				return
			}
		}
		r.WeChat.ServeHTTP(w, req)
	})
}

// A token of no app that is configured may be another account's: it is sent as it came. If WeChat
// rejects it, the sidecar's own takes its place.
func TestATokenOfNoConfiguredAppIsSentAsItCame(t *testing.T) {
	valid, dead := "97_"+strings.Repeat("v", 133), "97_"+strings.Repeat("d", 133)
	for _, path := range []string{"/cgi-bin/menu/get", menu} {
		r := newRig(t, options{names: "shop"})
		r.accepting(valid)
		own := r.Token(r.t, shop)
		for range 2 {
			a := r.call("GET", path+"?a=1&access_token="+valid, "")
			if calls := r.calls(); len(calls) != 1 || !strings.Contains(calls[0].uri, "access_token="+valid) || !strings.Contains(a.body, "the caller's") {
				t.Errorf("%s: %d calls, %v", path, len(calls), a)
			}
			if a.header.Get("X-Wxtoken-Foreign") != "1" || a.header.Get("X-Wxtoken-Version") != "" || a.header.Get("X-Wxtoken-Retried") != "" {
				t.Errorf("%s: the head says %v", path, a.header)
			}
			if res := r.last(); !res.Foreign || res.Retried {
				t.Errorf("%+v", res)
			}
		}
		a := r.call("GET", path+"?access_token="+dead, "")
		calls := r.calls()
		if len(calls) != 2 || !strings.Contains(calls[1].uri, "access_token="+own) || strings.Contains(calls[1].uri, dead) || strings.Contains(a.body, "errcode") {
			t.Errorf("%s: %d calls, %v", path, len(calls), a)
		}
		if a.header.Get("X-Wxtoken-Foreign") != "1" || a.header.Get("X-Wxtoken-Retried") != "1" || a.header.Get("X-Wxtoken-Version") == "" {
			t.Errorf("%s: the head says %v", path, a.header)
		}
		// Once rejected, it is not tried again; and a placeholder never is.
		for _, token := range []string{dead, "placeholder", ""} {
			r.call("GET", path+"?access_token="+token, "")
			if calls := r.calls(); len(calls) != 1 || !strings.Contains(calls[0].uri, "access_token="+own) {
				t.Errorf("%s: %q took %d calls", path, token, len(calls))
			}
		}
		if r.Token(r.t, shop) != own {
			t.Error("the sidecar's own token was replaced")
		}
	}
}

// The first bytes of a short answer decide whether it is an error of WeChat, whatever it calls
// itself.
func TestHealingGoesByContent(t *testing.T) {
	const rejected = `{"errcode":42001,"errmsg":"access_token expired hints: [x]"}`
	for _, kind := range []string{"application/json:UTF-8", "application/octet-stream", "image/jpeg", "multipart/mixed", "json", "", "text/plain; encoding=utf-8"} {
		r := newRig(t, options{})
		first := r.Token(r.t, shop)
		r.WeChat.KillTokens(shop.CredentialID())
		r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", kind)
			if req.URL.Query().Get("access_token") == first {
				_, _ = io.WriteString(w, rejected)
				return
			}
			_, _ = io.WriteString(w, "\xff\xd8\xff\xe0")
		})
		if a := r.call("GET", menu, ""); a.body != "\xff\xd8\xff\xe0" || a.header.Get("X-Wxtoken-Retried") != "1" {
			t.Errorf("%q: %v", kind, a)
		}
	}
}

// The bodies that are kept share a budget. A call that finds no room is streamed and not repeated,
// and small calls go on.
func TestKeptBodiesShareABudget(t *testing.T) {
	const size, room = 100 << 10, 3
	r := newRig(t, options{Options: proxy.Options{MaxKept: room * size}})
	r.Token(r.t, shop)
	r.WeChat.KillTokens(shop.CredentialID())
	var arrived sync.WaitGroup
	arrived.Add(2 * room)
	release := make(chan struct{})
	first := sync.Map{}
	r.mu.Lock()
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		n := req.URL.Query().Get("n")
		if _, seen := first.LoadOrStore(n, true); !seen && n != "last" {
			arrived.Done()
			<-release
		}
		r.WeChat.ServeHTTP(w, req)
	})
	r.mu.Unlock()
	answers := make(chan answer, 2*room)
	for i := range 2 * room {
		go func() {
			a, err := r.try(t.Context(), "POST", fmt.Sprintf("%s?n=%d", menu, i), strings.NewReader(strings.Repeat("x", size)))
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}()
	}
	arrived.Wait() // every body is kept or streamed, and waits for WeChat
	chunked, err := r.try(t.Context(), "POST", menu+"?n=chunked", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
	if err != nil || chunked.status != 200 || chunked.header.Get("X-Wxtoken-Error") != string(proxy.Overloaded) || chunked.header.Get("Retry-After") == "" {
		t.Errorf("a chunked body without room: %v, %v", chunked, err)
	}
	close(release)
	repeated := 0
	for range 2 * room {
		if a := <-answers; a.header.Get("X-Wxtoken-Retried") == "1" {
			repeated++
		}
	}
	if repeated != room {
		t.Errorf("%d calls were kept and repeated, want %d", repeated, room)
	}
	// What the calls took is free again.
	r.WeChat.KillTokens(shop.CredentialID())
	if a := r.call("POST", menu+"?n=last", strings.Repeat("x", room*size)); a.header.Get("X-Wxtoken-Retried") != "1" {
		t.Errorf("afterwards: %v", a)
	}
}

// The token leaves in no head of WeChat's: not in one that announces another, not behind the body,
// in no spelling.
func TestNoHeadHoldsTheToken(t *testing.T) {
	r := newRig(t, options{})
	token := r.Token(r.t, shop)
	spelled := ""
	for i := range len(token) {
		spelled += fmt.Sprintf("%%%02x", token[i])
	}
	twice := strings.ReplaceAll(spelled, "%", "%25")
	r.upstream = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Link", "</a?access_token="+token+">")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Spelled", "a="+spelled)
		w.Header().Set("X-Twice", twice)
		w.Header().Set("X-Mixed", "%3"+"9"+token[1:])
		w.Header().Set("X-Other", "100%25 of %zz")
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", token)
		w.Header().Set(http.TrailerPrefix+"X-Late", token)
	})
	conn, err := r.front.DialContext(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTE: trailers\r\n\r\n", menu)
	raw, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{token, spelled, twice, "%39" + token[1:]} {
		if strings.Contains(string(raw), form) {
			t.Errorf("%.30s... is in the answer", form)
		}
	}
	if !strings.Contains(string(raw), "100%25 of %zz") {
		t.Error("a header without the token was changed")
	}
}
