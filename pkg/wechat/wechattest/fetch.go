package wechattest

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// stableBody is the body of POST /cgi-bin/stable_token.
type stableBody struct {
	GrantType    string `json:"grant_type"`
	AppID        string `json:"appid"`
	Secret       string `json:"secret"`
	ForceRefresh bool   `json:"force_refresh"`
}

// classicToken is GET /cgi-bin/token: a new token every time. The methods that serve an endpoint
// are all called with s.mu held.
func (s *Server) classicToken(c *call) reply {
	if rep, ok := s.authenticate(c, c.query.Get("grant_type"), c.query.Get("secret")); !ok {
		return rep
	}
	if code := s.spend(c); code != 0 {
		return c.fail(code)
	}
	t := s.issue(c.app, &c.app.classic, pathToken, s.knobs.Overlap)
	return c.tokenReply(t)
}

// stableToken is POST /cgi-bin/stable_token.
func (s *Server) stableToken(c *call) reply {
	if c.r.Method != http.MethodPost {
		return c.fail(43002)
	}
	if c.stable.AppID == "" {
		return c.fail(41002) // no JSON, or none with an appid
	}
	if rep, ok := s.authenticate(c, c.stable.GrantType, c.stable.Secret); !ok {
		return rep
	}
	a, k := c.app, s.knobs
	newest := a.stable.newest()
	if c.stable.ForceRefresh {
		if code, refresh := s.mayForce(c, newest); !refresh {
			if code != 0 {
				return c.fail(code)
			}
			return c.tokenReply(newest)
		}
		a.lastForced = c.now
		return c.tokenReply(s.issue(a, &a.stable, pathStable, k.ForcedOverlap))
	}
	if code := s.spend(c); code != 0 {
		return c.fail(code)
	}
	early := min(k.StableEarly, k.ExpiresIn/2)
	keep := newest != nil && !newest.replaced && !newest.ripe && newest.expires.Sub(c.now) > early
	if keep && newest.killed {
		keep = k.StableKeepsKilled
	}
	if !keep {
		newest = s.issue(a, &a.stable, pathStable, k.Overlap)
	}
	return c.tokenReply(newest)
}

// mayForce reports whether a forced refresh takes place, and if not, the errcode; 0 is an answer
// with the unchanged token. Forced refreshes have their own count, which quota/get does not show
// and clear_quota does not clear: users see 45009 with nothing used [U].
func (s *Server) mayForce(c *call, newest *token) (code int, refresh bool) {
	a, k := c.app, s.knobs
	alive := newest != nil && newest.expires.After(c.now)
	if !a.lastForced.IsZero() && c.now.Sub(a.lastForced) < k.ForcedEvery && alive {
		return k.ForcedTooSoonCode, false
	}
	a.forced.roll(c.now)
	if a.forced.day >= k.ForcedPerDay && (alive || k.ForcedOverQuotaCode != 0) {
		return k.ForcedOverQuotaCode, false
	}
	a.forced.day++
	return 0, true
}

// authenticate checks who asks for a token. That the appid comes first is known [U], the
// order of the rest is not.
func (s *Server) authenticate(c *call, grantType, appSecret string) (reply, bool) {
	switch {
	case c.app.ID == "":
		return c.fail(40013), false
	case c.app.isPlatform():
		return c.fail(61024), false
	case grantType != "client_credential":
		return c.fail(40002), false
	case appSecret == "":
		return c.fail(41004), false
	case appSecret != c.app.Secret:
		return c.fail(s.knobs.WrongSecretCode), false
	case c.app.refusal != 0:
		return c.fail(c.app.refusal), false
	case !c.app.admits(c.ip):
		return c.fail(s.knobs.WhitelistCode), false
	}
	return reply{}, true
}

// corpToken is WeCom's GET /cgi-bin/gettoken.
func (s *Server) corpToken(c *call) reply {
	a := c.app
	switch given := c.query.Get("corpsecret"); {
	case given == "":
		return c.fail(41004) // before the corpid is looked at [U]
	case a.ID == "":
		return c.fail(40013)
	case given != a.Secret:
		return c.fail(40001)
	case a.refusal != 0:
		return c.fail(a.refusal)
	case !a.admits(c.ip):
		return c.fail(60020)
	}
	if code := s.spend(c); code != 0 {
		return c.fail(code)
	}
	if a.platform != nil {
		a.platform.authorizers[a.ID].fetches++
	}
	t := a.classic.newest()
	if t == nil || t.status(c.now) != Current || s.knobs.CorpRenews {
		t = s.issue(a, &a.classic, pathCorpToken, s.overlap(a))
	}
	return c.tokenReply(t)
}

// tokenReply is a successful answer with a token and its remaining life.
func (c *call) tokenReply(t *token) reply {
	return c.success(fmt.Sprintf(`"access_token":%q,"expires_in":%d`, t.value, t.remaining(c.now)))
}

// admits reports whether the app may be called from an address.
func (a *account) admits(ip string) bool {
	if len(a.Whitelist) == 0 {
		return true
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	for _, entry := range a.Whitelist {
		if prefix, err := netip.ParsePrefix(entry); err == nil && prefix.Contains(addr) {
			return true
		}
		if one, err := netip.ParseAddr(entry); err == nil && one == addr {
			return true
		}
	}
	return false
}

// usage counts calls in the current day and minute.
type usage struct {
	day, minute     int
	onDay, onMinute string
}

// china has no daylight saving time.
var china = time.FixedZone("China", 8*60*60)

// roll forgets what was counted before the current day and minute. That days begin at midnight in
// China is an assumption.
func (u *usage) roll(now time.Time) {
	now = now.In(china)
	if day := now.Format(time.DateOnly); u.onDay != day {
		u.day, u.onDay = 0, day
	}
	if minute := now.Format("2006-01-02 15:04"); u.onMinute != minute {
		u.minute, u.onMinute = 0, minute
	}
}

// spend counts one call against the limits of its path and returns 45009, 45011 or 0.
func (s *Server) spend(c *call) int {
	path := c.r.URL.Path
	u := c.app.usage[path]
	if u == nil {
		u = new(usage)
		c.app.usage[path] = u
	}
	u.roll(c.now)
	if limit, ok := s.knobs.PerDay[path]; ok && u.day >= limit {
		return 45009
	}
	if limit, ok := s.knobs.PerMinute[path]; ok && u.minute >= limit {
		return 45011
	}
	u.day++
	u.minute++
	return 0
}
