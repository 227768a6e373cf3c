package wechattest

import (
	"net/http"
	"slices"
	"time"
)

// Kind is the kind of an [App].
type Kind string

// The kinds differ in what their tokens may call, and Corp in nearly everything.
const (
	OfficialAccount Kind = ""
	MiniProgram     Kind = "mini_program"
	Corp            Kind = "corp"
)

// An App is one account with its secret.
type App struct {
	// ID is the appid, or the corpid.
	ID string `json:"id"`
	// Secret is the AppSecret, or the corpsecret of one agent.
	Secret string `json:"secret"`
	Kind   Kind   `json:"kind,omitempty"`
	// Agent distinguishes the apps of one corp, which share the ID and differ in the Secret.
	Agent string `json:"agent,omitempty"`
	// Menu is the JSON that menu/get answers with; without one, 46003.
	Menu string `json:"menu,omitempty"`
	// Whitelist holds the addresses or CIDR blocks that may call; empty means any.
	Whitelist []string `json:"whitelist,omitempty"`
	// UserTokens are OAuth tokens of users, which /sns/userinfo and /sns/auth accept.
	UserTokens []string `json:"user_tokens,omitempty"`
}

// Name is what the app is called in this package: the ID, or "ID:Agent" with an Agent.
func (a App) Name() string {
	if a.Agent == "" {
		return a.ID
	}
	return a.ID + ":" + a.Agent
}

// account is an App and all that happened to it. [Server.mu] guards it.
type account struct {
	App
	classic, stable space             // corp tokens live in classic
	tickets         map[string]ticket // by type
	usage           map[string]*usage // by path
	forced          usage             // forced refreshes
	clears          usage             // clear_quota; its day is a month
	lastForced      time.Time
	refusal         int // errcode that every token fetch gets; 0 is none
	calls           Calls
	issued          []Issue
	platform        *platform // of platforms and authorizers; otherwise nil
}

func newAccount(app App) *account {
	return &account{App: app, tickets: make(map[string]ticket), usage: make(map[string]*usage)}
}

// Calls counts what reached the simulator for one app, whatever was answered and whatever fault
// struck. Calls with an unknown appid or token are counted under the app "".
type Calls struct {
	Classic      int `json:"classic"`       // GET /cgi-bin/token
	StableNormal int `json:"stable_normal"` // POST /cgi-bin/stable_token
	StableForced int `json:"stable_forced"` // the same with force_refresh
	Corp         int `json:"corp"`          // GET /cgi-bin/gettoken
	Tickets      int `json:"tickets"`       // tickets of either platform
	Probes       int `json:"probes"`        // getcallbackip and menu/get
	API          int `json:"api"`           // everything else
	// BadToken counts the answers that rejected an access token.
	BadToken int `json:"bad_token"`
	// Issued counts the new tokens, those of [Server.ForeignRefresh] left out.
	Issued int `json:"issued"`
	// Paths counts the calls by path.
	Paths map[string]int `json:"paths"`
}

// Fetches is the number of calls to a token endpoint.
func (c Calls) Fetches() int { return c.Classic + c.StableNormal + c.StableForced + c.Corp }

// An Issue is one token or ticket that came into the world.
type Issue struct {
	At    time.Time
	Value string
	// Endpoint is the path that issued it.
	Endpoint string
	// Foreign says that [Server.ForeignRefresh] made it, so no caller ever saw it.
	Foreign bool
}

// Calls returns the counters of an app. It panics, like all methods that take the name of an app,
// if there is no such app; "" is the app of the calls that belong to none.
func (s *Server) Calls(app string) Calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.account(app).calls
	paths := make(map[string]int, len(c.Paths))
	for path, n := range c.Paths {
		paths[path] = n
	}
	c.Paths = paths
	return c
}

// Issued returns every token and ticket the app was ever issued, the oldest first.
func (s *Server) Issued(app string) []Issue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.account(app).issued)
}

// SetSecret changes the secret at once. Tokens that were issued keep working.
func (s *Server) SetSecret(app, newSecret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(app).Secret = newSecret
}

// SetWhitelist replaces the addresses and CIDR blocks that may call; none means any.
func (s *Server) SetWhitelist(app string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(app).Whitelist = slices.Clone(addrs)
}

// Deny makes every token fetch of the app fail with an errcode until [Server.Approve]: 40243 for
// a frozen secret, 89503 for an address that the administrator has yet to confirm, 50002, ...
func (s *Server) Deny(app string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(app).refusal = code
}

// Approve ends [Server.Deny].
func (s *Server) Approve(app string) { s.Deny(app, 0) }

// KillTokens ends every token of the app at once. Calls with them get [Knobs.KilledCode].
func (s *Server) KillTokens(app string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(app).killTokens(time.Now())
}

func (a *account) killTokens(now time.Time) {
	for _, t := range slices.Concat(a.classic.tokens, a.stable.tokens) {
		if !t.killed {
			t.killed, t.killedAt = true, now
		}
	}
}

// Ripen lets the next normal stable_token call replace the app's token, as if the last
// [Knobs.StableEarly] of its life had begun. It changes nothing about how long the token works.
func (s *Server) Ripen(app string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.account(app).stable.newest(); t != nil {
		t.ripe = true
	}
}

// A Fetch is a way to get a token.
type Fetch int

// The ways to get a token.
const (
	FetchClassic Fetch = iota // GET /cgi-bin/token
	FetchForced               // POST /cgi-bin/stable_token with force_refresh
	FetchCorp                 // a WeCom app's token replaced by a new one
)

// ForeignRefresh replaces the app's token as if another program had fetched one, outside every
// quota and count but [Knobs.ForcedEvery], and returns what was issued.
func (s *Server) ForeignRefresh(app string, how Fetch) Issue {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.account(app), time.Now()
	switch how {
	case FetchForced:
		a.lastForced = now
		s.issue(a, &a.stable, pathStable, s.knobs.ForcedOverlap)
	case FetchCorp:
		s.issue(a, &a.classic, pathCorpToken, s.overlap(a))
	default:
		s.issue(a, &a.classic, pathToken, s.overlap(a))
	}
	last := &a.issued[len(a.issued)-1]
	last.Foreign = true
	a.calls.Issued--
	return *last
}

// count notes a call of c's app before anything is decided about it.
func (a *account) count(c *call) {
	n := &a.calls
	if n.Paths == nil {
		n.Paths = make(map[string]int)
	}
	n.Paths[c.r.URL.Path]++
	switch c.r.URL.Path {
	case pathToken:
		n.Classic++
	case pathStable:
		if c.stable.ForceRefresh && c.r.Method == http.MethodPost {
			n.StableForced++
		} else {
			n.StableNormal++
		}
	case pathCorpToken:
		n.Corp++
	case pathTicket, pathCorpJSAPI, pathCorpTicket:
		n.Tickets++
	case pathCallbackIP, pathMenuGet:
		n.Probes++
	default:
		n.API++
	}
}
