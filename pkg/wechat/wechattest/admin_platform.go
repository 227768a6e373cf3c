package wechattest

import (
	"fmt"
	"net/http"
)

// adminPlatforms adds the calls that concern platforms.
func (s *Server) adminPlatforms(mux *http.ServeMux) {
	mux.HandleFunc("POST /sim/platforms", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) { return s.adminAddPlatform(r) })
	})
	platform := func(pattern string, serve func(id string, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			id := r.PathValue("id")
			if !s.hasPlatform(id) {
				http.Error(w, "no such platform", http.StatusNotFound)
				return
			}
			answer(w, func() (any, error) { return serve(id, r) })
		})
	}
	platform("GET /sim/platforms/{id}/ledger", func(id string, _ *http.Request) (any, error) { return s.Ledger(id), nil })
	platform("GET /sim/platforms/{id}/pushed", func(id string, _ *http.Request) (any, error) { return s.Pushed(id), nil })
	platform("GET /sim/platforms/{id}/knobs", func(id string, _ *http.Request) (any, error) { return s.PlatformKnobs(id), nil })
	platform("POST /sim/platforms/{id}/knobs", func(id string, r *http.Request) (any, error) {
		k := s.PlatformKnobs(id)
		return done, apply(r, &k, func() { s.SetPlatformKnobs(id, k) })
	})
	platform("POST /sim/platforms/{id}/callback", func(id string, r *http.Request) (any, error) {
		var body struct{ URL string }
		return done, apply(r, &body, func() { s.SetCallback(id, body.URL) })
	})
	platform("POST /sim/platforms/{id}/tickets", s.adminTickets)
	for name, do := range map[string]func(id, authorizer string) any{
		"authorize": func(id, authorizer string) any { return map[string]string{"code": s.Authorize(id, authorizer)} },
		"update": func(id, authorizer string) any {
			return map[string]string{"code": s.UpdateAuthorization(id, authorizer)}
		},
		"withdraw": func(id, authorizer string) any { s.Withdraw(id, authorizer); return done },
		"reset":    func(id, authorizer string) any { s.ResetPermanentCode(id, authorizer); return done },
	} {
		platform("POST /sim/platforms/{id}/"+name, func(id string, r *http.Request) (result any, err error) {
			var body struct{ Authorizer string }
			if err := apply(r, &body, func() {}); err != nil {
				return nil, err
			}
			if body.Authorizer == "" || name != "authorize" && !s.has(id+":"+body.Authorizer) {
				return nil, fmt.Errorf("wechattest: no authorizer named %q", body.Authorizer)
			}
			return do(id, body.Authorizer), nil
		})
	}
}

func (s *Server) adminAddPlatform(r *http.Request) (any, error) {
	var p Platform
	if err := apply(r, &p, func() {}); err != nil {
		return nil, err
	}
	if p.ID == "" || s.has(p.ID) {
		return nil, fmt.Errorf("wechattest: no name, or two apps named %q", p.ID)
	}
	s.AddPlatform(p)
	return done, nil
}

func (s *Server) adminTickets(id string, r *http.Request) (any, error) {
	var body struct{ Do string }
	if err := apply(r, &body, func() {}); err != nil {
		return nil, err
	}
	do, ok := map[string]func(string){"push": s.PushTicket, "stop": s.StopTickets, "start": s.StartTickets}[body.Do]
	if !ok {
		return nil, fmt.Errorf("wechattest: tickets cannot %q", body.Do)
	}
	do(id)
	return done, nil
}

// hasPlatform reports whether there is a platform of that id.
func (s *Server) hasPlatform(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platforms[id] != nil
}
