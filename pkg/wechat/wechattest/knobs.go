package wechattest

import (
	"maps"
	"net/http"
	"time"
)

// Knobs are the numbers of the simulator and its answers to what is not documented. Start from
// [DefaultKnobs]; no zero value has a special meaning unless its line says so.
type Knobs struct {
	// ExpiresIn is the life of new tokens. Default 2 h.
	ExpiresIn time.Duration `json:"expires_in"`
	// Overlap is how long a replaced token goes on working. Default 5 min.
	Overlap time.Duration `json:"overlap"`
	// OverlapKeeps is how many replaced tokens can be in their overlap at the same time. Not
	// documented for 3 and more refreshes in 5 minutes. Default 1; negative is any number.
	OverlapKeeps int `json:"overlap_keeps"`
	// FlapFor is how long after its overlap a replaced token is still accepted by every second
	// call, as users report. Default 0.
	FlapFor time.Duration `json:"flap_for"`
	// ReplacedExpiredCode rejects a token that was replaced and has passed its own end, too.
	// Default 40001; the other candidate is 42001.
	ReplacedExpiredCode int `json:"replaced_expired_code"`
	// KilledCode rejects a token after [Server.KillTokens]. Default 40001. WeCom says 40014 anyway.
	KilledCode int `json:"killed_code"`
	// StableKeepsKilled makes a normal stable_token call return the current token even if it was
	// killed, so that only force_refresh helps. Default false: it issues a new one.
	StableKeepsKilled bool `json:"stable_keeps_killed"`

	// StableEarly is how long before its end a normal stable_token call replaces the token, at
	// most half of ExpiresIn. Default 5 min.
	StableEarly time.Duration `json:"stable_early"`
	// ForcedEvery is the least time between forced refreshes. Default 30 s.
	ForcedEvery time.Duration `json:"forced_every"`
	// ForcedTooSoonCode answers a forced refresh within ForcedEvery. Default 0: the unchanged
	// token. Not documented.
	ForcedTooSoonCode int `json:"forced_too_soon_code"`
	// ForcedPerDay is the number of forced refreshes a day. Default 20.
	ForcedPerDay int `json:"forced_per_day"`
	// ForcedOverQuotaCode answers the next one. Default 45009; 0 is the unchanged token. Not
	// documented.
	ForcedOverQuotaCode int `json:"forced_over_quota_code"`
	// ForcedOverlap is how long the replaced token works after a forced refresh. Default 0.
	ForcedOverlap time.Duration `json:"forced_overlap"`
	// Interfere makes /cgi-bin/token and stable_token replace each other's token, as two users
	// claim and the documentation denies. Default false.
	Interfere bool `json:"interfere"`

	// WrongSecretCode answers a token fetch with a wrong secret. Default 40125; 40001 is
	// documented for /cgi-bin/token, too.
	WrongSecretCode int `json:"wrong_secret_code"`
	// WhitelistCalls checks the whitelist on calls with a token, too, as documented for official
	// accounts; otherwise on token fetches only. Default false.
	WhitelistCalls bool `json:"whitelist_calls"`
	// WhitelistCode rejects an address. Default 40164; 61004 and 45035 are documented, too, and
	// 89503, 89506 and 89507 stand for addresses that are not yet, or will not be, confirmed. WeCom
	// says 60020 anyway.
	WhitelistCode int `json:"whitelist_code"`
	// CorpRenews makes every gettoken of WeCom issue a new token. Default false: the same one
	// while it is valid, with its remaining life.
	CorpRenews bool `json:"corp_renews"`
	// AcceptChunked accepts chunked requests; WeChat answers them with 412. Default false.
	AcceptChunked bool `json:"accept_chunked"`
	// TicketLife is when a ticket is replaced; the old one works for Overlap longer. A ticket's
	// expires_in is always 7200. Default 2 h.
	TicketLife time.Duration `json:"ticket_life"`

	// PerDay and PerMinute limit the calls of a path per app: 45009 and 45011. A path that is
	// missing has no limit. Days begin at midnight in China, which is an assumption. Default: what
	// is documented for /cgi-bin/token, stable_token and menu/get.
	PerDay    map[string]int `json:"per_day"`
	PerMinute map[string]int `json:"per_minute"`
	// ClearPerMonth limits clear_quota, then 48006. Default 10.
	ClearPerMonth int `json:"clear_per_month"`

	// Latency is how long every request travels before WeChat acts on it. Default 0.
	Latency time.Duration `json:"latency"`
	// LatencyFunc, if not nil, says so per request instead. It must be safe for concurrent use.
	LatencyFunc func(*http.Request) time.Duration `json:"-"`
	// FaultFunc, if not nil, is asked for a fault when none of [Server.AddFault] matches; nil is
	// none. It must be safe for concurrent use.
	FaultFunc func(r *http.Request, app string) *Fault `json:"-"`
	// CallerIP, if not nil, says where a request comes from. Otherwise it is the first address of
	// X-Forwarded-For, else the peer, else 203.0.113.7. It must be safe for concurrent use.
	CallerIP func(*http.Request) string `json:"-"`
}

// DefaultKnobs returns the documented behaviour, and the more likely one where there is doubt.
func DefaultKnobs() Knobs {
	return Knobs{
		ExpiresIn: 2 * time.Hour, Overlap: 5 * time.Minute, OverlapKeeps: 1,
		ReplacedExpiredCode: 40001, KilledCode: 40001,
		StableEarly: 5 * time.Minute, ForcedEvery: 30 * time.Second,
		ForcedPerDay: 20, ForcedOverQuotaCode: 45009,
		WrongSecretCode: 40125, WhitelistCode: 40164, TicketLife: 2 * time.Hour,
		PerDay:        map[string]int{pathToken: 2000, pathStable: 500_000, pathMenuGet: 10_000},
		PerMinute:     map[string]int{pathStable: 10_000},
		ClearPerMonth: 10,
	}
}

func (k Knobs) clone() Knobs {
	k.PerDay, k.PerMinute = maps.Clone(k.PerDay), maps.Clone(k.PerMinute)
	return k
}

// Knobs returns a copy of the current knobs.
func (s *Server) Knobs() Knobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knobs.clone()
}

// SetKnobs replaces the knobs. It does not change tokens that were issued.
func (s *Server) SetKnobs(k Knobs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knobs = k.clone()
}

// Tune changes the knobs:
//
//	sim.Tune(func(k *wechattest.Knobs) { k.Overlap = time.Minute })
func (s *Server) Tune(change func(*Knobs)) {
	k := s.Knobs()
	change(&k)
	s.SetKnobs(k)
}
