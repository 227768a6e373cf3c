package wechattest

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// PlatformKind is the kind of a [Platform].
type PlatformKind string

// The kinds of platforms. Those of WeCom answer on qyapi.weixin.qq.com.
const (
	OpenPlatform PlatformKind = ""         // a third-party platform of WeChat
	Suite        PlatformKind = "suite"    // a third-party app of WeCom
	Template     PlatformKind = "template" // of apps developed on behalf of corps ("dk")
	Provider     PlatformKind = "provider" // a WeCom provider: a token, and no pushes
)

// Platform is what accounts and corps authorise to act for them.
type Platform struct {
	// ID is the platform's appid, the suite's id, or the provider's corpid.
	ID string `json:"id"`
	// Secret is the AppSecret, suite_secret or provider_secret.
	Secret string       `json:"secret"`
	Kind   PlatformKind `json:"kind,omitempty"`
	// Token and AESKey sign and encrypt the pushes; PreviousAESKey encrypts those of which
	// [Delivery] says so.
	Token          string `json:"token,omitempty"`
	AESKey         string `json:"aes_key,omitempty"`
	PreviousAESKey string `json:"previous_aes_key,omitempty"`
	// Callback is the URL that pushes go to. Empty means that they are lost.
	Callback string `json:"callback,omitempty"`
	// CorpID is the provider's, which the check of a suite's URL is for.
	CorpID string `json:"corpid,omitempty"`
	// Whitelist is as for an [App].
	Whitelist []string `json:"whitelist,omitempty"`
	// Transport carries the pushes. Nil means a transport of its own, which reuses no connections.
	Transport http.RoundTripper `json:"-"`
}

func (p Platform) onWeCom() bool { return p.Kind != OpenPlatform }

// Forever is an overlap that never ends before the token itself does.
const Forever time.Duration = -1

// RefreshResult is what a refresh does to the refresh token.
type RefreshResult string

// What api_authorizer_token answers besides the access token.
const (
	RefreshSame    RefreshResult = ""        // the same refresh token
	RefreshRotates RefreshResult = "rotates" // another one; the old one works for RotateOverlap
	RefreshEmpty   RefreshResult = "empty"   // "", and the old one stays
)

// PlatformKnobs are the numbers of a platform and its answers to what is not documented. Start from
// [DefaultPlatformKnobs].
type PlatformKnobs struct {
	// Overlap is how long a replaced token of the platform or suite goes on working, and
	// AuthorizerOverlap the same of an account or corp. Default 5 min each; [Forever] is possible.
	Overlap           time.Duration `json:"overlap"`
	AuthorizerOverlap time.Duration `json:"authorizer_overlap"`
	// SuiteTokenRepeats makes get_suite_token return the same token while it is valid, as users
	// say. Default false.
	SuiteTokenRepeats bool `json:"suite_token_repeats"`
	// OmitErrcode leaves errcode out of WeCom's successes where that is documented. Default true.
	OmitErrcode bool `json:"omit_errcode"`

	// Refresh is what becomes of refresh tokens. Default RefreshSame.
	Refresh RefreshResult `json:"refresh"`
	// RotateOverlap is how long a rotated refresh token is still accepted. Default 5 min.
	RotateOverlap time.Duration `json:"rotate_overlap"`
	// SecondExchangeVoids makes the exchange of a second code of one authorisation void the refresh
	// token that the first one gave, as users say. Default true.
	SecondExchangeVoids bool `json:"second_exchange_voids"`
	// ReauthorizeKills ends the access token at once when an account authorises again. Default
	// false.
	ReauthorizeKills bool `json:"reauthorize_kills"`
	// WithdrawKeeps lets access tokens live on when an authorisation is withdrawn. Default false.
	WithdrawKeeps bool `json:"withdraw_keeps"`
	// NoPermissions makes accounts authorise without API permissions: no tokens. Default false.
	NoPermissions bool `json:"no_permissions"`

	// SeparateCodes gives the browser's redirect another code than the push. Default false.
	SeparateCodes bool `json:"separate_codes"`
	// NoCodePush pushes no authorized or create_auth: the code is in the redirect only, as for
	// WeCom installations that begin on the provider's own website. Default false.
	NoCodePush bool `json:"no_code_push"`
	// CodeLife is how long a code can be exchanged. Default 10 min.
	CodeLife time.Duration `json:"code_life"`

	// ListOmitsTokens leaves the refresh tokens out of api_get_authorizer_list, and
	// InfoOmitsTokens makes that of api_get_authorizer_info empty. Default false: only those of
	// authorisations whose code was never exchanged.
	ListOmitsTokens bool `json:"list_omits_tokens"`
	InfoOmitsTokens bool `json:"info_omits_tokens"`
	// FlapCode answers every FlapEvery-th api_authorizer_token or get_corp_token of each authorizer:
	// 61003, 61023, 40084. Default 0: none. A [Fault] does it for one authorizer, or for a time.
	FlapCode  int `json:"flap_code"`
	FlapEvery int `json:"flap_every"`
	// QuotaPerPlatform counts api_authorizer_token and get_corp_token against [Knobs.PerDay] for
	// the platform instead of for each authorizer. Default false.
	QuotaPerPlatform bool `json:"quota_per_platform"`

	// TicketEvery is the period of tickets, TicketLife how long one is accepted. Default 10 min, and
	// 12 h or, on WeCom, 30 min.
	TicketEvery time.Duration `json:"ticket_every"`
	TicketLife  time.Duration `json:"ticket_life"`
	// TicketRepeats pushes the same value again while it has half of its life left. Default false.
	TicketRepeats bool `json:"ticket_repeats"`
	// Repeats is how often a push is sent again that was not answered by "success", RepeatAfter how
	// much later. Default 2, documented for WeCom only, and 5 s.
	Repeats     int           `json:"repeats"`
	RepeatAfter time.Duration `json:"repeat_after"`
	// MarkFailAfter stops pushes for a minute after so many failures in a row. Default 0: never.
	MarkFailAfter int `json:"mark_fail_after"`
	// Deliver, if not nil, says when and how a push is delivered: none is a lost push, two are a
	// duplicate, a long After lets others overtake it. It must be safe for concurrent use. Default:
	// at once.
	Deliver func(Push) []Delivery `json:"-"`
}

// DefaultPlatformKnobs returns the documented behaviour of a kind of platform, and the more likely
// one where there is doubt.
func DefaultPlatformKnobs(kind PlatformKind) PlatformKnobs {
	k := PlatformKnobs{
		Overlap: 5 * time.Minute, AuthorizerOverlap: 5 * time.Minute, RotateOverlap: 5 * time.Minute,
		OmitErrcode: true, SecondExchangeVoids: true, CodeLife: 10 * time.Minute,
		TicketEvery: 10 * time.Minute, TicketLife: 12 * time.Hour, Repeats: 2, RepeatAfter: 5 * time.Second,
	}
	if kind != OpenPlatform {
		k.TicketLife = 30 * time.Minute
	}
	return k
}

// platform is a Platform and all that happened to it. [Server.mu] guards it.
type platform struct {
	Platform
	knobs       PlatformKnobs
	self        *account // its own tokens and calls; named by the ID
	authorizers map[string]*authorizer
	codes       map[string]*authCode
	tickets     []pushedTicket // the newest last
	nextTicket  time.Time
	stopped     bool // pushes tickets no more until api_start_push_ticket
	queue       []Push
	pushed      []Pushed
	failures    int       // in a row
	silentUntil time.Time // after MarkFailAfter
}

type pushedTicket struct {
	value string
	at    time.Time
}

// authorizer is one account or corp as one platform sees it. [Server.mu] guards it.
type authorizer struct {
	account    *account // its tokens and calls; named "platform:authorizer"
	authorized bool
	at         time.Time // of the newest authorisation
	secret     string    // the refresh token, or the permanent code
	exchanged  int       // codes of this authorisation
	old        string    // a rotated refresh token
	oldEnd     time.Time // valid if old is
	exchanges  int       // of all authorisations
	fetches    int
	flaps      int
}

// accepts reports whether a refresh token or permanent code fetches tokens.
func (a *authorizer) accepts(given string, now time.Time) bool {
	if !a.authorized || given == "" {
		return false
	}
	return given == a.secret || given == a.old && now.Before(a.oldEnd)
}

// AddPlatform adds a platform, whose first ticket is due at once. [Server.RunPushes] pushes. Its
// name for the methods that take an app's is its ID, and "platform:authorizer" that of an
// authorizer. It panics if the name is taken.
func (s *Server) AddPlatform(p Platform) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.ID == "" || s.lookup(p.ID) != nil {
		panic("wechattest: no name, or two apps named " + p.ID)
	}
	p.Whitelist = slices.Clone(p.Whitelist)
	added := &platform{
		Platform: p, knobs: DefaultPlatformKnobs(p.Kind), nextTicket: time.Now(),
		authorizers: make(map[string]*authorizer), codes: make(map[string]*authCode),
	}
	if added.Transport == nil {
		added.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	}
	added.self = newAccount(App{ID: p.ID, Secret: p.Secret, Whitelist: p.Whitelist})
	added.self.platform = added
	if p.onWeCom() {
		added.self.Kind = Corp
	}
	s.platforms[p.ID] = added
	s.wakeUp()
}

// SetCallback changes where the pushes of a platform go.
func (s *Server) SetCallback(platform, callback string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform(platform).Callback = callback
}

// ChangeAESKey replaces the EncodingAESKey; the replaced one becomes the previous one.
func (s *Server) ChangeAESKey(platform, aesKey string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platform(platform)
	p.AESKey, p.PreviousAESKey = aesKey, p.AESKey
}

// ChangeToken replaces the Token, which signs the pushes, at once.
func (s *Server) ChangeToken(platform, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform(platform).Token = token
}

// PlatformKnobs returns a copy of the current knobs of a platform. It panics, like all methods that
// take the id of a platform, if there is no such platform.
func (s *Server) PlatformKnobs(platform string) PlatformKnobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform(platform).knobs
}

// SetPlatformKnobs replaces the knobs of a platform.
func (s *Server) SetPlatformKnobs(platform string, k PlatformKnobs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform(platform).knobs = k
	s.wakeUp()
}

// platform returns a platform that must exist. Caller holds s.mu.
func (s *Server) platform(id string) *platform {
	p := s.platforms[id]
	if p == nil {
		panic("wechattest: no platform named " + id)
	}
	return p
}

// isPlatform reports whether these are the tokens and calls of a platform itself.
func (a *account) isPlatform() bool { return a.platform != nil && a == a.platform.self }

// Name is that of the App, or "platform:authorizer" for an authorizer.
func (a *account) Name() string {
	if a.platform != nil && !a.isPlatform() {
		return a.platform.ID + ":" + a.ID
	}
	return a.App.Name()
}

// lookupPlatform is lookup for platforms and authorizers. Caller holds s.mu.
func (s *Server) lookupPlatform(name string) *account {
	id, authorizerID, pair := strings.Cut(name, ":")
	p := s.platforms[id]
	if p == nil {
		return nil
	}
	if !pair {
		return p.self
	}
	if a := p.authorizers[authorizerID]; a != nil {
		return a.account
	}
	return nil
}

// overlap is how long a replaced token of an account works. Caller holds s.mu.
func (s *Server) overlap(a *account) time.Duration {
	switch {
	case a.platform == nil:
		return s.knobs.Overlap
	case a.isPlatform():
		return a.platform.knobs.Overlap
	}
	return a.platform.knobs.AuthorizerOverlap
}
