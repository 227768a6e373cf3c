package wechattest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Admin returns a handler that operates the simulator over HTTP, for tests with several processes
// and for development. Bodies and answers are JSON; durations are strings such as "5m". It has no
// access control, and the status call distinguishes live tokens from dead ones: mount it on
// loopback only.
//
//	GET    /sim/apps/{app}/stats           Calls
//	GET    /sim/apps/{app}/status?token=T  {"status": Status}
//	POST   /sim/apps/{app}/kill            KillTokens
//	POST   /sim/apps/{app}/foreign         ForeignRefresh: {"how": "classic", "forced" or "corp"}, default classic
//	POST   /sim/apps/{app}/secret          SetSecret: {"secret": S}
//	POST   /sim/apps/{app}/deny            Deny: {"code": N}; 0 approves
//	POST   /sim/apps/{app}/whitelist       SetWhitelist: {"addrs": [...]}
//	POST   /sim/platforms                  AddPlatform: a Platform
//	GET    /sim/platforms/{id}/ledger      Ledger, with the secrets in it
//	GET    /sim/platforms/{id}/pushed      Pushed
//	POST   /sim/platforms/{id}/authorize   Authorize: {"authorizer": A}; the answer is {"code": C}
//	POST   /sim/platforms/{id}/update      UpdateAuthorization: the same
//	POST   /sim/platforms/{id}/withdraw    Withdraw: {"authorizer": A}
//	POST   /sim/platforms/{id}/reset       ResetPermanentCode: {"authorizer": A}
//	POST   /sim/platforms/{id}/tickets     {"do": "push", "stop" or "start"}: PushTicket, StopTickets, StartTickets
//	POST   /sim/platforms/{id}/callback    SetCallback: {"url": U}
//	GET    /sim/platforms/{id}/knobs       PlatformKnobs; durations in nanoseconds
//	POST   /sim/platforms/{id}/knobs       SetPlatformKnobs; members left out keep their value
//	POST   /sim/faults                     AddFault: a Fault
//	DELETE /sim/faults                     ClearFaults
//	GET    /sim/knobs                      Knobs; durations in nanoseconds
//	POST   /sim/knobs                      SetKnobs; members left out keep their value
//
// The answer to a POST or DELETE is {"ok": true}. An unknown app, platform or
// authorizer is a 404 or a 400, an unknown member a 400.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	app := func(pattern string, serve func(app string, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			name := r.PathValue("app")
			if !s.has(name) {
				http.Error(w, "no such app", http.StatusNotFound)
				return
			}
			answer(w, func() (any, error) { return serve(name, r) })
		})
	}
	app("GET /sim/apps/{app}/stats", func(app string, _ *http.Request) (any, error) { return s.Calls(app), nil })
	app("GET /sim/apps/{app}/status", func(app string, r *http.Request) (any, error) {
		return map[string]Status{"status": s.Status(app, r.URL.Query().Get("token"))}, nil
	})
	app("POST /sim/apps/{app}/kill", func(app string, _ *http.Request) (any, error) {
		s.KillTokens(app)
		return done, nil
	})
	app("POST /sim/apps/{app}/foreign", s.adminForeign)
	app("POST /sim/apps/{app}/secret", func(app string, r *http.Request) (any, error) {
		var body struct{ Secret string }
		return done, apply(r, &body, func() { s.SetSecret(app, body.Secret) })
	})
	app("POST /sim/apps/{app}/deny", func(app string, r *http.Request) (any, error) {
		var body struct{ Code int }
		return done, apply(r, &body, func() { s.Deny(app, body.Code) })
	})
	app("POST /sim/apps/{app}/whitelist", func(app string, r *http.Request) (any, error) {
		var body struct{ Addrs []string }
		return done, apply(r, &body, func() { s.SetWhitelist(app, body.Addrs...) })
	})
	s.adminGlobal(mux)
	s.adminPlatforms(mux)
	return mux
}

// adminGlobal adds the calls that concern no single app.
func (s *Server) adminGlobal(mux *http.ServeMux) {
	serve := func(pattern string, do func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer(w, func() (any, error) { return do(r) })
		})
	}
	serve("POST /sim/faults", func(r *http.Request) (any, error) {
		var f Fault
		return done, apply(r, &f, func() { s.AddFault(f) })
	})
	serve("DELETE /sim/faults", func(*http.Request) (any, error) {
		s.ClearFaults()
		return done, nil
	})
	serve("GET /sim/knobs", func(*http.Request) (any, error) { return s.Knobs(), nil })
	serve("POST /sim/knobs", func(r *http.Request) (any, error) {
		k := s.Knobs()
		return done, apply(r, &k, func() { s.SetKnobs(k) })
	})
}

func (s *Server) adminForeign(app string, r *http.Request) (any, error) {
	body := struct{ How string }{"classic"}
	if err := apply(r, &body, func() {}); err != nil {
		return nil, err
	}
	how, ok := map[string]Fetch{"classic": FetchClassic, "forced": FetchForced, "corp": FetchCorp}[body.How]
	if !ok {
		return nil, fmt.Errorf("wechattest: no way to fetch is called %q", body.How)
	}
	s.ForeignRefresh(app, how) // its value stays secret
	return done, nil
}

var done = map[string]bool{"ok": true}

// has reports whether there is an app of that name.
func (s *Server) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return name != "" && s.lookup(name) != nil
}

// answer writes what do returns; an error is the caller's mistake.
func answer(w http.ResponseWriter, do func() (any, error)) {
	v, err := do()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // if it fails, the client has gone
}

// apply reads the body into v and then calls act. An empty body leaves v as it is.
func apply(r *http.Request, v any, act func()) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("wechattest: reading the body: %w", err)
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if body, err = durations(body); err != nil {
			return err
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			return fmt.Errorf("wechattest: reading the body: %w", err)
		}
	}
	act()
	return nil
}

// durations turns the members that are durations from "5m" into nanoseconds, which is how
// encoding/json reads a [time.Duration].
func durations(body []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, fmt.Errorf("wechattest: reading the body: %w", err)
	}
	for _, name := range []string{
		"delay", "expires_in", "overlap", "flap_for", "stable_early", "forced_every", "forced_overlap", "ticket_life", "latency",
		"authorizer_overlap", "rotate_overlap", "code_life", "ticket_every", "repeat_after",
	} {
		var text string
		if raw, ok := members[name]; !ok || json.Unmarshal(raw, &text) != nil {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("wechattest: member %s: %w", name, err)
		}
		members[name] = json.RawMessage(fmt.Sprint(int64(d)))
	}
	return json.Marshal(members)
}
